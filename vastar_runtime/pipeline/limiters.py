"""The limits that share one bucket (of a credential, a workspace, a tenant, an origin).

Those who have no limit share one object, as most have none.
"""

from typing import Final

import attrs

from vastar_runtime.pipeline.making import OWN, Maker
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.pipeline.policies import NO_LIMITS, LimitSettings
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings

__all__ = ["UNLIMITED", "Limiters"]

_YEAR_S: Final = 366 * 24 * 3600.0


class Limiters:
    """The limits that share one bucket, each there where it is configured."""

    __slots__ = ("_maker", "_names", "_settings", "requests", "tokens")

    def __init__(
        self, settings: LimitSettings, maker: Maker = OWN, names: tuple[str, ...] = ()
    ) -> None:
        self._settings = settings
        self._maker = maker
        self._names = names
        self.requests = self._requests(settings.requests)
        self.tokens = self._tokens(settings.tokens)

    @classmethod
    def of(
        cls, settings: LimitSettings, maker: Maker = OWN, names: tuple[str, ...] = ()
    ) -> "Limiters":
        """Those that `settings` ask for; where that is none, what all who have none share."""
        return UNLIMITED if settings == NO_LIMITS else cls(settings, maker, names)

    def _requests(self, settings: RateLimitSettings | None) -> Pacer[RateLimiter] | None:
        if settings is None:
            return None
        pacer = Pacer(self._maker.rate_limiter(settings, self._names))
        self._maker.watch(pacer.limiter, pacer.wake)
        return pacer

    def _tokens(self, settings: TokenLimitSettings | None) -> Pacer[TokenLimiter] | None:
        if settings is None:
            return None
        pacer = Pacer(self._maker.token_limiter(settings, self._names))
        self._maker.watch(pacer.limiter, pacer.wake)
        return pacer

    def let_go(self) -> None:
        """Nobody here uses them any more."""
        for pacer in (self.requests, self.tokens):
            if pacer is not None:
                self._maker.let_go(pacer.limiter)

    def configured(
        self,
        settings: LimitSettings,
        now_s: float,
        rate_ratio: float = 1.0,
        *,
        maker: Maker = OWN,
        names: tuple[str, ...] = (),
    ) -> "Limiters":
        """These, or others, under other settings; who waits for a limit that is gone goes at once.

        Args:
            settings: as configured.
            now_s: a monotonic clock.
            rate_ratio: the part of the configured rates that is to hold now.
            maker: of those that are new.
            names: of their key.
        """
        if self is UNLIMITED:
            fresh = Limiters.of(settings, maker, names)
            if fresh is not UNLIMITED:
                fresh.scale(rate_ratio, now_s)
            return fresh
        self._settings = settings
        old_requests, old_tokens = self.requests, self.tokens
        if old_requests is None or settings.requests is None:
            self.requests = self._requests(settings.requests)
            if old_requests is not None:
                old_requests.lift(now_s)
                self._maker.let_go(old_requests.limiter)
        if old_tokens is None or settings.tokens is None:
            self.tokens = self._tokens(settings.tokens)
            if old_tokens is not None:
                old_tokens.lift(now_s)
                self._maker.let_go(old_tokens.limiter)
        self.scale(rate_ratio, now_s)
        return self

    def scale(self, rate_ratio: float, now_s: float) -> None:
        """Let this part of the configured rates hold, and of what may go at once after a pause."""
        settings = self._settings
        if self.requests is not None and settings.requests is not None:
            self.requests.change(now_s, _scaled(settings.requests, rate_ratio))
        if self.tokens is not None and settings.tokens is not None:
            rate = _scaled(settings.tokens.rate, rate_ratio)
            self.tokens.limiter.change_tokens(now_s, attrs.evolve(settings.tokens, rate=rate))
            self.tokens.wake(now_s)

    def is_droppable(self, now_s: float) -> bool:
        """Whether new ones would decide the same."""
        return (self.requests is None or self.requests.limiter.is_droppable(now_s)) and (
            self.tokens is None or self.tokens.limiter.is_droppable(now_s)
        )

    @property
    def waiting(self) -> int:
        """Calls in their lines."""
        return sum(p.limiter.waiting_count for p in (self.requests, self.tokens) if p is not None)


UNLIMITED: Final = Limiters(NO_LIMITS)


def _scaled(settings: RateLimitSettings, ratio: float) -> RateLimitSettings:
    if ratio >= 1:
        return settings
    burst = max(1, round(settings.max_cost * ratio))
    return attrs.evolve(settings, period_s=min(settings.period_s / ratio, _YEAR_S), burst=burst)
