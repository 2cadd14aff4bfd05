"""A snapshot does not change any more; a listing leaves out only what is calm."""

import attrs
import pytest

from vastar_runtime.metrics import BreakerRow, Snapshot, listed
from vastar_runtime.policy.breaker import State


def test_a_snapshot_is_frozen_with_its_rows() -> None:
    row = BreakerRow("origin", "", "https://a", State.OPEN)
    snapshot = Snapshot(breakers=(row,))
    with pytest.raises(AttributeError):
        snapshot.breakers[0].state = State.CLOSED  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        snapshot.draining = True  # type: ignore[misc]


def test_a_small_store_is_listed_whole() -> None:
    items = [("a", 0), ("b", 1), ("c", 0)]
    assert listed(items, lambda machine: machine == 0) == (items, 0)


def test_of_a_large_store_everything_that_is_not_calm_is_listed() -> None:
    items = [(number, number % 100) for number in range(10_000)]
    rows, left_out = listed(items, lambda machine: machine != 0, most_calm=5)
    assert len([row for row in rows if row[1] == 0]) == 100
    assert len(rows) == 105
    assert left_out == 10_000 - 105
