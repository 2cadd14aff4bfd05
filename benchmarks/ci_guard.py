"""CPU time a request over that of a bare peer in the same run: fails on a large regression only.

Peer: `_bare_runtime`, a Trio server that does the same calls with the same libraries and system
calls and nothing else. The ratio of the two is what our own code costs in units of what cannot be
avoided. A slower or busier machine, another Python, Trio or kernel moves both; only our code moves
the ratio. aiohttp as the peer was no good: another event loop and another parser, that gain and
lose by other things than ours.

Load shape: as `closed_loop`: 1 connection 64 deep, 16 connections 1 deep, small GETs, native
payloads, each contestant in a fresh process in every round, in turn.

Read it so: CPU time of the whole process from /proc; never wall time, which a shared machine
stretches as it likes. Instructions would be steadier still, but virtual machines mostly have no
counters. The claims leave room for what noise does (LARGE), so that they fail for a reason.

Cheating would be: the threshold raised together with the change that needs it, without a word; a
peer that got slower; a runtime with less switched on than users have.
"""

from typing import Final

from benchmarks._load import LoadSpec
from benchmarks._processes import Cores, cores, run_json, running_runtime, running_upstream
from benchmarks._report import Claim, Options, Report, Sample, median, watch_others

__all__ = ["LARGE", "MEASURED_RATIO", "OPTIONS", "SUMMARY", "run"]

SUMMARY: Final = "the short form for CI: CPU us a request over that of a bare Trio server"
OPTIONS: Final = Options(seconds=1.5, rounds=5)
MEASURED_RATIO: Final = {"1 x 64 deep": 5.4, "16 x 1 deep": 3.4}
"""By shape: CPU of the runtime over CPU of the peer, as last measured (2026-11-22, beside other
work). Set them anew with each change that moves them: `python -m benchmarks ci_guard --rounds 15`
on a quiet machine."""
LARGE: Final = 1.4
"""How many times that is a regression."""
_SHAPES: Final = {"1 x 64 deep": (1, 64), "16 x 1 deep": (16, 1)}
_WARM_S: Final = 0.5
_WHO: Final = {"runtime": "vastar_runtime", "bare peer": "benchmarks._bare_runtime"}


def run(options: Options) -> Report:
    """Both in turn, round after round, in each shape."""
    report = Report("ci_guard", [])
    where = cores(pin=options.pin)
    with watch_others(report), running_upstream(core=where.other) as upstream:
        for shape in _SHAPES:
            taken_us: dict[str, list[float]] = {who: [] for who in _WHO}
            for _ in range(options.rounds):
                for who in _WHO:
                    sample = _measure(who, shape, f"{upstream}/small", options.seconds, where)
                    taken_us[who].append(sample.cpu_us)
            ratio = median([ours / bare for ours, bare in zip(*taken_us.values(), strict=True)])
            report.rows += [
                {"shape": shape, "who": who, "CPU us": median(each), "x bare": times}
                for (who, each), times in zip(taken_us.items(), (ratio, 1.0), strict=True)
            ]
            text = f"CPU a request over that of the bare peer, {shape}"
            report.claims.append(Claim(text, ratio, LARGE * MEASURED_RATIO[shape], at_most=True))
    return report


def _measure(who: str, shape: str, url: str, seconds: float, where: Cores) -> Sample:
    connections, depth = _SHAPES[shape]
    with running_runtime(module=_WHO[who], core=where.measured) as measured:
        spec = LoadSpec(
            socket_path=measured.socket_path,
            url=url,
            connections=connections,
            depth=depth,
            seconds=seconds,
            warm_s=_WARM_S,
            watched_pid=measured.pid,
        )
        return run_json("benchmarks._load", spec, Sample, core=where.other)
