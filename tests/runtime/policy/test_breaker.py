"""The circuit breaker's rules, one by one.

`test_breaker_table` holds every situation with every input, `test_breaker_model` the whole against
a model.
"""

import math

import attrs
import pytest

from tests.support.circuits import (
    NO_JITTER,
    SETTINGS,
    call,
    closed,
    let,
    make,
    open_time_over,
    opened,
    probe_expired,
    probe_given_back,
    probing,
    trip,
)
from vastar_runtime.policy.breaker import (
    Breaker,
    Change,
    Evidence,
    Permit,
    State,
    Transition,
)
from vastar_runtime.policy.verdicts import Refused, Scope

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
