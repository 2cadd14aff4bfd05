"""The keyed store: bounded memory, and nobody's state lost that matters."""

import tracemalloc

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vastar_runtime.policy.keyed import KeyedStore

IDLE_S = 10.0


@attrs.define
class Pot:
    """A machine that must stay while it is held."""

    held: bool = False


def make_store(max_keys: int = 4) -> KeyedStore[str, Pot]:
    return KeyedStore(
        lambda _: Pot(), lambda pot, _: not pot.held, idle_s=IDLE_S, max_keys=max_keys
    )


def test_one_key_has_one_machine_made_from_its_key():
    store = KeyedStore[str, list[str]](
        lambda key: [key], lambda *_: True, idle_s=IDLE_S, max_keys=4
    )
    first = store.get("a", 0.0)
    assert first == ["a"]
    assert store.get("a", 9.0) is first
    assert store.get("b", 9.0) is not first
    assert len(store) == 2


def test_peek_neither_makes_nor_uses():
    store = make_store()
    assert store.peek("a") is None
    pot = store.get("a", 0.0)
    assert store.peek("a") is pot
    assert store.sweep(IDLE_S) == 1
    assert store.peek("a") is None


def test_items_gives_every_key_with_its_machine():
    store = make_store()
    pots = {key: store.get(key, 0.0) for key in "abc"}
    assert dict(store.items()) == pots


@pytest.mark.parametrize(("after_s", "left"), [(IDLE_S - 0.1, 2), (IDLE_S, 1)])
def test_an_idle_key_goes_when_another_comes(after_s: float, left: int):
    store = make_store()
    store.get("a", 0.0)
    store.get("b", after_s)
    assert len(store) == left


def test_use_keeps_a_key():
    store = make_store()
    kept = store.get("a", 0.0)
    store.get("a", 8.0)
    store.get("b", IDLE_S)
    assert store.peek("a") is kept


def test_a_held_machine_stays_however_idle_and_over_the_bound():
    store = make_store(max_keys=4)
    held = {}
    for key in "abcdefgh":
        held[key] = store.get(key, 0.0)
        held[key].held = True
    for n in range(100):
        store.get(f"n{n}", 1000.0 + n * IDLE_S)
    assert {key: store.peek(key) for key in held} == held
    assert len(store) <= len(held) + 2


def test_over_the_bound_the_least_recently_used_goes_though_it_does_not_idle():
    store = make_store(max_keys=3)
    for at_s, key in enumerate("abc"):
        store.get(key, at_s)
    store.get("a", 4.0)
    store.get("d", 5.0)
    assert [key for key, _ in store.items()] == ["a", "c", "d"]


def test_sweep_looks_at_no_more_keys_than_asked():
    store = make_store(max_keys=100)
    for n in range(50):
        store.get(str(n), 0.0)
    assert store.sweep(IDLE_S, at_most=20) == 20
    assert store.sweep(IDLE_S, at_most=1000) == 30


class Churn(RuleBasedStateMachine):
    """Against a plain dict of what must still be there."""

    def __init__(self) -> None:
        super().__init__()
        self.store = make_store(max_keys=5)
        self.now_s = 0.0
        self.held: dict[str, Pot] = {}
        self.most_held = 0

    @rule(key=st.integers(0, 30).map(str), hold=st.booleans())
    def get(self, key: str, hold: bool) -> None:
        pot = self.store.get(key, self.now_s)
        assert self.store.get(key, self.now_s) is pot
        pot.held = hold
        self.held.pop(key, None)
        if hold:
            self.held[key] = pot
        self.most_held = max(self.most_held, len(self.held))

    @rule(by_s=st.floats(0, 2 * IDLE_S))
    def wait(self, by_s: float) -> None:
        self.now_s += by_s

    @rule()
    def sweep_all(self) -> None:
        self.store.sweep(self.now_s)
        self.store.sweep(self.now_s)

    @invariant()
    def held_ones_are_there(self) -> None:
        assert all(self.store.peek(key) is pot for key, pot in self.held.items())

    @invariant()
    def no_more_than_the_bound_and_what_had_to_stay(self) -> None:
        assert len(self.store) <= 5 + self.most_held

    @invariant()
    def the_hand_knows_each_key_once(self) -> None:
        assert sorted(self.store._hand) == sorted(key for key, _ in self.store.items())


TestChurn = Churn.TestCase


def test_many_keys_take_no_more_room_than_the_bound():
    store = make_store(max_keys=1000)
    tracemalloc.start()
    try:
        for n in range(10_000):
            store.get(str(n), n / 1000)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == 1000
    assert used_bytes < 1_000_000


def test_whoever_asked_is_told_of_each_machine_that_goes():
    gone: list[str] = []
    store: KeyedStore[str, str] = KeyedStore(
        str.upper, lambda _machine, _now_s: True, idle_s=1.0, max_keys=10, on_drop=gone.append
    )
    store.get("a", 0.0)
    store.get("b", 0.9)
    assert gone == []
    store.get("c", 1.5)
    assert gone == ["A"]
    assert store.sweep(9.0) == 2
    assert gone == ["A", "B", "C"]
