"""Rate limits and token limits of all workers of a host: exact, by the same machine.

Each step takes the record's lock, loads the arrival times, lets `RateLimiter` step, and stores them
again. So what holds for one process (at most `burst + window x limit / period_s` over every window)
holds for all together, whoever asks.

The line is one line too. Each worker keeps those who wait with it, and everybody who lines up draws
a ticket of the record; only the lowest of all tickets may go, and newcomers line up wherever
somebody waits. A worker whose head goes, or that gives something back, rings the one whose head is
first then. As a backstop for a worker that was not rung, a head that is not the first looks again
after a moment; who has died is taken out by `without_worker`.

What a dead worker was charged and had not settled is spent: its calls may have been made.
"""

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from vastar_runtime.policy.rate_limit import (
    Allowed,
    RateLimiter,
    RateLimitSettings,
    Verdict,
    Waiting,
)
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings
from vastar_runtime.sharing.record import Record

__all__ = ["SharedRateLimiter", "SharedTokenLimiter", "state_form", "without_worker"]

_LOOK_AGAIN_S: Final = 0.02
_FIRST_TOTAL: Final = 6
_FIRST_ROW: Final = 9
_HELD, _QUEUED, _WAITING, _TICKET = range(4)
_ROWS: Final = 4


@lru_cache
def state_form(workers: int) -> struct.Struct:
    """How the state of a limiter is written.

    Granted, spent, least, spilled, interval | tickets drawn | of all: what is held, what is queued,
    how many wait | the same three for each worker, and the ticket of its first (0 = none).
    """
    return struct.Struct(f"@5d4Q{_ROWS * workers}Q")


class _Shared(RateLimiter):
    """A limiter as one worker sees it; between its own times and the shared ones.

    The fields that `RateLimiter` keeps are those of all workers, as last loaded, but for the line,
    which is this worker's.
    """

    def _share(self, record: Record, ring: Callable[[int, int], None]) -> None:
        self.record = record
        self._ring = ring
        self._form = state_form(record.workers)
        workers = record.workers
        self._rows = [0] * (_ROWS * workers)
        self._held_at, self._queued_at, self._waiting_at, self._ticket_at = (
            row * workers + record.worker for row in range(_ROWS)
        )
        self._tickets_from = _TICKET * workers
        self._drawn = self._waiting_of_all = 0
        self._held_before = self._queued_before = 0
        self._tickets: dict[Waiting, int] = {}

    def refresh(self, now_s: float) -> None:
        """Look at how things stand, for people."""
        if self.record.is_stale:
            with self.record:
                self._load(now_s - self.record.ahead_s)

    @property
    def own_held(self) -> int:
        """What calls of this worker were charged and have not settled."""
        return self._rows[self._held_at]

    def available(self, now_s: float) -> float:
        """As `RateLimiter.available`."""
        self.refresh(now_s)
        return super().available(now_s - self.record.ahead_s)

    def is_droppable(self, now_s: float) -> bool:
        """As `RateLimiter.is_droppable`."""
        if self._line or self.own_held:
            return False
        self.refresh(now_s)
        return super().is_droppable(now_s - self.record.ahead_s)

    def decide(self, now_s: float, cost: int = 1, give_up_at_s: float = math.inf) -> Verdict:
        """As `RateLimiter.decide`."""
        ahead_s = self.record.ahead_s
        with self.record:
            self._load(now_s - ahead_s)
            verdict: Verdict
            if cost and self._waiting_of_all:
                verdict = self._line_up(now_s - ahead_s, cost, give_up_at_s - ahead_s)
            else:
                verdict = super().decide(now_s - ahead_s, cost, give_up_at_s - ahead_s)
            if isinstance(verdict, Waiting):
                self._drawn += 1
                self._tickets[verdict] = self._drawn
                verdict.at_s += ahead_s
            self._store()
        return verdict

    def grant_due(self, now_s: float) -> list[Waiting]:
        """As `RateLimiter.grant_due`, while the first of all lines is one of ours."""
        granted: list[Waiting] = []
        if not self._line:
            return granted
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            while self._line and self._is_first() and self._head_at_s(shared_s) <= shared_s:
                head = next(iter(self._line))
                self._let_go(shared_s, head)
                granted.append(head)
            if granted:
                self._store()
        if granted:
            self._ring_first()
        return granted

    def next_at_s(self, now_s: float) -> float | None:
        """As `RateLimiter.next_at_s`, as of the last step."""
        if not self._line:
            return None
        ahead_s = self.record.ahead_s
        at_s = self._head_at_s(now_s - ahead_s) + ahead_s
        return at_s if self._is_first() else max(at_s, now_s + _LOOK_AGAIN_S)

    def withdraw(self, now_s: float, waiting: Waiting) -> None:
        """As `RateLimiter.withdraw`."""
        if waiting.permit is not None:
            self.refund(now_s, waiting.permit)
        elif not waiting.has_left:
            with self.record:
                self._load(now_s - self.record.ahead_s)
                self._leave_line(waiting)
                self._store()
            self._ring_first()

    def settle(self, now_s: float, permit: Allowed, used: int | None = None) -> None:
        """As `RateLimiter.settle`."""
        if permit.is_settled:
            return
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            super().settle(shared_s, permit, used)
            self._store()
        if used is not None and used < permit.cost:
            self._ring_first()

    def charge_more(self, now_s: float, permit: Allowed, more: int) -> None:
        """As `RateLimiter.charge_more`."""
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            super().charge_more(shared_s, permit, more)
            self._store()

    def change(self, now_s: float, settings: RateLimitSettings) -> None:
        """As `RateLimiter.change`; each worker does so for itself."""
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            super().change(shared_s, settings)
            self._store()

    # --- under the lock, in shared time --------------------------------------------------------

    def _load(self, now_s: float) -> None:
        values = self.record.read(self._form)
        if values is None:
            return
        (self._granted_s, self._spent_s, self._least_s, self._spilled_s, interval_s, self._drawn,
         self._held, self._queued, self._waiting_of_all, *self._rows) = values  # fmt: skip
        self._held_before, self._queued_before = self._held, self._queued
        if interval_s != self._settings.interval_s:  # of a worker with other settings until now
            self._rescale(now_s, self._settings.interval_s / interval_s)

    def _store(self) -> None:
        rows = self._rows
        rows[self._held_at] += self._held - self._held_before
        self._held_before = self._held
        if self._line or rows[self._waiting_at]:
            self._store_line()
        granted_s = self._granted_s
        values = (
            granted_s, self._spent_s, self._least_s, self._spilled_s, self._settings.interval_s,
            self._drawn, self._held, self._queued, self._waiting_of_all, *rows,
        )  # fmt: skip
        self.record.write(self._form, values, granted_s)

    def _store_line(self) -> None:
        rows, waiting, head = self._rows, self.waiting_count, self.first_in_line
        rows[self._queued_at] += self._queued - self._queued_before
        self._queued_before = self._queued
        self._waiting_of_all += waiting - rows[self._waiting_at]
        rows[self._waiting_at] = waiting
        rows[self._ticket_at] = 0 if head is None else self._tickets[head]

    def _heads(self) -> list[int]:
        """The ticket of each worker's first, 0 where nobody waits with it."""
        return self._rows[self._tickets_from :]

    def _in_line(self) -> int:
        return self._waiting_of_all

    def _leave_line(self, waiting: Waiting) -> None:
        super()._leave_line(waiting)
        self._tickets.pop(waiting, None)

    def _is_first(self) -> bool:
        """Whether the first of our line is the first of all."""
        head = self.first_in_line
        assert head is not None
        own = self._tickets[head]
        others = self._heads()
        others[self.record.worker] = 0
        return all(not ticket or own < ticket for ticket in others)

    def _ring_first(self) -> None:
        """Tell the worker that has the first in line, where that is another one."""
        if not self._waiting_of_all:
            return
        heads = [(ticket, worker) for worker, ticket in enumerate(self._heads()) if ticket]
        if heads and (worker := min(heads)[1]) != self.record.worker:
            self._ring(worker, self.record.at)


class SharedRateLimiter(_Shared):
    """The limiter of one key, of all workers.

    Args:
        settings: as configured.
        record: of the key.
        ring: tells another worker to look at its line, by worker and record.
    """

    def __init__(
        self, settings: RateLimitSettings, record: Record, ring: Callable[[int, int], None]
    ) -> None:
        super().__init__(settings)
        self._share(record, ring)


class SharedTokenLimiter(_Shared, TokenLimiter):
    """The token limiter of one key, of all workers; see `SharedRateLimiter`."""

    def __init__(
        self, settings: TokenLimitSettings, record: Record, ring: Callable[[int, int], None]
    ) -> None:
        TokenLimiter.__init__(self, settings)
        self._share(record, ring)


def without_worker(state: bytes, workers: int, worker: int, now_s: float) -> bytes:
    """The same state without a worker that has died: what it held is spent, nobody waits with it.

    Args:
        state: at least as long as `state_form` of so many workers.
        workers: how many there are.
        worker: which of them has died.
        now_s: CLOCK_MONOTONIC.
    """
    form = state_form(workers)
    values = list(form.unpack_from(state))
    granted_s, spent_s, interval_s = values[0], values[1], values[4]
    held = values[_FIRST_ROW + _HELD * workers + worker]
    values[1] = min(max(spent_s, now_s) + held * interval_s, max(granted_s, now_s))
    for row in range(_ROWS):
        at = _FIRST_ROW + row * workers + worker
        if row != _TICKET:
            values[_FIRST_TOTAL + row] -= values[at]
        values[at] = 0
    return form.pack(*values)
