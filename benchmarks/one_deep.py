"""One call at a time: what a health check takes, and what the runtime adds to a GET.

Peer: the same GET to the same upstream on a raw blocking socket, which is as fast as a program can
ask it; the runtime is asked on a raw blocking socket too.

Load shape: one connection, one call in flight, 27 bytes of answer, keep-alive, each contestant in a
fresh process in every round. Rounds tell their p50; the median of these is shown.

Read it so: a caller that waits for each answer meets sleeping processes, and waking one is part of
every figure here: once each way for "direct" and the health check, twice each way for a GET through
the runtime. On a machine with little else to do the processor may also have gone to sleep.

Cheating would be: a caller or a runtime that spins instead of sleeping; a warm upstream on one side
only; p50 of the best round.
"""

from typing import Final

from benchmarks._one_call import Kind, OneCallSpec, OneCallTimes
from benchmarks._processes import Cores, cores, run_json, running_runtime, running_upstream
from benchmarks._report import Claim, Options, Report, median, watch_others

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "p50 of a health check, and what a GET one deep takes longer than on a raw socket"
WANTED_HEALTH_US: Final = 100.0
WANTED_ADDED_US: Final = 200.0
_KINDS: Final[dict[Kind, str]] = {
    "direct": "GET, direct",
    "health": "health check",
    "get": "GET, through the runtime",
}
_CALLS_PER_S: Final = 2_000
"""Of the slowest, about, so that `--seconds` means what it says."""


def run(options: Options) -> Report:
    """Measure all three in turn, round after round."""
    report = Report("one_deep", [])
    where = cores(pin=options.pin)
    p50s: dict[Kind, list[float]] = {kind: [] for kind in _KINDS}
    p99s: dict[Kind, list[float]] = {kind: [] for kind in _KINDS}
    with watch_others(report), running_upstream(core=where.other) as upstream:
        for _ in range(options.rounds):
            for kind in _KINDS:
                taken_us = sorted(_measure(kind, f"{upstream}/small", options.seconds, where))
                p50s[kind].append(taken_us[len(taken_us) // 2])
                p99s[kind].append(taken_us[len(taken_us) * 99 // 100])
    report.rows = [
        {"what": name, "p50 us": median(p50s[kind]), "p99 us": median(p99s[kind])}
        for kind, name in _KINDS.items()
    ]
    added_us = median(
        [through - direct for through, direct in zip(p50s["get"], p50s["direct"], strict=True)]
    )
    report.claims = [
        Claim("p50 us of a health check", median(p50s["health"]), WANTED_HEALTH_US, at_most=True),
        Claim("us added to the p50 of a GET", added_us, WANTED_ADDED_US, at_most=True),
    ]
    return report


def _measure(kind: Kind, url: str, seconds: float, where: Cores) -> list[float]:
    with running_runtime(core=where.measured) as runtime:
        spec = OneCallSpec(kind, runtime.socket_path, url, count=int(seconds * _CALLS_PER_S))
        return run_json("benchmarks._one_call", spec, OneCallTimes, core=where.other).us
