"""When a second attempt beside the first one is sent."""

import math

import attrs
import pytest

from vastar_runtime.policy.hedging import HedgeSettings, Hedging
from vastar_runtime.policy.modes import Mode

ON = HedgeSettings(mode=Mode.ENFORCE, after_s=2.0, budget_ratio=0.25, budget_max=2.0)


def test_off_by_default():
    assert HedgeSettings().mode is Mode.OFF


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_safe_calls_are_hedged_after_a_while(method: str):
    assert Hedging(ON).plan(method, 10.0, 40.0) == 12.0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get", ""])
def test_others_never_and_they_fill_no_budget(method: str):
    hedging = Hedging(ON)
    assert hedging.plan(method, 10.0, 40.0) is None
    assert hedging.budget == 0


def test_one_that_would_come_after_the_deadline_is_not_planned():
    assert Hedging(ON).plan("GET", 10.0, 12.0) is None


def test_the_budget_bounds_hedges_to_a_share_of_the_calls():
    hedging = Hedging(ON)
    sent = 0
    for _ in range(100):
        hedging.plan("GET", 0.0, 30.0)
        sent += hedging.take(has_answer_begun=False)
    assert sent == 25


def test_savings_have_a_maximum():
    hedging = Hedging(ON)
    for _ in range(100):
        hedging.plan("GET", 0.0, 30.0)
    assert [hedging.take(has_answer_begun=False) for _ in range(3)] == [True, True, False]


def test_a_call_whose_answer_has_begun_is_not_hedged_and_costs_nothing():
    hedging = Hedging(ON)
    for _ in range(8):
        hedging.plan("GET", 0.0, 30.0)
    assert not hedging.take(has_answer_begun=True)
    assert hedging.budget == 2.0


def test_what_was_not_sent_is_given_back_but_never_over_the_maximum():
    hedging = Hedging(ON)
    for _ in range(8):
        hedging.plan("GET", 0.0, 30.0)
    hedging.take(has_answer_begun=False)
    hedging.give_back()
    assert hedging.budget == 2.0
    hedging.give_back()
    assert hedging.budget == 2.0


def test_other_settings_cut_the_savings_and_forgetting_never_gives_any():
    hedging = Hedging(ON)
    for _ in range(8):
        hedging.plan("GET", 0.0, 30.0)
    hedging.configure(attrs.evolve(ON, budget_max=0.5))
    assert hedging.budget == 0.5
    assert hedging.is_droppable(0.0)
    assert Hedging(ON).budget == 0


@pytest.mark.parametrize(
    ("name", "bad"), [("after_s", 0.0), ("budget_ratio", 1.1), ("budget_max", math.nan)]
)
def test_settings_that_make_no_sense_are_refused_by_name(name: str, bad: float):
    with pytest.raises(ValueError, match=name):
        HedgeSettings(**{name: bad})
