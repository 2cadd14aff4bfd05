"""The lives of the workers, without any: what each end leads to, and when."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.workers.fleet import (
    Action,
    Answer,
    End,
    Ended,
    Fleet,
    FleetSettings,
    Phase,
    Step,
)

SETTINGS = FleetSettings()
KILLED = Ended(-signal.SIGKILL)
LEFT = Ended(0)


def steps(answers: list[Answer]) -> list[tuple[Step, int]]:
    return [(each.step, each.index) for each in answers if isinstance(each, Action)]


def begun(count: int = 2, now_s: float = 0.0) -> Fleet:
    """A fleet whose processes have begun."""
    fleet = Fleet(count, SETTINGS, now_s)
    for step, index in steps(fleet.tick(now_s)):
        assert step is Step.START
        fleet.started(index, 100 + index, now_s)
    return fleet


def serving(count: int = 2, now_s: float = 0.0) -> Fleet:
    fleet = begun(count, now_s)
    for index in range(count):
        fleet.ready(index, now_s)
    assert fleet.is_complete
    return fleet


def test_callers_are_accepted_when_all_are_ready():
    fleet = begun(3)
    assert [each.phase for each in fleet.workers] == [Phase.STARTING] * 3
    assert fleet.ready(0, 1.0) == []
    assert fleet.ready(2, 1.0) == []
    assert fleet.ready(2, 1.0) == []
    assert not fleet.is_complete
    assert steps(fleet.ready(1, 1.0)) == [(Step.GO, 0), (Step.GO, 1), (Step.GO, 2)]
    assert fleet.next_due_s() is None


@pytest.mark.parametrize(("how", "code"), [(Ended(2), 2), (KILLED, 1), (LEFT, 1)])
@pytest.mark.parametrize("was_ready", [False, True])
def test_who_cannot_start_ends_all_with_the_reason_as_exit_status(how, code, was_ready):
    fleet = begun(3)
    fleet.ready(1, 0.0)
    if was_ready:
        fleet.ready(0, 0.0)
    assert steps(fleet.ended(0, how, 1.0, 0.5)) == [(Step.CUT, 1), (Step.KILL, 2)]
    assert fleet.ended(2, KILLED, 1.1, 0.5) == []
    assert fleet.ended(1, Ended(SETTINGS.forced_code), 1.1, 0.5) == [End(code)]


def test_who_does_not_get_ready_is_killed():
    fleet = begun(2)
    fleet.ready(0, 1.0)
    assert fleet.next_due_s() == SETTINGS.start_s
    assert fleet.tick(SETTINGS.start_s - 0.1) == []
    assert steps(fleet.tick(SETTINGS.start_s)) == [(Step.KILL, 1)]
    assert fleet.tick(SETTINGS.start_s + 1) == []


def test_a_dead_worker_is_replaced_and_goes_on_alone():
    fleet = serving(2)
    assert fleet.ended(1, KILLED, 5.0, 0.5) == []
    dead = fleet.workers[1]
    assert (dead.phase, dead.pid, dead.restarts) == (Phase.RESTING, None, 1)
    assert fleet.next_due_s() == 5.0 + 0.5 * SETTINGS.backoff.base_s
    assert steps(fleet.tick(5.1)) == [(Step.START, 1)]
    fleet.started(1, 300, 5.1)
    assert steps(fleet.ready(1, 5.5)) == [(Step.GO, 1)]
    assert (dead.phase, dead.pid) == (Phase.READY, 300)


def pauses(fleet: Fleet, lives_s: list[float]) -> list[float]:
    """The pauses after lives of such lengths, with the longest jitter."""
    now_s, found = 0.0, []
    for life_s in lives_s:
        now_s += life_s
        fleet.ended(0, KILLED, now_s, 1.0)
        due_s = fleet.next_due_s()
        assert due_s is not None
        found.append(round(due_s - now_s, 6))
        now_s = due_s
        assert steps(fleet.tick(now_s)) == [(Step.START, 0)]
        fleet.started(0, 100, now_s)
        fleet.ready(0, now_s)
    return found


def test_pauses_double_to_a_cap_and_are_short_again_after_a_healthy_life():
    short = [1.0] * 10
    assert pauses(serving(1), [*short, SETTINGS.healthy_s, 1.0]) == [
        *(0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0),
        *(0.2, 0.4),
    ]


def test_a_worker_that_does_not_start_again_is_tried_on_and_ends_nobody():
    fleet = serving(2)
    fleet.ended(0, KILLED, 1.0, 1.0)
    fleet.tick(2.0)
    assert fleet.could_not_start(0, 2.0, 1.0) == []
    assert fleet.next_due_s() == 2.4
    fleet.tick(3.0)
    fleet.started(0, 101, 3.0)
    # The time that it took to fail, however long, was no healthy life.
    assert fleet.ended(0, Ended(2), 3.0 + SETTINGS.healthy_s, 1.0) == []
    assert fleet.next_due_s() == pytest.approx(3.0 + SETTINGS.healthy_s + 0.8)
    assert fleet.workers[1].phase is Phase.READY


def test_a_drain_is_for_those_that_serve_and_the_end_comes_with_the_last():
    fleet = serving(3)
    fleet.ended(0, KILLED, 1.0, 1.0)
    fleet.ended(1, KILLED, 1.0, 1.0)
    fleet.tick(1.2)
    fleet.started(0, 200, 1.2)  # 0 starts, 1 has no process, 2 serves
    fleet.workers[1].enter(Phase.RESTING, 1.2, 9.0)
    assert steps(fleet.drain(2.0)) == [(Step.KILL, 0), (Step.DRAIN, 2)]
    assert fleet.drain(2.1) == []
    assert fleet.ready(0, 2.1) == []
    assert fleet.tick(10.0) == []
    assert fleet.ended(0, KILLED, 10.0, 0.5) == []
    assert fleet.ended(2, LEFT, 11.0, 0.5) == [End(0)]


def test_a_drain_that_takes_too_long_is_ended():
    fleet = serving(1)
    assert steps(fleet.drain(1.0)) == [(Step.DRAIN, 0)]
    limit_s = 1.0 + SETTINGS.drain_s + SETTINGS.grace_s
    assert fleet.next_due_s() == limit_s
    assert steps(fleet.tick(limit_s)) == [(Step.KILL, 0)]
    assert fleet.ended(0, KILLED, limit_s, 0.5) == [End(0)]


def test_a_cut_ends_all_and_says_so():
    fleet = serving(2)
    fleet.drain(1.0)
    assert steps(fleet.cut(2.0)) == [(Step.CUT, 0), (Step.CUT, 1)]
    assert fleet.ended(0, Ended(6), 2.1, 0.5) == []
    # A worker that hangs does not keep anybody.
    assert steps(fleet.tick(2.0 + SETTINGS.grace_s)) == [(Step.KILL, 1)]
    assert fleet.ended(1, KILLED, 9.0, 0.5) == [End(6)]


def test_a_drain_or_cut_of_nobody_is_over_at_once():
    assert Fleet(2, SETTINGS, 0.0).drain(0.0) == [End(0)]
    assert Fleet(2, SETTINGS, 0.0).cut(0.0) == [End(SETTINGS.forced_code)]


@pytest.mark.parametrize(
    ("status", "words"), [(0, "exit code 0"), (-9, "SIGKILL"), (-40, "signal 40")]
)
def test_ends_in_words(status, words):
    assert str(Ended(status)) == words


@given(st.lists(st.tuples(st.sampled_from("tred"), st.integers(0, 2), st.floats(0, 50))), st.data())
def test_whatever_happens_each_worker_has_at_most_one_process_and_all_ends(events, data):
    """Processes by a model: started when told, dead when killed, and none left at the end."""
    fleet, now_s, alive = Fleet(3, SETTINGS, 0.0), 0.0, set[int]()
    over: list[End] = []
    dying = set[int]()

    def obey(answers: list[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, End):
                over.append(answer)
            elif answer.step is Step.START:
                assert answer.index not in alive
                assert not fleet.is_draining
                alive.add(answer.index)
                fleet.started(answer.index, 1, now_s)
            else:
                assert answer.index in alive
                if answer.step in {Step.KILL, Step.CUT}:
                    dying.add(answer.index)
        while dying:
            index = dying.pop()
            if index in alive:
                alive.discard(index)
                obey(fleet.ended(index, KILLED, now_s, 0.5))

    for kind, index, pause_s in events:
        now_s += pause_s
        if kind == "r" and index in alive:
            obey(fleet.ready(index, now_s))
        elif kind == "e" and index in alive:
            alive.discard(index)
            obey(fleet.ended(index, data.draw(st.sampled_from([KILLED, LEFT])), now_s, 0.5))
        elif kind == "d" and pause_s > 45:
            obey(fleet.drain(now_s))
        else:
            obey(fleet.tick(now_s))
        assert all((worker.pid is not None) == (worker.index in alive) for worker in fleet.workers)
    if not over:
        obey(fleet.cut(now_s))
    assert len(over) == 1
    assert not alive
