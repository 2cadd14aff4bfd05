"""The microseconds of one call, stage by stage, from the read of its frame to the write of its end.

Peer: none; the peer of a budget is the one before (`--json`, and `--before` or `--compare` later).

Load shape: closed loops of one connection with 64 calls in flight, and of 16 with one each; small
GETs, everything on. The total is CPU time from /proc of the runtime as users run it. It is shared
out by a run of the same load with a sampler in the runtime's process (`_sampled`; `_stages` is the
table of what belongs where): "in place", with cold caches and system calls in it. "other threads"
is what the main thread did not spend. "alone" is the same stage in a tight loop in a process with
nothing around it (`_stage_loops`), where there is one; that of "dispatch" holds the log line too.

Read it so: read, write: the caller's socket; frame, decode, encode: the wire, payloads too;
dispatch: session and dispatcher; spawn: a task's beginning and end; send, wait, parse: the
upstream's socket and its answer; scheduler: Trio's turns and epoll, for whoever waits; other: what
the table does not know. What is in place beyond alone, a note tells, is system calls, scheduler and
caches. "+-" is what chance may do to a share (two standard errors of the number of its samples):
compare nothing finer, or take more --seconds.

Cheating would be: only the tight loops, whose sum is far below the total; a profiler that counts
calls; a stage that moved its work to another thread or behind the answer without a row for it.
"""

import math
from typing import Final

from benchmarks._processes import cores, run_json, running_upstream
from benchmarks._profile import LoadShape, measure, profile
from benchmarks._report import Options, Report, Row, Sample, median, watch_others
from benchmarks._stage_loops import Taken, Turns
from benchmarks._stages import STAGES, by_stage

__all__ = ["OPTIONS", "SUMMARY", "rows", "run"]

SUMMARY: Final = "the microseconds of one call, stage by stage, in place and alone"
OPTIONS: Final = Options(seconds=8.0, rounds=3)
SHAPES: Final = (LoadShape("1 x 64 deep", 1, 64), LoadShape("16 x 1 deep", 16, 1))
LOOP_ROUNDS: Final = 25
_THREADS: Final = "other threads"
_TOTAL: Final = "total"


def run(options: Options) -> Report:
    """Measure totals and shares in turn, round after round; then the loops."""
    report = Report("stage_budget", [])
    where = cores(pin=options.pin)
    with watch_others(report):
        alone = run_json("benchmarks._stage_loops", Turns(LOOP_ROUNDS), Taken, core=None).us
        with running_upstream(core=where.other) as upstream:
            for shape in SHAPES:
                stacks: dict[tuple[str, ...], int] = {}
                plain: list[tuple[Sample, float]] = []
                for _ in range(options.rounds):
                    url = f"{upstream}/small"
                    plain.append(measure(shape, url, options.seconds, where))
                    found = profile(shape, url, options.seconds, where)
                    for frames, weight in found.stacks.items():
                        stacks[frames] = stacks.get(frames, 0) + weight
                total_us = median([sample.cpu_us for sample, _ in plain])
                main_ratio = median([ratio for _, ratio in plain])
                report.rows += rows(shape.name, total_us, main_ratio, stacks, alone)
                report.notes.append(_note(shape.name, total_us, alone))
    return report


def rows(
    shape: str,
    total_us: float,
    main_ratio: float,
    stacks: dict[tuple[str, ...], int],
    alone: dict[str, float],
) -> list[Row]:
    """A row for each stage, then for the other threads and for the total.

    Args:
        shape: of the load.
        total_us: CPU time of a call.
        main_ratio: what the main thread has of that.
        stacks: of the main thread, and how often each was found.
        alone: microseconds in a loop of its own, by stage, where there is one.
    """
    shares, samples = by_stage(stacks), sum(stacks.values())
    in_place = {stage: shares[stage] * main_ratio * total_us for stage in STAGES}
    in_place[_THREADS] = (1 - main_ratio) * total_us
    in_place[_TOTAL] = total_us
    return [
        {
            "shape": shape,
            "stage": stage,
            "us in place": us,
            "+-": 2 * math.sqrt(share * (1 - share) / samples) * total_us,
            "%": share * 100,
            "us alone": sum(alone.values()) if stage == _TOTAL else alone.get(stage, ""),
        }
        for stage, us in in_place.items()
        for share in (us / total_us,)
    ]


def _note(shape: str, total_us: float, alone: dict[str, float]) -> str:
    loops_us = sum(alone.values())
    return (
        f"{shape}: {total_us:.0f} us in all, {loops_us:.0f} us in the loops; the other "
        f"{total_us - loops_us:.0f} us are system calls, scheduler, caches, and the stages "
        "towards the upstream, which have no loop"
    )
