"""What a worker does where the shared table has no room for a key: it keeps to its part alone.

The safe side: so many workers with such a part each never let more through together than the limit.
The rate is divided exactly; of a burst, a number of places or a purse each worker has at least one,
so where those are smaller than the number of workers, together they may have more.

Breakers, cooldowns and what upstreams tell are then each worker's own.
"""

import attrs

from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings

__all__ = ["PartialQuota", "PartialRateLimiter", "PartialTokenLimiter"]

_LONGEST_PERIOD_S = 366 * 24 * 3600.0


class PartialRateLimiter(RateLimiter):
    """The limiter of one worker's part."""

    def __init__(self, settings: RateLimitSettings, workers: int) -> None:
        self._workers = workers
        super().__init__(_part(settings, workers))

    def change(self, now_s: float, settings: RateLimitSettings) -> None:
        """As `RateLimiter.change`; `settings` are those of all."""
        super().change(now_s, _part(settings, self._workers))


class PartialTokenLimiter(TokenLimiter):
    """The token limiter of one worker's part."""

    def __init__(self, settings: TokenLimitSettings, workers: int) -> None:
        self._workers = workers
        super().__init__(attrs.evolve(settings, rate=_part(settings.rate, workers)))

    def change(self, now_s: float, settings: RateLimitSettings) -> None:
        """As `RateLimiter.change`; `settings` are those of all."""
        super().change(now_s, _part(settings, self._workers))


class PartialQuota(RetryQuota):
    """The purse of one worker's part."""

    def __init__(self, settings: QuotaSettings, workers: int) -> None:
        self._workers = workers
        super().__init__(_part_of_purse(settings, workers))

    def configure(self, settings: QuotaSettings) -> None:
        """As `RetryQuota.configure`; `settings` are those of all."""
        super().configure(_part_of_purse(settings, self._workers))


def _part(settings: RateLimitSettings, workers: int) -> RateLimitSettings:
    return attrs.evolve(
        settings,
        period_s=min(settings.period_s * workers, _LONGEST_PERIOD_S),
        burst=max(1, settings.max_cost // workers),
    )


def _part_of_purse(settings: QuotaSettings, workers: int) -> QuotaSettings:
    return attrs.evolve(settings, most_tokens=settings.most_tokens // workers)
