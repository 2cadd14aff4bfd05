"""What the upstream of one credential told, for all workers of a host.

Requests and tokens that were begun are counted in each worker's own column, and numbered by the
sum of all columns. While no word of the upstream holds, nothing is decided by them: then a call
looks at one word and writes one. As soon as there is a word each call takes the lock, so that all
workers together begin no more than is left.

Who has to wait says so in a column. An answer that tells more rings those workers; each of them
keeps a line of its own, and the heads of the lines ask as their times come.
"""

import struct
from array import array
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from vastar_runtime.policy.aimd import Aimd
from vastar_runtime.policy.header_learning import Go, HeaderLearning, HeaderSettings, WaitUntil
from vastar_runtime.policy.rate_headers import Hint, Unit
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.sharing.record import Record

__all__ = ["SharedLearning"]

_REQUESTS, _TOKENS, _WAITING = range(3)
"""Sorts of columns; they lie side by side."""
_NOTHING: Final = (0, 0)
_WORD_LENGTH: Final = 8
_MOST_NUMBERS: Final = len(Unit) * _WORD_LENGTH
_STATE: Final = struct.Struct(f"@Qdd{_MOST_NUMBERS}d")
"""Numbers that are used, ratio of the rate and when it was decreased, the words."""

_NO_WORDS: Final = array("d")
_Verdict = TypeVar("_Verdict", bound=Go | WaitUntil | Refused | None)


class SharedLearning(HeaderLearning):
    """What one worker sees of it. Times are its own.

    Args:
        settings: as configured.
        record: of the credential.
        ring: wakes the first in line of another worker, by worker and record.
    """

    __slots__ = ("_columns_at", "_loaded", "_ring", "_version_at", "_words_of_all", "record")

    def __init__(
        self, settings: HeaderSettings, record: Record, ring: Callable[[int, int], None]
    ) -> None:
        super().__init__(settings)
        self.record = record
        self._ring = ring
        self._words_of_all = record.words
        self._version_at = record.version_at
        self._columns_at = record.columns_at(_REQUESTS)
        self._loaded = _NOTHING

    def refresh(self, _now_s: float) -> None:
        """Look at how things stand."""
        with self.record:
            self._load()

    def remaining(self, now_s: float) -> dict[str, float]:
        """As `HeaderLearning.remaining`."""
        self.refresh(now_s)
        return super().remaining(now_s - self.record.ahead_s)

    def is_droppable(self, now_s: float) -> bool:
        """As `HeaderLearning.is_droppable`."""
        if self.record.is_stale:
            self.refresh(now_s)
        return super().is_droppable(now_s - self.record.ahead_s)

    def decide(self, now_s: float, tokens: int, give_up_at_s: float) -> Go | WaitUntil | Refused:
        """As `HeaderLearning.decide`."""
        record, words = self.record, self._words_of_all
        if self._words or words[self._version_at] != record.seen:
            ahead_s = record.ahead_s
            with record:
                self._load()
                if self._words:
                    verdict = super().decide(now_s - ahead_s, tokens, give_up_at_s - ahead_s)
                    self._store()
                    words[self._own(_WAITING)] = int(isinstance(verdict, WaitUntil))
                    return self._in_own_time(verdict)
        at, workers = self._columns_at, record.workers
        words[at + record.worker] += 1
        if tokens:
            words[at + workers + record.worker] += tokens
        # Slices: quicker than a loop over the words.
        nth_request = sum(words[at : at + workers])
        nth_token = sum(words[at + workers : at + 2 * workers])
        return Go(nth_request, nth_token, tokens)

    def forecast(
        self, now_s: float, tokens: int, ahead: int, give_up_at_s: float
    ) -> WaitUntil | Refused | None:
        """As `HeaderLearning.forecast`."""
        ahead_s = self.record.ahead_s
        with self.record:
            self._load()
            verdict = super().forecast(now_s - ahead_s, tokens, ahead, give_up_at_s - ahead_s)
            self._store()
        return self._in_own_time(verdict)

    def answered(self, now_s: float, go: Go, hints: Iterable[Hint], *, was_throttled: bool) -> None:
        """As `HeaderLearning.answered`."""
        if not hints and not was_throttled:
            if self._words_of_all[self._version_at] != self.record.seen:
                self.refresh(now_s)
            if self._aimd is None:
                return
        with self.record:
            self._load()
            super().answered(now_s - self.record.ahead_s, go, hints, was_throttled=was_throttled)
            self._store()
        self._ring_others()

    def not_sent(self, go: Go) -> None:
        """As `HeaderLearning.not_sent`."""
        if self._words_of_all[self._version_at] == self.record.seen and not self._words:
            return
        with self.record:
            self._load()
            if not self._words:
                return
            super().not_sent(go)
            self._store()
        self._ring_others()

    def _ring_others(self) -> None:
        at, own = self._columns_at + _WAITING * self.record.workers, self.record.worker
        for worker, waits in enumerate(self._words_of_all[at : at + self.record.workers]):
            if waits and worker != own:
                self._ring(worker, self.record.at)

    def _own(self, sort: int) -> int:
        """Where our column of a sort is."""
        return self._columns_at + sort * self.record.workers + self.record.worker

    def _sum(self, sort: int) -> int:
        at = self._columns_at + sort * self.record.workers
        return sum(self._words_of_all[at : at + self.record.workers])

    def _in_own_time(self, verdict: _Verdict) -> _Verdict | WaitUntil:
        if isinstance(verdict, WaitUntil):
            return WaitUntil(verdict.at_s + self.record.ahead_s)
        return verdict

    # --- under the lock ------------------------------------------------------------------------

    def _load(self) -> None:
        words = self._words_of_all
        is_news = words[self._version_at] != self.record.seen
        values = self.record.read(_STATE) if is_news else None
        if values is not None:
            used, ratio, decreased_at_s = values[:3]
            self._words = array("d", values[3 : 3 + used]) if used else _NO_WORDS
            self._aimd = None
            if ratio < 1:
                self._aimd = Aimd.resumed(self._settings.aimd, ratio, decreased_at_s)
        self._requests, self._tokens = self._sum(_REQUESTS), self._sum(_TOKENS)
        self._loaded = (self._requests, self._tokens)

    def _store(self) -> None:
        words = self._words_of_all
        requests, tokens = self._loaded
        words[self._own(_REQUESTS)] += self._requests - requests
        words[self._own(_TOKENS)] += self._tokens - tokens
        self._loaded = (self._requests, self._tokens)
        numbers = self._words
        aimd = self._aimd
        ratio, decreased_at_s = (1.0, 0.0) if aimd is None else (aimd.ratio, aimd.decreased_at_s)
        padding = (0.0,) * (_MOST_NUMBERS - len(numbers))
        values = (len(numbers), ratio, decreased_at_s, *numbers, *padding)
        self.record.write(_STATE, values, self.worth_until_s())
