"""One record in the hands of a worker's machine: its lock, its state, its own column.

What every shared machine does is in two lines: `if words[version_at] != seen` somebody else has
changed the state, so what is remembered is stale; and

    with record:                    # the lock
        values = record.read(STATE)     # None = nobody has written yet
        ...step...
        record.write(STATE, values, keep_until_s)
"""

import struct
from fcntl import LOCK_EX, LOCK_UN, lockf
from types import TracebackType
from typing import Any, Final, Self

from vastar_runtime.sharing.layout import WORD_BYTES, RecordWord
from vastar_runtime.sharing.memory import Memory

__all__ = ["NEVER_SEEN", "Record"]

NEVER_SEEN: Final = -1
"""What no version is equal to."""
# Members of an IntEnum make slow additions, and results of another kind.
_VERSION: Final = int(RecordWord.VERSION)
_KEEP_UNTIL: Final = int(RecordWord.KEEP_UNTIL)


class Record:
    """A record that this worker is attached to. A context manager: its lock.

    Attributes:
        at: where it begins.
        worker: which column is ours.
        words: of the whole memory.
        version_at: the word to look at for whether `seen` is still so.
        seen: the version that was read or written last.
        ahead_s: of this process's clock, to be taken off times that go into the memory.
    """

    __slots__ = ("_memory", "ahead_s", "at", "seen", "version_at", "words", "worker")

    def __init__(self, memory: Memory, record_at: int, worker: int, ahead_s: float) -> None:
        # There are tens of thousands of these: what can be reckoned from `at` is.
        self._memory = memory
        self.at = record_at
        self.worker = worker
        self.words = memory.words
        self.version_at = record_at + _VERSION
        self.seen = NEVER_SEEN
        self.ahead_s = ahead_s

    def __enter__(self) -> Self:
        lockf(self._memory.fd, LOCK_EX, 1, self.at * WORD_BYTES)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lockf(self._memory.fd, LOCK_UN, 1, self.at * WORD_BYTES)

    @property
    def is_stale(self) -> bool:
        """Whether somebody has written since we last looked."""
        return self.words[self.version_at] != self.seen

    @property
    def workers(self) -> int:
        """How many columns of each sort there are."""
        return self._memory.layout.workers

    def columns_at(self, sort: int) -> int:
        """Where the columns of one sort begin."""
        return self._memory.layout.columns_at(self.at, sort)

    def read(self, form: struct.Struct) -> tuple[Any, ...] | None:
        """The state, under the lock; None where none was written."""
        self.seen = version = self.words[self.version_at]
        if not version:
            return None
        memory = self._memory
        return form.unpack_from(memory.data, memory.layout.state_at(self.at, version) * WORD_BYTES)

    def write(self, form: struct.Struct, values: tuple[Any, ...], keep_until_s: float) -> None:
        """Let `values` be the state, under the lock.

        Args:
            form: as it is read.
            values: what it packs.
            keep_until_s: when forgetting it becomes as good as keeping it, by the shared clock.
        """
        version, memory = self.words[self.version_at] + 1, self._memory
        state_at = memory.layout.state_at(self.at, version)
        form.pack_into(memory.data, state_at * WORD_BYTES, *values)
        memory.times[self.at + _KEEP_UNTIL] = keep_until_s
        self.words[self.version_at] = self.seen = version
