"""Places of several workers: never more than the limits, and nobody waits beside room."""

from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.admission import AdmissionSettings, Admitted, Queued
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.concurrency import ConcurrencySettings, Key
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.sharing.places import PATIENCE_S

WORKERS = 3
ONE = Key("a", "w", "https://one.example")
KEYS = [
    ONE,
    Key("a", "w", "https://two.example"),
    Key("a", "x", "https://one.example"),
    Key("b", "w", "https://one.example"),
    Key("c", "w", "https://one.example"),
]


def limits(in_runtime, per_tenant, per_origin, **others):
    return AdmissionSettings(ConcurrencySettings(in_runtime, per_tenant, per_origin), **others)


class Workers:
    """All admissions of a host, and a referee who counts."""

    def __init__(self, host, settings) -> None:
        self.host = host
        self.settings = settings
        self.admissions = [each.admission(settings) for each in host.sharings]
        self.inside: list[tuple[int, Admitted]] = []
        self.line: list[tuple[int, Queued]] = []

    def come(self, worker, key=ONE, *, is_stream=False):
        decision = self.admissions[worker].try_admit(self.host.own_s(worker), key, is_stream)
        if isinstance(decision, Admitted):
            self.inside.append((worker, decision))
        elif isinstance(decision, Queued):
            self.line.append((worker, decision))
        self.check()
        return decision

    def leave(self, worker, permit):
        self.inside.remove((worker, permit))
        self.took(worker, self.admissions[worker].release(self.host.own_s(worker), permit))

    def withdraw(self, worker, queued):
        self.line.remove((worker, queued))
        self.took(worker, self.admissions[worker].withdraw(self.host.own_s(worker), queued))

    def took(self, worker, woken):
        for queued in woken:
            self.line.remove((worker, queued))
            self.inside.append((worker, queued.permit))
        self.check()

    def hear(self, worker):
        sharing = self.host.sharings[worker]
        sharing.hear(self.host.own_s(worker), lambda woken: self.took(worker, woken))

    def settle(self):
        """Let everybody hear, and look again after a moment, until nothing changes."""
        for _ in range(4):
            self.host.now_s += PATIENCE_S
            for worker, admission in enumerate(self.admissions):
                self.hear(worker)
                self.took(worker, admission.look_again(self.host.own_s(worker)))
        for worker in range(len(self.admissions)):
            self.hear(worker)

    def kill(self, worker):
        self.inside = [each for each in self.inside if each[0] != worker]
        self.line = [each for each in self.line if each[0] != worker]
        self.admissions[worker] = self.host.kill(worker).admission(self.settings)

    def step(self, what, which, key):
        if what == "come":
            self.come(which, key)
        elif what == "leave" and self.inside:
            self.leave(*self.inside[which % len(self.inside)])
        elif what == "withdraw" and self.line:
            self.withdraw(*self.line[which % len(self.line)])
        elif what == "hear":
            self.hear(which)
        elif what == "settle":
            self.settle()
            self.check_nobody_waits_beside_room()
        elif what == "kill":
            self.kill(which)

    def counts(self):
        keys = [permit.key for _, permit in self.inside if not permit.is_stream]
        return len(keys), Counter(key.tenant for key in keys), Counter(keys)

    def check(self):
        in_runtime, tenants, origins = self.counts()
        most = self.settings.concurrency
        assert in_runtime <= most.max_in_runtime
        assert max(tenants.values(), default=0) <= most.max_per_tenant
        assert max(origins.values(), default=0) <= most.max_per_origin
        for worker, admission in enumerate(self.admissions):
            assert admission.in_flight(streams=False) == sum(
                at == worker and not permit.is_stream for at, permit in self.inside
            )
            assert admission.waiting(streams=False) == sum(at == worker for at, _ in self.line)

    def check_nobody_waits_beside_room(self):
        in_runtime, tenants, origins = self.counts()
        most = self.settings.concurrency
        for _, queued in self.line:
            assert (
                in_runtime == most.max_in_runtime
                or tenants[queued.key.tenant] == most.max_per_tenant
                or origins[queued.key] == most.max_per_origin
            ), f"{queued.key} waits for nothing"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, WORKERS - 1), st.sampled_from(KEYS)),
        st.tuples(st.just("come"), st.integers(0, WORKERS - 1), st.sampled_from(KEYS)),
        st.tuples(st.just("leave"), st.integers(0, 30), st.none()),
        st.tuples(st.just("withdraw"), st.integers(0, 30), st.none()),
        st.tuples(st.just("hear"), st.integers(0, WORKERS - 1), st.none()),
        st.tuples(st.just("settle"), st.just(0), st.none()),
        st.tuples(st.just("kill"), st.integers(0, WORKERS - 1), st.none()),
    ),
    max_size=70,
)
some_limits = st.sampled_from([(1, 1, 1), (4, 3, 2), (20, 20, 20), (40, 16, 3), (3, 9, 9)])


@given(steps, some_limits)
def test_never_more_than_the_limits_and_nobody_waits_beside_room(taken, most):
    with shared_workers(WORKERS) as host:
        all_of = Workers(host, limits(*most))
        for what, which, key in taken:
            all_of.step(what, which, key)
        all_of.settle()
        all_of.check_nobody_waits_beside_room()
        for worker, permit in tuple(all_of.inside):
            all_of.leave(worker, permit)
            all_of.settle()
        while all_of.line or all_of.inside:
            before = len(all_of.line)
            for worker, permit in tuple(all_of.inside):
                all_of.leave(worker, permit)
            all_of.settle()
            assert len(all_of.line) < before or not before, "somebody waits for ever"
        words = host.memory.words
        for admission in all_of.admissions:
            assert not admission.is_hungry
            for _, bulkhead in admission._lanes:
                for places in bulkhead.by_record.values():
                    assert not words[places.hungry_at]


def test_what_an_idle_worker_has_in_stock_goes_to_whom_it_lacks():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(100, 100, 12))
        permits = [all_of.come(0) for _ in range(4)]
        for permit in permits:
            all_of.leave(0, permit)
        held = all_of.admissions[0]._calls.bulkhead.by_record
        (of_origin,) = [each for each in held.values() if each.scope is Scope.CREDENTIAL]
        assert of_origin.held > 0, "it kept something"
        decisions = [all_of.come(1) for _ in range(12)]
        assert sum(isinstance(each, Queued) for each in decisions) == of_origin.held
        all_of.hear(0)
        all_of.hear(1)
        assert len(all_of.inside) == 12
        assert of_origin.held == 0


def test_workers_take_turns_where_there_is_one_place():
    with shared_workers(3) as host:
        all_of = Workers(host, limits(1, 1, 1))
        all_of.come(0)
        for worker in (0, 1, 2, 0, 1, 2):
            assert isinstance(all_of.come(worker), Queued)
        served = []
        while all_of.inside:
            worker, permit = all_of.inside[0]
            all_of.leave(worker, permit)
            for each in range(3):
                all_of.hear(each)
            served += [worker for worker, _ in all_of.inside]
        assert sorted(served[:3]) == sorted(served[3:]) == [0, 1, 2]


def test_a_newcomer_does_not_overtake_those_of_its_own_worker_or_of_another():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(1, 1, 1))
        first = all_of.come(0)
        waiting = all_of.come(1)
        all_of.leave(0, first)  # rings 1, which has not heard yet
        assert isinstance(all_of.come(0), Queued)
        assert isinstance(all_of.come(1), Queued)
        all_of.hear(1)
        assert waiting.permit is not None


def test_a_worker_that_does_not_take_its_turn_is_passed_by():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(1, 1, 1))
        first = all_of.come(0)
        all_of.come(1)
        all_of.leave(0, first)
        behind = all_of.come(0)
        assert isinstance(behind, Queued)
        host.now_s += PATIENCE_S / 2
        all_of.took(0, all_of.admissions[0].look_again(host.own_s(0)))
        assert behind.permit is None
        host.now_s += PATIENCE_S
        all_of.took(0, all_of.admissions[0].look_again(host.own_s(0)))
        assert behind.permit is not None


def test_streams_have_places_of_their_own():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(1, 1, 1))
        all_of.come(0)
        assert isinstance(all_of.come(1, is_stream=True), Admitted)
        assert isinstance(all_of.admissions[0].try_admit(0.0, ONE, True), Queued)
        assert all_of.admissions[0].waiting(streams=True) == 1


def test_a_tenants_lines_are_counted_together():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(1, 1, 1, max_waiting_per_tenant=3))
        all_of.come(0)
        for worker in (0, 1, 1):
            assert isinstance(all_of.come(worker), Queued)
        refused = all_of.come(0)
        assert isinstance(refused, Refused)
        assert refused.policy == "queue"
        all_of.withdraw(*all_of.line[-1])
        assert isinstance(all_of.come(0), Queued)


def test_smaller_limits_hold_at_once_for_newcomers_and_larger_ones_let_waiters_in():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(9, 9, 9))
        for worker in (0, 0, 0, 1, 1):
            all_of.come(worker)
        smaller, larger = limits(9, 9, 5), limits(9, 9, 7)
        for worker, admission in enumerate(all_of.admissions):
            assert admission.change(host.own_s(worker), smaller) == []
        assert isinstance(all_of.come(0), Queued)
        assert isinstance(all_of.come(1), Queued)
        all_of.settings = larger
        for worker, admission in enumerate(all_of.admissions):
            all_of.took(worker, admission.change(host.own_s(worker), larger))
        assert len(all_of.inside) == 7


def test_an_upstream_that_sheds_load_gets_less_from_all_workers():
    feeling = AimdSettings(decrease_ratio=0.5, increase_ratio=0.25)
    concurrency = ConcurrencySettings(100, 100, 4, adaptive=feeling)
    with shared_workers(2) as host:
        all_of = Workers(host, AdmissionSettings(concurrency))
        first, second = all_of.admissions
        places = [all_of.come(worker) for worker in (0, 0, 1)]
        first.overloaded(host.own_s(0), places[0], all_of.settings)
        second.overloaded(host.own_s(1), places[2], all_of.settings)  # the same event
        all_of.leave(1, places[2])
        assert isinstance(all_of.come(1), Queued), "two of two are under way with the other one"
        all_of.leave(0, places[0])
        all_of.hear(1)
        assert [worker for worker, _ in all_of.inside] == [0, 1]
        assert isinstance(all_of.come(0), Queued)
        all_of.took(1, second.succeeded(host.own_s(1), all_of.inside[1][1]))
        all_of.took(0, first.look_again(host.own_s(0)))
        assert len(all_of.inside) == 3
        second.succeeded(host.own_s(1), all_of.inside[1][1])
        second.succeeded(host.own_s(1), all_of.inside[1][1])
        assert isinstance(all_of.come(1), Admitted)


@pytest.mark.parametrize("capacity", [1, 2, 4, 8])
def test_where_the_table_is_full_each_worker_keeps_to_its_part(capacity):
    with shared_workers(2, capacity) as host:
        all_of = Workers(host, limits(9, 9, 4))
        decisions = [all_of.come(worker) for worker in (0, 0, 0, 0, 0, 1, 1, 1, 1, 1)]
        assert sum(isinstance(each, Admitted) for each in decisions) <= 4
        for _ in range(12):
            for worker, permit in tuple(all_of.inside):
                all_of.leave(worker, permit)
            all_of.settle()
        assert not all_of.line
        assert not all_of.inside


def test_keys_that_nobody_uses_are_forgotten_and_their_places_come_back():
    with shared_workers(2) as host:
        all_of = Workers(host, limits(100, 100, 40))
        before = host.sharings[0]._table.count()
        permit = all_of.come(0)
        for key in KEYS[1:]:
            all_of.leave(0, all_of.come(0, key))
        for _ in range(2):
            all_of.admissions[0].sweep()
        assert host.sharings[0]._table.count() == before + 2
        all_of.leave(0, permit)
        for _ in range(2):
            all_of.admissions[0].sweep()
        assert host.sharings[0]._table.count() == before
        assert all_of.admissions[0].in_flight_of(ONE, streams=False) == 0


def test_settings_given_with_a_call_hold_for_it():
    with shared_workers(1) as host:
        all_of = Workers(host, limits(9, 9, 9))
        tight = attrs.evolve(all_of.settings, concurrency=ConcurrencySettings(9, 9, 1))
        (admission,) = all_of.admissions
        assert isinstance(admission.try_admit(0.0, ONE, False, tight), Admitted)
        assert isinstance(admission.try_admit(0.0, ONE, False, tight), Queued)
        assert admission.in_flight_of(ONE, streams=False) == 1
