"""Additive increase, multiplicative decrease."""

import math

import pytest

from vastar_runtime.policy.aimd import Aimd, AimdSettings

HALF = AimdSettings(least_ratio=0.2, decrease_ratio=0.5, increase_ratio=0.1, hold_s=1.0)


def test_one_event_that_many_calls_hear_of_decreases_once():
    aimd = Aimd(HALF)
    assert aimd.overloaded(5.0)
    assert not any(aimd.overloaded(5.0 + tenth / 10) for tenth in range(10))
    assert aimd.ratio == 0.5
    assert aimd.overloaded(6.0)
    assert aimd.ratio == 0.25


def test_it_never_goes_below_the_least_nor_above_all():
    aimd = Aimd(HALF)
    for second in range(10):
        aimd.overloaded(float(second))
    assert aimd.ratio == 0.2
    for _ in range(20):
        aimd.succeeded()
    assert aimd.ratio == 1.0
    assert aimd.is_full


def test_two_that_share_end_with_equal_shares():
    """Both hear of each overload of a capacity that they share."""
    one, two = Aimd(HALF), Aimd(HALF)
    two.overloaded(0.0)
    for second in range(1, 200):
        one.succeeded()
        two.succeeded()
        if one.ratio + two.ratio > 1.2:
            one.overloaded(second * 2.0)
            two.overloaded(second * 2.0)
    assert one.ratio == pytest.approx(two.ratio, abs=0.02)


def test_what_is_long_ago_may_be_forgotten():
    aimd = Aimd(HALF)
    assert aimd.is_droppable(0.0)
    aimd.overloaded(0.0)
    assert not aimd.is_droppable(599.0)
    assert aimd.is_droppable(600.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("least_ratio", 0.0),
        ("decrease_ratio", 1.0),
        ("increase_ratio", math.nan),
        ("hold_s", -1.0),
        ("forget_s", math.inf),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        AimdSettings(**{field: value})


def test_one_that_is_resumed_goes_on():
    aimd = Aimd(AimdSettings(forget_s=10.0))
    assert aimd.worth_until_s < 0
    aimd.overloaded(5.0)
    again = Aimd.resumed(AimdSettings(forget_s=10.0), aimd.ratio, aimd.decreased_at_s)
    assert again.worth_until_s == 15.0
    assert not again.overloaded(5.5), "it is the same event"
    assert again.overloaded(6.0)
    assert not again.is_droppable(15.9)
    assert again.is_droppable(16.0)
