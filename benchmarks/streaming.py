"""Events as they come: what the runtime adds to the first one, and how late 100 streams get theirs.

Peer: the same upstream read straight, by the same load in the same process. The first event is
measured in threes, one stream straight, one through the runtime by hand, one through our blocking
client, on connections that are kept; the figure is the median of what each pair differs by. Streams
are also left in the middle, from a loop of the blocking client: the worst of them is the figure.

Load shape: 100 streams of 50 events/s each, all on one connection of the runtime, read by one
process; and the same with one more stream among them, an endless body whose reader has stopped
reading it. An event is late by the time from its sending to the return of the read that brought it,
so the lateness of the load counts too; what the upstream itself was late is told beside it, and
"straight" shows what is not the runtime's. "us an event" is the CPU time of the runtime over all of
its events, the opening of the streams included. "runtime waited" is the share of the time in which
it could have run and had no core: where that is not near 0, lateness is the machine's.

Cheating would be: events joined into fewer writes by the upstream, lateness counted from when the
load got round to reading, or the median of the events instead of their tail.
"""

import time
from typing import Final

import attrs

from benchmarks._processes import (
    Cores,
    cores,
    cpu_s,
    run_json,
    running_runtime,
    running_upstream,
    waited_s,
)
from benchmarks._report import Claim, Options, Report, median, watch_others
from benchmarks._stream_leave import LeaveSample, LeaveSpec
from benchmarks._stream_load import EventsSample, EventsSpec, FirstSample, FirstSpec

__all__ = ["OPTIONS", "SUMMARY", "run"]

SUMMARY: Final = "ms to the first event, lateness of events in 100 streams, one reader stalled"
OPTIONS: Final = Options(seconds=10.0, rounds=3)
STREAMS: Final = 100
EVENTS_PER_S: Final = 50
WANTED_FIRST_MS: Final = 2.0
WANTED_P99_MS: Final = 20.0
WANTED_LEAVE_MS: Final = 50.0
WARM_S: Final = 1.0
_FIRST_US: Final = 5000
"""From the head of a short stream to its first event: the two come in reads of their own."""
_PAIRS_PER_S: Final = 20
_ENDLESS_BYTES: Final = 2**40
_LOAD: Final = "benchmarks._stream_load"
_LEAVE: Final = "benchmarks._stream_leave"
UPSTREAM: Final = "benchmarks._stream_upstream"


@attrs.frozen
class Setting:
    """A way to read the streams."""

    name: str
    through: bool = True
    stalled: bool = False


SETTINGS: Final = (
    Setting("straight", through=False),
    Setting("runtime"),
    Setting("runtime, one stalled", stalled=True),
)


@attrs.frozen
class Outcome:
    """One run."""

    sample: EventsSample
    cpu_us: float
    waited: float


def run(options: Options) -> Report:
    """Measure the first events, then the settings in turn, round after round."""
    report = Report("streaming", [])
    where = cores(pin=options.pin)
    firsts: list[FirstSample] = []
    leaves: list[LeaveSample] = []
    outcomes: dict[str, list[Outcome]] = {setting.name: [] for setting in SETTINGS}
    with watch_others(report):
        for _ in range(options.rounds):
            firsts.append(_firsts(options, where))
            leaves.append(_leaves(options, where))
            for setting in SETTINGS:
                outcomes[setting.name].append(_events(setting, options, where))
    added_ms = median([sample.by_hand_added_ms for sample in firsts])
    report.claims.append(Claim("ms added to the first event", added_ms, WANTED_FIRST_MS, True))
    worst_ms = max(sample.worst_ms for sample in leaves)
    report.claims.append(
        Claim("ms from leaving a loop to its upstream's end", worst_ms, WANTED_LEAVE_MS, True)
    )
    left_ms = median([sample.median_ms for sample in leaves])
    report.notes.append(
        f"left streams end upstream after {left_ms:.2f} ms, the worst {worst_ms:.2f}"
    )
    report.notes.append(
        "first event, ms: "
        + ", ".join(
            f"{name} {median([getattr(sample, field) for sample in firsts]):.2f}"
            for name, field in (
                ("straight", "direct_ms"),
                ("runtime", "by_hand_ms"),
                ("runtime and blocking client", "client_ms"),
                ("added then", "client_added_ms"),
            )
        )
    )
    for setting in SETTINGS:
        own = [outcome.sample for outcome in outcomes[setting.name]]
        p99_ms = median([sample.p99_ms for sample in own])
        report.rows.append(
            {
                "setting": setting.name,
                "streams": STREAMS,
                "events": median([sample.events for sample in own]),
                "p50 ms": median([sample.p50_ms for sample in own]),
                "p99 ms": p99_ms,
                "worst ms": median([sample.worst_ms for sample in own]),
                "upstream late p99 ms": median([sample.upstream_late_p99_ms for sample in own]),
                "us an event": median([each.cpu_us for each in outcomes[setting.name]]),
                "runtime waited": median([each.waited for each in outcomes[setting.name]]),
                "load cores": median([sample.cores for sample in own]),
            }
        )
        if setting.through:
            text = f"p99 ms of an event, {setting.name}"
            report.claims.append(Claim(text, p99_ms, WANTED_P99_MS, at_most=True))
    return report


def _firsts(options: Options, where: Cores) -> FirstSample:
    pairs = max(3, round(options.seconds * _PAIRS_PER_S))
    with (
        running_upstream(module=UPSTREAM, core=where.other) as upstream,
        running_runtime(core=where.measured) as runtime,
    ):
        url = f"{upstream}/events/2/1000/{_FIRST_US}"
        spec = FirstSpec(url, runtime.socket_path, pairs, skip=max(1, pairs // 10))
        return run_json(_LOAD, spec, FirstSample, core=where.other)


def _leaves(options: Options, where: Cores) -> LeaveSample:
    times = max(3, round(options.seconds * _PAIRS_PER_S))
    with running_runtime(core=where.measured) as runtime:
        spec = LeaveSpec(runtime.socket_path, times, skip=max(1, times // 10))
        return run_json(_LEAVE, spec, LeaveSample, core=where.other)


def _events(setting: Setting, options: Options, where: Cores) -> Outcome:
    warm = round(WARM_S * EVENTS_PER_S)
    count = warm + max(1, round(options.seconds * EVENTS_PER_S))
    with (
        running_upstream(module=UPSTREAM, core=where.other) as upstream,
        running_upstream(module=UPSTREAM, core=where.other) as other,
        running_runtime(core=where.measured) as runtime,
    ):
        spec = EventsSpec(
            upstream=upstream,
            streams=STREAMS,
            count=count,
            interval_us=1_000_000 // EVENTS_PER_S,
            skip=warm,
            socket_path=runtime.socket_path if setting.through else None,
            # An upstream of its own: that it never stops must not slow the others down there.
            stalled_url=f"{other}/bytes/{_ENDLESS_BYTES}" if setting.stalled else None,
        )
        began_s, cpu_began_s = time.monotonic(), cpu_s(runtime.pid)
        waited_began_s = waited_s(runtime.pid)
        sample = run_json(_LOAD, spec, EventsSample, core=where.other)
        return Outcome(
            sample,
            cpu_us=(cpu_s(runtime.pid) - cpu_began_s) * 1e6 / (STREAMS * count),
            waited=(waited_s(runtime.pid) - waited_began_s) / (time.monotonic() - began_s),
        )
