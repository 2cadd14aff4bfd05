"""Who makes the machines of keys: this process for itself, or one that shares them with others.

`Maker` is all that `machines` asks of it. `OwnMaker` is for a runtime of one process: plain
machines of `vastar_runtime.policy`, and nothing to do beside that. What several workers of a host
share is made by `vastar_runtime.sharing`, which this room does not know.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from vastar_runtime.policy.admission import Admission, AdmissionSettings, Queued
from vastar_runtime.policy.breaker import Breaker, BreakerSettings
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.header_learning import HeaderLearning, HeaderSettings
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope

__all__ = ["OWN", "Maker", "OwnMaker", "SharedMaker"]


class Maker(Protocol):
    """Makes a machine of each kind; `names` tell its key from others of the kind and scope."""

    def admission(self, settings: AdmissionSettings) -> Admission:
        """The bulkhead and its queue; called once."""

    def breaker(self, settings: BreakerSettings, scope: Scope, names: tuple[str, ...]) -> Breaker:
        """The circuit of an origin, or of a tenant at it."""

    def retry_quota(self, settings: QuotaSettings, names: tuple[str, ...]) -> RetryQuota:
        """The purse of a tenant at an origin."""

    def cooldown(self, settings: CooldownSettings, names: tuple[str, ...]) -> Cooldown:
        """The rests of a credential."""

    def learning(self, settings: HeaderSettings, names: tuple[str, ...]) -> HeaderLearning:
        """What the upstream of a credential tells."""

    def rate_limiter(self, settings: RateLimitSettings, names: tuple[str, ...]) -> RateLimiter:
        """The limit on calls, or on bytes, in a time of a key; `policy` tells which."""

    def token_limiter(self, settings: TokenLimitSettings, names: tuple[str, ...]) -> TokenLimiter:
        """The limit on tokens in a time of a key."""

    def watch(self, machine: object, look: Callable[[float], None]) -> None:
        """Call `look` with the time when those who wait for `machine` should ask anew."""

    def let_go(self, *machines: object) -> None:
        """Nobody here uses these any more."""

    def refresh(self, now_s: float) -> None:
        """Bring what is shared up to date, for people who look."""

    def sweep(self) -> None:
        """Called every few seconds while there are machines."""


class SharedMaker(Maker, Protocol):
    """One whose machines other processes change too."""

    async def run(self, wake: Callable[[Iterable[Queued]], None]) -> None:
        """Hear of that, for ever; `wake` those in line for a place who are let through by it."""


class OwnMaker:
    """Machines that nobody shares; see `Maker`."""

    def admission(self, settings: AdmissionSettings) -> Admission:
        """Its own."""
        return Admission(settings)

    def breaker(self, settings: BreakerSettings, scope: Scope, _names: tuple[str, ...]) -> Breaker:
        """Its own."""
        return Breaker(settings, scope)

    def retry_quota(self, settings: QuotaSettings, _names: tuple[str, ...]) -> RetryQuota:
        """Its own."""
        return RetryQuota(settings)

    def cooldown(self, settings: CooldownSettings, _names: tuple[str, ...]) -> Cooldown:
        """Its own."""
        return Cooldown(settings)

    def learning(self, settings: HeaderSettings, _names: tuple[str, ...]) -> HeaderLearning:
        """Its own."""
        return HeaderLearning(settings)

    def rate_limiter(self, settings: RateLimitSettings, _names: tuple[str, ...]) -> RateLimiter:
        """Its own."""
        return RateLimiter(settings)

    def token_limiter(self, settings: TokenLimitSettings, _names: tuple[str, ...]) -> TokenLimiter:
        """Its own."""
        return TokenLimiter(settings)

    def watch(self, machine: object, look: Callable[[float], None]) -> None:
        """Nobody else changes it."""

    def let_go(self, *machines: object) -> None:
        """Nobody else asks for it."""

    def refresh(self, now_s: float) -> None:
        """It is up to date."""

    def sweep(self) -> None:
        """There is nothing to sweep."""


OWN: Final = OwnMaker()
