"""Where the CPU time of the runtime goes, function by function: a flame graph, and the top of it.

Peer: none; the shares are of one whole. `stage_budget` sorts the same stacks into stages.

Load shape: a closed loop of one connection with 64 calls in flight, small GETs, everything on, the
runtime as users run it but for the sampler in its process (`_sampled`): a stack at each of
the kernel's ticks that finds it at work.

Read it so: the width of a box is its share of the main thread's CPU time with all that it called,
"self %" in the table is without. C code and system calls count for the Python function that called
them. The picture goes to `--output FILE`, by default `build/flame.png`, and the folded stacks
beside it, for tools that draw such graphs with a mouse.

Cheating would be: an idle runtime, whose time is all start and waiting; a deterministic profiler,
which makes small functions dear; a picture without the event loop.
"""

from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks._flame_picture import draw
from benchmarks._processes import ROOT, cores, running_upstream
from benchmarks._profile import LoadShape, Profile, profile
from benchmarks._report import Options, Report, Row, watch_others

__all__ = ["OPTIONS", "PICTURE", "SUMMARY", "rows", "run"]

SUMMARY: Final = "where the runtime's CPU time goes under load: a flame graph"
OPTIONS: Final = Options(seconds=20.0, rounds=1)
PICTURE: Final = ROOT / "build" / "flame.png"
SHAPE: Final = LoadShape("1 x 64 deep", 1, 64)
_TOP: Final = 30


def run(options: Options) -> Report:
    """Profile a runtime under load and draw it."""
    report = Report("flame", [])
    where = cores(pin=options.pin)
    with watch_others(report), running_upstream(core=where.other) as upstream:
        found = profile(SHAPE, f"{upstream}/small", options.seconds, where)
    report.rows = rows(found)
    path = Path(options.output) if options.output else PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    sample = found.sample
    title = (
        f"CPU time of the runtime, {SHAPE.name}, {sample.requests_per_s:,.0f} requests/s, "
        f"{sample.cpu_us:.0f} us a request; {report.machine}, {report.when}"
    )
    draw(str(path), found.stacks, title)
    folded = path.with_suffix(".folded")
    folded.write_text(
        "".join(f"{';'.join(frames)} {weight}\n" for frames, weight in found.stacks.items()),
        encoding="utf-8",
    )
    report.notes += [f"picture: {path}", f"folded stacks: {folded}"]
    return report


def rows(found: Profile) -> list[Row]:
    """The functions with the most time of their own, and what that is of a request's."""
    own: Counter[str] = Counter()
    for frames, weight in found.stacks.items():
        own[frames[-1]] += weight
    total = own.total() or 1
    return [
        {
            "function": name,
            "self %": weight / total * 100,
            "us a request": weight / total * found.sample.cpu_us,
        }
        for name, weight in own.most_common(_TOP)
    ]
