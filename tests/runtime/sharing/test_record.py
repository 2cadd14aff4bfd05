"""A record's state: read as it was written, and whole whenever its writer dies."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.sharing.layout import RecordWord
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.record import NEVER_SEEN, Record

FORM = struct.Struct("@2Qd")


def record(memory: Memory, worker: int = 0) -> Record:
    return Record(memory, memory.layout.record_at(1), worker, 0.0)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 9), st.floats(0, 1e9))))
def test_what_one_writes_the_other_reads(values):
    with Memory.temporary(2, 4) as memory:
        first, second = record(memory), record(memory, 1)
        assert first.read(FORM) is None
        assert first.words[first.version_at] == first.seen == 0
        for nth, each in enumerate(values, 1):
            writer, reader = (first, second) if nth % 2 else (second, first)
            with writer:
                writer.write(FORM, each, 5.0)
            assert reader.seen != memory.words[reader.version_at] == writer.seen == nth
            with reader:
                assert reader.read(FORM) == each


@pytest.mark.parametrize("dies_after_bytes", [0, 1, 8, 13, 24])
def test_a_writer_that_dies_halfway_has_written_nothing(dies_after_bytes):
    with Memory.temporary(2, 4) as memory:
        first, second = record(memory), record(memory, 1)
        first.write(FORM, (1, 2, 3.0), 5.0)
        first.write(FORM, (4, 5, 6.0), 5.0)
        # What `write` does before its last word, cut off somewhere.
        next_at = memory.layout.state_at(first.at, first.seen + 1) * 8
        torn = FORM.pack(7, 8, 9.0)[:dies_after_bytes]
        memory.data[next_at : next_at + len(torn)] = torn
        assert second.seen == NEVER_SEEN
        assert second.read(FORM) == (4, 5, 6.0)
        second.write(FORM, (10, 11, 12.0), 5.0)
        assert first.read(FORM) == (10, 11, 12.0)


def test_it_says_how_long_it_is_worth_keeping():
    with Memory.temporary(2, 4) as memory:
        one = record(memory)
        for keep_until_s in (5.0, 3.0):
            one.write(FORM, (1, 2, 3.0), keep_until_s)
            assert memory.times[one.at + RecordWord.KEEP_UNTIL] == keep_until_s


def test_columns_are_side_by_side():
    with Memory.temporary(3, 4) as memory:
        one = record(memory)
        assert one.workers == 3
        assert one.columns_at(1) == one.columns_at(0) + 3
