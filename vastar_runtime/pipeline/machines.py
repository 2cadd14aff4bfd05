"""The machines that calls share, by what they belong to.

Shape: five stores, one for each kind of key: an origin, a (tenant, origin), a (tenant, workspace,
origin), a workspace, a tenant. A value bundles the machines of its key, so that a call looks up
three, not ten. A bundle counts its `users`: a call registers with what it was given, so nothing is
dropped, and made anew beside it, while anybody holds it.

Numbers come from the merge of a bundle's own key (see `policies`); `reconfigure` brings them up to
a new configuration without forgetting what happened.
"""

import math
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

import attrs
import trio

from vastar_runtime.pipeline.line import Line
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.pipeline.policies import NO_LIMITS, LimitSettings, PolicyBook
from vastar_runtime.policy.admission import Admission
from vastar_runtime.policy.breaker import Breaker
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.cooldown import Cooldown
from vastar_runtime.policy.header_learning import HeaderLearning
from vastar_runtime.policy.hedging import Hedging
from vastar_runtime.policy.keyed import KeyedStore
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry_quota import RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter
from vastar_runtime.policy.verdicts import Scope

__all__ = ["Limiters", "Machines", "OfCredential", "OfOrigin", "OfOwner", "OfTenantAtOrigin"]

IDLE_S: Final = 60.0
"""A bundle that nobody used for so long, and that owes nothing, is dropped."""
RATE_STEPS: Final = 20
"""Of a rate that follows its upstream: a twentieth is as fine as anybody can tell."""
_YEAR_S: Final = 366 * 24 * 3600.0
_SWEEP_S: Final = 5.0
_SWEEPS: Final = 12
"""Every key is looked at once in so many sweeps: once in a minute."""
MAX_KEYS: Final = 10_000
"""Of one kind; above it those that owe nothing go although they do not idle."""


class Limiters:
    """The limits that share one bucket, each there where it is configured."""

    __slots__ = ("_settings", "requests", "tokens")

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self.requests = None if settings.requests is None else Pacer(RateLimiter(settings.requests))
        self.tokens = None if settings.tokens is None else Pacer(TokenLimiter(settings.tokens))

    @classmethod
    def of(cls, settings: LimitSettings) -> "Limiters":
        """Those that `settings` ask for; where that is none, what all who have none share."""
        return UNLIMITED if settings == NO_LIMITS else cls(settings)

    def configured(
        self, settings: LimitSettings, now_s: float, rate_ratio: float = 1.0
    ) -> "Limiters":
        """These, or others, under other settings; who waits for a limit that is gone goes at once.

        Args:
            settings: as configured.
            now_s: a monotonic clock.
            rate_ratio: the part of the configured rates that is to hold now.
        """
        if self is UNLIMITED:
            fresh = Limiters.of(settings)
            if fresh is not UNLIMITED:
                fresh.scale(rate_ratio, now_s)
            return fresh
        self._settings = settings
        old_requests, old_tokens = self.requests, self.tokens
        if old_requests is None or settings.requests is None:
            self.requests = Limiters(settings).requests
            if old_requests is not None:
                old_requests.lift(now_s)
        if old_tokens is None or settings.tokens is None:
            self.tokens = Limiters(settings).tokens
            if old_tokens is not None:
                old_tokens.lift(now_s)
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


@attrs.define(eq=False)
class OfOrigin:
    """What all callers of an origin share."""

    breaker: Breaker
    limits: Limiters
    users: int = 0

    def is_droppable(self, now_s: float) -> bool:
        """Whether forgetting it is as good as keeping it."""
        return (
            not self.users and self.breaker.is_droppable(now_s) and self.limits.is_droppable(now_s)
        )


@attrs.define(eq=False)
class OfTenantAtOrigin:
    """What a tenant's calls to an origin share; hedging once it was asked for, as it rarely is."""

    breaker: Breaker
    quota: RetryQuota
    hedging: Hedging | None = None
    users: int = 0

    def is_droppable(self, now_s: float) -> bool:
        """Whether forgetting it is as good as keeping it."""
        return (
            not self.users and self.breaker.is_droppable(now_s) and self.quota.is_droppable(now_s)
        )


@attrs.define(eq=False)
class OfCredential:
    """What a workspace's calls to an origin share: they go out with one credential.

    Attributes:
        rate_step: the part of the configured rates that holds now, in `RATE_STEPS`.
        line: for those that wait until the upstream's own limit lets them go.
    """

    cooldown: Cooldown
    learning: HeaderLearning
    limits: Limiters
    users: int = 0
    rate_step: int = RATE_STEPS
    line: Line | None = None

    def ring(self) -> None:
        """An answer may have told more than was known: the first in line asks anew."""
        if self.line is not None:
            self.line.ring()

    @property
    def is_slowed(self) -> bool:
        """Whether less than the configured rates holds."""
        return self.rate_step < RATE_STEPS

    def follow_upstream(self, now_s: float) -> None:
        """Let the configured rates follow what the upstream bears, in steps: each costs."""
        step = max(1, math.ceil(self.learning.rate_ratio * RATE_STEPS))
        if step != self.rate_step:
            self.rate_step = step
            self.limits.scale(step / RATE_STEPS, now_s)

    def is_droppable(self, now_s: float) -> bool:
        """Whether forgetting it is as good as keeping it."""
        return (
            not self.users
            and self.cooldown.is_droppable(now_s)
            and self.learning.is_droppable(now_s)
            and self.limits.is_droppable(now_s)
        )


@attrs.define(eq=False)
class OfOwner:
    """What all calls of a tenant, or of a workspace, share wherever they go.

    It counts no users: its limiters know who waits, and what is charged and not settled.
    """

    limits: Limiters

    def is_droppable(self, now_s: float) -> bool:
        """Whether forgetting it is as good as keeping it."""
        return self.limits.is_droppable(now_s)


_Key = TypeVar("_Key", bound=Hashable)
_Bundle = TypeVar("_Bundle")


def _store(
    make: Callable[[_Key], _Bundle], is_droppable: Callable[[_Bundle, float], bool]
) -> KeyedStore[_Key, _Bundle]:
    return KeyedStore(make, is_droppable, idle_s=IDLE_S, max_keys=MAX_KEYS)


class Machines:
    """All machines of a runtime.

    Attributes:
        admission: the bulkhead and its queue; there is one.
    """

    def __init__(self, book: PolicyBook) -> None:
        self.book = book
        self.admission = Admission(book.of().admission)
        self._appeared = trio.Event()
        self.origins: KeyedStore[str, OfOrigin] = _store(self._of_origin, OfOrigin.is_droppable)
        self.tenants_at_origins: KeyedStore[tuple[str, str], OfTenantAtOrigin] = _store(
            self._of_tenant_at_origin, OfTenantAtOrigin.is_droppable
        )
        self.credentials: KeyedStore[Key, OfCredential] = _store(
            self._of_credential, OfCredential.is_droppable
        )
        self.workspaces: KeyedStore[tuple[str, str], OfOwner] = _store(
            self._of_workspace, OfOwner.is_droppable
        )
        self.tenants: KeyedStore[str, OfOwner] = _store(self._of_tenant, OfOwner.is_droppable)

    def __len__(self) -> int:
        return sum(map(len, self._stores()))

    async def run(self) -> None:
        """Drop what idles, for ever; sleeps while there is nothing."""
        while True:
            if not len(self):
                self._appeared = trio.Event()
                await self._appeared.wait()
            await trio.sleep(_SWEEP_S)
            for store in self._stores():
                store.sweep(trio.current_time(), len(store) // _SWEEPS + 1)

    def reconfigure(self, book: PolicyBook, now_s: float) -> None:
        """Go on under the settings of `book`; counts, debts and open circuits stay."""
        self.book = book
        for origin, of_origin in self.origins.items():
            policies = book.of(origin=origin)
            of_origin.breaker.configure(policies.breaker)
            of_origin.limits = of_origin.limits.configured(policies.origin_limits, now_s)
        for (tenant, origin), of_tenant in self.tenants_at_origins.items():
            policies = book.of(tenant=tenant, origin=origin)
            of_tenant.breaker.configure(policies.breaker)
            of_tenant.quota.configure(policies.retry_quota)
            if of_tenant.hedging is not None:
                of_tenant.hedging.configure(policies.hedging)
        for key, credential in self.credentials.items():
            policies = book.of(*key)
            credential.cooldown.configure(policies.cooldown)
            credential.learning.configure(policies.header_learning)
            if policies.header_learning.mode is not Mode.ENFORCE:
                credential.rate_step = RATE_STEPS  # nobody would raise it again
            ratio = credential.rate_step / RATE_STEPS
            credential.limits = credential.limits.configured(policies.limits, now_s, ratio)
        for (tenant, workspace), owner in self.workspaces.items():
            policies = book.of(tenant=tenant, workspace=workspace)
            owner.limits = owner.limits.configured(policies.workspace_limits, now_s)
        for tenant, owner in self.tenants.items():
            owner.limits = owner.limits.configured(book.of(tenant=tenant).tenant_limits, now_s)

    def _stores(self) -> tuple[KeyedStore[Any, Any], ...]:
        return (
            self.origins,
            self.tenants_at_origins,
            self.credentials,
            self.workspaces,
            self.tenants,
        )

    def _of_origin(self, origin: str) -> OfOrigin:
        self._appeared.set()
        policies = self.book.of(origin=origin)
        return OfOrigin(
            Breaker(policies.breaker, Scope.ORIGIN), Limiters.of(policies.origin_limits)
        )

    def _of_tenant_at_origin(self, key: tuple[str, str]) -> OfTenantAtOrigin:
        tenant, origin = key
        policies = self.book.of(tenant=tenant, origin=origin)
        return OfTenantAtOrigin(
            Breaker(policies.breaker, Scope.TENANT),
            RetryQuota(policies.retry_quota),
        )

    def _of_credential(self, key: Key) -> OfCredential:
        policies = self.book.of(*key)
        return OfCredential(
            Cooldown(policies.cooldown),
            HeaderLearning(policies.header_learning),
            Limiters.of(policies.limits),
        )

    def _of_workspace(self, key: tuple[str, str]) -> OfOwner:
        policies = self.book.of(tenant=key[0], workspace=key[1])
        return OfOwner(Limiters.of(policies.workspace_limits))

    def _of_tenant(self, tenant: str) -> OfOwner:
        return OfOwner(Limiters.of(self.book.of(tenant=tenant).tenant_limits))
