"""The limits that share one bucket (of a credential, a workspace, a tenant, an origin).

Those who have no limit share one object, as most have none.
"""

from collections.abc import Iterator
from typing import Any, Final

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

    __slots__ = ("_maker", "_names", "_settings", "requests", "tokens", "volume")

    def __init__(
        self, settings: LimitSettings, maker: Maker = OWN, names: tuple[str, ...] = ()
    ) -> None:
        self._settings = settings
        self._maker = maker
        self._names = names
        self.requests = self._rate(settings.requests)
        self.tokens = self._tokens(settings.tokens)
        self.volume = self._rate(settings.volume)

    @classmethod
    def of(
        cls, settings: LimitSettings, maker: Maker = OWN, names: tuple[str, ...] = ()
    ) -> "Limiters":
        """Those that `settings` ask for; where that is none, what all who have none share."""
        return UNLIMITED if settings == NO_LIMITS else cls(settings, maker, names)

    def _rate(self, settings: RateLimitSettings | None) -> Pacer[RateLimiter] | None:
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
        for _, pacer in self.pacers():
            self._maker.let_go(pacer.limiter)

    def pacers(self) -> Iterator[tuple[str, Pacer[Any]]]:
        """Those that are there, by the names of their policies."""
        if self.requests is not None:
            yield "rate_limit", self.requests
        if self.tokens is not None:
            yield "token_limit", self.tokens
        if self.volume is not None:
            yield "byte_limit", self.volume

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
        if (old := self.requests) is None or settings.requests is None:
            self.requests = self._rate(settings.requests)
            self._gone(old, now_s)
        if (before := self.tokens) is None or settings.tokens is None:
            self.tokens = self._tokens(settings.tokens)
            self._gone(before, now_s)
        if (old := self.volume) is None or settings.volume is None:
            self.volume = self._rate(settings.volume)
            self._gone(old, now_s)
        self.scale(rate_ratio, now_s)
        return self

    def _gone(self, pacer: Pacer[Any] | None, now_s: float) -> None:
        if pacer is not None:
            pacer.lift(now_s)
            self._maker.let_go(pacer.limiter)

    def scale(self, rate_ratio: float, now_s: float) -> None:
        """Let this part of the configured rates hold, and of what may go at once after a pause."""
        settings = self._settings
        if self.requests is not None and settings.requests is not None:
            self.requests.change(now_s, _scaled(settings.requests, rate_ratio))
        if self.tokens is not None and settings.tokens is not None:
            rate = _scaled(settings.tokens.rate, rate_ratio)
            self.tokens.limiter.change_tokens(now_s, attrs.evolve(settings.tokens, rate=rate))
            self.tokens.wake(now_s)
        if self.volume is not None and settings.volume is not None:
            self.volume.change(now_s, _scaled(settings.volume, rate_ratio))

    def is_droppable(self, now_s: float) -> bool:
        """Whether new ones would decide the same."""
        return all(pacer.limiter.is_droppable(now_s) for _, pacer in self.pacers())

    @property
    def waiting(self) -> int:
        """Calls in their lines."""
        return sum(pacer.limiter.waiting_count for _, pacer in self.pacers())


UNLIMITED: Final = Limiters(NO_LIMITS)


def _scaled(settings: RateLimitSettings, ratio: float) -> RateLimitSettings:
    if ratio >= 1:
        return settings
    burst = max(1, round(settings.max_cost * ratio))
    return attrs.evolve(settings, period_s=min(settings.period_s / ratio, _YEAR_S), burst=burst)
