"""A quiet tenant at 50 calls/s, alone and beside one that makes 2,500/s: what it pays for that.

Peer: the quiet tenant itself, alone on a fresh runtime in the same round. The three contestants are
it alone, it beside a neighbour that calls the same upstream, and it beside a neighbour that
overloads itself: whose upstream is so slow that its bulkhead fills and its queue overflows.

Load shape: open loops (`_open_loop`), Poisson by seed, one process for each tenant: latency counts
from the time a call was meant to leave, and the neighbour does not slow down when it is refused.
The quiet tenant has one connection, the neighbour 16, as many as no limit of a connection hides
what the policies do.

Read it so: "late p99 us" is how late the load's own process was; it is part of the latency, and
means nothing while it is small beside it. "x alone" is the median over the rounds of the quiet
tenant's p99 over its p99 alone in the same round. With four processes on two cores some of it is
waiting for a core, which a runtime cannot help: "runtime cores" says how near that is.

Cheating would be: a closed loop, which lets the neighbour slow down; a neighbour that a limit of
its connection keeps away; latency from when a call got out; a quiet tenant whose refusals nobody
counts.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import attrs
import msgspec

from benchmarks._open_loop import OpenSample, OpenSpec
from benchmarks._processes import Cores, cores, cpu_s, run_json, running_runtime, running_upstream
from benchmarks._report import Claim, Options, Report, Row, median, watch_others

__all__ = ["OPTIONS", "SUMMARY", "run"]

SUMMARY: Final = "p99 of a tenant at 50 calls/s, alone and beside one at 2,500/s"
OPTIONS: Final = Options(seconds=20.0, rounds=3)
"""A thousand calls of the quiet tenant in a run: its p99 is the tenth from the top."""
WANTED_RATIO: Final = 2.0
_QUIET_PER_S: Final = 50.0
_NOISY_PER_S: Final = 2500.0
_NOISY_CONNECTIONS: Final = 16
_DELAY_MS: Final = 20
_SLOW_MS: Final = 250
"""256 calls at once of 250 ms each are 1,024 calls/s: well below what the neighbour sends."""
WARM_S: Final = 2.0
_START_S: Final = 1.0
"""For the load's processes to import what they need."""


@attrs.frozen
class Setting:
    """Who is beside the quiet tenant.

    Attributes:
        noisy_per_s: calls/s of the neighbour; 0 is nobody.
        is_slow: the neighbour calls an upstream of its own, too slow for so many.
        is_claimed: the goal holds here. It is not for a neighbour that overloads itself: then all
            that it is refused costs CPU too, which no policy shares out.
    """

    name: str
    noisy_per_s: float = 0.0
    is_slow: bool = False
    is_claimed: bool = False


_ALONE: Final = Setting("alone")
SETTINGS: Final = (
    _ALONE,
    Setting("beside 2,500/s", _NOISY_PER_S, is_claimed=True),
    Setting("beside 2,500/s overloaded", _NOISY_PER_S, is_slow=True),
)


@attrs.frozen
class Outcome:
    """One run. `noisy` is None where nobody was beside."""

    quiet: OpenSample
    noisy: OpenSample | None
    runtime_cores: float


def run(options: Options) -> Report:
    """Measure all settings in turn, round after round."""
    report = Report("noisy_neighbour", [])
    where = cores(pin=options.pin)
    outcomes: dict[str, list[Outcome]] = {setting.name: [] for setting in SETTINGS}
    with watch_others(report):
        for nth in range(options.rounds):
            for setting in SETTINGS:
                outcomes[setting.name].append(_measure(setting, options, where, seed=nth))
    for setting in SETTINGS:
        own = outcomes[setting.name]
        ratio = median(
            [
                mine.quiet.p99_us / alone.quiet.p99_us
                for mine, alone in zip(own, outcomes[_ALONE.name], strict=True)
            ]
        )
        report.rows += _rows(setting, own, ratio)
        if setting.is_claimed:
            text = f"p99 of the quiet tenant {setting.name}, x alone"
            report.claims.append(Claim(text, ratio, WANTED_RATIO, at_most=True))
    return report


def _measure(setting: Setting, options: Options, where: Cores, *, seed: int) -> Outcome:
    """One run of a fresh runtime and fresh upstreams."""
    with (
        running_upstream("--delay-ms", str(_DELAY_MS), core=where.other) as upstream,
        running_upstream("--delay-ms", str(_SLOW_MS), core=where.other) as slow,
        running_runtime(core=where.measured) as runtime,
        ThreadPoolExecutor() as pool,
    ):
        noisy_url = f"{slow if setting.is_slow else upstream}/small"
        quiet = OpenSpec(
            socket_path=runtime.socket_path,
            url=f"{upstream}/small",
            tenant="quiet",
            calls_per_s=_QUIET_PER_S,
            connections=1,
            begin_at_s=time.monotonic() + _START_S,
            warm_s=WARM_S,
            seconds=options.seconds,
            seed=2 * seed,
        )
        specs = [quiet, *_neighbour(quiet, setting, noisy_url)]
        loads = [pool.submit(_run_load, spec, where) for spec in specs]
        counted_s = quiet.begin_at_s + WARM_S
        time.sleep(max(0.0, counted_s - time.monotonic()))
        began_s, cpu_began_s = time.monotonic(), cpu_s(runtime.pid)
        time.sleep(max(0.0, counted_s + options.seconds - time.monotonic()))
        runtime_cores = (cpu_s(runtime.pid) - cpu_began_s) / (time.monotonic() - began_s)
        samples = [load.result() for load in loads]
    return Outcome(samples[0], samples[1] if len(samples) > 1 else None, runtime_cores)


def _neighbour(quiet: OpenSpec, setting: Setting, url: str) -> Iterator[OpenSpec]:
    """The load beside `quiet`, if there is one."""
    if setting.noisy_per_s:
        yield msgspec.structs.replace(
            quiet,
            url=url,
            tenant="noisy",
            calls_per_s=setting.noisy_per_s,
            connections=_NOISY_CONNECTIONS,
            seed=quiet.seed + 1,
        )


def _run_load(spec: OpenSpec, where: Cores) -> OpenSample:
    return run_json("benchmarks._open_loop", spec, OpenSample, core=where.other)


def _rows(setting: Setting, outcomes: list[Outcome], ratio: float) -> Iterator[Row]:
    quiet = [outcome.quiet for outcome in outcomes]
    noisy = [outcome.noisy for outcome in outcomes if outcome.noisy is not None]
    for who, samples in (("quiet", quiet), ("noisy", noisy)):
        if samples:
            yield {
                "setting": setting.name,
                "who": who,
                "calls": median([sample.calls for sample in samples]),
                "answered": median([sample.answered for sample in samples]),
                "refused": median([sum(sample.refused.values()) for sample in samples]),
                "p50 ms": median([sample.p50_us for sample in samples]) / 1000,
                "p99 ms": median([sample.p99_us for sample in samples]) / 1000,
                "x alone": ratio if samples is quiet else "",
                "late p99 us": median([sample.late_p99_us for sample in samples]),
                "load cores": median([sample.cores for sample in samples]),
                "runtime cores": median([outcome.runtime_cores for outcome in outcomes]),
            }
