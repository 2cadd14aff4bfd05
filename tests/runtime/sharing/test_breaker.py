"""A circuit of several workers: open in one is open in all, and nobody's success is overlooked."""

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.breaker import (
    Breaker,
    BreakerSettings,
    Change,
    Evidence,
    Permit,
    State,
)
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.sharing.breaker import _STATE, MOST_BUCKETS, MOST_PROBES

WORKERS = 3
QUICK = BreakerSettings(
    min_calls=6, no_answer_run=3, open_s=4.0, probes=2, probe_lease_s=2.0, successes_to_close=2
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, WORKERS - 1), st.just(None)),
        st.tuples(st.just("report"), st.integers(0, 30), st.sampled_from(Evidence)),
        st.tuples(st.just("pass"), st.sampled_from([0, 1, 8, 64]), st.just(None)),
    ),
    max_size=80,
)


def circuits(host, settings=QUICK):
    return [each.breaker(settings, Scope.ORIGIN, ("o",)) for each in host.sharings]


def fail(host, breaker, worker, times, evidence=Evidence.NO_ANSWER):
    """So many failures; the transition of the last one."""
    transition = None
    for _ in range(times):
        permit = breaker.admit(host.own_s(worker))
        assert isinstance(permit, Permit)
        transition = breaker.report(permit, evidence, host.own_s(worker), 1.0)
    return transition


def succeed(host, breaker, worker, times=1):
    return fail(host, breaker, worker, times, Evidence.SUCCESS)


@given(steps)
def test_any_steps_of_any_workers_are_those_of_one_circuit(taken):
    # One bucket, so that it does not matter when in it a success was counted.
    settings = attrs.evolve(QUICK, window_s=512.0, buckets=1)
    with shared_workers(WORKERS) as host:
        shared, one = circuits(host, settings), Breaker(settings)
        out: list[tuple[int, Permit, Permit]] = []
        for what, which, evidence in taken:
            if what == "pass":
                host.now_s = min(host.now_s + which / 8, 1023.0)
            elif what == "admit":
                own, expected = shared[which].admit(host.own_s(which)), one.admit(host.now_s)
                assert type(own) is type(expected)
                if isinstance(own, Permit):
                    assert own == expected
                    out.append((which, own, expected))
                else:
                    assert own.retry_after_s == pytest.approx(expected.retry_after_s)
            elif out:
                worker, own, expected = out.pop(which % len(out))
                assert evidence is not None
                changed = shared[worker].report(own, evidence, host.own_s(worker), 0.5)
                assert changed == one.report(expected, evidence, host.now_s, 0.5)
            for worker, each in enumerate(shared):
                assert each.totals(host.own_s(worker)) == one.totals(host.now_s)
                assert each.state is one.state
                assert each.in_flight == sum(at == worker for at, _, _ in out)


def test_open_in_one_is_open_in_all():
    with shared_workers(2) as host:
        first, second = circuits(host)
        succeed(host, second, 1)
        transition = fail(host, first, 0, 3)
        assert transition is not None
        assert transition.change is Change.TRIPPED
        refused = second.admit(host.own_s(1))
        assert isinstance(refused, Refused)
        assert refused.retry_after_s == pytest.approx(4.0)
        assert second.state is State.OPEN


def test_a_run_of_failures_is_one_over_all_workers_and_any_success_ends_it():
    with shared_workers(2) as host:
        first, second = circuits(host)
        fail(host, first, 0, 1)
        fail(host, second, 1, 1)
        succeed(host, first, 0)
        fail(host, second, 1, 1)
        fail(host, first, 0, 1)
        assert second.admit(host.own_s(1)) == first.admit(host.own_s(0))
        assert fail(host, first, 0, 1) is not None


def test_successes_that_were_not_counted_yet_count_before_anybody_judges():
    with shared_workers(2) as host:
        first, second = circuits(host)
        succeed(host, first, 0, 20)
        assert fail(host, second, 1, 2) is None
        assert second.totals(host.own_s(1)) == (22, 2)
        assert first.totals(host.own_s(0)) == (22, 2)


def test_a_healthy_circuit_takes_the_lock_about_twice_a_bucket():
    with shared_workers(1) as host:
        (first,) = circuits(host, BreakerSettings())
        version_at = first._version_at
        succeed(host, first, 0, 10)
        before = host.memory.words[version_at]
        for _ in range(60):
            succeed(host, first, 0, 10)
            host.now_s += 0.1
        assert host.memory.words[version_at] - before == 3
        assert first.totals(host.own_s(0)) == (610, 0)


def test_never_more_probes_than_allowed_over_all_workers_and_a_dead_ones_are_given_anew():
    with shared_workers(3) as host:
        shared = circuits(host)
        fail(host, shared[0], 0, 3)
        host.now_s += 4.0
        probes = [each.admit(host.own_s(at)) for at, each in enumerate(shared)]
        assert [isinstance(each, Permit) for each in probes] == [True, True, False]
        again = host.kill(0).breaker(QUICK, Scope.ORIGIN, ("o",))
        third = again.admit(host.own_s(0))
        assert isinstance(third, Permit)
        assert isinstance(shared[2].admit(host.own_s(2)), Refused)
        assert shared[1].report(probes[1], Evidence.SUCCESS, host.own_s(1), 0.5) is None
        closed = again.report(third, Evidence.SUCCESS, host.own_s(0), 0.5)
        assert closed is not None
        assert closed.after is State.CLOSED
        assert isinstance(shared[2].admit(host.own_s(2)), Permit)


def test_a_permit_of_an_earlier_state_changes_nothing():
    with shared_workers(2) as host:
        first, second = circuits(host)
        old = second.admit(host.own_s(1))
        fail(host, first, 0, 3)
        second.refresh(host.own_s(1))
        assert second.report(old, Evidence.SUCCESS, host.own_s(1), 0.5) is None
        assert second.in_flight == 0
        host.now_s += 4.0
        assert second.admit(host.own_s(1)).is_probe


def test_slow_successes_are_failures():
    settings = attrs.evolve(QUICK, slow_call_s=1.0)
    with shared_workers(1) as host:
        (first,) = circuits(host, settings)
        for took_s in (0.5, 0.5, 2.0):
            permit = first.admit(host.own_s(0))
            first.report(permit, Evidence.SUCCESS, host.own_s(0), 0.5, took_s)
        assert first.totals(host.own_s(0)) == (3, 1)


def test_it_is_dropped_when_nobody_would_miss_it():
    with shared_workers(2) as host:
        first, second = circuits(host)
        permit = first.admit(host.own_s(0))
        assert not first.is_droppable(host.own_s(0))
        first.report(permit, Evidence.NONE, host.own_s(0), 0.5)
        assert first.is_droppable(host.own_s(0))
        fail(host, second, 1, 1)
        assert not first.is_droppable(host.own_s(0))
        host.now_s += 31.0
        assert first.is_droppable(host.own_s(0))


def test_settings_that_a_record_has_no_room_for_are_bounded():
    with shared_workers(1) as host:
        many = BreakerSettings(probes=99, buckets=99)
        (first,) = circuits(host, many)
        assert first._settings.probes == MOST_PROBES
        first.configure(attrs.evolve(many, window_s=60.0))
        assert first._settings.buckets == MOST_BUCKETS
        fail(host, first, 0, 5)
        host.now_s += 5.0
        permits = [first.admit(host.own_s(0)) for _ in range(MOST_PROBES + 1)]
        assert [isinstance(each, Permit) for each in permits] == [True] * MOST_PROBES + [False]


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.sampled_from([Evidence.SUCCESS, Evidence.FAILURE])),
        max_size=30,
    )
)
def test_what_a_window_holds_is_read_as_it_was_written(taken):
    settings = BreakerSettings(min_calls=1000)
    with shared_workers(2) as host:
        first, second = circuits(host, settings)
        one = Breaker(settings)
        for by, evidence in taken:
            host.now_s += by / 8
            fail(host, first, 0, 1, evidence)
            one.report(one.admit(host.now_s), evidence, host.now_s, 0.5)
            first.totals(host.own_s(0))  # so that each success counts in its own bucket
        assert second.totals(host.own_s(1)) == one.totals(host.now_s)


def test_a_state_fits_its_place():
    with shared_workers(1) as host:
        assert struct.calcsize(_STATE.format) <= host.memory.layout.state_words * 8
