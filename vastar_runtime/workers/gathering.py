"""One question to several workers, and an end to waiting for those that do not answer.

A state machine without sockets or a clock, used by the supervisor. A gathering is over when all
have answered, or are dead, or its time is: what came until then is the result, and who is missing
is missing. There are at most so many at once, so that nobody who asks without a pause makes the
supervisor hold more and more.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import attrs

__all__ = ["MAX_GATHERINGS", "Gathered", "Gatherings", "Said"]

MAX_GATHERINGS: Final = 64


@attrs.frozen
class Said:
    """What one worker said: a value, or a fault in words."""

    value: Any = None
    fault: str | None = None


Gathered: TypeAlias = dict[int, Said]
"""By worker; who did not answer in time is not in it."""


@attrs.define(eq=False)
class _Gathering:
    number: int
    waited_for: set[int]
    due_s: float
    then: Callable[[Gathered], None]
    said: Gathered = attrs.field(factory=dict)


class Gatherings:
    """All questions under way."""

    def __init__(self) -> None:
        self._open: dict[int, _Gathering] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._open)

    def begin(
        self, workers: Iterable[int], due_s: float, then: Callable[[Gathered], None]
    ) -> int | None:
        """The number under which to ask `workers`; None when there are too many questions.

        Args:
            workers: who is asked; where there is nobody, `then` is called by the next `tick`.
            due_s: when the waiting ends.
            then: gets what was said, once.
        """
        if len(self._open) >= MAX_GATHERINGS:
            return None
        self._last += 1
        self._open[self._last] = _Gathering(self._last, set(workers), due_s, then)
        return self._last

    def answered(self, number: int, worker: int, said: Said) -> None:
        """An answer came; one that comes too late, or twice, is nobody's any more."""
        gathering = self._open.get(number)
        if gathering is None or worker not in gathering.waited_for:
            return
        gathering.said[worker] = said
        self._without(gathering, worker)

    def gone(self, worker: int) -> None:
        """This worker answers nothing any more."""
        for gathering in tuple(self._open.values()):
            self._without(gathering, worker)

    def next_due_s(self) -> float | None:
        """When `tick` has something to do."""
        return min(
            (each.due_s if each.waited_for else 0.0 for each in self._open.values()), default=None
        )

    def tick(self, now_s: float) -> None:
        """End those whose time is over."""
        for gathering in tuple(self._open.values()):
            if gathering.due_s <= now_s or not gathering.waited_for:
                self._finish(gathering)

    def _without(self, gathering: _Gathering, worker: int) -> None:
        if worker in gathering.waited_for:
            gathering.waited_for.discard(worker)
            if not gathering.waited_for:
                self._finish(gathering)

    def _finish(self, gathering: _Gathering) -> None:
        if self._open.pop(gathering.number, None) is not None:
            gathering.then(gathering.said)
