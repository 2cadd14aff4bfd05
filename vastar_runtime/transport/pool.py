"""Who may use, open or keep which connection: decisions only, no I/O, no clock, no tasks.

A `Slot` is the permission for one open connection. Slots are counted per key (tenant, workspace,
origin, ...), per owner (the tenant) and in all. `take` decides at once; where it has nothing to
give the caller enqueues a waiter, and `release` and `discard` hand on what they get back: the
connection itself, or the permission to open one. Every operation is O(1) in connections and
waiters.

No owner may hold all there is: connections that hang are not given back, so only a bound that
holds at all times leaves room for the others.

Who is served: inside a key, strictly by arrival. Between keys it matters only when all slots, or
all of an owner, are taken: keys that wait although they have room of their own ("starved") take
turns, and a connection that comes back goes to whoever came first, the oldest waiter of its own key
or of the starved key of its owner whose turn it is (for which it is closed). Owners that could have
more take turns too; one that has clearly less than the owner who gives back needs not have come
first.

Idle connections are used youngest first, so that the surplus grows old and is swept.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

import attrs

__all__ = ["Bucket", "Connection", "Pool", "Share", "Slot", "Waiter"]


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
class Share(Generic[ConnectionT]):
    """The connections of one owner, over all its keys.

    Attributes:
        keys: how many buckets it has.
        idle: the one given back longest ago first.
        starved: its buckets that wait although they have room of their own, by turns.
    """

    owner: Hashable
    total: int = 0
    keys: int = 0
    idle: OrderedDict[Slot[ConnectionT], None] = attrs.field(factory=OrderedDict)
    starved: "OrderedDict[Bucket[ConnectionT], None]" = attrs.field(factory=OrderedDict)


@attrs.define(eq=False)
class Bucket(Generic[ConnectionT]):
    """The connections and waiters of one key."""

    key: Hashable
    share: Share[ConnectionT]
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
        per_owner: most connections of one owner.
        total: most connections in all.
        wake: called with each waiter that was served, its `slot` set.
    """

    def __init__(
        self,
        *,
        per_key: int,
        per_owner: int,
        total: int,
        wake: Callable[[Waiter[ConnectionT]], None],
    ) -> None:
        self._per_key = per_key
        self._per_owner = per_owner
        self._limit = total
        self._wake = wake
        self._open = 0
        self._tickets = 0
        self._buckets: dict[Hashable, Bucket[ConnectionT]] = {}
        self._shares: dict[Hashable, Share[ConnectionT]] = {}
        # Over all keys, the one given back longest ago first.
        self._idle: OrderedDict[Slot[ConnectionT], None] = OrderedDict()
        # Owners with starved keys that may hold more; so all slots are taken.
        self._starved: OrderedDict[Share[ConnectionT], None] = OrderedDict()

    @property
    def open_count(self) -> int:
        """Slots in use, connecting or idle."""
        return self._open

    @property
    def has_idle(self) -> bool:
        """Whether `sweep` could ever find something."""
        return bool(self._idle)

    def bucket(self, key: Hashable, owner: Hashable) -> Bucket[ConnectionT]:
        """The bucket of a key, made when there is none. Use it before the next await.

        Args:
            key: whose connections are alike.
            owner: of the key, always the same for it.
        """
        found = self._buckets.get(key)
        if found is None:
            share = self._shares.get(owner)
            if share is None:
                share = self._shares[owner] = Share(owner)
            share.keys += 1
            found = self._buckets[key] = Bucket(key, share)
        return found

    def __iter__(self) -> Iterator[Bucket[ConnectionT]]:
        return iter(self._buckets.values())

    def take(self, bucket: Bucket[ConnectionT]) -> Slot[ConnectionT] | None:
        """An idle connection, or a slot to open one in, or `None`: enqueue then."""
        if bucket.idle:
            slot = bucket.idle.pop()
            del self._idle[slot]
            del bucket.share.idle[slot]
            return slot
        if bucket.waiters or bucket.total >= self._per_key:
            return None
        if bucket.share.total >= self._per_owner:
            idle = bucket.share.idle  # its own have to make room
        elif self._open >= self._limit:
            idle = self._idle
        else:
            return self._open_slot(bucket)
        if not idle:
            return None
        self._evict(next(iter(idle)))
        return self._open_slot(bucket)

    def empty(self, slot: Slot[ConnectionT]) -> None:
        """Close the connection of a held slot; its holder opens another in its place."""
        if slot.connection is not None:
            slot.connection.abort()
            slot.connection = None

    def _evict(self, slot: Slot[ConnectionT]) -> None:
        """Close the connection that is idle longest of all, or of all of its owner."""
        slot.bucket.idle.popleft()  # so of its own bucket too
        self._close(slot)

    def _open_slot(self, bucket: Bucket[ConnectionT]) -> Slot[ConnectionT]:
        bucket.total += 1
        bucket.share.total += 1
        self._open += 1
        return Slot(bucket)

    def _close(self, slot: Slot[ConnectionT]) -> None:
        """Close an idle connection, which its bucket has left."""
        del self._idle[slot]
        del slot.bucket.share.idle[slot]
        self._uncount(slot)
        self._forget_if_empty(slot.bucket)

    def _uncount(self, slot: Slot[ConnectionT]) -> None:
        self.empty(slot)
        slot.bucket.total -= 1
        slot.bucket.share.total -= 1
        self._open -= 1

    def _forget_if_empty(self, bucket: Bucket[ConnectionT]) -> None:
        if bucket.total or bucket.waiters or self._buckets.pop(bucket.key, None) is None:
            return
        share = bucket.share
        share.keys -= 1
        if not share.keys:
            del self._shares[share.owner]

    def enqueue(self, bucket: Bucket[ConnectionT], tag: object) -> Waiter[ConnectionT]:
        """Queue behind the waiters of this key. Only after `take` gave nothing."""
        self._tickets += 1
        waiter = Waiter(bucket, self._tickets, tag)
        bucket.waiters[waiter] = None
        self._note_starved(bucket)
        return waiter

    def _note_starved(self, bucket: Bucket[ConnectionT]) -> None:
        """Keep what is said to be starved true to its meaning: waiters, and room of its own."""
        share = bucket.share
        if bucket.waiters and bucket.total < self._per_key:
            share.starved[bucket] = None
        else:
            share.starved.pop(bucket, None)
        if share.starved and share.total < self._per_owner:
            self._starved[share] = None
        else:
            self._starved.pop(share, None)

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
        if bucket.waiters or self._starved or bucket.share.starved:
            heir = self._heir(bucket)
            if heir is bucket:
                self._serve(bucket, slot)
                return
            if heir is not None:
                self.discard(slot)
                return
        slot.idle_since_s = idle_since_s
        bucket.idle.append(slot)
        self._idle[slot] = bucket.share.idle[slot] = None

    def discard(self, slot: Slot[ConnectionT]) -> None:
        """Give back a slot and close its connection, if it has one."""
        bucket = slot.bucket
        heir = self._heir(bucket)
        self._uncount(slot)
        self._note_starved(bucket)  # it has room now
        if heir is not None:
            self._serve(heir, self._open_slot(heir))
        self._forget_if_empty(bucket)

    def _heir(self, bucket: Bucket[ConnectionT]) -> Bucket[ConnectionT] | None:
        """Who gets the slot that this bucket gives back, if anybody waits who can use it."""
        share = bucket.share
        heir = bucket if bucket.waiters else None
        if share.starved:
            turn = next(iter(share.starved))
            if _came_before(turn, bucket):
                heir = turn
        if self._starved:
            other = next(iter(self._starved))
            if other is not share:
                turn = next(iter(other.starved))
                # "Clearly": by one alone, two owners would take it from each other for ever.
                has_less = other.total + 1 < share.total
                if heir is None or has_less or _came_before(turn, heir):
                    heir = turn
        return heir

    def _serve(self, bucket: Bucket[ConnectionT], slot: Slot[ConnectionT]) -> None:
        waiter, _ = bucket.waiters.popitem(last=False)
        waiter.slot = slot
        share = bucket.share
        if bucket in share.starved:
            share.starved.move_to_end(bucket)  # the others have their turn first
        if share in self._starved:
            self._starved.move_to_end(share)
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
                slot.bucket.idle.remove(slot)
                self._close(slot)
            elif due_s is None or slot.idle_since_s + idle_timeout_s < due_s:
                due_s = slot.idle_since_s + idle_timeout_s
        return due_s

    def close(self) -> None:
        """Close every idle connection and wake every waiter, without a slot."""
        while self._idle:
            self._evict(next(iter(self._idle)))
        for bucket in [*self._buckets.values()]:
            while bucket.waiters:
                waiter, _ = bucket.waiters.popitem(last=False)
                self._wake(waiter)
            self._note_starved(bucket)
            self._forget_if_empty(bucket)

    def check(self) -> None:
        """Assert what holds between any two operations. For tests."""
        buckets, shares = {*self._buckets.values()}, {*self._shares.values()}
        assert sum(b.total for b in buckets) == self._open <= self._limit
        assert {s for b in buckets for s in b.idle} == {*self._idle}
        assert {b.share for b in buckets} == shares
        for share in shares:
            mine = {b for b in buckets if b.share is share}
            assert len(mine) == share.keys
            assert sum(b.total for b in mine) == share.total <= self._per_owner
            assert [s for s in self._idle if s.bucket.share is share] == [*share.idle]
            starved = {b for b in mine if b.waiters and b.total < self._per_key}
            assert starved == {*share.starved}
            assert not (starved and share.idle), "somebody waits beside an idle connection"
        hungry = {s for s in shares if s.starved and s.total < self._per_owner}
        assert hungry == {*self._starved}
        assert not hungry or self._open == self._limit, "somebody waits although there is room"
        assert not (hungry and self._idle), "somebody waits beside an idle connection"
        for bucket in buckets:
            assert bucket.total or bucket.waiters
            assert len(bucket.idle) <= bucket.total <= self._per_key
            assert not (bucket.waiters and bucket.idle)
            assert [w.ticket for w in bucket.waiters] == sorted(w.ticket for w in bucket.waiters)


def _came_before(one: Bucket[ConnectionT], other: Bucket[ConnectionT]) -> bool:
    """Whether the oldest waiter of `one` came before the oldest of `other`, if it has any."""
    mine, theirs = one.first(), other.first()
    return mine is not None and (theirs is None or mine.ticket < theirs.ticket)
