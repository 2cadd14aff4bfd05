"""Who is next, against a plain model of turns; a quiet tenant beside a flooding one."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vastar_runtime.policy.fair_queue import FairQueue

TENANTS = ("a", "b", "c")
PATHS = tuple((t, w, o) for t in TENANTS for w in ("w", "x") for o in ("o", "p"))


def drain(queue, most=10**6):
    out = []
    while len(out) < most and (place := queue.peek()) is not None:
        out.append(queue.take(place))
    return out


def push(queue, path, item, **more):
    return queue.push(path, item, **{"max_waiting": 1000, **more})


def test_tenants_take_turns_whatever_the_length_of_their_lines():
    queue = FairQueue()
    for n in range(5):
        push(queue, ("flood", "w", "o"), f"f{n}")
    for n in range(2):
        push(queue, ("quiet", "w", "o"), f"q{n}")
    assert drain(queue) == ["f0", "q0", "f1", "q1", "f2", "f3", "f4"]
    assert queue.size == 0
    assert queue.tenant_count == 0


def test_a_quiet_tenant_waits_one_round_at_most():
    """However long the lines of the others are, its call is behind one of each."""
    queue = FairQueue()
    for tenant in range(50):
        for n in range(20):
            push(queue, (f"flood {tenant}", "w", "o"), f"{tenant}.{n}")
    drain(queue, 333)
    push(queue, ("quiet", "w", "o"), "quiet")
    assert "quiet" in drain(queue, 51)


def test_workspaces_of_a_tenant_and_origins_of_a_workspace_take_turns_too():
    queue = FairQueue()
    for n in range(3):
        push(queue, ("a", "w", "o"), f"wo{n}")
    push(queue, ("a", "w", "p"), "wp")
    push(queue, ("a", "x", "o"), "xo")
    push(queue, ("b", "w", "o"), "b")
    assert drain(queue) == ["wo0", "b", "xo", "wp", "wo1", "wo2"]


def test_a_weight_is_so_many_turns_in_a_row():
    queue = FairQueue()
    for n in range(6):
        push(queue, ("heavy", "w", "o"), "H", tenant_weight=3)
        push(queue, ("light", "w", "o"), f"l{n}")
    assert drain(queue, 8) == ["H", "H", "H", "l0", "H", "H", "H", "l1"]


def test_who_is_parked_saves_no_turns():
    queue = FairQueue()
    for _ in range(6):
        push(queue, ("heavy", "w", "o"), "H", tenant_weight=3)
        push(queue, ("light", "w", "o"), "l")
    assert drain(queue, 1) == ["H"]
    queue.park_tenant("heavy")
    queue.unpark_tenant("heavy")
    assert drain(queue, 5) == ["l", "H", "H", "H", "l"]


def test_a_tenant_has_its_own_line_and_only_that_is_full():
    queue = FairQueue()
    for _ in range(3):
        assert queue.push(("a", "w", "o"), 1, max_waiting=3) is not None
    assert queue.push(("a", "x", "o"), 1, max_waiting=3) is None
    assert queue.push(("b", "w", "o"), 1, max_waiting=3) is not None
    assert queue.push(("c", "w", "o"), 1, max_waiting=0) is None
    assert queue.waiting_of("a") == 3
    assert queue.tenant_count == 2


def test_who_leaves_from_the_middle_leaves_nothing_behind():
    queue = FairQueue()
    places = [push(queue, ("a", "w", "o"), n) for n in range(5)]
    assert queue.remove(places[2])
    assert not queue.remove(places[2])
    assert queue.remove(places[0])
    assert sorted(queue) == [1, 3, 4]
    assert drain(queue) == [1, 3, 4]
    assert not queue.remove(places[4])


def test_a_parked_origin_holds_nobody_else_up():
    queue = FairQueue()
    slow, fast = ("a", "w", "slow"), ("a", "w", "fast")
    push(queue, slow, "slow")
    push(queue, fast, "fast")
    queue.park_origin(slow)
    queue.park_origin(slow)
    assert drain(queue) == ["fast"]
    push(queue, slow, "slow too")
    assert queue.peek() is None
    queue.unpark_origin(fast)
    queue.unpark_tenant("a")
    assert queue.peek() is None
    queue.unpark_origin(slow)
    assert drain(queue) == ["slow", "slow too"]
    queue.unpark_origin(slow)
    queue.unpark_tenant("a")


def test_a_parked_tenant_stays_so_when_one_of_its_origins_can_go():
    queue = FairQueue()
    path = ("a", "w", "o")
    push(queue, path, 1)
    queue.park_origin(path)
    queue.park_tenant("a")
    queue.unpark_origin(path)
    assert queue.peek() is None
    queue.park_origin(path)
    queue.unpark_tenant("a")
    assert queue.peek() is None
    queue.park_tenant("a")
    queue.unpark_all()
    assert drain(queue) == [1]


class QueueMachine(RuleBasedStateMachine):
    """Against lists: order within a line, and turns between those that can go."""

    def __init__(self):
        super().__init__()
        self.queue = FairQueue()
        self.places = {}
        self.lines = {path: [] for path in PATHS}
        self.parked = set()
        self.count = 0
        # Turns that each tenant had since each other began to be able to go.
        self.missed = {}

    def can_go(self, path):
        return bool(self.lines[path]) and path not in self.parked and path[0] not in self.parked

    def tenants_that_can_go(self):
        return {path[0] for path in PATHS if self.can_go(path)}

    def forget_parking(self):
        """What has nobody in line is dropped, and not parked any more."""
        self.parked = {
            name
            for name in self.parked
            if (self.lines[name] if isinstance(name, tuple) else self.waiting_of(name))
        }
        able = self.tenants_that_can_go()
        self.missed = {tenant: self.missed.get(tenant, Counter()) for tenant in able}

    def waiting_of(self, tenant):
        return sum(len(line) for path, line in self.lines.items() if path[0] == tenant)

    @rule(path=st.sampled_from(PATHS), most=st.integers(0, 6))
    def push(self, path, most):
        self.count += 1
        place = self.queue.push(path, self.count, max_waiting=most)
        assert (place is None) == (self.waiting_of(path[0]) >= most)
        if place is not None:
            self.lines[path].append(self.count)
            self.places[self.count] = (path, place)
        self.forget_parking()

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def remove(self, data):
        item = data.draw(st.sampled_from(sorted(self.places)))
        path, place = self.places.pop(item)
        assert self.queue.remove(place)
        self.lines[path].remove(item)
        self.forget_parking()

    @rule()
    def take(self):
        place = self.queue.peek()
        if place is None:
            assert not self.tenants_that_can_go()
            return
        assert self.queue.peek() is place
        item = self.queue.take(place)
        path, _ = self.places.pop(item)
        assert self.can_go(path)
        assert self.lines[path].pop(0) == item, "a line is served in order"
        for tenant, turns in self.missed.items():
            if tenant != path[0]:
                turns[path[0]] += 1
                assert turns[path[0]] <= 1, f"{tenant} waited more than one round"
        self.missed[path[0]] = Counter()
        self.forget_parking()

    @rule(path=st.sampled_from(PATHS), whole_tenant=st.booleans())
    def park(self, path, whole_tenant):
        if self.lines[path]:
            if whole_tenant:
                self.queue.park_tenant(path[0])
            else:
                self.queue.park_origin(path)
            self.parked.add(path[0] if whole_tenant else path)
        self.forget_parking()

    @rule(path=st.sampled_from(PATHS), whole_tenant=st.booleans())
    def unpark(self, path, whole_tenant):
        if whole_tenant:
            self.queue.unpark_tenant(path[0])
        else:
            self.queue.unpark_origin(path)
        self.parked.discard(path[0] if whole_tenant else path)
        self.forget_parking()

    @rule()
    def unpark_all(self):
        self.queue.unpark_all()
        self.parked.clear()
        self.forget_parking()

    @invariant()
    def counts_are_right(self):
        assert self.queue.size == len(self.places)
        assert sorted(self.queue) == sorted(self.places)
        for tenant in TENANTS:
            assert self.queue.waiting_of(tenant) == self.waiting_of(tenant)

    @invariant()
    def someone_is_next_exactly_where_someone_can_go(self):
        place = self.queue.peek()
        assert (place is not None) == bool(self.tenants_that_can_go())
        if place is not None:
            assert self.can_go(self.places[place.item][0])


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(stateful_step_count=50)


def test_it_tells_who_is_parked():
    queue: FairQueue[int] = FairQueue()
    path = ("a", "w", "o")
    assert not queue.is_parked_tenant("a")
    assert not queue.is_parked_origin(path)
    queue.push(path, 1, max_waiting=9)
    assert not queue.is_parked_tenant("a")
    assert not queue.is_parked_origin(path)
    queue.park_origin(path)
    assert queue.is_parked_origin(path)
    assert not queue.is_parked_origin(("a", "w", "other"))
    queue.park_tenant("a")
    assert queue.is_parked_tenant("a")
    queue.unpark_tenant("a")
    queue.unpark_origin(path)
    assert not queue.is_parked_tenant("a")
    assert not queue.is_parked_origin(path)
