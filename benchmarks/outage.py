"""An upstream dies for 30 s under 100 calls/s, in virtual time: what is sent, and who comes back.

Peers: the same runtime with every policy off, and with retries alone, without the quota and the
breakers that keep them in bounds: what a program does that wraps its calls in a loop.

Load shape: five tenants of 20 calls/s, Poisson by seed, each call with 10 s of its own, for 30 s
before the outage, in it, and for 60 s behind it. Three outages: refused connections, a black hole,
and 503. `_outage_course` has the world, `_outage_upstream` how it dies. Virtual time: the figures
are the same on every machine, and say nothing about CPU.

Read it so: "attempts" are those sent to the upstream during the outage, also connections that were
refused, and "a call" is that over the calls of that time. "refused" are calls that a policy
answered before any attempt, "ms" the 99th percentile of the time that took (in virtual time:
waiting, not computing). "failed" are the other calls without the upstream's answer, "ms" the median
of what they waited for it. "delivered" are those of the outage's calls that got it all the same.
"back s" is the time from the upstream's return until 99% of the calls succeed, and keep doing so,
and "peak/s" the most requests that reached the upstream within a second from its return on; "x
load" is that over the busiest second of the calls themselves.

Each round is another seed, from `--seed` up, and the figures are medians over the rounds. The
picture (`--output FILE`, by default `build/outage.png`) shows the first.

Cheating would be: policies tuned to these 30 s instead of their defaults; refusals counted as
answers; calls made after the outage to flatter "delivered"; peers without time limits.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from benchmarks._outage_course import CallEnd, Course, Plan
from benchmarks._outage_picture import draw
from benchmarks._outage_upstream import Outage
from benchmarks._processes import ROOT, run_json
from benchmarks._report import Claim, Options, Report, Row, median, watch_others
from vastar_runtime.config import RuntimeConfig

__all__ = ["CONTESTANTS", "OPTIONS", "SUMMARY", "Figures", "figures", "run"]

SUMMARY: Final = (
    "an upstream dies for 30 s of virtual time: attempts, refusals, recovery; a picture"
)
OPTIONS: Final = Options(rounds=3)
PLAN: Final = Plan()
PICTURE: Final = ROOT / "build" / "outage.png"

_BACK_RATIO: Final = 0.99
_BACK_WINDOW_S: Final = 1.0
_BACK_STEP_S: Final = 0.1
_PEAK_WINDOW_S: Final = 1.0
_PROCESSES: Final = 2

WANTED_ATTEMPTS: Final = {Outage.REFUSED: 0.05, Outage.BLACK_HOLE: 0.35, Outage.UNAVAILABLE: 0.6}
"""Of those without policies. What is not sent is what comes behind the breaker's opening: refused
connections open it within a second; a black hole shows after the connect timeout of 5 s, and calls
with retries of their own later; 503s after half of its window of 30 s, because an upstream that was
well before has half its calls well until then. Retries add what the quota holds: 35 for each of the
five tenants, 0.06 of the calls."""
WANTED_PEAK: Final = 1.2
"""Of the load's own: nobody waits in line for the upstream's return, so nothing comes at once."""


def _all_off() -> dict[str, Any]:
    """The tables that switch off every policy that has a mode."""
    defaults = RuntimeConfig().defaults
    names = defaults.__struct_fields__
    return {name: {"mode": "off"} for name in names if hasattr(getattr(defaults, name), "mode")}


CONTESTANTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "policies": {},
        "retries alone": {**_all_off(), "retry": {"mode": "enforce"}},
        "none": _all_off(),
    }
)
"""The tables of `[defaults]`, by contestant."""


class Figures(NamedTuple):
    """What a course comes to; counts are of the calls that were made in the outage.

    Attributes:
        attempts: sent in the outage, whoever's.
        delivered, refused, failed: what became of the calls; together they are all.
        refusal_p99_ms: how long a refusal took.
        failure_p50_ms: how long the failed ones waited.
        back_s: from the return to success, infinite where it did not come; see the module.
        peak_per_s: most requests at the upstream within a second of those behind its return.
        load_peak_per_s: most calls made in a second: as much would come without any outage.
    """

    calls: float
    attempts: float
    delivered: float
    refused: float
    failed: float
    refusal_p99_ms: float
    failure_p50_ms: float
    back_s: float
    peak_per_s: float
    load_peak_per_s: float


def run(options: Options, plan: Plan = PLAN) -> Report:
    """Run every course of every round, and draw the first round.

    Args:
        options: seconds are not asked for: they are the plan's, and virtual.
        plan: what is the same in all courses.
    """
    report = Report("outage", [])
    with watch_others(report), ThreadPoolExecutor(_PROCESSES) as pool:
        rounds = [
            _start(pool, msgspec.structs.replace(plan, seed=options.seed + nth))
            for nth in range(options.rounds)
        ]
        path = Path(options.output or PICTURE)
        path.parent.mkdir(parents=True, exist_ok=True)
        first = {
            outage.value: {name: course.result() for name, course in contestants.items()}
            for outage, contestants in rounds[0].items()
        }
        draw(str(path), msgspec.structs.replace(plan, seed=options.seed), first)
        for outage in Outage:
            told = {}
            for name in CONTESTANTS:
                courses = [each[outage][name].result() for each in rounds]
                told[name] = _medians([figures(plan, course) for course in courses])
                report.rows.append(_row(outage, name, told[name]))
            report.claims += _claims(outage, told["policies"], told["none"])
    report.notes.append(f"picture: {path}")
    return report


_Started: TypeAlias = dict[Outage, dict[str, Future[Course]]]


def _start(pool: ThreadPoolExecutor, plan: Plan) -> _Started:
    """The courses of one round, under way."""
    return {
        outage: {
            name: pool.submit(
                _run_course,
                msgspec.structs.replace(plan, outage=outage, policies=dict(policies)),
            )
            for name, policies in CONTESTANTS.items()
        }
        for outage in Outage
    }


def _run_course(plan: Plan) -> Course:
    return run_json("benchmarks._outage_course", plan, Course, core=None)


def _medians(rounds: Sequence[Figures]) -> Figures:
    return Figures(*map(median, zip(*rounds, strict=True)))


def figures(plan: Plan, course: Course) -> Figures:
    """What `course`, which followed `plan`, comes to."""
    calls = [call for call in course.calls if plan.before_s <= call.at_s < plan.return_s]
    refused = [call for call in calls if not call.is_good and not call.attempts]
    failed = [call for call in calls if not call.is_good and call.attempts]
    return Figures(
        calls=len(calls),
        attempts=sum(plan.before_s <= at_s < plan.return_s for at_s in course.sent_s),
        delivered=len(calls) - len(refused) - len(failed),
        refused=len(refused),
        failed=len(failed),
        refusal_p99_ms=_wait_ms(refused, 0.99),
        failure_p50_ms=_wait_ms(failed, 0.5),
        back_s=_back_s(plan, course.calls),
        peak_per_s=_peak(sorted(course.arrived_s), plan.return_s),
        load_peak_per_s=_peak([call.at_s for call in course.calls], 0.0),
    )


def _wait_ms(calls: Sequence[CallEnd], quantile: float) -> float:
    """That quantile of how long the calls took; 0 of none."""
    waits_s = sorted(call.done_s - call.at_s for call in calls)
    return waits_s[int(len(waits_s) * quantile)] * 1000 if waits_s else 0.0


def _back_s(plan: Plan, calls: Sequence[CallEnd]) -> float:
    """From the return until every window of a second from there on is good."""
    times_s = [call.at_s for call in calls]
    good = [0]
    for call in calls:
        good.append(good[-1] + call.is_good)
    back_s = math.inf
    for step in range(round((plan.after_s - _BACK_WINDOW_S) / _BACK_STEP_S), -1, -1):
        begin_s = plan.return_s + step * _BACK_STEP_S
        begin, end = (bisect_left(times_s, at_s) for at_s in (begin_s, begin_s + _BACK_WINDOW_S))
        if good[end] - good[begin] < _BACK_RATIO * (end - begin):
            break
        back_s = begin_s - plan.return_s
    return back_s


def _peak(times_s: Sequence[float], begin_s: float) -> int:
    """Most of the times within a second, from `begin_s` on."""
    return max(
        (
            bisect_left(times_s, times_s[nth] + _PEAK_WINDOW_S) - nth
            for nth in range(bisect_left(times_s, begin_s), len(times_s))
        ),
        default=0,
    )


def _row(outage: Outage, name: str, told: Figures) -> Row:
    return {
        "outage": outage.value,
        "who": name,
        "attempts": told.attempts,
        "a call": told.attempts / told.calls,
        "refused": told.refused,
        "p99 ms": told.refusal_p99_ms,
        "failed": told.failed,
        "p50 ms": told.failure_p50_ms,
        "delivered": told.delivered,
        "back s": told.back_s,
        "peak/s": told.peak_per_s,
        "x load": told.peak_per_s / told.load_peak_per_s,
    }


def _claims(outage: Outage, policies: Figures, none: Figures) -> Iterator[Claim]:
    ratio = policies.attempts / none.attempts
    peak = policies.peak_per_s / policies.load_peak_per_s
    name = outage.value
    yield Claim(f"{name}: attempts, x none", ratio, WANTED_ATTEMPTS[outage], at_most=True)
    yield Claim(f"{name}: peak on return, x load", peak, WANTED_PEAK, at_most=True)
