"""Keeping to what an upstream tells."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.header_learning import Go, HeaderLearning, HeaderSettings, WaitUntil
from vastar_runtime.policy.rate_headers import Hint, Unit
from vastar_runtime.policy.verdicts import Refused, Scope

FOREVER_S = math.inf


def learning(**more) -> HeaderLearning:
    return HeaderLearning(HeaderSettings(**more))


def go(machine, now_s, tokens=0) -> Go:
    verdict = machine.decide(now_s, tokens, FOREVER_S)
    assert isinstance(verdict, Go)
    return verdict


def told(machine, now_s, *hints, throttled=False, call=None):
    call = go(machine, now_s) if call is None else call
    machine.answered(now_s, call, hints, was_throttled=throttled)


def window(remaining, reset_after_s, limit=None):
    return Hint(Unit.REQUESTS, remaining, reset_after_s, limit, refills_evenly=False)


def test_what_was_never_told_holds_nobody_back():
    machine = learning()
    for _ in range(1000):
        go(machine, 0.0, 10**6)
    assert machine.remaining(0.0) == {}
    assert machine.is_droppable(0.0)


def test_as_many_go_as_are_left_and_the_rest_waits_for_the_reset():
    machine = learning()
    told(machine, 0.0, window(3, 10.0))
    assert machine.remaining(0.0) == {"requests": 3}
    for _ in range(3):
        go(machine, 1.0)
    assert machine.decide(1.0, 0, FOREVER_S) == WaitUntil(10.0)
    assert not machine.is_droppable(9.9)
    assert machine.is_droppable(10.0)
    assert machine.remaining(10.0) == {}


def test_after_the_reset_a_round_of_the_told_limit_begins():
    """Not all who waited go at once."""
    machine = learning()
    told(machine, 0.0, window(0, 10.0, limit=5))
    for _ in range(5):
        go(machine, 10.0)
    assert machine.decide(10.0, 0, FOREVER_S) == WaitUntil(20.0)
    go(machine, 20.0)


def test_without_a_told_limit_the_reset_ends_it():
    machine = learning()
    told(machine, 0.0, window(0, 10.0))
    for _ in range(100):
        go(machine, 10.0)


def test_an_even_refill_is_waited_for_bit_by_bit():
    """60 a minute, none left, whole in 60 s: one comes back each second."""
    machine = learning()
    told(machine, 0.0, Hint(Unit.REQUESTS, 0, 60.0, 60))
    assert machine.decide(0.0, 0, FOREVER_S) == WaitUntil(pytest.approx(1.0))
    go(machine, 1.0)
    assert machine.decide(1.0, 0, FOREVER_S) == WaitUntil(pytest.approx(2.0))
    assert machine.remaining(31.0) == {"requests": pytest.approx(30.0)}


def test_what_is_whole_does_not_grow_further():
    machine = learning()
    told(machine, 0.0, Hint(Unit.REQUESTS, 9, 30.0, 10))
    assert machine.remaining(29.0)["requests"] < 10
    told(machine, 0.0, Hint(Unit.REQUESTS, 10, 30.0, 10))
    assert machine.remaining(29.0) == {"requests": 10}


def test_tokens_count_by_what_the_call_may_cost():
    machine = learning()
    told(machine, 0.0, Hint(Unit.TOKENS, 500, 60.0, 1000))
    assert machine.decide(0.0, 600, FOREVER_S) == WaitUntil(pytest.approx(12.0))
    go(machine, 0.0, 400)
    assert machine.remaining(0.0) == {"tokens": 100}
    go(machine, 0.0, 0)  # a call without tokens is not held up by them


def test_what_is_more_than_ever_there_goes_once_all_is_there():
    machine = learning()
    told(machine, 0.0, Hint(Unit.TOKENS, 0, 60.0, 1000))
    assert machine.decide(0.0, 5000, FOREVER_S) == WaitUntil(60.0)
    go(machine, 60.0, 5000)


def test_the_latest_of_all_units_counts():
    machine = learning()
    told(machine, 0.0, window(0, 5.0), Hint(Unit.OUTPUT_TOKENS, 0, 9.0, 100), window(0, 7.0))
    assert machine.decide(0.0, 100, FOREVER_S) == WaitUntil(9.0)
    assert machine.decide(0.0, 1, FOREVER_S) == WaitUntil(7.0)


def test_what_was_begun_after_the_answered_call_is_taken_off():
    machine = learning()
    first, second, third = (go(machine, 0.0) for _ in range(3))
    told(machine, 1.0, window(5, 10.0), call=first)
    assert machine.remaining(1.0) == {"requests": 3}
    told(machine, 1.0, window(4, 10.0), call=third)
    assert machine.remaining(1.0) == {"requests": 4}
    told(machine, 1.0, window(0, 10.0), call=second)  # late: it knows less than the third
    assert machine.remaining(1.0) == {"requests": 4}


def test_a_call_that_never_left_gives_back_what_was_taken_off():
    machine = learning()
    before = go(machine, 0.0, 7)
    told(machine, 0.0, window(5, 10.0), Hint(Unit.TOKENS, 100, 10.0))
    after = go(machine, 0.0, 30)
    assert machine.remaining(0.0) == {"requests": 4, "tokens": 70}
    machine.not_sent(after)
    assert machine.remaining(0.0) == {"requests": 5, "tokens": 100}
    machine.not_sent(before)  # the word that came since knows of it
    assert machine.remaining(0.0) == {"requests": 5, "tokens": 100}


@pytest.mark.parametrize(("give_up_at_s", "max_wait_s"), [(9.0, 120.0), (math.inf, 9.0)])
def test_a_wait_that_is_too_long_is_refused_with_when_to_come_back(give_up_at_s, max_wait_s):
    machine = learning(max_wait_s=max_wait_s)
    told(machine, 0.0, window(0, 10.0))
    assert machine.decide(0.0, 0, give_up_at_s) == Refused(
        "learned_limit", Scope.CREDENTIAL, 10.0, "the upstream has too few requests left for 10 s"
    )


def test_behind_others_one_goes_when_they_have_gone():
    """3 left, then 5 each 10 s."""
    machine = learning()
    told(machine, 0.0, window(3, 10.0, limit=5))
    for ahead, at_s in [(3, 10), (7, 10), (8, 20), (12, 20), (13, 30)]:
        assert machine.forecast(0.0, 0, ahead, FOREVER_S) == WaitUntil(at_s)
    assert machine.forecast(0.0, 0, 2, FOREVER_S) is None
    assert machine.remaining(0.0) == {"requests": 3}, "a forecast counts nothing"


def test_behind_others_of_an_even_refill_one_goes_a_step_later_each():
    machine = learning()
    told(machine, 0.0, Hint(Unit.REQUESTS, 0, 60.0, 60))
    for ahead, at_s in [(0, 1), (9, 10), (59, 60), (119, 60), (120, 61), (179, 120), (239, 120)]:
        assert machine.forecast(0.0, 0, ahead, FOREVER_S) == WaitUntil(pytest.approx(at_s))
    refused = machine.forecast(0.0, 0, 240, FOREVER_S)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == pytest.approx(121)


def test_behind_others_where_nothing_or_no_limit_was_told():
    machine = learning()
    assert machine.forecast(0.0, 10**6, 10**6, FOREVER_S) is None
    told(machine, 0.0, window(0, 10.0))
    assert machine.forecast(0.0, 0, 10**6, FOREVER_S) == WaitUntil(10.0)


def test_a_forecast_asks_for_the_tokens_of_the_newcomer_too():
    machine = learning()
    told(machine, 0.0, window(5, 5.0), Hint(Unit.TOKENS, 100, 9.0, 1000))
    assert machine.forecast(0.0, 1000, 1, FOREVER_S) == WaitUntil(9.0)
    assert machine.forecast(0.0, 100, 1, FOREVER_S) is None
    assert machine.forecast(0.0, 100, 5, FOREVER_S) == WaitUntil(5.0)


@pytest.mark.parametrize(("give_up_at_s", "max_wait_s"), [(15.0, 120.0), (math.inf, 15.0)])
def test_whoever_stands_too_far_behind_is_refused_with_when_to_come_back(give_up_at_s, max_wait_s):
    machine = learning(max_wait_s=max_wait_s)
    told(machine, 0.0, window(0, 10.0, limit=5))
    assert machine.forecast(0.0, 0, 4, give_up_at_s) == WaitUntil(10.0)
    refused = machine.forecast(0.0, 0, 5, give_up_at_s)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 20.0


@given(
    st.integers(0, 7),
    st.floats(0.0, 20.0),
    st.none() | st.integers(1, 7),
    st.booleans(),
    st.integers(0, 10),
)
def test_nobody_in_line_goes_before_its_forecast(remaining, reset_s, limit, evenly, begun):
    """The first in line asks, those behind it go in order, at once when they can."""
    machine = learning(max_wait_s=86400.0)
    call = go(machine, 0.0)
    for _ in range(begun):
        go(machine, 0.0)
    told(machine, 0.0, Hint(Unit.REQUESTS, remaining, reset_s, limit, evenly), call=call)
    forecasts = [machine.forecast(0.0, 0, ahead, FOREVER_S) for ahead in range(40)]
    now_s = 0.0
    for forecast in forecasts:
        while isinstance(verdict := machine.decide(now_s, 0, FOREVER_S), WaitUntil):
            assert verdict.at_s > now_s
            now_s = verdict.at_s
        at_s = forecast.at_s if isinstance(forecast, WaitUntil) else 0.0
        assert at_s <= now_s + 1e-4
        assert evenly or at_s == pytest.approx(now_s), "where windows are counted it is exact"


def test_no_word_holds_for_longer_than_an_hour():
    """What is told for days may be wrong: after an hour one round tries anew."""
    machine = learning()
    told(machine, 0.0, window(0, 20 * 86400.0, limit=2))
    refused = machine.decide(0.0, 0, FOREVER_S)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 3600.0
    go(machine, 3600.0)
    go(machine, 3600.0)
    assert isinstance(machine.decide(3600.0, 0, FOREVER_S), Refused)


def test_a_word_that_nobody_waits_for_keeps_no_memory():
    """Callers choose origins, and an origin what it tells: neither may choose for how long."""
    machine = learning(max_wait_s=100.0)
    told(machine, 0.0, window(0, 20 * 86400.0))
    assert not machine.is_droppable(99.9)
    assert machine.is_droppable(100.0)
    machine = learning(max_wait_s=100.0)
    told(machine, 0.0, window(0, 50.0))
    assert not machine.is_droppable(49.9)
    assert machine.is_droppable(50.0)


def test_new_settings_keep_what_was_learned():
    machine = learning()
    told(machine, 0.0, window(0, 10.0))
    machine.configure(HeaderSettings(max_wait_s=9.0))
    assert isinstance(machine.decide(0.0, 0, FOREVER_S), Refused)
    assert isinstance(machine.decide(1.0, 0, FOREVER_S), WaitUntil)


def test_a_429_lowers_the_rate_and_successes_raise_it_again():
    machine = learning(aimd=AimdSettings(decrease_ratio=0.5, increase_ratio=0.25, forget_s=60.0))
    assert machine.rate_ratio == 1.0
    told(machine, 0.0, throttled=True)
    told(machine, 0.5, throttled=True)  # the same event
    assert machine.rate_ratio == 0.5
    assert not machine.is_droppable(1.0)
    assert machine.is_droppable(60.0)
    told(machine, 2.0)
    assert machine.rate_ratio == 0.75
    told(machine, 2.0)
    assert machine.rate_ratio == 1.0
    assert machine.is_droppable(2.0)


def test_two_machines_share_nothing():
    one, other = learning(), learning()
    told(one, 0.0, window(0, 10.0))
    go(other, 0.0)
    assert other.remaining(0.0) == {}


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_settings_out_of_range_are_refused_by_name(value):
    with pytest.raises(ValueError, match="max_wait_s"):
        HeaderSettings(max_wait_s=value)


def test_what_was_learned_is_worth_keeping_until_it_is_out_of_date_or_nobody_waits():
    learning = HeaderLearning(HeaderSettings(max_wait_s=120.0))
    assert learning.worth_until_s() == 0.0
    go = learning.decide(10.0, 0, 1e9)
    assert isinstance(go, Go)
    learning.answered(10.0, go, [Hint(Unit.REQUESTS, 5, 60.0)], was_throttled=False)
    assert learning.worth_until_s() == 70.0
    learning.answered(10.0, go, [Hint(Unit.TOKENS, 5, 600.0)], was_throttled=True)
    assert learning.worth_until_s() == 610.0, "the rate is lowered for longer"
    assert not learning.is_droppable(609.0)
    assert learning.is_droppable(610.0)
