"""Where each word of the shared memory lies: numbers, and nothing that reads or writes.

The memory is an array of 64-bit words in the byte order of the machine (one host, one kernel: it
never leaves it). First a header, then the heads of the hash chains, then records of one size:

    header | heads of chains | record 0 | record 1 | ...

    record: next, key (2), kind, attached, version, keep until, spare
            | state, even | state, odd | a column of words for each worker (of three sorts) | tail

*State* is what changes in one step although it is many words. It is there twice: who writes, under
the record's lock, fills the half that is not valid and then raises the version by one, which is one
word. So a writer that dies halfway leaves the half that nobody reads, and nothing has to be
repaired, or even noticed. The version also tells everybody without a lock whether what he
remembers of the record is still so.

*Columns* are single words with one writer each, or written under a lock. An aligned word is
written at once or not at all, so these need no second copy.

Records are handed out densely, so a page is only used once its records are (the file is sparse):
the table may be made for far more keys than there will be.
"""

from enum import IntEnum
from typing import Final

import attrs

__all__ = [
    "COLUMN_SORTS",
    "KEYS_AT_MOST",
    "MAX_WORKERS",
    "WORD_BYTES",
    "Header",
    "Kind",
    "Layout",
    "RecordWord",
]

WORD_BYTES: Final = 8
MAX_WORKERS: Final = 64
"""As many as a word has bits."""
KEYS_AT_MOST: Final = 262_144
"""Records. A new origin, for one tenant, takes seven, and one more for each written limit."""
COLUMN_SORTS: Final = 3
_STATE_FROM: Final = 8
_LEAST_STATE_WORDS: Final = 40
_WORKER_STATE_WORDS: Final = 4
_SHARED_STATE_WORDS: Final = 9
_TAIL_WORDS: Final = 2
_RECORDS_A_CHAIN: Final = 4
"""When the table is full: chains are followed once for each new key, and all of them at a death."""


class Header(IntEnum):
    """The words at the start."""

    MAGIC = 0
    WORKERS = 1
    CAPACITY = 2
    KEY_FIRST = 3
    """Of the keyed hash, 128 bit: nobody outside can choose names that meet in one chain."""
    KEY_SECOND = 4
    USED = 5
    """Records that were ever handed out."""
    FREE = 6
    """1 + the first record of those that came back, 0 = none."""
    TICKETS = 7
    """Given to workers that wait for places; only grows."""
    ZERO = 8
    """Always 0, for those who look at a word and have none of their own."""
    WORDS = 16
    """How many there are."""


class RecordWord(IntEnum):
    """The words at the start of each record."""

    NEXT = 0
    """1 + the next record of the chain, or of the free ones; 0 = none."""
    KEY_HIGH = 1
    KEY_LOW = 2
    KIND = 3
    ATTACHED = 4
    """A bit for each worker that has a machine of this key."""
    VERSION = 5
    """0 = nothing was written yet; else how often, and its last bit says which half is valid."""
    KEEP_UNTIL = 6
    """When forgetting the state becomes as good as keeping it (CLOCK_MONOTONIC, seconds)."""
    WORDS = _STATE_FROM


class Kind(IntEnum):
    """What a record is of."""

    BREAKER = 1
    COOLDOWN = 2
    RETRY_QUOTA = 3
    LEARNING = 4
    RATE_LIMIT = 5
    PLACES = 6


@attrs.frozen
class Layout:
    """The places of everything for a number of workers; all in words, from the start.

    Attributes:
        workers: 1 to `MAX_WORKERS`.
        capacity: records; a power of two.
        state_words: of one half of a record's state.
        record_words: of a record.
        heads: chains; a power of two.
        heads_at, records_at: where the chains' heads and the records begin.
    """

    workers: int
    capacity: int = KEYS_AT_MOST
    state_words: int = attrs.field(init=False)
    record_words: int = attrs.field(init=False)
    heads: int = attrs.field(init=False)
    heads_at: int = attrs.field(init=False, default=int(Header.WORDS))
    records_at: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Refuse what does not fit.

        Raises:
            ValueError: too many workers or none, or a capacity that is no power of two.
        """
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"1 to {MAX_WORKERS} workers share a memory, not {self.workers}")
        if self.capacity < 1 or self.capacity & (self.capacity - 1):
            raise ValueError(f"a table has 2^n records, not {self.capacity}")

    @state_words.default
    def _state(self) -> int:
        return max(_LEAST_STATE_WORDS, _SHARED_STATE_WORDS + _WORKER_STATE_WORDS * self.workers)

    @record_words.default
    def _record(self) -> int:
        columns = COLUMN_SORTS * self.workers
        return int(RecordWord.WORDS) + 2 * self.state_words + columns + _TAIL_WORDS

    @heads.default
    def _chains(self) -> int:
        return max(1, self.capacity // _RECORDS_A_CHAIN)

    @records_at.default
    def _first(self) -> int:
        return int(Header.WORDS) + self.heads

    @property
    def size_bytes(self) -> int:
        """Of the whole memory; most of it is never touched."""
        return (self.records_at + self.capacity * self.record_words) * WORD_BYTES

    def record_at(self, number: int) -> int:
        """Where record `number` begins."""
        return self.records_at + number * self.record_words

    def state_at(self, record_at: int, version: int) -> int:
        """Where the state lies that `version` made valid."""
        return record_at + _STATE_FROM + (version & 1) * self.state_words

    def columns_at(self, record_at: int, sort: int) -> int:
        """Where the columns of one sort begin, worker 0 first."""
        return record_at + _STATE_FROM + 2 * self.state_words + sort * self.workers

    def tail_at(self, record_at: int) -> int:
        """Where the two words behind the columns begin."""
        return self.columns_at(record_at, COLUMN_SORTS)
