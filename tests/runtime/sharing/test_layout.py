"""Where things lie: nothing overlaps, for any number of workers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.sharing.layout import COLUMN_SORTS, MAX_WORKERS, Header, Layout, RecordWord
from vastar_runtime.sharing.rate_limit import state_form


@given(st.integers(1, MAX_WORKERS), st.sampled_from([1, 4, 1024]))
def test_nothing_overlaps(workers, capacity):
    layout = Layout(workers, capacity)
    pieces = [(0, int(Header.WORDS)), (layout.heads_at, layout.heads)]
    for number in range(min(capacity, 4)):
        at = layout.record_at(number)
        pieces += [
            (at, int(RecordWord.WORDS)),
            (layout.state_at(at, 0), layout.state_words),
            (layout.state_at(at, 1), layout.state_words),
            *((layout.columns_at(at, sort), workers) for sort in range(COLUMN_SORTS)),
            (layout.tail_at(at), 2),
        ]
    for (first, length), (following, _) in pairwise(pieces):
        assert first + length == following
    last, length = pieces[-1]
    assert (last + length) * 8 <= layout.size_bytes
    assert state_form(workers).size <= layout.state_words * 8


def test_versions_take_turns():
    layout = Layout(2, 4)
    assert layout.state_at(100, 6) == layout.state_at(100, 0) != layout.state_at(100, 7)


@pytest.mark.parametrize(("workers", "capacity"), [(0, 4), (65, 4), (2, 0), (2, 5)])
def test_what_does_not_fit_is_refused(workers, capacity):
    with pytest.raises(ValueError, match=r"workers share|2\^n records"):
        Layout(workers, capacity)
