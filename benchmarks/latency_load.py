"""Latency against load, from idle to beyond saturation: an open loop, and a picture of it.

Peer: aiohttp calling the same upstream directly, one session with its defaults, in its own process,
which makes its own load: what a program has that uses it.

Load shape: small GETs at a constant mean rate, Poisson by seed, stepped up rate by rate; on the
runtime over 16 connections. The times of all calls are drawn beforehand, a latency counts from the
time its call was meant to leave, and nobody slows down while answers are slow (no coordinated
omission). A contestant is out after the first rate of which it achieves less than nine tenths.

Read it so: "achieved/s" are answers within the counted time, whenever their calls were due;
"refused" is what the runtime turned away, which no latency counts. "late p99 us" is how late the
load's own process was: for the runtime it is another process and must be small; for the peer it is
the same and part of what it is. "cores" are those of the measured process: load and upstream share
the machine's with it, and near saturation all of them wait for one. A note tells the highest rate
that was achieved with a p99 of at most 20 ms. The picture (`--output FILE`, by default
`build/latency_load.png`) has the same figures.

Cheating would be: a closed loop; latency from when a call got out; the mean, or percentiles over
rounds that leave the bad one out; refused calls, which are quick, among the answers; rates that end
before the knee.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs
import msgspec

from benchmarks._load_picture import Point, draw
from benchmarks._open_loop import OpenSample, OpenSpec
from benchmarks._processes import (
    ROOT,
    Cores,
    cores,
    family_cpu_s,
    run_json,
    running_runtime,
    running_upstream,
)
from benchmarks._report import Options, Report, Row, median, watch_others

__all__ = ["OPTIONS", "PICTURE", "RATES_PER_S", "SUMMARY", "Outcome", "point_of", "run"]

SUMMARY: Final = "open loop: latency against load up to saturation, beside aiohttp; a picture"
OPTIONS: Final = Options(seconds=3.0, rounds=3)
PICTURE: Final = ROOT / "build" / "latency_load.png"
RATES_PER_S: Final = (500, *range(1_000, 10_001, 1_000), *range(12_000, 30_001, 2_000))
_CONTESTANTS: Final = ("runtime", "aiohttp")
_CONNECTIONS: Final = 16
_WARM_S: Final = 1.0
_START_S: Final = 1.0
"""For the load's process to import what it needs and to draw its times."""
_KEPT_RATIO: Final = 0.9
_KNEE_P99_US: Final = 20_000.0


@attrs.frozen
class Outcome:
    """One run; `cores` are those of the runtime, or of the client that is its peer."""

    sample: OpenSample
    cores: float


def run(options: Options) -> Report:
    """Step through the rates; contestants take turns at each."""
    report = Report("latency_load", [])
    where = cores(pin=options.pin)
    courses: dict[str, list[Point]] = {name: [] for name in _CONTESTANTS}
    left = list(_CONTESTANTS)
    with watch_others(report), running_upstream(core=where.other) as upstream:
        for rate in RATES_PER_S:
            outcomes: dict[str, list[Outcome]] = {name: [] for name in left}
            for nth in range(options.rounds):
                for name in left:
                    spec = _spec(f"{upstream}/small", rate, options.seconds, seed=nth + 1)
                    measure = _runtime if name == "runtime" else _peer
                    outcomes[name].append(measure(spec, where))
            for name, own in outcomes.items():
                point = point_of(rate, own)
                courses[name].append(point)
                report.rows.append(_row(name, point, own))
                if point.achieved_per_s < _KEPT_RATIO * rate:
                    left.remove(name)
            if not left:
                break
    report.notes += [_knee(name, course) for name, course in courses.items()]
    path = Path(options.output) if options.output else PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(str(path), courses, f"{report.machine}, {report.when}")
    report.notes.append(f"picture: {path}")
    return report


def _spec(url: str, rate: float, seconds: float, *, seed: int) -> OpenSpec:
    return OpenSpec(
        socket_path="",
        url=url,
        tenant="default",
        calls_per_s=rate,
        connections=_CONNECTIONS,
        begin_at_s=time.monotonic() + _START_S,
        warm_s=_WARM_S,
        seconds=seconds,
        seed=seed,
    )


def _runtime(spec: OpenSpec, where: Cores) -> Outcome:
    """One run of a fresh runtime, whose start is not part of the schedule."""
    with running_runtime(core=where.measured) as runtime, ThreadPoolExecutor(1) as pool:
        begin_at_s = time.monotonic() + _START_S
        spec = msgspec.structs.replace(spec, socket_path=runtime.socket_path, begin_at_s=begin_at_s)
        load = pool.submit(run_json, "benchmarks._open_loop", spec, OpenSample, core=where.other)
        counted_s = begin_at_s + _WARM_S
        time.sleep(max(0.0, counted_s - time.monotonic()))
        began_s, cpu_began_s = time.monotonic(), family_cpu_s(runtime.pid)
        time.sleep(max(0.0, counted_s + spec.seconds - time.monotonic()))
        spent_s = family_cpu_s(runtime.pid) - cpu_began_s
        took_s = time.monotonic() - began_s
        return Outcome(load.result(), spent_s / took_s)


def _peer(spec: OpenSpec, where: Cores) -> Outcome:
    sample = run_json("benchmarks._open_peer", spec, OpenSample, core=where.measured)
    return Outcome(sample, sample.cores)


def point_of(rate: float, outcomes: list[Outcome]) -> Point:
    """The medians over the rounds."""
    samples = [outcome.sample for outcome in outcomes]
    return Point(
        wanted_per_s=rate,
        achieved_per_s=median([sample.achieved_per_s for sample in samples]),
        p50_us=median([sample.p50_us for sample in samples]),
        p99_us=median([sample.p99_us for sample in samples]),
        p999_us=median([sample.p999_us for sample in samples]),
    )


def _row(name: str, point: Point, outcomes: list[Outcome]) -> Row:
    samples = [outcome.sample for outcome in outcomes]
    return {
        "wanted/s": f"{point.wanted_per_s:,.0f}",
        "who": name,
        "achieved/s": point.achieved_per_s,
        "refused": median([sum(sample.refused.values()) for sample in samples]),
        "p50 us": point.p50_us,
        "p99 us": point.p99_us,
        "p99.9 us": point.p999_us,
        "late p99 us": median([sample.late_p99_us for sample in samples]),
        "cores": median([outcome.cores for outcome in outcomes]),
        "load cores": median([sample.cores for sample in samples]),
    }


def _knee(name: str, course: list[Point]) -> str:
    kept = [
        point.wanted_per_s
        for point in course
        if point.achieved_per_s >= _KEPT_RATIO * point.wanted_per_s and point.p99_us <= _KNEE_P99_US
    ]
    most = f"{max(kept):,.0f}" if kept else "no"
    return f"{name}: {most} calls/s before the knee, with a p99 of at most {_KNEE_P99_US:,.0f} us"
