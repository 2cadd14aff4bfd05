"""The circuit breaker, state by state; against a model it stands in `test_breaker_model`."""

import math
from collections.abc import Callable
from itertools import product

import attrs
import pytest

from vastar_runtime.policy.breaker import (
    TRANSITIONS,
    Breaker,
    BreakerSettings,
    Change,
    Evidence,
    Permit,
    State,
    Transition,
)
from vastar_runtime.policy.verdicts import Refused, Scope

SETTINGS = BreakerSettings()
NO_JITTER = 1.0
"""The random number that leaves the whole time open."""

Situation = tuple[Breaker, Permit | None, Permit | None, float]
"""A breaker, a permit of its generation, one of an older generation, and the time."""


def make(**changes: object) -> Breaker:
    return Breaker(attrs.evolve(SETTINGS, **changes))


def let(breaker: Breaker, now_s: float) -> Permit:
    permit = breaker.admit(now_s)
    assert isinstance(permit, Permit)
    return permit


def call(breaker: Breaker, evidence: Evidence, now_s: float = 0.0) -> Transition | None:
    return breaker.report(let(breaker, now_s), evidence, now_s, NO_JITTER)


def trip(breaker: Breaker, now_s: float = 0.0) -> Transition:
    for _ in range(breaker._settings.no_answer_run - 1):
        assert call(breaker, Evidence.NO_ANSWER, now_s) is None
    opened = call(breaker, Evidence.NO_ANSWER, now_s)
    assert opened is not None
    return opened


# Every situation with every input.


def closed() -> Situation:
    breaker = make()
    return breaker, let(breaker, 0.0), None, 0.0


def at_the_brink() -> Situation:
    """One more counted call trips it, whatever it was: 19 of 19 failed."""
    breaker = make()
    for _ in range(19):
        call(breaker, Evidence.FAILURE)
    return breaker, let(breaker, 0.0), None, 0.0


def opened() -> Situation:
    breaker = make()
    stale = let(breaker, 0.0)
    trip(breaker)
    return breaker, None, stale, 4.9


def open_time_over() -> Situation:
    breaker, _, stale, _ = opened()
    return breaker, None, stale, 5.0


def probing() -> Situation:
    breaker, _, stale, now_s = open_time_over()
    return breaker, let(breaker, now_s), stale, now_s + 29.9


def probe_expired() -> Situation:
    breaker, probe, stale, now_s = probing()
    return breaker, probe, stale, now_s + 0.1


def probe_given_back() -> Situation:
    breaker, probe, stale, now_s = probing()
    assert probe is not None
    breaker.report(probe, Evidence.NONE, now_s, NO_JITTER)
    return breaker, None, stale, now_s


def closed_again() -> Situation:
    breaker, probe, stale, now_s = probing()
    assert probe is not None
    breaker.report(probe, Evidence.SUCCESS, now_s, NO_JITTER)
    return breaker, let(breaker, now_s), stale, now_s


SITUATIONS: list[Callable[[], Situation]] = [
    closed,
    at_the_brink,
    opened,
    open_time_over,
    probing,
    probe_expired,
    probe_given_back,
    closed_again,
]

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


# Tripping.


def test_half_of_twenty_calls_trips_and_less_does_not():
    breaker = make()
    for _ in range(10):
        call(breaker, Evidence.SUCCESS)
    for _ in range(9):
        assert call(breaker, Evidence.FAILURE) is None
    assert breaker.totals(0.0) == (19, 9)
    opened_by = call(breaker, Evidence.FAILURE)
    assert opened_by == Transition(State.CLOSED, Change.TRIPPED, State.OPEN, open_s=5.0)


def test_less_than_half_never_trips():
    breaker = make()
    for _ in range(100):
        call(breaker, Evidence.SUCCESS)
        call(breaker, Evidence.SUCCESS)
        call(breaker, Evidence.FAILURE)
    assert breaker.state is State.CLOSED


def test_a_ratio_that_floats_cannot_hold_trips_when_it_is_reached():
    breaker = make(failure_ratio=0.1, min_calls=30)
    for nth in range(30):
        call(breaker, Evidence.FAILURE if nth < 3 else Evidence.SUCCESS)
    assert breaker.state is State.OPEN


def test_five_calls_in_a_row_without_an_answer_trip():
    assert trip(make()).change is Change.TRIPPED


@pytest.mark.parametrize(
    "between", [Evidence.SUCCESS, Evidence.FAILURE, Evidence.ANSWERED, Evidence.THROTTLED]
)
def test_any_answer_ends_the_run(between):
    breaker = make()
    for _ in range(2):
        for _ in range(4):
            call(breaker, Evidence.NO_ANSWER)
        call(breaker, between)
    assert breaker.state is State.CLOSED


def test_what_is_not_evidence_neither_ends_the_run_nor_counts():
    breaker = make()
    for _ in range(4):
        call(breaker, Evidence.NO_ANSWER)
        call(breaker, Evidence.NONE)
    assert breaker.totals(0.0) == (4, 4)
    assert call(breaker, Evidence.NO_ANSWER) is not None


@pytest.mark.parametrize("uncounted", [Evidence.ANSWERED, Evidence.THROTTLED, Evidence.NONE])
def test_uncounted_results_are_in_no_ratio(uncounted):
    breaker = make()
    for _ in range(100):
        call(breaker, uncounted)
    assert breaker.totals(0.0) == (0, 0)


def test_failures_of_an_earlier_window_do_not_trip():
    breaker = make()
    for nth in range(60):
        assert call(breaker, Evidence.FAILURE, now_s=nth * 3.0) is None


def test_slow_calls_count_as_failures_only_when_that_is_on():
    for slow_call_s, failures in ((None, 0), (60.0, 1)):
        breaker = make(slow_call_s=slow_call_s)
        for took_s in (59.9, 60.0):
            breaker.report(let(breaker, 0.0), Evidence.SUCCESS, 0.0, NO_JITTER, took_s)
        assert breaker.totals(0.0) == (2, failures)


def test_a_slow_call_that_was_cancelled_is_still_no_evidence():
    breaker = make(slow_call_s=60.0)
    breaker.report(let(breaker, 0.0), Evidence.NONE, 0.0, NO_JITTER, 100.0)
    assert breaker.totals(0.0) == (0, 0)


# Open, half-open, closed again.


def test_open_time_doubles_to_its_maximum_and_is_reset_by_recovery():
    breaker = make()
    now_s, times = 0.0, [trip(breaker).open_s]
    for _ in range(70):
        now_s += times[-1]
        failed = call(breaker, Evidence.FAILURE, now_s)
        assert failed is not None
        times.append(failed.open_s)
    assert times[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert set(times[8:]) == {300.0}
    now_s += 300
    assert call(breaker, Evidence.SUCCESS, now_s).after is State.CLOSED
    assert trip(breaker, now_s).open_s == 5.0


@pytest.mark.parametrize(("random_ratio", "open_s"), [(0.0, 2.5), (0.5, 3.75), (1.0, 5.0)])
def test_equal_jitter_keeps_half_of_the_time(random_ratio, open_s):
    breaker = make(no_answer_run=1)
    opened_by = breaker.report(let(breaker, 0.0), Evidence.NO_ANSWER, 0.0, random_ratio)
    assert opened_by.open_s == open_s
    assert isinstance(breaker.admit(math.nextafter(open_s, 0)), Refused)
    assert isinstance(breaker.admit(open_s), Permit)


def test_closing_forgets_what_was_counted():
    breaker, probe, _, now_s = probing()
    breaker.report(probe, Evidence.SUCCESS, now_s, NO_JITTER)
    assert breaker.totals(now_s) == (0, 0)
    for _ in range(4):
        assert call(breaker, Evidence.NO_ANSWER, now_s) is None


def test_a_late_report_of_an_expired_probe_does_not_free_the_next_ones_lease():
    breaker, late, _, now_s = probe_expired()
    let(breaker, now_s)
    breaker.report(late, Evidence.NONE, now_s, NO_JITTER)
    assert isinstance(breaker.admit(now_s), Refused)


def test_a_late_success_of_an_expired_probe_closes():
    breaker, late, _, now_s = probe_expired()
    after = let(breaker, now_s)
    assert breaker.report(late, Evidence.SUCCESS, now_s, NO_JITTER).after is State.CLOSED
    assert breaker.report(after, Evidence.FAILURE, now_s, NO_JITTER) is None
    assert breaker.totals(now_s) == (0, 0)


def test_more_probes_and_more_successes_where_configured():
    breaker = make(probes=2, successes_to_close=2)
    trip(breaker)
    first, second = let(breaker, 5.0), let(breaker, 5.0)
    assert isinstance(breaker.admit(5.0), Refused)
    assert breaker.report(first, Evidence.SUCCESS, 5.0, NO_JITTER) is None
    assert breaker.report(second, Evidence.SUCCESS, 5.0, NO_JITTER).after is State.CLOSED
    trip(breaker, 5.0)
    assert breaker.report(let(breaker, 10.0), Evidence.SUCCESS, 10.0, NO_JITTER) is None


def test_looking_never_changes_the_state():
    breaker, _, _, now_s = open_time_over()
    breaker.totals(now_s)
    breaker.is_droppable(now_s)
    assert breaker.state is State.OPEN


# Keeping, dropping, other settings.


@pytest.mark.parametrize(
    ("situation", "later_s", "droppable"),
    [
        (closed, 1e6, False),
        (opened, 0.0, False),
        (opened, 299.0, False),
        (opened, 301.0, True),
        (probing, 1e6, False),
        (probe_given_back, 200.0, False),
        (probe_given_back, 300.0, True),
    ],
)
def test_what_may_be_forgotten(situation, later_s, droppable):
    breaker, _, stale, now_s = situation()
    if stale is not None:
        breaker.report(stale, Evidence.NONE, now_s, NO_JITTER)
    assert breaker.is_droppable(now_s + later_s) is droppable


@pytest.mark.parametrize(
    ("evidence", "later_s", "droppable"),
    [(Evidence.SUCCESS, 0.0, True), (Evidence.FAILURE, 0.0, False), (Evidence.FAILURE, 30.0, True)],
)
def test_a_closed_one_may_be_forgotten_without_failures(evidence, later_s, droppable):
    breaker = make()
    call(breaker, evidence)
    assert breaker.is_droppable(later_s) is droppable


def test_other_settings_keep_state_and_counts_where_the_buckets_are_the_same():
    breaker = make()
    for _ in range(4):
        call(breaker, Evidence.FAILURE)
    breaker.configure(attrs.evolve(SETTINGS, min_calls=5))
    assert breaker.totals(0.0) == (4, 4)
    assert call(breaker, Evidence.FAILURE).after is State.OPEN
    breaker.configure(attrs.evolve(SETTINGS, window_s=60.0))
    assert breaker.state is State.OPEN
    assert breaker.totals(0.0) == (0, 0)


@pytest.mark.parametrize("scope", [Scope.ORIGIN, Scope.TENANT])
def test_a_refusal_says_who_and_until_when(scope):
    breaker = Breaker(attrs.evolve(SETTINGS, no_answer_run=1), scope)
    call(breaker, Evidence.NO_ANSWER)
    assert breaker.admit(1.0) == Refused("circuit_breaker", scope, 4.0, "the circuit is open")
    let(breaker, 5.0)
    refused = breaker.admit(6.0)
    assert isinstance(refused, Refused)
    assert (refused.retry_after_s, refused.scope) == (29.0, scope)
    assert "half-open" in refused.reason


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("window_s", 0.0),
        ("window_s", math.nan),
        ("buckets", 0),
        ("failure_ratio", 0.0),
        ("failure_ratio", 1.1),
        ("failure_ratio", math.nan),
        ("min_calls", 0),
        ("no_answer_run", 0),
        ("open_s", -1.0),
        ("open_max_s", 0.0),
        ("probes", 0),
        ("probe_lease_s", 0.0),
        ("successes_to_close", 0),
        ("slow_call_s", 0.0),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=name):
        attrs.evolve(SETTINGS, **{name: bad})
