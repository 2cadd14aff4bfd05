"""The page of connections, and whose turn it is."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.workers.counts import PATIENCE_S, POLL_S, Counts, page_bytes
from vastar_runtime.workers.spawning import shared_file


@pytest.fixture
def fd():
    fd = shared_file("test", page_bytes(3))
    yield fd
    os.close(fd)


def test_what_one_writes_all_read(fd):
    mine, theirs = Counts(fd, 3), Counts(fd, 3)
    assert mine.all() == [None] * 3
    turn = mine.turn(1)
    assert theirs.all() == [None, 0, None]
    turn.taken()
    turn.taken()
    turn.left()
    assert theirs.all() == [None, 1, None]
    theirs.clear(1)
    assert mine.all() == [None] * 3
    mine.close()
    theirs.close()


def test_who_accepts_no_more_counts_no_more(fd):
    counts = Counts(fd, 3)
    turn = counts.turn(0)
    turn.taken()
    turn.close()
    turn.left()
    turn.taken()
    assert counts.all() == [None] * 3
    assert not turn.is_open


def test_a_new_worker_begins_at_nothing(fd):
    counts = Counts(fd, 3)
    counts.turn(0).taken()
    counts.turn(0)
    assert counts.all()[0] == 0


def test_the_fewest_go_first_and_equals_at_once(fd):
    counts = Counts(fd, 3)
    first, second = counts.turn(0), counts.turn(1)
    assert first.is_mine(0.0)
    assert second.is_mine(0.0)
    first.taken()
    assert not first.is_mine(0.0)
    assert second.is_mine(0.0)
    second.taken()
    assert first.is_mine(0.001)
    second.left()
    assert not first.is_mine(0.002)
    second.close()
    # Who accepts nothing is not waited for.
    assert first.is_mine(0.003)


def waits_s(turn, now_s: float) -> float:
    """How long until a connection that nobody else takes is taken."""
    began_s = now_s
    while not turn.is_mine(now_s):
        now_s += POLL_S
    turn.taken()
    return now_s - began_s


def test_a_sibling_that_hangs_costs_a_tenth_of_a_second_once(fd):
    counts = Counts(fd, 3)
    turn, hung = counts.turn(0), counts.turn(1)
    turn.taken()
    found = [waits_s(turn, 10.0 * n) for n in range(12)]
    assert found[0] == pytest.approx(PATIENCE_S, abs=2 * POLL_S)
    assert sum(found) < 2 * PATIENCE_S + 12 * POLL_S
    assert found[-1] == 0
    # It is awake again, which its number tells.
    hung.taken()
    assert waits_s(turn, 500.0) == pytest.approx(PATIENCE_S, abs=2 * POLL_S)


def test_a_wait_begins_anew_with_each_connection(fd):
    counts = Counts(fd, 3)
    turn, sibling = counts.turn(0), counts.turn(1)
    turn.taken()
    turn.taken()
    assert not turn.is_mine(0.0)
    sibling.taken()
    turn.missed()
    assert not turn.is_mine(PATIENCE_S)
    assert not turn.is_mine(2 * PATIENCE_S - POLL_S)
    assert turn.is_mine(2 * PATIENCE_S + POLL_S)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_whoever_is_woken_first_the_counts_stay_within_one(order):
    """Each connection wakes all; the one that looks first takes it if it is its turn."""
    fd = shared_file("test", page_bytes(3))
    counts = Counts(fd, 3)
    turns = [counts.turn(index) for index in range(3)]
    now_s = 0.0
    for first in order:
        for index in (first, (first + 1) % 3, (first + 2) % 3):
            if turns[index].is_mine(now_s):
                turns[index].taken()
                break
            turns[index].missed()
        now_s += 0.01
        held = [each for each in counts.all() if each is not None]
        assert max(held) - min(held) <= 1
    assert sum(held) == len(order)
    counts.close()
    os.close(fd)
