"""What a run has shown: trends of all series, and the rules that did not hold, a line for each."""

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from tools.soak._judge import ALLOWED, Trend, steady, trend
from tools.soak._ledger import Ledger
from tools.soak._samples import Book, Sample, Told

__all__ = ["Verdict", "verdict"]

_MOST_WRONGS: Final = 20
_KEPT: Final = 8.0
_WARM_UP_S: Final = 60.0
_LEAST_S: Final = 60.0
"""A shorter steady part says nothing about what grows by the minute."""


@attrs.frozen
class Verdict:
    """What was judged.

    Attributes:
        trends: of all series.
        broken: a line for each rule that did not hold; none: the run has passed.
    """

    trends: list[Trend]
    broken: list[str]


def verdict(book: Book, ledger: Ledger, recoveries_s: Sequence[float], recover_s: float) -> Verdict:
    """Judge a run.

    Args:
        book: what was sampled.
        ledger: what became of the calls; settled.
        recoveries_s: how long clients took behind each return of the runtime.
        recover_s: how long they may take.
    """
    trends = [*_under_load(book.samples), *_at_rest(book.samples)]
    broken = [f"it grows: {each}" for each in trends if each.grows]
    broken += _not_back(book.samples)
    slow = [seconds for seconds in recoveries_s if seconds > recover_s]
    if slow:
        broken.append(
            f"recovery: {len(slow)} of {len(recoveries_s)} took more than {recover_s:g} s, "
            f"the longest {max(slow):.1f} s"
        )
    broken += ledger.wrongs[:_MOST_WRONGS]
    if len(ledger.wrongs) > _MOST_WRONGS:
        broken.append(f"and {len(ledger.wrongs) - _MOST_WRONGS} more")
    return Verdict(trends, broken)


def _under_load(samples: Sequence[Sample]) -> Iterator[Trend]:
    """Of each process over its life, and of the tasks over each life of the runtime."""
    lives: dict[str, list[tuple[Sample, int]]] = {}
    for sample in samples:
        for index, process in enumerate(sample.processes):
            if not sample.is_quiet:
                lives.setdefault(process.name, []).append((sample, index))
    for name, life in lives.items():
        calls = life[-1][0].calls - life[0][0].calls
        for kind in ("memory_mb", "files", "threads"):
            series = [
                (sample.at_s, float(getattr(sample.processes[index], kind)))
                for sample, index in life
            ]
            yield _trend(kind, name, series, calls)
    for epoch, told in _epochs(samples, is_quiet=False).items():
        tasks = [(sample.at_s, float(now.tasks)) for sample, now in told]
        calls = told[-1][0].calls - told[0][0].calls
        yield _trend("tasks", f"runtime {epoch}", tasks, calls)


def _trend(kind: str, of: str, series: list[tuple[float, float]], calls: int) -> Trend:
    rest = steady(series, _WARM_UP_S)
    if not rest or rest[-1][0] - rest[0][0] < _LEAST_S:
        over_s = rest[-1][0] - rest[0][0] if rest else 0.0
        return Trend(kind, of, None, over_s, calls, ALLOWED[kind], grows=False)
    part = (rest[-1][0] - rest[0][0]) / ((series[-1][0] - series[0][0]) or 1.0)
    return trend(kind, of, rest, round(calls * part))


def _at_rest(samples: Sequence[Sample]) -> Iterator[Trend]:
    """Of the whole runtime at its quiet points: the same load each time, which is none."""
    for epoch, told in _epochs(samples, is_quiet=True).items():
        calls = told[-1][0].calls - told[0][0].calls
        for kind in ("memory_mb", "files", "threads", "tasks"):
            series = [(sample.at_s, _own(kind, sample, now)) for sample, now in told]
            yield trend(f"quiet_{kind}", f"runtime {epoch}", series[_is_fresh(told) :], calls)


def _epochs(samples: Sequence[Sample], *, is_quiet: bool) -> dict[int, list[tuple[Sample, Told]]]:
    found: dict[int, list[tuple[Sample, Told]]] = {}
    for sample in samples:
        if sample.is_quiet == is_quiet and sample.runtime is not None:
            found.setdefault(sample.epoch, []).append((sample, sample.runtime))
    return found


def _own(kind: str, sample: Sample, now: Told) -> float:
    """What all processes of the runtime hold; of files those that are no counted connection."""
    if kind == "tasks":
        return now.tasks
    ours = [each for each in sample.processes if not each.name.startswith("client")]
    amount: float = sum(getattr(each, kind) for each in ours)
    if kind == "files":
        amount -= now.connections + now.idle + now.active
    return amount


def _not_back(samples: Sequence[Sample]) -> Iterator[str]:
    """Files, tasks and threads that are above those of the first quiet point of the same life.

    A runtime that has not served yet may have some fewer: connections to a database stay.
    """
    for epoch, told in _epochs(samples, is_quiet=True).items():
        for kind in ("files", "tasks", "threads"):
            counts = [_own(kind, sample, now) for sample, now in told]
            allowed = ALLOWED[f"quiet_{kind}"]
            bounds = [(counts[0], allowed)]
            if _is_fresh(told):
                bounds = [
                    (counts[0], allowed + _KEPT),
                    *((first, allowed) for first in counts[1:2]),
                ]
            for first, more in bounds:
                if counts[-1] - first > more:
                    yield (
                        f"not back to the base line: runtime {epoch} has {counts[-1]:g} {kind} "
                        f"at rest, and had {first:g}"
                    )


def _is_fresh(told: Sequence[tuple[Sample, Told]]) -> bool:
    """Whether it had served nobody at its first quiet point."""
    return bool(told) and not told[0][0].calls
