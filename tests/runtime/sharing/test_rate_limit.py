"""Rates of several workers: the same as those of one machine, in the order in which all came."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.llm_usage import LlmRequest, Usage
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Waiting
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Refused, Scope

WORKERS = 3
TEN = RateLimitSettings(10, burst=4, max_waiting=6)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.integers(0, WORKERS - 1), st.integers(0, 5)),
        st.tuples(st.just("settle"), st.integers(0, 50), st.integers(0, 6)),
        st.tuples(st.just("pass"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 50), st.just(0)),
    ),
    max_size=60,
)


class Compared:
    """The limiters of all workers beside one that knows all."""

    def __init__(self, host) -> None:
        self.host = host
        self.shared = [each.rate_limiter(TEN, ("key",)) for each in host.sharings]
        self.one = RateLimiter(TEN)
        self.held: list[tuple[int, Allowed, Allowed]] = []
        self.line: list[tuple[int, Waiting, Waiting]] = []

    def decide(self, worker: int, cost: int) -> None:
        own = self.shared[worker].decide(self.host.own_s(worker), cost)
        expected = self.one.decide(self.host.now_s, cost)
        assert type(own) is type(expected)
        if isinstance(own, Allowed):
            assert own.cost == expected.cost
            self.held.append((worker, own, expected))
        elif isinstance(own, Waiting):
            ahead_s = self.host.own_s(worker) - self.host.now_s
            assert own.at_s == pytest.approx(expected.at_s + ahead_s)
            self.line.append((worker, own, expected))
        else:
            assert own.retry_after_s == pytest.approx(expected.retry_after_s)

    def settle(self, which: int, used: int) -> None:
        if self.held:
            worker, own, expected = self.held.pop(which % len(self.held))
            self.shared[worker].settle(self.host.own_s(worker), own, used)
            self.one.settle(self.host.now_s, expected, used)

    def leave(self, which: int) -> None:
        if self.line:
            worker, own, expected = self.line.pop(which % len(self.line))
            self.shared[worker].withdraw(self.host.own_s(worker), own)
            self.one.withdraw(self.host.now_s, expected)

    def grant(self) -> None:
        """Everybody asks until nobody is let through, in whatever order."""
        before = len(self.one.grant_due(self.host.now_s))
        granted = []
        while now := [
            (worker, waiting)
            for worker, each in enumerate(self.shared)
            for waiting in each.grant_due(self.host.own_s(worker))
        ]:
            granted += now
        assert len(granted) == before
        first = self.line[:before]
        assert [(worker, own) for worker, own, _ in first] == granted
        self.line = self.line[before:]
        self.held += [(worker, own.permit, expected.permit) for worker, own, expected in first]

    def check(self) -> None:
        for worker, each in enumerate(self.shared):
            now_s = self.host.own_s(worker)
            assert each.available(now_s) == pytest.approx(self.one.available(self.host.now_s))
            assert each.own_held == sum(own.cost for at, own, _ in self.held if at == worker)
            assert each.waiting_count == sum(at == worker for at, _, _ in self.line)


@given(steps)
def test_any_steps_of_any_workers_are_those_of_one_machine(taken):
    with shared_workers(WORKERS) as host:
        both = Compared(host)
        for what, first, second in taken:
            if what == "decide":
                both.decide(first, second)
            elif what == "settle":
                both.settle(first, second)
            elif what == "leave":
                both.leave(first)
            else:
                host.now_s += first / 16
            both.grant()
            both.check()


def two(host, settings=TEN):
    return [each.rate_limiter(settings, ("key",)) for each in host.sharings]


def test_who_comes_to_another_worker_does_not_overtake():
    with shared_workers(2) as host:
        first, second = two(host)
        assert isinstance(first.decide(host.own_s(0), 4), Allowed)
        large = first.decide(host.own_s(0), 4)
        small = second.decide(host.own_s(1), 1)
        assert isinstance(large, Waiting)
        assert isinstance(small, Waiting)
        host.now_s += 0.1  # there would be one now
        assert second.grant_due(host.own_s(1)) == []
        assert second.next_at_s(host.own_s(1)) == pytest.approx(host.own_s(1) + 0.02)
        assert first.grant_due(host.own_s(0)) == []
        host.now_s += 0.3
        assert second.grant_due(host.own_s(1)) == []
        assert first.grant_due(host.own_s(0)) == [large]
        assert first.next_at_s(host.own_s(0)) is None
        host.now_s += 0.1
        assert second.grant_due(host.own_s(1)) == [small]


@pytest.mark.parametrize("how", ["granted", "left", "gave back"])
def test_whoever_is_first_then_is_rung(how):
    with shared_workers(2) as host:
        first, second = two(host)
        looked: list[float] = []
        host.sharings[1].watch(second, looked.append)
        held = first.decide(host.own_s(0), 4)
        if how != "gave back":
            head = first.decide(host.own_s(0), 4)
        second.decide(host.own_s(1), 1)
        host.sharings[1].hear(1.0, lambda _woken: None)
        assert looked == []
        if how == "granted":
            host.now_s += 0.4
            assert first.grant_due(host.own_s(0)) == [head]
        elif how == "left":
            first.withdraw(host.own_s(0), head)
        else:
            first.refund(host.own_s(0), held)
        host.sharings[1].hear(2.0, lambda _woken: None)
        assert looked == [2.0]


def test_the_line_is_as_long_for_all_as_it_may_be():
    settings = attrs.evolve(TEN, max_waiting=2)
    with shared_workers(2) as host:
        first, second = two(host, settings)
        first.decide(host.own_s(0), 4)
        assert isinstance(first.decide(host.own_s(0)), Waiting)
        assert isinstance(second.decide(host.own_s(1)), Waiting)
        refused = second.decide(host.own_s(1))
        assert isinstance(refused, Refused)
        assert "2 waiting" in refused.reason
        assert second.waiting_count == 1


def test_what_a_dead_worker_was_charged_is_spent_and_its_line_is_gone():
    with shared_workers(2) as host:
        first, second = two(host)
        first.decide(host.own_s(0), 3)
        first.decide(host.own_s(0), 4)
        behind = second.decide(host.own_s(1), 1)
        assert isinstance(behind, Waiting)
        host.kill(0)
        assert second.available(host.own_s(1)) == pytest.approx(1)
        assert second.grant_due(host.own_s(1)) == [behind]
        again = host.sharings[0].rate_limiter(TEN, ("key",))
        assert again.own_held == 0
        host.now_s += 0.4
        assert again.available(host.own_s(0)) == pytest.approx(4)
        assert isinstance(again.decide(host.own_s(0), 4), Allowed)


def test_settling_twice_changes_nothing():
    with shared_workers(2) as host:
        first, _ = two(host)
        permit = first.decide(host.own_s(0), 2)
        first.settle(host.own_s(0), permit)
        left = first.available(host.own_s(0))
        first.settle(host.own_s(0), permit, 0)
        first.withdraw(host.own_s(0), Waiting(1, 0.0, permit))
        assert first.available(host.own_s(0)) == left


def test_another_rate_holds_for_what_was_spent_as_soon_as_a_worker_knows_it():
    with shared_workers(2) as host:
        first, second = two(host)
        held = first.decide(host.own_s(0), 4)
        slower = attrs.evolve(TEN, period_s=2.0)
        second.change(host.own_s(1), slower)
        assert second.available(host.own_s(1)) == pytest.approx(0)
        host.now_s += 0.2
        assert second.available(host.own_s(1)) == pytest.approx(1)
        assert first.available(host.own_s(0)) == pytest.approx(1), "the same units in its own rate"
        first.change(host.own_s(0), slower)
        host.now_s += 0.6
        assert first.available(host.own_s(0)) == pytest.approx(4)
        assert not first.is_droppable(host.own_s(0))
        first.settle(host.own_s(0), held)
        assert first.is_droppable(host.own_s(0))


def test_limiters_of_other_keys_scopes_and_kinds_are_others():
    with shared_workers(2) as host:
        of_key, _ = two(host)
        of_key.decide(host.own_s(0), 4)
        sharing = host.sharings[1]
        for other in (
            sharing.rate_limiter(TEN, ("k", "ey")),
            sharing.rate_limiter(attrs.evolve(TEN, scope=Scope.TENANT), ("key",)),
            sharing.token_limiter(TokenLimitSettings(TEN), ("key",)),
        ):
            assert other.available(host.own_s(1)) == pytest.approx(4)


def test_what_a_call_is_charged_while_it_lasts_is_charged_to_all():
    with shared_workers(2) as host:
        first, second = two(host)
        permit = first.decide(host.own_s(0), 1)
        assert isinstance(permit, Allowed)
        first.charge_more(host.own_s(0), permit, 2)
        assert second.available(host.own_s(1)) == pytest.approx(1)
        assert (first.own_held, second.own_held) == (3, 0)
        first.settle(host.own_s(0), permit)
        first.charge_more(host.own_s(0), permit, 2)
        assert second.available(host.own_s(1)) == pytest.approx(1)


def test_calls_and_bytes_of_a_key_are_counted_apart():
    of_bytes = attrs.evolve(TEN, policy="byte_limit")
    with shared_workers(2) as host:
        two(host)[0].decide(host.own_s(0), 4)
        first, second = (each.rate_limiter(of_bytes, ("key",)) for each in host.sharings)
        first.decide(host.own_s(0), 1)
        assert second.available(host.own_s(1)) == pytest.approx(3)


def test_tokens_are_settled_for_all():
    limit = TokenLimitSettings.per_minute(1000)
    with shared_workers(2) as host:
        first, second = (each.token_limiter(limit, ("key",)) for each in host.sharings)
        request = LlmRequest(400, max_tokens=800)
        permit = first.reserve(host.own_s(0), request, host.own_s(0))
        assert isinstance(permit, Allowed)
        assert isinstance(second.reserve(host.own_s(1), request, host.own_s(1)), Refused)
        assert not first.is_droppable(host.own_s(0))
        first.settle_answer(host.own_s(0), permit, request, Usage(50, 50, 100), 0)
        assert second.available(host.own_s(1)) == pytest.approx(900)
        assert isinstance(second.reserve(host.own_s(1), request, host.own_s(1)), Allowed)
