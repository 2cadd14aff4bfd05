"""GCRA: what goes at once, what waits, what is given back, and what a refusal says."""

import itertools
import math

import attrs
import pytest

from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Waiting
from vastar_runtime.policy.verdicts import Refused, Scope

TEN = RateLimitSettings(limit=10, period_s=1.0)


def allowed(verdict) -> Allowed:
    assert isinstance(verdict, Allowed)
    return verdict


def waiting(verdict) -> Waiting:
    assert isinstance(verdict, Waiting)
    return verdict


def test_what_is_given_back_behind_a_late_settling_has_run_over_all_the_same():
    """One a second, three let through, and the one in the middle was none.

    Its share would have run over before the last one, so nothing of it can come back; that the
    first settled in between must not hide that (found by the simulation).
    """
    limiter = RateLimiter(RateLimitSettings(limit=1, burst=1))
    kept, given_back = allowed(limiter.decide(10.0)), allowed(limiter.decide(11.0))
    limiter.settle(11.6, kept)
    limiter.settle(12.0, allowed(limiter.decide(12.0)))
    limiter.refund(12.2, given_back)
    assert isinstance(limiter.decide(12.95), Waiting)
    assert limiter.next_at_s(12.95) == pytest.approx(13.0)


@pytest.mark.parametrize("start_s", [0.0, 12345.678, 1e6])
@pytest.mark.parametrize("limit", [1, 3, 10, 1000])
def test_the_burst_is_the_limit_and_then_one_goes_each_interval(start_s, limit):
    limiter = RateLimiter(RateLimitSettings(limit=limit, period_s=1.0, max_waiting=0))
    for _ in range(limit):
        limiter.settle(start_s, allowed(limiter.decide(start_s)))
    refused = limiter.decide(start_s)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == pytest.approx(1 / limit, abs=1e-6)
    limiter.settle(start_s, allowed(limiter.decide(start_s + 1 / limit + 1e-6)))
    assert isinstance(limiter.decide(start_s + 1 / limit + 1e-6), Refused)


def test_a_burst_of_its_own_bounds_what_goes_at_once():
    limiter = RateLimiter(attrs.evolve(TEN, burst=2))
    assert [type(limiter.decide(0.0)) for _ in range(3)] == [Allowed, Allowed, Waiting]


def test_there_is_no_seam_between_windows():
    """A fixed window would let 20 go within 0.2 s."""
    limiter = RateLimiter(attrs.evolve(TEN, max_waiting=0))
    times_s = [at / 100 for at in range(300)]
    went = [at for at in times_s if at >= 0.9 and isinstance(limiter.decide(at), Allowed)]
    for begin, end in itertools.combinations(went, 2):
        inside = sum(begin <= at <= end for at in went)
        assert inside <= 10 + (end - begin) * 10 + 1e-6


def test_a_cost_takes_as_many_and_zero_takes_none():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(0.0, 7))
    assert limiter.available(0.0) == pytest.approx(3)
    assert waiting(limiter.decide(0.0, 4)).at_s == pytest.approx(0.1)
    assert allowed(limiter.decide(0.0, 0)).cost == 0  # past the line: it takes from nobody


def test_what_costs_more_than_ever_is_there_is_refused_for_good():
    refused = RateLimiter(TEN).decide(0.0, 11)
    assert refused == Refused(
        "rate_limit", Scope.ORIGIN, None, "11 at once is more than the 10 ever (10 per 1 s)"
    )


def test_a_negative_cost_is_our_own_mistake():
    with pytest.raises(AssertionError, match="less than nothing"):
        RateLimiter(TEN).decide(0.0, -1)


def test_waiters_go_in_order_each_at_the_time_it_was_told():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(5.0, 10))
    line = [waiting(limiter.decide(5.0, cost)) for cost in (1, 3, 2)]
    assert [place.at_s for place in line] == pytest.approx([5.1, 5.4, 5.6])
    for place in line:
        assert limiter.next_at_s(place.at_s - 0.01) == pytest.approx(place.at_s)
        assert limiter.first_in_line is place
        assert limiter.grant_due(place.at_s - 0.01) == []
        assert limiter.grant_due(place.at_s) == [place]
        assert allowed(place.permit).cost == place.cost
    assert limiter.next_at_s(6.0) is None


def test_nobody_overtakes_the_line():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(0.0, 10))
    large = waiting(limiter.decide(0.0, 5))
    small = waiting(limiter.decide(0.2, 1))
    assert small.at_s == pytest.approx(0.6)
    assert limiter.grant_due(0.49) == []
    assert limiter.grant_due(0.6) == [large, small]


def test_a_late_look_lets_all_go_whose_turn_has_come():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(0.0, 10))
    line = [waiting(limiter.decide(0.0)) for _ in range(3)]
    assert limiter.grant_due(0.2) == line[:2]
    assert [place.permit is None for place in line] == [False, False, True]
    assert limiter.next_at_s(0.2) == pytest.approx(0.3)


def test_a_wait_that_does_not_fit_the_deadline_is_refused_at_once_and_costs_nothing():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(0.0, 10))
    refused = limiter.decide(0.0, 5, give_up_at_s=0.4)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == pytest.approx(0.5)
    assert "deadline" in refused.reason
    waiting(limiter.decide(0.0, 5, give_up_at_s=0.51))


def test_a_full_line_refuses_and_says_when_it_would_have_gone():
    limiter = RateLimiter(attrs.evolve(TEN, max_waiting=2, scope=Scope.TENANT))
    allowed(limiter.decide(0.0, 10))
    waiting(limiter.decide(0.0))
    waiting(limiter.decide(0.0))
    refused = limiter.decide(0.0)
    assert isinstance(refused, Refused)
    assert refused.scope is Scope.TENANT
    assert refused.retry_after_s == pytest.approx(0.3)
    assert "2 waiting" in refused.reason


def test_one_that_withdraws_lets_those_behind_it_move_up():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(0.0, 10))
    first, second = (waiting(limiter.decide(0.0, 4)) for _ in range(2))
    limiter.withdraw(0.0, first)
    limiter.withdraw(0.0, first)
    assert limiter.waiting_count == 1
    assert limiter.next_at_s(0.0) == pytest.approx(0.4)
    assert first.has_left
    assert limiter.grant_due(0.4) == [second]


def test_withdrawing_what_was_let_through_meanwhile_refunds_it():
    limiter = RateLimiter(TEN)
    allowed(limiter.decide(0.0, 10))
    place = waiting(limiter.decide(0.0, 5))
    assert limiter.grant_due(0.5) == [place]
    limiter.withdraw(0.5, place)
    assert limiter.held == 10
    assert limiter.available(0.5) == pytest.approx(5)


def test_five_concurrent_calls_never_spend_more_than_the_limit():
    """Rule 6: all five check before any of them settles."""
    limiter = RateLimiter(RateLimitSettings(limit=100, period_s=60.0, max_waiting=0))
    verdicts = [limiter.decide(0.0, 40) for _ in range(5)]
    assert sum(verdict.cost for verdict in verdicts if isinstance(verdict, Allowed)) == 80
    for verdict in verdicts:
        if isinstance(verdict, Allowed):
            limiter.settle(0.0, verdict)
    assert isinstance(limiter.decide(0.0, 40), Refused)


def test_a_call_refused_for_another_reason_costs_nothing():
    """Rule 6: whatever was charged comes back whole, in any order."""
    for order in itertools.permutations(range(4)):
        limiter = RateLimiter(TEN)
        permits = [allowed(limiter.decide(1.0, 2)) for _ in range(4)]
        for index in order:
            limiter.refund(1.0, permits[index])
        assert limiter.available(1.0) == pytest.approx(10)
        assert limiter.is_droppable(1.0)


def test_settling_twice_changes_nothing():
    limiter = RateLimiter(TEN)
    permit = allowed(limiter.decide(0.0, 5))
    limiter.settle(0.0, permit, 2)
    limiter.refund(0.0, permit)
    limiter.settle(0.0, permit, 50)
    assert limiter.available(0.0) == pytest.approx(8)
    assert limiter.held == 0


def test_what_a_full_bucket_would_have_spilled_does_not_come_back():
    """Burst 2, one a second: what A held for 0.9 s would have been lost without A."""
    limiter = RateLimiter(RateLimitSettings(limit=1, period_s=1.0, burst=2))
    a = allowed(limiter.decide(0.0))
    allowed(limiter.decide(0.9))
    limiter.refund(0.9, a)
    assert limiter.available(0.9) == pytest.approx(1.0)


def test_what_was_spilled_is_taken_off_once_and_not_from_each_that_was_under_way():
    """One was spilled in the second that both were under way: without them it would be full."""
    limiter = RateLimiter(RateLimitSettings(limit=1, period_s=1.0, burst=2))
    one, other = allowed(limiter.decide(0.0)), allowed(limiter.decide(0.0))
    limiter.refund(1.0, one)
    assert limiter.available(1.0) == pytest.approx(1)
    limiter.refund(1.0, other)
    assert limiter.available(1.0) == pytest.approx(2)


def test_a_call_that_settles_late_hides_no_spilling_from_later_ones():
    """The bucket is full at 2 s although a call settles then: it was charged long ago."""
    limiter = RateLimiter(RateLimitSettings(limit=1, period_s=1.0, burst=2))
    slow = allowed(limiter.decide(0.0, 2))
    limiter.settle(2.0, slow)
    later = allowed(limiter.decide(2.0))
    allowed(limiter.decide(3.0, 2))
    limiter.refund(3.0, later)
    assert limiter.available(3.0) == pytest.approx(0)


def test_what_a_busy_bucket_lent_comes_back_whole_even_after_a_long_time():
    limiter = RateLimiter(TEN)
    limiter.settle(0.0, allowed(limiter.decide(0.0, 5)))
    slow = allowed(limiter.decide(0.0, 5))
    for tenth in range(1, 40):
        limiter.settle(tenth / 10, allowed(limiter.decide(tenth / 10)))
    assert limiter.available(3.9) == pytest.approx(0, abs=1e-6)
    limiter.refund(3.9, slow)
    assert limiter.available(3.9) == pytest.approx(5)


def test_more_than_was_reserved_is_a_debt_of_at_most_one_more_burst():
    limiter = RateLimiter(TEN)
    limiter.settle(0.0, allowed(limiter.decide(0.0, 4)), 14)
    assert limiter.available(0.0) == pytest.approx(-4)
    assert waiting(limiter.decide(0.0)).at_s == pytest.approx(0.5)
    limiter = RateLimiter(TEN)
    limiter.settle(0.0, allowed(limiter.decide(0.0, 4)), 10**9)
    assert limiter.available(0.0) == pytest.approx(-10)


def test_a_debt_may_be_allowed_to_last_longer():
    limiter = RateLimiter(attrs.evolve(TEN, max_debt_s=60.0))
    limiter.settle(0.0, allowed(limiter.decide(0.0, 4)), 104)
    assert limiter.available(0.0) == pytest.approx(-94)
    limiter.settle(10.0, allowed(limiter.decide(10.0, 6)), 10**9)
    assert limiter.available(10.0) == pytest.approx(-600)


def test_a_call_under_way_can_be_charged_more_and_its_end_gives_back_what_it_did_not_use():
    limiter = RateLimiter(TEN)
    permit = allowed(limiter.decide(0.0, 4))
    limiter.charge_more(0.0, permit, 3)
    assert (permit.cost, limiter.held, limiter.available(0.0)) == (7, 7, pytest.approx(3))
    limiter.charge_more(0.0, permit, 10**9)
    assert limiter.available(0.0) == pytest.approx(-10)
    limiter.settle(0.0, permit)
    assert (limiter.held, limiter.available(0.0)) == (0, pytest.approx(-10))
    limiter.charge_more(0.0, permit, 5)
    assert (limiter.held, limiter.available(0.0)) == (0, pytest.approx(-10))
    one = RateLimiter(TEN)
    permit = allowed(one.decide(0.0, 4))
    one.charge_more(0.0, permit, 3)
    one.settle(0.0, permit, 2)
    assert one.available(0.0) == pytest.approx(8)


def test_less_than_nothing_was_not_used():
    limiter = RateLimiter(TEN)
    limiter.settle(0.0, allowed(limiter.decide(0.0, 4)), -100)
    assert limiter.available(0.0) == pytest.approx(10)


def test_state_in_debt_under_way_or_in_line_is_never_dropped():
    limiter = RateLimiter(TEN)
    assert limiter.is_droppable(0.0)
    permit = allowed(limiter.decide(0.0, 10))
    assert not limiter.is_droppable(100.0)  # under way
    place = waiting(limiter.decide(0.0, 1))
    limiter.settle(0.0, permit)
    assert not limiter.is_droppable(100.0)  # in line
    limiter.withdraw(0.0, place)
    assert not limiter.is_droppable(0.5)  # in debt
    assert limiter.is_droppable(1.0)


def test_new_settings_keep_what_was_spent_and_who_waits():
    limiter = RateLimiter(TEN)
    limiter.settle(0.0, allowed(limiter.decide(0.0, 10)))
    place = waiting(limiter.decide(0.0, 5))
    slower = RateLimitSettings(limit=2, period_s=1.0)
    limiter.change(0.0, slower)
    assert limiter.settings is slower
    # 10 are owed to the new bucket of 2; the large one goes once all of that is there.
    assert limiter.available(0.0) == pytest.approx(-8)
    assert limiter.next_at_s(0.0) == pytest.approx(5.0)
    assert limiter.grant_due(5.0) == [place]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", 0),
        ("limit", -1),
        ("limit", 10**13),
        ("period_s", 0.0),
        ("period_s", math.nan),
        ("period_s", math.inf),
        ("burst", 0),
        ("max_waiting", -1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        RateLimitSettings(**{"limit": 1, field: value})
