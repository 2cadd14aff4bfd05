"""The purse for retries of one (tenant, origin), for all workers of a host.

A retry takes the lock: check and charge are one step for all. What calls earn goes into each
worker's own column, and whoever steps under the lock first puts into the purse what the columns
have more than was counted. Between two charges the order of what came in does not matter, so that
is exact. A full purse earns nothing, and while nobody has touched it since we saw it full a call
looks at one word only.

What a dead worker had reserved is spent: nobody knows how its retries ended.
"""

import struct
from typing import Final

from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota
from vastar_runtime.sharing.record import Record

__all__ = ["SharedRetryQuota"]

_EARNED: Final = 0  # the sort of column
_STATE: Final = struct.Struct("@2Qd")
"""Tokens that are missing, earned and counted, used at."""
_COUNT_EVERY_S: Final = 1.0
"""How old the news of a purse that fills may be: nothing but the look of it hangs on that."""


class SharedRetryQuota(RetryQuota):
    """The purse as one worker sees it. `outstanding` is its own."""

    __slots__ = (
        "_count_at_s",
        "_counted",
        "_earned",
        "_own_at",
        "_version_at",
        "_words",
        "record",
    )  # fmt: skip

    def __init__(self, settings: QuotaSettings, record: Record) -> None:
        super().__init__(settings)
        self.record = record
        self._words = record.words
        self._version_at = record.version_at
        self._own_at = record.columns_at(_EARNED) + record.worker
        self._earned = record.words[self._own_at]
        self._counted = 0
        self._count_at_s = float("-inf")

    def refresh(self, now_s: float) -> None:
        """Look at how things stand."""
        with self.record:
            self._load(now_s - self.record.ahead_s)

    def reserve(self, now_s: float, *, is_throttled: bool) -> int | None:
        """As `RetryQuota.reserve`."""
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            cost = super().reserve(shared_s, is_throttled=is_throttled)
            self._store()
        return cost

    def reserve_nothing(self, _now_s: float) -> int:
        """As `RetryQuota.reserve_nothing`."""
        self.outstanding += 1
        return 0

    def spend(self, _now_s: float) -> None:
        """As `RetryQuota.spend`."""
        self.outstanding -= 1

    def refund(self, cost: int, now_s: float) -> None:
        """As `RetryQuota.refund`."""
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            super().refund(cost, shared_s)
            self._store()

    def earn(self, now_s: float) -> None:
        """As `RetryQuota.earn`."""
        if self._words[self._version_at] == self.record.seen:
            if self.tokens >= self._settings.most_tokens:
                return
            if now_s < self._count_at_s:
                self._earned += self._settings.earned_per_success
                self._words[self._own_at] = self._earned
                return
        shared_s = now_s - self.record.ahead_s
        with self.record:
            self._load(shared_s)
            if self.tokens < self._settings.most_tokens:
                super().earn(shared_s)
                self._store()
        self._count_at_s = now_s + _COUNT_EVERY_S

    def is_droppable(self, now_s: float) -> bool:
        """As `RetryQuota.is_droppable`, for all workers."""
        if self.outstanding:
            return False
        if self.record.is_stale or self.tokens < self._settings.most_tokens:
            self.refresh(now_s)
        return super().is_droppable(now_s - self.record.ahead_s)

    def _load(self, now_s: float) -> None:
        values = self.record.read(_STATE)
        if values is not None:
            missing, self._counted, self._used_at_s = values
            self.tokens = max(0, self._settings.most_tokens - missing)
        columns_at = self.record.columns_at(_EARNED)
        earned = sum(self._words[columns_at : columns_at + self.record.workers])
        if earned > self._counted:
            self._use(now_s)
            self._add(earned - self._counted)
            self._counted = earned

    def _store(self) -> None:
        most = self._settings.most_tokens
        values = (most - self.tokens, self._counted, self._used_at_s)
        forget_s = self._settings.forget_after_s if self.tokens < most else 0.0
        self.record.write(_STATE, values, self._used_at_s + forget_s)
