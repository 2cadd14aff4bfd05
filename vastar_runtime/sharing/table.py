"""Records by key: found or made under the table's lock, once for each key that a worker meets.

A hash table with chains. Each change of a chain is one word (a new record is filled before the
chain leads to it), so whoever dies halfway leaves a chain that is whole; at worst a record is on no
chain and on no list of free ones, and `rebuild_free`, called when a worker has died, finds it.

Keys are 128 bits of a keyed hash over kind and names, so a record has one size whatever the names
are, and two keys meet never.

A record is dropped when no worker has a machine of it any more and its state is worth nothing. One
that a dead worker leaves behind is kept as long as its state matters (`KEEP_UNTIL`), and found
again by whoever asks for its key; those that have run out go when somebody needs room.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from vastar_runtime.sharing.layout import Header, Kind, RecordWord
from vastar_runtime.sharing.memory import Memory

__all__ = ["Table"]

_SEARCH_AGAIN_S: Final = 5.0
"""A full table is not searched for every new key: that takes some 10 ms."""


class Table:
    """The records of a memory, as one worker (or the supervisor) sees them.

    Args:
        memory: laid out.
        worker: whose bit marks records as attached.
    """

    def __init__(self, memory: Memory, worker: int) -> None:
        self._memory = memory
        self._words = memory.words
        self._layout = memory.layout
        self._bit = 1 << worker
        self._search_at_s = 0.0

    def attach(self, now_s: float, kind: Kind, names: tuple[str, ...]) -> int | None:
        """Where the record of a key begins, made if there is none; None where there is no room.

        Args:
            now_s: CLOCK_MONOTONIC.
            kind: what the record is of.
            names: what tells it from others of its kind.
        """
        high, low = self._hashed(kind, names)
        words = self._words
        with self._memory.table_lock:
            head_at = self._layout.heads_at + (low & (self._layout.heads - 1))
            number = words[head_at]
            while number:
                at = self._layout.record_at(number - 1)
                if (
                    words[at + RecordWord.KEY_LOW] == low
                    and words[at + RecordWord.KEY_HIGH] == high
                ):
                    words[at + RecordWord.ATTACHED] |= self._bit
                    return at
                number = words[at + RecordWord.NEXT]
            number = self._take_free(now_s)
            if not number:
                return None
            at = self._layout.record_at(number - 1)
            self._clear(at)
            words[at + RecordWord.KEY_HIGH] = high
            words[at + RecordWord.KEY_LOW] = low
            words[at + RecordWord.KIND] = kind
            words[at + RecordWord.ATTACHED] = self._bit
            words[at + RecordWord.NEXT] = words[head_at]
            words[head_at] = number
            return at

    def detach(self, now_s: float, record_at: int) -> None:
        """This worker has no machine of the record any more."""
        with self._memory.table_lock:
            self._detach(now_s, record_at, self._bit)

    def attached_to(self, worker: int) -> Iterator[int]:
        """Where the records begin that `worker` has machines of; under the table's lock."""
        bit = 1 << worker
        attached = RecordWord.ATTACHED
        return (at for at in self._each() if self._words[at + attached] & bit)

    def detach_all(self, now_s: float, worker: int) -> None:
        """The worker has died: as `detach` for all that it had. Under the table's lock."""
        for at in tuple(self.attached_to(worker)):
            self._detach(now_s, at, 1 << worker)

    def rebuild_free(self) -> int:
        """Find the records that no chain leads to; how many there are. Under the table's lock."""
        words, layout = self._words, self._layout
        chained = set()
        for head_at in range(layout.heads_at, layout.heads_at + layout.heads):
            number = words[head_at]
            while number:
                chained.add(number)
                number = words[layout.record_at(number - 1) + RecordWord.NEXT]
        words[Header.FREE] = free = 0  # one that dies here leaves less to take, and nothing wrong
        found = 0
        for number in range(words[Header.USED], 0, -1):
            if number not in chained:
                at = layout.record_at(number - 1)
                words[at + RecordWord.ATTACHED] = 0
                words[at + RecordWord.NEXT] = free
                free = number
                found += 1
        words[Header.FREE] = free
        return found

    def count(self) -> int:
        """Records that keys have, for people."""
        with self._memory.table_lock:
            free, number = 0, self._words[Header.FREE]
            while number:
                free += 1
                number = self._words[self._layout.record_at(number - 1) + RecordWord.NEXT]
            return self._words[Header.USED] - free

    def _each(self) -> Iterator[int]:
        return map(self._layout.record_at, range(self._words[Header.USED]))

    def _hashed(self, kind: Kind, names: tuple[str, ...]) -> tuple[int, int]:
        text = "".join(f"{len(name)}:{name}" for name in names)
        data = f"{int(kind)};{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=16, key=self._memory.hash_key).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")

    def _take_free(self, now_s: float) -> int:
        """1 + the number of a record that nobody has, 0 where there is none."""
        words = self._words
        if not words[Header.FREE]:
            used = words[Header.USED]
            if used < self._layout.capacity:
                words[Header.USED] = used + 1
                return used + 1
            self._drop_worthless(now_s)
        number = words[Header.FREE]
        if number:
            words[Header.FREE] = words[self._layout.record_at(number - 1) + RecordWord.NEXT]
        return number

    def _drop_worthless(self, now_s: float) -> None:
        """Drop what nobody has and nobody would miss."""
        if now_s < self._search_at_s:
            return
        self._search_at_s = now_s + _SEARCH_AGAIN_S
        for at in self._each():
            if not self._words[at + RecordWord.ATTACHED]:
                self._drop_if_worthless(now_s, at)

    def _detach(self, now_s: float, record_at: int, bit: int) -> None:
        words = self._words
        words[record_at + RecordWord.ATTACHED] &= ~bit
        if not words[record_at + RecordWord.ATTACHED]:
            self._drop_if_worthless(now_s, record_at)

    def _drop_if_worthless(self, now_s: float, record_at: int) -> None:
        if self._memory.times[record_at + RecordWord.KEEP_UNTIL] > now_s:
            return
        words = self._words
        number = (record_at - self._layout.records_at) // self._layout.record_words + 1
        low = words[record_at + RecordWord.KEY_LOW]
        link_at = self._layout.heads_at + (low & (self._layout.heads - 1))
        while words[link_at] != number:
            if not words[link_at]:
                return  # on no chain: it is free already, or was lost by one that died
            link_at = self._layout.record_at(words[link_at] - 1) + RecordWord.NEXT
        words[link_at] = words[record_at + RecordWord.NEXT]
        words[record_at + RecordWord.NEXT] = words[Header.FREE]
        words[Header.FREE] = number

    def _clear(self, record_at: int) -> None:
        """Make a record one that was never used; its halves of state need none (version 0)."""
        words, layout = self._words, self._layout
        for at in range(record_at, record_at + RecordWord.WORDS):
            words[at] = 0
        for at in range(layout.columns_at(record_at, 0), record_at + layout.record_words):
            words[at] = 0
