"""The soak as a program: how long, of what; the verdict as lines and as an exit code."""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from tools.soak._picture import draw
from tools.soak._run import Report, Wanted, soak
from tools.soak._runtime import RuntimeGoneError

__all__ = ["main"]

_EPILOG = """\
  python -m tools.soak --minutes 10                       one runtime, killed and started again
  python -m tools.soak --minutes 60 --workers 2 --seed 3
  python -m tools.soak --minutes 5 --socket /run/vastar/s   one that is there, and is left alive

In the folder of --out: samples.jsonl (a line for each second, each thing done, each trend),
soak.png, and what runtime and clients logged. A seed fixes the plan and the calls, not the timing.
Exit codes: 0 every rule held, 1 one did not, 2 bad flags or no runtime."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; the exit code."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    if flags.socket is not None and (flags.config is not None or flags.workers != 1):
        parser.error("--socket names a runtime that is there: --workers and --config are its own")
    wanted = Wanted(
        run_s=flags.minutes * 60,
        folder=flags.out,
        seed=flags.seed,
        workers=flags.workers,
        config=flags.config,
        socket_path=flags.socket,
        calls_per_s=flags.rate,
        recover_s=flags.recover_s,
    )
    begun_s = time.monotonic()
    try:
        report = trio.run(soak, wanted)
    except (RuntimeGoneError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except BaseExceptionGroup as group:
        known, others = group.split((RuntimeGoneError, OSError))
        if known is None or others is not None:
            raise
        print(*_leaves(known), sep="\n", file=sys.stderr)
        return 2
    print(*_lines(report, time.monotonic() - begun_s), sep="\n")
    title = f"soak of {flags.minutes:g} minutes, seed {flags.seed}, workers {flags.workers}"
    for trend in report.verdict.trends:
        report.book.write({"type": "trend", "line": str(trend), "grows": trend.grows})
    report.book.write({"type": "verdict", "broken": report.verdict.broken})
    try:
        draw(str(flags.out / "soak.png"), report.book, title)
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
    for line in report.verdict.broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    print("ok: every rule held" if not report.verdict.broken else "BROKEN", flush=True)
    return 1 if report.verdict.broken else 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _lines(report: Report, took_s: float) -> Iterator[str]:
    """What happened, in figures."""
    ledger = report.ledger
    yield f"{ledger.calls} calls in {took_s:.0f} s, {ledger.settled} of them compared"
    kinds: Counter[str] = Counter()
    hows: Counter[str] = Counter()
    for (kind, how), count in ledger.outcomes.items():
        kinds[kind] += count
        hows[how] += count
    yield "  ended: " + ", ".join(f"{count} {how}" for how, count in hows.most_common())
    yield "  kinds: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    done = Counter(each.what.partition(" down:")[0] for each in report.book.noted)
    yield "  done: " + ", ".join(f"{count} {what}" for what, count in done.most_common())
    yield f"  killed clients left {ledger.abandoned} calls"
    times = sorted(report.recoveries_s)
    if times:
        yield (
            f"  recoveries: {len(times)}, median {statistics.median(times):.2f} s, "
            f"longest {times[-1]:.2f} s"
        )
    for trend in report.verdict.trends:
        if trend.slope is not None:
            yield f"  {trend}"
    short = sum(trend.slope is None for trend in report.verdict.trends)
    if short:
        yield f"  {short} series were too short to be judged"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak",
        description="Mixed load with faults, deaths and restarts; what grows, what is lost, "
        "what happens twice.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_above_0, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (0)")
    parser.add_argument("--workers", type=int, default=1, help="of the runtime (1)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="of the runtime (its own)")
    parser.add_argument(
        "--socket", metavar="PATH", help="a runtime that is there: nothing of it is killed"
    )
    parser.add_argument("--rate", type=_above_0, default=120.0, help="calls/s, about (120)")
    parser.add_argument(
        "--recover-s", type=_above_0, default=15.0, help="how long a client may take (15)"
    )
    parser.add_argument("--out", type=Path, default=Path("soak-out"), help="folder (soak-out)")
    return parser


def _above_0(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise ValueError
    return number
