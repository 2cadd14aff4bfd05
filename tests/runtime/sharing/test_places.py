"""Places of one key: columns, turns, patience."""

import pytest

from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.places import PATIENCE_S, Places

KEY = Key("t", "w", "o")
WORKERS = 3


@pytest.fixture
def memory():
    with Memory.temporary(WORKERS, 4) as made:
        yield made


def places_of(memory, limit=10, record_at=0):
    at = None if record_at is None else memory.layout.record_at(record_at)
    return [
        Places(memory, worker, at, scope=Scope.TENANT, key=KEY, limit=limit)
        for worker in range(WORKERS)
    ]


def fill(places, limit, now_s=0.0):
    """Whether there was room for one more."""
    if not places.may_take(limit, now_s):
        places.starve()
        return False
    places.fill(limit)
    return True


@pytest.mark.parametrize("limit", [1, 2, 5, 12, 100])
def test_all_together_fill_as_many_as_there_are(memory, limit):
    shared = places_of(memory, limit)
    filled = 0
    while sum(fill(each, limit) for each in shared):  # everybody tries
        filled = sum(each.used for each in shared)
        assert shared[0].of_all() <= limit
    # What is in stock with one while another one starves is what asking is for.
    spare = sum(each.held - each.used for each in shared)
    assert filled + spare == limit
    for each in shared:
        each.give_back(0.0)
    assert shared[0].of_all() == filled


def test_a_small_limit_leaves_nothing_in_stock_and_a_large_one_a_share():
    with Memory.temporary(WORKERS, 4) as memory:
        assert [places_of(memory, limit)[0].keep for limit in (1, 5, 6, 60, 10_000)] == [
            0,
            0,
            1,
            10,
            64,
        ]
        one = places_of(memory, 60)[0]
        one.limit_is(60, is_firm=False)
        assert one.keep == 0


def test_what_is_too_much_goes_back_and_half_a_share_stays(memory):
    one = places_of(memory, 60)[0]
    for _ in range(20):
        assert fill(one, 60)
    held = one.held
    one.used -= 5
    one.give_back(1.0)
    assert one.held == held, "no more than it may keep"
    one.used -= 10
    one.give_back(2.0)
    assert one.held == one.used + 5 == one.of_all()


def test_the_hungry_take_turns(memory):
    first, second, third = places_of(memory, 1)
    assert fill(first, 1)
    assert not fill(second, 1)
    assert not fill(third, 1)
    assert not fill(first, 1)
    assert first.next_hungry() == []
    first.used -= 1
    first.give_back(1.0)
    assert first.next_hungry() == [1]
    assert not fill(first, 1, 1.0)
    assert not fill(third, 1, 1.0)
    assert fill(second, 1, 1.0)
    second.used -= 1
    second.give_back(2.0)
    assert second.next_hungry() == [2], "who was served is behind the others"
    assert fill(third, 1, 2.0)
    third.sate()
    third.used -= 1
    third.give_back(3.0)
    assert third.next_hungry() == [0]
    assert not third.is_hungry
    assert third.others_are_hungry


def test_who_does_not_take_its_turn_is_passed_by(memory):
    first, second, third = places_of(memory, 1)
    assert fill(first, 1)
    assert not fill(second, 1)
    first.used -= 1
    first.give_back(1.0)
    assert not fill(third, 1, 1.0 + PATIENCE_S / 2)
    assert fill(third, 1, 1.1 + PATIENCE_S)


def test_where_there_is_enough_for_all_that_wait_nobody_waits_for_them(memory):
    first, second, third = places_of(memory, 2)
    assert fill(first, 2)
    assert fill(first, 2)
    assert not fill(second, 2)
    first.used -= 2
    first.give_back(1.0)
    assert fill(third, 2, 1.0), "one is left for who was first"
    assert not fill(third, 2, 1.0)
    assert fill(second, 2, 1.0)


def test_starving_is_news_once(memory):
    first, second, _ = places_of(memory, 1)
    assert fill(first, 1)
    assert second.starve()
    assert not second.starve()
    assert list(second.holders()) == [0]
    assert list(first.holders()) == []


def test_a_limit_that_has_shrunk_is_kept_to_with_what_is_in_stock(memory):
    first, second, _ = places_of(memory, 60)
    for _ in range(11):
        assert fill(first, 60)
    assert fill(second, 60)
    assert first.held > 11
    assert not fill(first, 12)
    assert first.held == 11
    first.sate()
    assert second.may_take(13, 0.0)
    assert not second.may_take(12, 0.0)


def test_without_a_record_a_worker_has_its_part_and_asks_nobody(memory):
    one = places_of(memory, 7, record_at=None)[0]
    assert [fill(one, 7) for _ in range(3)] == [True, True, False]
    assert not one.is_hungry
    assert not one.others_are_hungry
    one.used -= 1
    one.give_back(1.0)
    one.tell_waiting(5)
    assert one.waiting_elsewhere() == 0
    assert one.of_all() == one.held == 2
    assert fill(one, 7)
    one.limit_is(30)
    assert one.held == 10


def test_who_waits_elsewhere_is_counted(memory):
    first, second, third = places_of(memory)
    first.tell_waiting(3)
    second.tell_waiting(4)
    assert [each.waiting_elsewhere() for each in (first, second, third)] == [4, 3, 7]
