"""The pool's decisions: a stateful machine against a dumb model, and each rule by itself."""

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from vastar_runtime.transport.pool import Bucket, Pool, Slot, Waiter

PER_KEY, PER_OWNER, TOTAL, KEYS = 3, 4, 5, "abcdABC"
"""Small letters belong to one owner, capitals to another."""


@attrs.define(eq=False)
class Conn:
    """A connection that only knows whether it is closed."""

    created_at_s: float = 0.0
    closed: bool = False

    def abort(self) -> None:
        self.closed = True


def make_pool(
    per_key: int = PER_KEY, total: int = TOTAL, per_owner: int | None = None
) -> tuple[Pool[Conn], list[Waiter[Conn]]]:
    woken: list[Waiter[Conn]] = []
    made = Pool(per_key=per_key, per_owner=per_owner or total, total=total, wake=woken.append)
    return made, woken


def owner_of(key: object) -> bool:
    return str(key).isupper()


def bucket_of(pool: Pool[Conn], key: str) -> Bucket[Conn]:
    return pool.bucket(key, owner_of(key))


def opened(pool: Pool[Conn], key: str, now_s: float = 0.0) -> Slot[Conn]:
    """A slot with a fresh connection in it."""
    slot = pool.take(bucket_of(pool, key))
    assert slot is not None
    if slot.connection is None:
        slot.connection = Conn(now_s)
    return slot


class PoolAgainstModel(RuleBasedStateMachine):
    """The model: lists of who holds, what is idle, who waits, and searches through them."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.woken = make_pool(per_owner=PER_OWNER)
        self.now_s = 0.0
        self.held: list[Slot[Conn]] = []
        self.idle: list[Slot[Conn]] = []
        self.waiting: list[Waiter[Conn]] = []
        self.conns: list[Conn] = []

    slots = Bundle("slots")
    waiters = Bundle("waiters")

    def _count(self, key: object) -> int:
        return sum(slot.bucket.key == key for slot in self.held + self.idle)

    def _of_owner(self, slots: list[Slot[Conn]], key: str) -> list[Slot[Conn]]:
        return [slot for slot in slots if owner_of(slot.bucket.key) == owner_of(key)]

    def _hold(self, slot: Slot[Conn]) -> None:
        if slot.connection is None:
            slot.connection = Conn(self.now_s)
            self.conns.append(slot.connection)
        assert not slot.connection.closed
        assert slot not in self.held
        self.held.append(slot)

    def _collect_woken(self) -> list[Slot[Conn]]:
        """Waiters that were served: first of their key, never one that had left."""
        got = []
        for waiter in self.woken:
            same_key = [w for w in self.waiting if w.bucket is waiter.bucket]
            assert same_key[0] is waiter
            self.waiting.remove(waiter)
            assert waiter.slot is not None
            if waiter.slot.connection is None or waiter.slot not in self.held:
                self._hold(waiter.slot)
            got.append(waiter.slot)
        self.woken.clear()
        return got

    @rule(target=slots, key=st.sampled_from(KEYS))
    def ask(self, key: str) -> object:
        bucket = bucket_of(self.pool, key)
        idle_here = [slot for slot in self.idle if slot.bucket.key == key]
        slot = self.pool.take(bucket)
        if idle_here:
            assert slot is idle_here[-1], "the connection used last is used first"
            self.idle.remove(slot)
        elif (
            self._count(key) < PER_KEY
            and len(self.held) < TOTAL
            and len(self._of_owner(self.held, key)) < PER_OWNER
        ):
            assert slot is not None
            own = self._of_owner(self.idle, key)
            oldest = None
            if len(own) + len(self._of_owner(self.held, key)) >= PER_OWNER:
                oldest = own[0]
            elif len(self.held) + len(self.idle) >= TOTAL:
                oldest = self.idle[0]
            if oldest is not None:
                assert oldest.connection is None, "the connection idle longest makes room"
                self.idle.remove(oldest)
        else:
            assert slot is None
            self.waiting.append(self.pool.enqueue(bucket, None))
            return None
        self._hold(slot)
        return slot

    @rule(slot=consumes(slots), was_used=st.booleans(), target=slots)
    def release(self, slot: object, *, was_used: bool) -> object:
        if not isinstance(slot, Slot) or slot not in self.held:
            return None
        conn = slot.connection
        self.held.remove(slot)
        self.pool.release(slot, self.now_s if was_used else slot.idle_since_s)
        if self.woken:
            got = self._collect_woken()
            assert len(got) == 1
            assert got[0] is slot or conn.closed
            return got[0]
        self.idle.append(slot)
        assert not conn.closed
        return None

    @rule(slot=consumes(slots), target=slots)
    def discard(self, slot: object) -> object:
        if not isinstance(slot, Slot) or slot not in self.held:
            return None
        conn = slot.connection
        self.held.remove(slot)
        self.pool.discard(slot)
        assert conn.closed
        got = self._collect_woken()
        assert len(got) <= 1
        return got[0] if got else None

    @rule(number=st.integers(0, 20))
    def leave_queue(self, number: int) -> None:
        if self.waiting:
            waiter = self.waiting.pop(number % len(self.waiting))
            self.pool.cancel(waiter)
            assert not self.woken

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def sweep(self) -> None:
        due_s = self.pool.sweep(self.now_s, idle_timeout_s=10.0, max_age_s=35.0)
        for slot in [*self.idle]:
            if slot.connection is None:
                self.idle.remove(slot)
                assert self.now_s - slot.idle_since_s >= 10.0 or self._aged(slot)
            else:
                assert self.now_s - slot.idle_since_s < 10.0
        assert due_s == min((s.idle_since_s + 10.0 for s in self.idle), default=None)

    def _aged(self, slot: Slot[Conn]) -> bool:
        return any(c.closed and self.now_s - c.created_at_s >= 35.0 for c in self.conns)

    @invariant()
    def counts_agree(self) -> None:
        self.pool.check()
        assert self.pool.open_count == len(self.held) + len(self.idle)
        assert self.pool.has_idle == bool(self.idle)
        open_conns = {conn for conn in self.conns if not conn.closed}
        assert open_conns == {slot.connection for slot in self.held + self.idle}
        assert {b.key for b in self.pool} == {
            *(s.bucket.key for s in self.held + self.idle),
            *(w.bucket.key for w in self.waiting),
        }

    def teardown(self) -> None:
        """Whatever happened, once all is given back nothing is left."""
        while self.held:
            self.pool.discard(self.held.pop())
            self._collect_woken()
        self.pool.close()
        self.pool.check()
        assert self.pool.open_count == 0
        assert not [*self.pool]
        assert all(conn.closed for conn in self.conns)


PoolAgainstModel.TestCase.settings = settings(stateful_step_count=40)
TestPoolAgainstModel = PoolAgainstModel.TestCase


def test_waiters_of_a_key_are_served_in_the_order_they_came() -> None:
    pool, woken = make_pool(per_key=1)
    slot = opened(pool, "a")
    waiters = [pool.enqueue(bucket_of(pool, "a"), n) for n in range(5)]
    pool.cancel(waiters[0])
    pool.cancel(waiters[2])
    conn = slot.connection
    for _ in range(3):
        pool.release(slot, 0.0)
        assert woken[-1].slot is slot
    assert [waiter.tag for waiter in woken] == [1, 3, 4]
    assert slot.connection is conn


def test_a_newcomer_does_not_overtake_waiters() -> None:
    pool, _ = make_pool(per_key=2)
    opened(pool, "a")
    opened(pool, "a")
    assert pool.take(bucket_of(pool, "a")) is None
    pool.enqueue(bucket_of(pool, "a"), None)
    assert pool.take(bucket_of(pool, "a")) is None


def test_keys_that_starve_take_turns_and_a_busy_key_cannot_keep_all() -> None:
    pool, woken = make_pool(per_key=4, total=4)
    slots = [opened(pool, "hog") for _ in range(4)]
    for key in "bbbc":
        assert pool.take(bucket_of(pool, key)) is None
        pool.enqueue(bucket_of(pool, key), key)
    for _ in range(5):  # came later than those of b and c
        pool.enqueue(bucket_of(pool, "hog"), "hog")
    for slot in slots:
        pool.release(slot, 0.0)
    # Robbed, the hog starves too, and has its turn; that connection it may keep.
    assert [waiter.tag for waiter in woken] == ["b", "c", "hog", "b"]
    assert bucket_of(pool, "hog").total == 1
    assert woken[2].slot is slots[2]
    pool.check()


def test_a_connection_goes_to_an_older_waiter_of_its_own_key() -> None:
    pool, woken = make_pool(per_key=1, total=2)
    first, second = opened(pool, "a"), opened(pool, "b")
    pool.enqueue(bucket_of(pool, "a"), "a")
    pool.enqueue(bucket_of(pool, "c"), "c")
    pool.release(first, 0.0)
    assert [waiter.tag for waiter in woken] == ["a"]
    pool.discard(second)
    assert [waiter.tag for waiter in woken] == ["a", "c"]


def test_the_idle_connection_used_longest_ago_makes_room() -> None:
    pool, _ = make_pool(per_key=3, total=3)
    slots = [opened(pool, key) for key in "aab"]
    for now_s, slot in enumerate(slots):
        pool.release(slot, now_s)
    opened(pool, "c")
    assert [slot.connection is None for slot in slots] == [True, False, False]


def test_an_empty_key_costs_nothing() -> None:
    pool, _ = make_pool()
    for number in range(100):
        pool.discard(opened(pool, f"key {number}"))
    assert not [*pool]


def test_sweeping_finds_the_idle_and_the_old() -> None:
    pool, _ = make_pool()
    old, idle, good = opened(pool, "a", 0.0), opened(pool, "a", 500.0), opened(pool, "b", 500.0)
    pool.release(idle, 560.0)
    pool.release(old, 590.0)
    pool.release(good, 591.0)
    assert pool.sweep(600.0, idle_timeout_s=30.0, max_age_s=600.0) == 621.0
    assert [s.connection is None for s in (old, idle, good)] == [True, True, False]
    assert pool.sweep(621.0, idle_timeout_s=30.0, max_age_s=600.0) is None
    assert pool.open_count == 0


def test_who_sweeps_at_the_time_that_was_given_is_not_told_to_come_again_then() -> None:
    pool, _ = make_pool()
    pool.release(opened(pool, "a", 0.0), 9.386)
    due_s = pool.sweep(10.0, idle_timeout_s=30.0, max_age_s=600.0)
    assert due_s is not None
    assert due_s - 9.386 < 30.0, "these numbers round down"
    assert pool.sweep(due_s, idle_timeout_s=30.0, max_age_s=600.0) is None


def test_a_connection_given_back_unused_is_swept_when_it_would_have_been() -> None:
    pool, _ = make_pool()
    one, other = opened(pool, "a"), opened(pool, "b")
    pool.release(one, 1.0)
    pool.release(other, 2.0)
    assert pool.take(bucket_of(pool, "a")) is one
    pool.release(one, one.idle_since_s)
    assert pool.sweep(3.0, idle_timeout_s=30.0, max_age_s=600.0) == 31.0
    assert pool.sweep(31.0, idle_timeout_s=30.0, max_age_s=600.0) == 32.0
    assert (one.connection is None, other.connection is None) == (True, False)


def test_closing_wakes_every_waiter_with_nothing() -> None:
    pool, woken = make_pool(per_key=1)
    held, idle = opened(pool, "a"), opened(pool, "b")
    pool.release(idle, 0.0)
    pool.enqueue(bucket_of(pool, "a"), None)
    pool.close()
    assert idle.connection is None
    assert [waiter.slot for waiter in woken] == [None]
    pool.discard(held)
    pool.check()
    assert pool.open_count == 0


def test_an_owner_never_holds_all_there_is() -> None:
    pool, woken = make_pool(per_key=3, total=4, per_owner=3)
    slots = [opened(pool, key) for key in "abc"]
    for key in "dab":
        assert pool.take(bucket_of(pool, key)) is None
        pool.enqueue(bucket_of(pool, key), key)
    pool.check()
    opened(pool, "A")
    assert not woken
    for slot in slots:
        pool.release(slot, 0.0)
    assert [waiter.tag for waiter in woken] == ["d", "a", "b"]
    pool.check()


def test_an_owner_with_all_it_may_have_closes_its_own_idle_connections() -> None:
    pool, _ = make_pool(per_key=3, total=9, per_owner=2)
    others, one, two = opened(pool, "A"), opened(pool, "a"), opened(pool, "b")
    for slot in (others, one, two):
        pool.release(slot, 0.0)
    opened(pool, "c")
    assert [slot.connection is None for slot in (others, one, two)] == [False, True, False]
    pool.check()


def test_an_owner_with_clearly_less_need_not_have_come_first() -> None:
    pool, woken = make_pool(per_key=9, total=4)
    slots = [opened(pool, "a") for _ in range(4)]
    for number in range(9):
        pool.enqueue(bucket_of(pool, "a"), number)
    for letter in "AB":
        assert pool.take(bucket_of(pool, letter)) is None
        pool.enqueue(bucket_of(pool, letter), letter)
        pool.enqueue(bucket_of(pool, letter), letter)
    for slot in slots:
        pool.release(slot, 0.0)
    assert [waiter.tag for waiter in woken] == ["A", 0, "B", 1], "robbed, it has its turn too"
    assert woken[1].slot is slots[1]
    pool.check()


def test_owners_that_starve_take_turns() -> None:
    pool, woken = make_pool(per_key=9, total=2)
    slots = [opened(pool, "a"), opened(pool, "a")]
    for tag in "bbbA":
        pool.enqueue(bucket_of(pool, tag), tag)
    for slot in slots:
        pool.discard(slot)
    assert [waiter.tag for waiter in woken] == ["A", "b"]
    pool.check()
