"""The purse of several workers: never more is spent than one purse holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota

WORKERS = 3
SMALL = QuotaSettings(
    most_tokens=40, transient_cost=14, throttled_cost=5, earned_per_success=2, forget_after_s=600.0
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "throttled", "refund", "spend", "earn", "pass"]),
        st.integers(0, 20),
    ),
    max_size=60,
)


def purses(host, settings=SMALL):
    return [each.retry_quota(settings, ("t", "o")) for each in host.sharings]


@given(steps)
def test_any_steps_of_any_workers_are_those_of_one_purse(taken):
    with shared_workers(WORKERS) as host:
        shared, one = purses(host), RetryQuota(SMALL)
        out: list[tuple[int, int]] = []
        for what, which in taken:
            worker = which % WORKERS
            if what == "pass":
                host.now_s += which / 8
            elif what in {"reserve", "throttled"}:
                is_throttled = what == "throttled"
                cost = shared[worker].reserve(host.own_s(worker), is_throttled=is_throttled)
                assert cost == one.reserve(host.now_s, is_throttled=is_throttled)
                if cost is not None:
                    out.append((worker, cost))
            elif what == "earn":
                shared[worker].earn(host.own_s(worker))
                one.earn(host.now_s)
            elif out:
                worker, cost = out.pop(which % len(out))
                if what == "refund":
                    shared[worker].refund(cost, host.own_s(worker))
                    one.refund(cost, host.now_s)
                else:
                    shared[worker].spend(host.own_s(worker))
                    one.spend(host.now_s)
        for worker, each in enumerate(shared):
            each.refresh(host.own_s(worker))
            assert each.tokens == one.tokens
            assert each.outstanding == sum(at == worker for at, _ in out)
            assert each.is_droppable(host.own_s(worker)) == (
                not each.outstanding and one.tokens == one.most_tokens
            )


def test_a_full_purse_takes_no_lock():
    with shared_workers(1) as host:
        (one,) = purses(host)
        for _ in range(5):
            one.earn(host.own_s(0))
        assert host.memory.words[one._version_at] == 0


def test_what_nobody_touched_for_long_is_full_again():
    with shared_workers(2) as host:
        first, second = purses(host)
        first.reserve(host.own_s(0), is_throttled=False)
        host.now_s += 599.0
        assert not second.is_droppable(host.own_s(1))
        host.now_s += 1.0
        assert second.is_droppable(host.own_s(1))
        assert second.reserve(host.own_s(1), is_throttled=False) == 14
        assert second.tokens == 26


def test_a_retry_that_costs_nothing_is_counted_with_the_worker():
    with shared_workers(1) as host:
        (one,) = purses(host)
        assert one.reserve_nothing(host.own_s(0)) == 0
        assert one.outstanding == 1
        one.spend(host.own_s(0))
        assert one.outstanding == 0


def test_what_a_dead_worker_earned_stays_and_what_it_reserved_is_spent():
    with shared_workers(2) as host:
        first, second = purses(host)
        for _ in range(2):
            second.reserve(host.own_s(1), is_throttled=False)
        first.earn(host.own_s(0))
        first.earn(host.own_s(0))
        again = host.kill(0).retry_quota(SMALL, ("t", "o"))
        assert again.reserve(host.own_s(0), is_throttled=False) == 14
        assert again.tokens == 2
        again.earn(host.own_s(0))
        second.refresh(host.own_s(1))
        assert second.tokens == 4


def test_a_smaller_purse_misses_what_was_missing():
    with shared_workers(2) as host:
        first, second = purses(host)
        first.reserve(host.own_s(0), is_throttled=False)
        smaller = QuotaSettings(most_tokens=20)
        second.refresh(host.own_s(1))
        second.configure(smaller)
        assert second.tokens == pytest.approx(6)
        second.refresh(host.own_s(1))
        assert second.tokens == pytest.approx(6)
