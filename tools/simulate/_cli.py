"""The simulation as a program: one seed or a row of them, and how to see a failure again."""

import argparse
import sys
import time
from collections.abc import Sequence

from tools.simulate._simulation import Report, simulate

__all__ = ["main"]

_TAIL_LINES = 40
_EPILOG = """\
One seed with one number of steps is one run, in every process. A run of fewer steps is the
beginning of one of more, so the step that a failure names is enough to see it again.
Exit codes: 0 every invariant held, 1 one did not, 2 bad flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate; the exit code."""
    flags = _parser().parse_args(arguments)
    echo = print if flags.trace else None
    for seed in range(flags.seed, flags.seed + flags.seeds):
        begun_s = time.perf_counter()
        report = simulate(seed, flags.steps, echo=echo)
        took_s = time.perf_counter() - begun_s
        print(_line(report, took_s), flush=True)
        if report.broken is not None:
            _explain(report, has_shown=flags.trace)
            return 1
    return 0


def _line(report: Report, took_s: float) -> str:
    word = "ok" if report.broken is None else "BROKEN"
    return (
        f"seed {report.seed}: {word}, {report.steps} steps, {report.calls} calls, "
        f"{report.attempts} attempts, {report.virtual_s:.0f} s of virtual time, {took_s:.2f} s; "
        f"{' '.join(report.features) or 'defaults'}; {report.digest[:16]}"
    )


def _explain(report: Report, *, has_shown: bool) -> None:
    """Why, what came before, and how to see it again."""
    broken = report.broken
    assert broken is not None, "only a failure is explained"
    if not has_shown:
        print(*report.lines[-_TAIL_LINES:], sep="\n", file=sys.stderr)
    print(
        f"\nin step {broken.step}, at {broken.at_s:.6f} s, this did not hold: "
        f"{broken.rule.replace('_', ' ')}\n  {broken.what}\nto see it again: "
        f"python -m tools.simulate --seed {report.seed} --steps {max(broken.step, 1)} --trace",
        file=sys.stderr,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.simulate",
        description="Run the whole runtime in virtual time against seeded faults.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help="decides everything (0)")
    parser.add_argument("--steps", type=_at_least_1, default=150, help="how long it is (150)")
    parser.add_argument("--seeds", type=_at_least_1, default=1, help="how many, from --seed on (1)")
    parser.add_argument("--trace", action="store_true", help="print the event log")
    return parser


def _at_least_1(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
