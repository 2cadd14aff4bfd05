"""What all workers of a host feel together of a limit that nobody tells (AIMD).

The state lies in the record of the key's places and is stepped under the admission lock; the ratio
is one word, so whoever only looks needs no lock.
"""

import struct
from typing import Final

from vastar_runtime.policy.aimd import Aimd, AimdSettings
from vastar_runtime.sharing.layout import WORD_BYTES
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.record import Record

__all__ = ["Feeling"]

_STATE: Final = struct.Struct("@2d")
"""The ratio, and when it was decreased."""
_RATIO: Final = struct.Struct("@d")


class Feeling:
    """The ratio of one key.

    Args:
        memory: all of it.
        record_at: of the key's places; None where it has none: then each worker feels for itself.
        worker: ours.

    Attributes:
        settings: how to feel; set before each step.
    """

    __slots__ = ("_aimd", "_memory", "_record", "settings")

    def __init__(self, memory: Memory, record_at: int | None, worker: int) -> None:
        self._memory = memory
        self._record = None if record_at is None else Record(memory, record_at, worker, 0.0)
        self.settings = AimdSettings()
        self._aimd = Aimd(self.settings)

    def ratio(self) -> float:
        """The part of the full value that is used now, 1.0 = all."""
        record = self._record
        if record is None:
            return self._aimd.ratio
        version = record.words[record.version_at]
        if not version:
            return 1.0
        at = self._memory.layout.state_at(record.at, version) * WORD_BYTES
        ratio: float = _RATIO.unpack_from(self._memory.data, at)[0]
        return ratio

    def overloaded(self, now_s: float) -> None:
        """Too much; under the admission lock. `now_s` is CLOCK_MONOTONIC."""
        self._load()
        if self._aimd.overloaded(now_s):
            self._store()

    def succeeded(self) -> None:
        """A call went well; under the admission lock."""
        self._load()
        self._aimd.succeeded()
        self._store()

    def _load(self) -> None:
        ratio, decreased_at_s = self._aimd.ratio, self._aimd.decreased_at_s
        if self._record is not None:
            values = self._record.read(_STATE)
            ratio, decreased_at_s = values or (1.0, float("-inf"))
        self._aimd = Aimd.resumed(self.settings, ratio, decreased_at_s)

    def _store(self) -> None:
        if self._record is not None:
            aimd = self._aimd
            keep_until_s = aimd.worth_until_s
            self._record.write(_STATE, (aimd.ratio, aimd.decreased_at_s), keep_until_s)
