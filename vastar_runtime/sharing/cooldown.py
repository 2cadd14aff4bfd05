"""A cooldown that all workers of a host share: who is throttled in one rests in all.

The version tells whether the rest is still the one we know, so a call of a healthy credential looks
at one word. Only what changes the state takes the lock: a 429, and the first success behind one.
"""

import struct
from typing import Final

from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import Meaning
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.sharing.record import Record

__all__ = ["SharedCooldown"]

_STATE: Final = struct.Struct("@2Qd")
"""Round, how many in a row, until when."""
_NONE: Final = Evidence.NONE


class SharedCooldown(Cooldown):
    """One credential at one origin, as one worker sees it. Times are its own."""

    __slots__ = ("_version_at", "_words", "record")

    def __init__(self, settings: CooldownSettings, record: Record) -> None:
        super().__init__(settings)
        self.record = record
        self._words = record.words
        self._version_at = record.version_at

    def refresh(self, _now_s: float) -> None:
        """Look at how things stand."""
        with self.record:
            self._load()

    def admit(self, now_s: float) -> int | Refused:
        """As `Cooldown.admit`."""
        if self._words[self._version_at] != self.record.seen:
            self.refresh(now_s)
        if now_s >= self._until_s:
            self.in_flight += 1
            return self.round
        return super().admit(now_s)

    def report(
        self,
        round_: int,
        meaning: Meaning,
        now_s: float,
        random_ratio: float,
        retry_after_s: float | None,
    ) -> bool:
        """As `Cooldown.report`."""
        if not meaning.cools_down:
            if meaning.tenant is _NONE:
                self.in_flight -= 1
                return False
            if self._words[self._version_at] == self.record.seen and not self._in_a_row:
                self.in_flight -= 1
                return False
        with self.record:
            self._load()
            has_begun = super().report(round_, meaning, now_s, random_ratio, retry_after_s)
            until_s = self._until_s - self.record.ahead_s
            keep_until_s = until_s + self._settings.unhinted_max_s
            self.record.write(_STATE, (self.round, self._in_a_row, until_s), keep_until_s)
        return has_begun

    @property
    def rests_until_s(self) -> float:
        """As `Cooldown.rests_until_s`."""
        if self._words[self._version_at] != self.record.seen:
            self.refresh(0.0)
        return self._until_s

    def rest_s(self, now_s: float) -> float:
        """As `Cooldown.rest_s`."""
        return max(0.0, self.rests_until_s - now_s)

    def is_droppable(self, now_s: float) -> bool:
        """As `Cooldown.is_droppable`."""
        return not self.in_flight and now_s >= self.rests_until_s + self._settings.unhinted_max_s

    def _load(self) -> None:
        values = self.record.read(_STATE)
        if values is not None:
            self.round, self._in_a_row, until_s = values
            self._until_s = until_s + self.record.ahead_s
