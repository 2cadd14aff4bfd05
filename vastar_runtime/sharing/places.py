"""Places for calls (or streams) of one key, shared out between the workers of a host.

Each worker has a column: so many places it may fill without asking anybody. The columns together
never hold more than the limit. A worker that needs more takes some under the admission lock; what
it does not fill it may keep, up to a share that leaves enough for the others (`keep`; none where
the limit is small), so that calls that come and go take no lock.

Who finds nothing left is *hungry*: it draws a ticket, and says so in a word that everybody sees who
gives a place back. Then nobody keeps anything: what is free goes to the hungry, the lowest ticket
first, each in its turn, and newcomers of other workers come behind them. A worker that does not
take what it was rung for (it is stopped, or dead and not reclaimed yet) is passed by after
`PATIENCE_S`.

Every word has one writer, or is written under the admission lock, and each step is right at any
point between two words: places that are in nobody's column are free.
"""

from collections.abc import Iterator
from typing import Final

from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.layout import Header
from vastar_runtime.sharing.memory import Memory

__all__ = ["FREED_AT", "HELD", "HUNGRY", "PATIENCE_S", "TICKET", "WAITING", "Places"]

HELD, TICKET, WAITING = range(3)
"""Sorts of columns: places, the turn of a hungry worker, how many (of a tenant) wait with it."""
HUNGRY, FREED_AT = range(2)
"""Words of the tail: a bit for each hungry worker, and since when places have been free again."""
PATIENCE_S: Final = 0.1
_MOST_KEPT: Final = 64
_ALL_BITS: Final = (1 << 64) - 1


class Places:
    """The places of one key, as one worker sees them.

    Args:
        memory: all of it.
        worker: whose column is ours.
        record_at: None where the table had no room: then it has a fixed part of the limit for
            itself, and asks nobody.
        scope: whose they are.
        key: the same in full; only as much of it counts as `scope` says.
        limit: what holds now.

    Attributes:
        used: places that calls of this worker fill.
        held: places that this worker may fill; the same as its column.
        keep: how many of them may be left empty.
        hungry_at: the word that tells who is hungry.
        is_idle: unused when it was last looked at.
    """

    __slots__ = (
        "_limit", "_memory", "_own_bit", "held", "hungry_at", "is_idle", "keep", "key",
        "record_at", "scope", "used", "worker",
    )  # fmt: skip

    def __init__(
        self,
        memory: Memory,
        worker: int,
        record_at: int | None,
        *,
        scope: Scope,
        key: Key,
        limit: int,
    ) -> None:
        self._memory = memory
        self.worker = worker
        self.record_at = record_at
        self.scope = scope
        self.key = key
        self.used = 0
        self.held = 0
        self.is_idle = False
        self._own_bit = 1 << worker
        self.hungry_at = int(Header.ZERO)
        if record_at is not None:
            self.hungry_at = memory.layout.tail_at(record_at) + HUNGRY
        self.limit_is(limit)

    def limit_is(self, limit: int, *, is_firm: bool = True) -> None:
        """The limit as it is now; one that moves by itself (adaptive) leaves nothing to keep."""
        self._limit = limit
        workers = self._memory.layout.workers
        if self.record_at is None:
            self.held = self.keep = max(1, limit // workers)
        else:
            self.keep = min(limit // (2 * workers), _MOST_KEPT) if is_firm else 0

    @property
    def is_hungry(self) -> bool:
        """Whether this worker waits for places here."""
        return bool(self._memory.words[self.hungry_at] & self._own_bit)

    @property
    def others_are_hungry(self) -> bool:
        """Whether another worker does."""
        return bool(self._memory.words[self.hungry_at] & ~self._own_bit)

    def of_all(self) -> int:
        """Places that are in somebody's column."""
        return self.held if self.record_at is None else sum(self._column(HELD))

    # --- under the admission lock --------------------------------------------------------------

    def may_take(self, limit: int, now_s: float) -> bool:
        """Whether one more place of these may be filled now, by a call of this worker."""
        if self.used < self.held:
            if self.of_all() <= limit:
                return True
            self.give_back(now_s, keep=0)  # of a limit that has shrunk
        if self.record_at is None:
            return False
        words = self._memory.words
        free = limit - self.of_all()
        if free <= 0:
            return False
        others = words[self.hungry_at] & ~self._own_bit
        if not others or now_s - self._memory.times[self._freed_at] > PATIENCE_S:
            return True
        tickets = self._column(TICKET)
        own = tickets[self.worker] if self.is_hungry else _ALL_BITS
        return free > sum(
            others >> worker & 1 and ticket < own for worker, ticket in enumerate(tickets)
        )

    def fill(self, limit: int) -> None:
        """Fill the place that `may_take` has found, with some in stock where nobody else wants."""
        if self.used >= self.held:
            others_want = self.others_are_hungry
            more = 1 if others_want else max(1, self.keep // 2)
            self.held += min(more, limit - self.of_all())
            self._memory.words[self._own_at(HELD)] = self.held
            if self.is_hungry:
                self._memory.words[self._own_at(TICKET)] = self._draw()
        self.used += 1

    def starve(self) -> bool:
        """There was none: say so to all who give back. Whether that is news."""
        if self.record_at is None or self.is_hungry:
            return False
        words = self._memory.words
        words[self._own_at(TICKET)] = self._draw()
        words[self.hungry_at] |= self._own_bit
        return True

    def sate(self) -> None:
        """Nobody of ours waits for these any more."""
        self._memory.words[self.hungry_at] &= ~self._own_bit & _ALL_BITS

    def give_back(self, now_s: float, keep: int | None = None) -> None:
        """Give back what is not filled: all where others are hungry, else what is over.

        Args:
            now_s: CLOCK_MONOTONIC.
            keep: leave so many, whoever wants them.
        """
        if self.record_at is None:
            return
        spare = self.held - self.used
        if keep is None:
            keep = 0 if self.others_are_hungry else spare if spare <= self.keep else self.keep // 2
        if spare > keep:
            self.held -= spare - keep
            self._memory.words[self._own_at(HELD)] = self.held
            self._memory.times[self._freed_at] = now_s

    def holders(self) -> Iterator[int]:
        """Other workers that hold places."""
        return (
            worker
            for worker, held in enumerate(self._column(HELD))
            if held and worker != self.worker
        )

    def next_hungry(self) -> list[int]:
        """The workers whose turn it is to take what is free; not ourselves.

        By the limit as it was written, which may be more than is felt: who is rung looks himself.
        """
        words = self._memory.words
        others = words[self.hungry_at] & ~self._own_bit
        if not others:
            return []
        turns = [(ticket, worker) for worker, ticket in enumerate(self._column(TICKET))]
        by_turn = sorted(turn for turn in turns if others >> turn[1] & 1)
        return [worker for _, worker in by_turn[: max(0, self._limit - self.of_all())]]

    # --- where things are; there may be tens of thousands of us, so it is reckoned each time ----

    def _column(self, sort: int) -> list[int]:
        assert self.record_at is not None
        at = self._memory.layout.columns_at(self.record_at, sort)
        return self._memory.words[at : at + self._memory.layout.workers].tolist()

    def _own_at(self, sort: int) -> int:
        assert self.record_at is not None
        return self._memory.layout.columns_at(self.record_at, sort) + self.worker

    @property
    def _freed_at(self) -> int:
        return self.hungry_at + FREED_AT - HUNGRY

    def _draw(self) -> int:
        words = self._memory.words
        ticket = words[Header.TICKETS] + 1
        words[Header.TICKETS] = ticket
        return ticket

    # --- of tenants: how many wait; one writer, no lock ----------------------------------------

    def tell_waiting(self, count: int) -> None:
        """So many calls of the tenant wait with this worker."""
        if self.record_at is not None:
            self._memory.words[self._own_at(WAITING)] = count

    def waiting_elsewhere(self) -> int:
        """How many of them wait with other workers."""
        if self.record_at is None:
            return 0
        waiting = self._column(WAITING)
        return sum(waiting) - waiting[self.worker]
