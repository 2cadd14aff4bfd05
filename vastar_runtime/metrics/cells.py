"""Where counts are kept: cells, and families of cells that differ in their labels.

Cells of our own rather than the library's children: the four that an ordinary call touches cost a
third of theirs (`benchmarks/metrics_cost.py` has both), because there is one writer, the event
loop's thread, and so no lock. Reading from another thread is safe: a number is read whole, and what
is read of a family is a copy of its dict, made in one step of the interpreter. And the library with
its 2 MB need not be loaded before somebody asks for the text.

A family never has more cells than its cap, whatever label values come: those beyond it are counted
together as `other`. So a sum over a family is always right.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs

from vastar_runtime.metrics.labels import OTHER, fit

__all__ = ["SECONDS", "Count", "Distribution", "Family"]

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Upper bounds of the buckets: from a call over the loopback to the longest stream."""


@attrs.define(eq=False)
class Count:
    """A number that only grows; whoever counts adds to `value`."""

    value: float = 0.0


@attrs.define(eq=False)
class Distribution:
    """How many values fell into each bucket of `SECONDS`, the last one without an upper bound."""

    counts: list[int] = attrs.field(factory=lambda: [0] * (len(SECONDS) + 1))
    sum: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a bound belongs to the bucket below it."""
        self.counts[bisect_left(SECONDS, value)] += 1
        self.sum += value


Cell = TypeVar("Cell", Count, Distribution)


class Family(Generic[Cell]):
    """The cells of one metric.

    Args:
        make: the class of the cells.
        name: as scraped; a family of `Count` ends in `_total`.
        text: what it counts, for people.
        labels: their names.
        most: label sets with a cell of their own.
    """

    def __init__(
        self, make: Callable[[], Cell], name: str, text: str, labels: tuple[str, ...], most: int
    ) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._make: Callable[[], Cell] = make
        self._most = most
        self._others = (OTHER,) * len(labels)
        self._cells: dict[tuple[str, ...], Cell] = {}

    def of(self, *values: str) -> Cell:
        """The cell of these label values, or that of all others where there are too many."""
        cell = self._cells.get(values)
        return self._new(values) if cell is None else cell

    def cells(self) -> dict[tuple[str, ...], Cell]:
        """By label values; a copy, from any thread."""
        return self._cells.copy()

    def _new(self, values: tuple[str, ...]) -> Cell:
        fitting = tuple(map(fit, values))
        # The cell of the others comes on top.
        if fitting not in self._cells and len(self._cells) >= self._most:
            fitting = self._others
        cell = self._cells.get(fitting)
        if cell is None:
            cell = self._cells[fitting] = self._make()
        return cell
