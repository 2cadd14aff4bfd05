"""Who may use, open or keep which connection: decisions only, no I/O, no clock, no tasks.

A `Slot` is the permission for one open connection. Slots are counted per key (tenant, workspace,
origin, ...) and in all. `take` decides at once; where it has nothing to give the caller enqueues a
waiter, and `release` and `discard` hand on what they get back: the connection itself, or the
permission to open one. Every operation is O(1) in connections and waiters.

Who is served: inside a key, strictly by arrival. Between keys it matters only when all slots are
taken: keys that wait although they have room of their own ("starved") take turns, and a connection
that comes back goes to whoever came first, the oldest waiter of its own key or of the starved key
whose turn it is (for which it is closed).

Idle connections are used youngest first, so that the surplus grows old and is swept.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

import attrs

__all__ = ["Bucket", "Connection", "Pool", "Slot", "Waiter"]


class Connection(Protocol):
    """What the pool needs to know of a connection."""

    created_at_s: float

    def abort(self) -> None:
        """Close at once."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=Connection)


@attrs.define(eq=False)
class Slot(Generic[ConnectionT]):
    """Permission for one open connection.

    Attributes:
        bucket: the key it counts for.
        connection: `None` until its holder has opened it.
        idle_since_s: when its connection was used last.
    """

    bucket: "Bucket[ConnectionT]"
    connection: ConnectionT | None = None
    idle_since_s: float = 0.0


@attrs.define(eq=False)
class Waiter(Generic[ConnectionT]):
    """A place in the queue of a key.

    Attributes:
        ticket: order of arrival over all keys.
        slot: set when it is served.
        tag: the caller's own.
    """

    bucket: "Bucket[ConnectionT]"
    ticket: int
    tag: object = None
    slot: Slot[ConnectionT] | None = None


@attrs.define(eq=False)
class Bucket(Generic[ConnectionT]):
    """The connections and waiters of one key."""

    key: Hashable
    total: int = 0
    idle: deque[Slot[ConnectionT]] = attrs.field(factory=deque)
    waiters: OrderedDict[Waiter[ConnectionT], None] = attrs.field(factory=OrderedDict)

    def first(self) -> Waiter[ConnectionT] | None:
        """The waiter that came first."""
        return next(iter(self.waiters), None)


class Pool(Generic[ConnectionT]):
    """The slots of one transport.

    Args:
        per_key: most connections of one key.
        total: most connections in all.
        wake: called with each waiter that was served, its `slot` set.
    """

    def __init__(
        self, *, per_key: int, total: int, wake: Callable[[Waiter[ConnectionT]], None]
    ) -> None:
        self._per_key = per_key
        self._limit = total
        self._wake = wake
        self._open = 0
        self._tickets = 0
        self._buckets: dict[Hashable, Bucket[ConnectionT]] = {}
        # Over all keys, the one given back longest ago first.
        self._idle: OrderedDict[Slot[ConnectionT], None] = OrderedDict()
        self._starved: OrderedDict[Bucket[ConnectionT], None] = OrderedDict()

    @property
    def open_count(self) -> int:
        """Slots in use, connecting or idle."""
        return self._open

    @property
    def has_idle(self) -> bool:
        """Whether `sweep` could ever find something."""
        return bool(self._idle)

    def bucket(self, key: Hashable) -> Bucket[ConnectionT]:
        """The bucket of a key, made when there is none. Use it before the next await."""
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = Bucket(key)
        return found

    def __iter__(self) -> Iterator[Bucket[ConnectionT]]:
        return iter(self._buckets.values())

    def take(self, bucket: Bucket[ConnectionT]) -> Slot[ConnectionT] | None:
        """An idle connection, or a slot to open one in, or `None`: enqueue then."""
        if bucket.idle:
            slot = bucket.idle.pop()
            del self._idle[slot]
            return slot
        if bucket.waiters or bucket.total >= self._per_key:
            return None
        if self._open >= self._limit:
            if not self._idle:
                return None
            self._evict()
        return self._open_slot(bucket)

    def empty(self, slot: Slot[ConnectionT]) -> None:
        """Close the connection of a held slot; its holder opens another in its place."""
        if slot.connection is not None:
            slot.connection.abort()
            slot.connection = None

    def _evict(self) -> None:
        slot, _ = self._idle.popitem(last=False)
        slot.bucket.idle.popleft()  # idle longest of all, so of its own bucket too
        self._close(slot)

    def _open_slot(self, bucket: Bucket[ConnectionT]) -> Slot[ConnectionT]:
        bucket.total += 1
        self._open += 1
        return Slot(bucket)

    def _close(self, slot: Slot[ConnectionT]) -> None:
        self.empty(slot)
        slot.bucket.total -= 1
        self._open -= 1
        self._forget_if_empty(slot.bucket)

    def _forget_if_empty(self, bucket: Bucket[ConnectionT]) -> None:
        if not bucket.total and not bucket.waiters:
            self._buckets.pop(bucket.key, None)

    def enqueue(self, bucket: Bucket[ConnectionT], tag: object) -> Waiter[ConnectionT]:
        """Queue behind the waiters of this key. Only after `take` gave nothing."""
        self._tickets += 1
        waiter = Waiter(bucket, self._tickets, tag)
        bucket.waiters[waiter] = None
        self._note_starved(bucket)
        return waiter

    def _note_starved(self, bucket: Bucket[ConnectionT]) -> None:
        """Keep `_starved` true to its meaning: waiters, and room of its own."""
        if bucket.waiters and bucket.total < self._per_key:
            self._starved[bucket] = None
        else:
            self._starved.pop(bucket, None)

    def cancel(self, waiter: Waiter[ConnectionT]) -> None:
        """Leave the queue. Only for a waiter that was not served."""
        bucket = waiter.bucket
        del bucket.waiters[waiter]
        self._note_starved(bucket)
        self._forget_if_empty(bucket)

    def release(self, slot: Slot[ConnectionT], idle_since_s: float) -> None:
        """Give back a slot whose connection can serve again.

        Args:
            slot: held.
            idle_since_s: now; if it was not used, what it had: unused time goes on counting.
        """
        bucket = slot.bucket
        if self._starved:
            turn = next(iter(self._starved))
            if turn is not bucket and _came_before(turn, bucket):
                self.discard(slot)
                return
        if bucket.waiters:
            self._serve(bucket, slot)
        else:
            slot.idle_since_s = idle_since_s
            bucket.idle.append(slot)
            self._idle[slot] = None

    def discard(self, slot: Slot[ConnectionT]) -> None:
        """Give back a slot and close its connection, if it has one."""
        bucket = slot.bucket
        self.empty(slot)
        bucket.total -= 1
        self._open -= 1
        self._note_starved(bucket)  # it has room now
        if self._starved:
            turn = next(iter(self._starved))
            if bucket.waiters and not _came_before(turn, bucket):
                turn = bucket
            self._serve(turn, self._open_slot(turn))
        self._forget_if_empty(bucket)

    def _serve(self, bucket: Bucket[ConnectionT], slot: Slot[ConnectionT]) -> None:
        waiter, _ = bucket.waiters.popitem(last=False)
        waiter.slot = slot
        if bucket in self._starved:
            self._starved.move_to_end(bucket)  # the others have their turn first
        self._note_starved(bucket)
        self._wake(waiter)

    def sweep(self, now_s: float, *, idle_timeout_s: float, max_age_s: float) -> float | None:
        """Close idle connections that are too old; when to come again, `None` = nothing is idle."""
        due_s: float | None = None
        for slot in [*self._idle]:
            connection = slot.connection
            # The sum that is given out: by the difference it may be too early by a rounding,
            # and who comes when told would be told to come again at once, for ever.
            idle_over = now_s >= slot.idle_since_s + idle_timeout_s
            if idle_over or connection is None or now_s - connection.created_at_s >= max_age_s:
                del self._idle[slot]
                slot.bucket.idle.remove(slot)
                self._close(slot)
            elif due_s is None or slot.idle_since_s + idle_timeout_s < due_s:
                due_s = slot.idle_since_s + idle_timeout_s
        return due_s

    def close(self) -> None:
        """Close every idle connection and wake every waiter, without a slot."""
        while self._idle:
            self._evict()
        for bucket in [*self._buckets.values()]:
            while bucket.waiters:
                waiter, _ = bucket.waiters.popitem(last=False)
                self._wake(waiter)
            self._note_starved(bucket)
            self._forget_if_empty(bucket)

    def check(self) -> None:
        """Assert what holds between any two operations. For tests."""
        buckets = {*self._buckets.values()}
        assert sum(b.total for b in buckets) == self._open <= self._limit
        assert {s for b in buckets for s in b.idle} == {*self._idle}
        starved = {b for b in buckets if b.waiters and b.total < self._per_key}
        assert starved == {*self._starved}
        assert not starved or self._open == self._limit, "somebody waits although there is room"
        assert not (starved and self._idle), "somebody waits beside an idle connection"
        for bucket in buckets:
            assert bucket.total or bucket.waiters
            assert len(bucket.idle) <= bucket.total <= self._per_key
            assert not (bucket.waiters and bucket.idle)
            assert [w.ticket for w in bucket.waiters] == sorted(w.ticket for w in bucket.waiters)


def _came_before(one: Bucket[ConnectionT], other: Bucket[ConnectionT]) -> bool:
    """Whether the oldest waiter of `one` came before the oldest of `other`, if it has any."""
    mine, theirs = one.first(), other.first()
    return mine is not None and (theirs is None or mine.ticket < theirs.ticket)
