"""Who began what, how it ended, and what the upstream saw of it: the truth that is held together.

Shape: clients' journals and the upstream write; `settle`, at a quiet point, compares and forgets,
so a run of days needs no more memory than one of minutes. Its rules are those of the protocol:

- a call ends once: with one answer or one error; and it does end, unless its client was killed;
- "not sent" means that the upstream never saw it; an answer means that it did;
- the upstream saw it no more often than `attempts` tells;
- what may not happen twice was acted on once at most, whoever died meanwhile. A request that was
  turned away (503 that says when to come back) was not acted on;
- the connection to the runtime ends only when the runtime does, or is told to.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from tools.soak._words import Began, Ended
from vastar_client.wire import Disposition

__all__ = ["Downtime", "Ledger"]

_ANSWERED: Final = frozenset({Disposition.RESPONSE_STARTED, Disposition.COMPLETED})
_WITHOUT_RUNTIME: Final = frozenset({"lost", "absent", "draining"})
_TO_CONNECT_S: Final = 5.0
_LATE_S: Final = 20.0
"""Behind a deadline. Far beyond what a slow machine does, and what the runtime promises."""


@attrs.define
class Downtime:
    """When calls may fail for want of a runtime; `until_s` is infinite while it lasts."""

    from_s: float
    until_s: float


@attrs.define
class _Seen:
    """What the upstream saw of one call."""

    seen: int = 0
    acted: int = 0


@attrs.define(eq=False)
class Ledger:
    """The accounts of a run.

    Attributes:
        downtimes: of the runtime, so far.
        grace_s: how long behind one a client may still be without a connection.
        wrongs: what must not be, in order.
        outcomes: by (kind of load, how it ended).
        abandoned: calls whose client was killed.
        settled: calls that were compared.
    """

    downtimes: list[Downtime] = attrs.field(factory=list)
    grace_s: float = 15.0
    wrongs: list[str] = attrs.field(factory=list)
    outcomes: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    abandoned: int = 0
    settled: int = 0
    _open: dict[str, Began] = attrs.field(factory=dict)
    _over: dict[str, tuple[Began, Ended | None]] = attrs.field(factory=dict)
    _seen: dict[str, _Seen] = attrs.field(factory=dict)

    def began(self, call: Began) -> None:
        """A client begins a call."""
        if call.id in self._open or call.id in self._over:
            self.wrong(f"a client began {call.id} twice")
        self._open[call.id] = call

    def ended(self, end: Ended) -> None:
        """A call has ended."""
        call = self._open.pop(end.id, None)
        if call is None:
            self.wrong(f"{end.id} ended twice, the second time with {end.how}")
            return
        self.outcomes[call.kind, end.how] += 1
        self._over[end.id] = (call, end)

    def seen(self, call_id: str) -> None:
        """The head of a request came to the upstream."""
        self._seen.setdefault(call_id, _Seen()).seen += 1

    def acted(self, call_id: str) -> None:
        """The upstream did what a whole request asked for."""
        self._seen.setdefault(call_id, _Seen()).acted += 1

    def killed(self, client: str) -> int:
        """A client was killed; how many calls it left open."""
        left = self.open_of(client)
        for call in left:
            self._over[call.id] = (self._open.pop(call.id), None)
            self.outcomes[call.kind, "killed"] += 1
        self.abandoned += len(left)
        return len(left)

    def open_of(self, client: str) -> list[Began]:
        """The calls of a client that have not ended."""
        return [call for call in self._open.values() if call.id.rpartition("-")[0] == client]

    @property
    def calls(self) -> int:
        """That have ended so far."""
        return self.outcomes.total()

    def wrong(self, what: str) -> None:
        """Something that must not be."""
        self.wrongs.append(what)

    def settle(self) -> None:
        """Compare what has ended, at a time when nothing is under way any more."""
        for call, end in self._over.values():
            seen = self._seen.pop(call.id, _Seen())
            for what in _faults(call, end, seen):
                self.wrong(f"{call.kind} {call.id}: {what}")
            if end is not None and _wants_runtime(call, end) and not self._was_down(call, end):
                self.wrong(f"{call.kind} {call.id}: {end.how}, and the runtime was there all along")
        self.settled += len(self._over)
        self._over.clear()
        for call_id in self._seen.keys() - self._open.keys():
            self.wrong(f"the upstream saw {call_id}, which nobody began")
            del self._seen[call_id]

    def _was_down(self, call: Began, end: Ended) -> bool:
        return any(
            down.from_s <= end.at_s and call.at_s <= down.until_s + self.grace_s
            for down in self.downtimes
        )


def _wants_runtime(call: Began, end: Ended) -> bool:
    """Whether it ended for want of a runtime; to find one may take longer than a short deadline."""
    is_short = end.how == "absent" and call.timeout_s < _TO_CONNECT_S
    return end.how in _WITHOUT_RUNTIME and not is_short


def _faults(call: Began, end: Ended | None, seen: _Seen) -> Sequence[str]:
    found = []
    if call.is_once and seen.acted > 1:
        found.append(f"it may happen once, and the upstream acted {seen.acted} times")
    if end is None or not call.is_counted:
        return found
    if end.disposition is Disposition.NOT_SENT and seen.seen:
        found.append(f"ended with {end.how}, not sent; the upstream saw it {seen.seen} times")
    if end.attempts and seen.seen > end.attempts:
        found.append(f"told of {end.attempts} attempts; the upstream saw it {seen.seen} times")
    if (end.how == "answer" or end.disposition in _ANSWERED) and not seen.seen:
        found.append(f"ended with {end.how}, as if answered; the upstream never saw it")
    if end.late_s > _LATE_S:
        found.append(f"ended {end.late_s:.1f} s behind its deadline")
    return found
