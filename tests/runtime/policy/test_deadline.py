"""One point in time out of several limits, on a clock that nobody can turn back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.policy.deadline import LONGEST_S

NOW_S = 1000.0
WALL_MS = 1_800_000_000_000.0
DEFAULT_S = 30.0


def arrive(deadline_at_ms: int, default_timeout_s: float = DEFAULT_S) -> Deadline:
    return Deadline.arrive(NOW_S, WALL_MS, deadline_at_ms, default_timeout_s)


def test_it_has_passed_from_its_own_instant_on():
    deadline = arrive(0)
    assert not deadline.has_passed(deadline.expires_at_s - 0.001)
    assert deadline.has_passed(deadline.expires_at_s)


def test_without_any_limit_the_default_holds():
    assert arrive(0) == Deadline(1030.0, 30.0, Limit.DEFAULT)
    assert arrive(0).with_timeout(0) == arrive(0)
    assert not arrive(0).had_passed_at_arrival


def test_a_caller_s_deadline_outranks_the_default_both_ways():
    assert arrive(int(WALL_MS) + 500) == Deadline(1000.5, 0.5, Limit.CALLER)
    assert arrive(int(WALL_MS) + 90_000) == Deadline(1090.0, 90.0, Limit.CALLER)


def test_so_does_the_operation_s_own_timeout():
    assert arrive(0).with_timeout(500) == Deadline(1000.5, 0.5, Limit.TIMEOUT)
    assert arrive(0).with_timeout(90_000) == Deadline(1090.0, 90.0, Limit.TIMEOUT)


def test_of_both_the_earlier_binds_and_the_deadline_where_they_agree():
    both = arrive(int(WALL_MS) + 500)
    assert both.with_timeout(499).limit is Limit.TIMEOUT
    assert both.with_timeout(500) is both
    assert both.with_timeout(501) is both


@pytest.mark.parametrize("ahead_ms", [0, -1, -(10**12)])
def test_what_is_not_ahead_has_passed(ahead_ms):
    late = arrive(int(WALL_MS) + ahead_ms)
    assert late.had_passed_at_arrival
    assert late.expires_at_s <= NOW_S
    assert late.with_timeout(10_000) is late


def test_a_fraction_of_the_wall_clock_s_millisecond_counts():
    assert Deadline.arrive(0.0, 999.75, 1000, 30.0).budget_s == pytest.approx(0.00025)
    assert Deadline.arrive(0.0, 1000.25, 1000, 30.0).had_passed_at_arrival


def test_a_far_deadline_is_cut_to_what_clocks_can_add():
    assert arrive(2**64 - 1) == Deadline(NOW_S + LONGEST_S, LONGEST_S, Limit.CALLER)
    assert arrive(0).with_timeout(2**64 - 1) == Deadline(
        NOW_S + LONGEST_S, LONGEST_S, Limit.TIMEOUT
    )


def test_the_limits_have_the_names_that_messages_use():
    assert [limit.value for limit in Limit] == ["deadline", "timeout_ms", "default timeout"]


def test_a_deadline_is_a_frozen_value():
    with pytest.raises(AttributeError):
        arrive(0).budget_s = 5.0  # type: ignore[misc]


clock = st.floats(0, 1e9)
u64 = st.integers(0, 2**64 - 1) | st.integers(1_799_999_999_000, 1_800_000_100_000)


@given(now_s=clock, wall_ms=st.floats(1e12, 4e12), at_ms=u64, timeout_ms=u64)
def test_the_earliest_limit_binds_whatever_they_are(now_s, wall_ms, at_ms, timeout_ms):
    deadline = Deadline.arrive(now_s, wall_ms, at_ms, DEFAULT_S).with_timeout(timeout_ms)
    limits = {}
    if at_ms:
        limits[Limit.CALLER] = (at_ms - wall_ms) / 1000
    if timeout_ms:
        limits[Limit.TIMEOUT] = timeout_ms / 1000
    if not limits:
        limits[Limit.DEFAULT] = DEFAULT_S
    earliest_s = min(LONGEST_S, *limits.values(), math.inf)
    assert deadline.budget_s == earliest_s
    assert min(limits[deadline.limit], LONGEST_S) == earliest_s
    assert deadline.expires_at_s == pytest.approx(now_s + earliest_s, abs=1e-3)
    assert math.isfinite(deadline.expires_at_s)
    assert deadline.had_passed_at_arrival is (earliest_s <= 0)


@given(at_ms=u64, first=u64, second=u64)
def test_a_further_timeout_never_makes_a_caller_s_limit_later(at_ms, first, second):
    once = arrive(at_ms).with_timeout(first)
    twice = once.with_timeout(second)
    if once.limit is not Limit.DEFAULT:
        assert twice.expires_at_s <= once.expires_at_s
