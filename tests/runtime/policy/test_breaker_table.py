"""The circuit breaker's every situation with every input."""

from collections.abc import Callable
from itertools import product

import attrs
import pytest

from tests.support.circuits import (
    NO_JITTER,
    SITUATIONS,
    Situation,
    at_the_brink,
    closed,
    closed_again,
    open_time_over,
    opened,
    probe_expired,
    probe_given_back,
    probing,
)
from vastar_runtime.policy.breaker import (
    TRANSITIONS,
    Breaker,
    Change,
    Evidence,
    Permit,
    State,
    Transition,
)

ADMITS: dict[Callable[[], Situation], tuple[bool, State]] = {
    closed: (True, State.CLOSED),
    at_the_brink: (True, State.CLOSED),
    opened: (False, State.OPEN),
    open_time_over: (True, State.HALF_OPEN),
    probing: (False, State.HALF_OPEN),
    probe_expired: (True, State.HALF_OPEN),
    probe_given_back: (True, State.HALF_OPEN),
    closed_again: (True, State.CLOSED),
}

CHANGES = {
    **{(at_the_brink, evidence): Change.TRIPPED for evidence in Evidence},
    (at_the_brink, Evidence.ANSWERED): None,
    (at_the_brink, Evidence.THROTTLED): None,
    (at_the_brink, Evidence.NONE): None,
    **{
        (situation, evidence): change
        for situation in (probing, probe_expired)
        for evidence, change in {
            Evidence.SUCCESS: Change.PROBE_SUCCEEDED,
            Evidence.ANSWERED: Change.PROBE_SUCCEEDED,
            Evidence.FAILURE: Change.PROBE_FAILED,
            Evidence.NO_ANSWER: Change.PROBE_FAILED,
            Evidence.THROTTLED: Change.PROBE_FAILED,
            Evidence.NONE: None,
        }.items()
    },
}
"""What a report of the state's own generation changes; nothing where it is not listed."""


@pytest.mark.parametrize("situation", SITUATIONS)
def test_admit_in_every_situation(situation):
    breaker, _, _, now_s = situation()
    before, generation, in_flight = breaker.state, breaker.generation, breaker.in_flight
    passes, after = ADMITS[situation]
    admission = breaker.admit(now_s)
    assert isinstance(admission, Permit) is passes
    assert breaker.state is after
    assert breaker.in_flight == in_flight + passes
    assert breaker.generation == generation + (before is not after)
    if isinstance(admission, Permit):
        assert admission.is_probe is (after is State.HALF_OPEN)
        expected = Transition(before, Change.OPEN_TIME_OVER, after) if before is not after else None
        assert admission.transition == expected
    else:
        assert admission.retry_after_s == pytest.approx(0.1)


@pytest.mark.parametrize(("situation", "evidence"), list(product(SITUATIONS, Evidence)))
def test_report_of_the_own_generation_in_every_situation(situation, evidence):
    breaker, permit, _, now_s = situation()
    if permit is None:
        assert breaker.state is not State.CLOSED, "only here no permit can be out"
        return
    before, generation, in_flight = breaker.state, breaker.generation, breaker.in_flight
    change = CHANGES.get((situation, evidence))
    transition = breaker.report(permit, evidence, now_s, NO_JITTER)
    assert breaker.in_flight == in_flight - 1
    if change is None:
        assert transition is None
        assert (breaker.state, breaker.generation) == (before, generation)
    else:
        assert transition is not None
        assert (transition.before, transition.change) == (before, change)
        assert transition.after is breaker.state is TRANSITIONS[before][change]
        assert breaker.generation == generation + 1


@pytest.mark.parametrize(("situation", "evidence"), list(product(SITUATIONS, Evidence)))
def test_report_of_an_older_generation_in_every_situation(situation, evidence):
    breaker, _, stale, now_s = situation()
    if stale is None:
        assert breaker.generation == 0, "only here there is no older generation"
        return

    def everything() -> dict[str, object]:
        seen = {name.name: getattr(breaker, name.name) for name in attrs.fields(Breaker)}
        seen["_lease_ends_s"] = dict(breaker._lease_ends_s)
        seen["_window"] = attrs.astuple(breaker._window)
        return seen

    before = everything()
    assert breaker.report(stale, evidence, now_s, NO_JITTER) is None
    assert everything() == {**before, "in_flight": breaker.in_flight}
    assert breaker.in_flight == before["in_flight"] - 1


def test_the_table_is_the_one_that_everybody_draws():
    drawn = {(a, b) for a, changes in TRANSITIONS.items() for b in changes.values()}
    assert drawn == {
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
        (State.HALF_OPEN, State.OPEN),
    }
