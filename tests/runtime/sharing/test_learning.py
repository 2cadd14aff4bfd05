"""What upstreams tell, known to all workers: together they begin no more than is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.header_learning import Go, HeaderLearning, HeaderSettings, WaitUntil
from vastar_runtime.policy.rate_headers import Hint, Unit
from vastar_runtime.policy.verdicts import Refused

WORKERS = 3
SETTINGS = HeaderSettings()
FAR_S = 1e6
hints = st.lists(
    st.builds(
        Hint,
        st.sampled_from(Unit),
        st.integers(0, 5),
        st.sampled_from([0.5, 10.0, 60.0]),
        st.none() | st.integers(5, 10),
        st.booleans(),
    ),
    max_size=2,
    unique_by=lambda hint: hint.unit,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.integers(0, WORKERS - 1), st.integers(0, 4)),
        st.tuples(st.just("answered"), st.integers(0, 20), hints),
        st.tuples(st.just("throttled"), st.integers(0, 20), st.just([])),
        st.tuples(st.just("unsent"), st.integers(0, 20), st.none()),
        st.tuples(st.just("forecast"), st.integers(0, WORKERS - 1), st.integers(0, 4)),
        st.tuples(st.just("pass"), st.integers(0, 80), st.none()),
    ),
    max_size=50,
)


def all_of(host):
    return [each.learning(SETTINGS, ("t", "w", "o")) for each in host.sharings]


def same(own, expected, ahead_s):
    assert type(own) is type(expected)
    if isinstance(own, Go):
        assert (own.nth_request, own.nth_token, own.tokens) == (
            expected.nth_request,
            expected.nth_token,
            expected.tokens,
        )
    elif isinstance(own, WaitUntil):
        assert own.at_s == pytest.approx(expected.at_s + ahead_s)
    elif isinstance(own, Refused):
        assert own.retry_after_s == pytest.approx(expected.retry_after_s)


@given(steps)
def test_any_steps_of_any_workers_are_those_of_one(taken):
    with shared_workers(WORKERS) as host:
        shared, one = all_of(host), HeaderLearning(SETTINGS)
        out: list[tuple[int, Go, Go]] = []
        for what, which, more in taken:
            if what == "pass":
                host.now_s += which / 8
            elif what in {"decide", "forecast"}:
                now_s, ahead_s = host.own_s(which), host.own_s(which) - host.now_s
                if what == "decide":
                    own = shared[which].decide(now_s, more, now_s + 50)
                    expected = one.decide(host.now_s, more, host.now_s + 50)
                else:
                    own = shared[which].forecast(now_s, more, 2, now_s + 50)
                    expected = one.forecast(host.now_s, more, 2, host.now_s + 50)
                same(own, expected, ahead_s)
                if isinstance(own, Go):
                    out.append((which, own, expected))
            elif out:
                worker, own, expected = out.pop(which % len(out))
                if what == "unsent":
                    shared[worker].not_sent(own)
                    one.not_sent(expected)
                    continue
                throttled = what == "throttled"
                shared[worker].answered(host.own_s(worker), own, more, was_throttled=throttled)
                one.answered(host.now_s, expected, more, was_throttled=throttled)
            for worker, each in enumerate(shared):
                now_s = host.own_s(worker)
                assert each.remaining(now_s) == pytest.approx(one.remaining(host.now_s))
                assert each.rate_ratio == one.rate_ratio
                assert each.is_droppable(now_s) == one.is_droppable(host.now_s)


def test_while_nothing_was_told_no_lock_is_taken():
    with shared_workers(2) as host:
        first, second = all_of(host)
        for nth in range(1, 4):
            go = first.decide(host.own_s(0), 0, FAR_S)
            assert go.nth_request == 2 * nth - 1
            assert second.decide(host.own_s(1), 0, FAR_S).nth_request == 2 * nth
            first.answered(host.own_s(0), go, [], was_throttled=False)
            first.not_sent(go)
        assert host.memory.words[first._version_at] == 0


def test_who_waits_is_rung_when_another_worker_learns_more():
    with shared_workers(2) as host:
        first, second = all_of(host)
        looked: list[float] = []
        host.sharings[1].watch(second, looked.append)
        go = first.decide(host.own_s(0), 0, FAR_S)
        first.answered(host.own_s(0), go, [Hint(Unit.REQUESTS, 0, 60.0)], was_throttled=False)
        assert isinstance(second.decide(host.own_s(1), 0, FAR_S), WaitUntil)
        host.sharings[1].hear(1.0, lambda _woken: None)
        assert looked == []
        first.answered(host.own_s(0), go, [Hint(Unit.REQUESTS, 3, 60.0)], was_throttled=False)
        host.sharings[1].hear(2.0, lambda _woken: None)
        assert looked == [2.0]
        assert isinstance(second.decide(host.own_s(1), 0, FAR_S), Go)
        first.not_sent(go)
        host.sharings[1].hear(3.0, lambda _woken: None)
        assert looked == [2.0], "it does not wait any more"


def test_a_worker_that_comes_later_knows_what_was_told():
    with shared_workers(2) as host:
        first, _ = all_of(host)
        go = first.decide(host.own_s(0), 5, FAR_S)
        first.answered(host.own_s(0), go, [Hint(Unit.TOKENS, 7, 60.0)], was_throttled=True)
        again = host.kill(1).learning(SETTINGS, ("t", "w", "o"))
        assert again.remaining(host.own_s(1)) == {"tokens": 7.0}
        assert again.rate_ratio == 0.7
        assert (
            host.kill(0)
            .learning(SETTINGS, ("t", "w", "o"))
            .decide(host.own_s(0), 1, FAR_S)
            .nth_token
            == 6
        ), "what was begun stays begun"
