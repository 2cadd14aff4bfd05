"""The machines that calls share, by what they belong to.

Shape: five stores, one for each kind of key: an origin, a (tenant, origin), a (tenant, workspace,
origin), a workspace, a tenant. A value bundles the machines of its key, so that a call looks up
three, not ten. A bundle counts its `users`: a call registers with what it was given, so nothing is
dropped, and made anew beside it, while anybody holds it.

Machines come from a `Maker`: their own, or shared with other processes of the host.

Numbers come from the merge of a bundle's own key (see `policies`); `reconfigure` brings them up to
a new configuration without forgetting what happened.
"""

import math
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

import attrs
import trio

from vastar_runtime.pipeline.limiters import Limiters
from vastar_runtime.pipeline.line import Line
from vastar_runtime.pipeline.making import OWN, Maker
from vastar_runtime.pipeline.policies import PolicyBook
from vastar_runtime.policy.admission import Admission
from vastar_runtime.policy.breaker import Breaker
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.cooldown import Cooldown
from vastar_runtime.policy.header_learning import HeaderLearning
from vastar_runtime.policy.hedging import Hedging
from vastar_runtime.policy.keyed import KeyedStore
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry_quota import RetryQuota
from vastar_runtime.policy.verdicts import Scope

__all__ = ["Limiters", "Machines", "OfCredential", "OfOrigin", "OfOwner", "OfTenantAtOrigin"]

IDLE_S: Final = 60.0
"""A bundle that nobody used for so long, and that owes nothing, is dropped."""
RATE_STEPS: Final = 20
"""Of a rate that follows its upstream: a twentieth is as fine as anybody can tell."""
_SWEEP_S: Final = 5.0
_SWEEPS: Final = 12
"""Every key is looked at once in so many sweeps: once in a minute."""
MAX_KEYS: Final = 10_000
"""Of one kind; above it those that owe nothing go although they do not idle."""


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
    make: Callable[[_Key], _Bundle],
    is_droppable: Callable[[_Bundle, float], bool],
    on_drop: Callable[[_Bundle], None],
) -> KeyedStore[_Key, _Bundle]:
    return KeyedStore(make, is_droppable, idle_s=IDLE_S, max_keys=MAX_KEYS, on_drop=on_drop)


class Machines:
    """All machines of a runtime.

    Attributes:
        maker: of every machine.
        admission: the bulkhead and its queue; there is one.
    """

    def __init__(self, book: PolicyBook, maker: Maker = OWN) -> None:
        self.book = book
        self.maker = maker
        self.admission: Admission = maker.admission(book.of().admission)
        self._appeared = trio.Event()
        self.origins: KeyedStore[str, OfOrigin] = _store(
            self._of_origin,
            OfOrigin.is_droppable,
            lambda gone: self._let_go(gone.limits, gone.breaker),
        )
        self.tenants_at_origins: KeyedStore[tuple[str, str], OfTenantAtOrigin] = _store(
            self._of_tenant_at_origin,
            OfTenantAtOrigin.is_droppable,
            lambda gone: maker.let_go(gone.breaker, gone.quota),
        )
        self.credentials: KeyedStore[Key, OfCredential] = _store(
            self._of_credential,
            OfCredential.is_droppable,
            lambda gone: self._let_go(gone.limits, gone.cooldown, gone.learning),
        )
        self.workspaces: KeyedStore[tuple[str, str], OfOwner] = _store(
            self._of_workspace, OfOwner.is_droppable, lambda gone: self._let_go(gone.limits)
        )
        self.tenants: KeyedStore[str, OfOwner] = _store(
            self._of_tenant, OfOwner.is_droppable, lambda gone: self._let_go(gone.limits)
        )

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
            self.maker.sweep()

    def reconfigure(self, book: PolicyBook, now_s: float) -> None:
        """Go on under the settings of `book`; counts, debts and open circuits stay."""
        self.book = book
        for origin, of_origin in self.origins.items():
            policies = book.of(origin=origin)
            of_origin.breaker.configure(policies.breaker)
            of_origin.limits = of_origin.limits.configured(
                policies.origin_limits, now_s, maker=self.maker, names=(origin,)
            )
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
            credential.limits = credential.limits.configured(
                policies.limits, now_s, ratio, maker=self.maker, names=key
            )
        for (tenant, workspace), owner in self.workspaces.items():
            policies = book.of(tenant=tenant, workspace=workspace)
            owner.limits = owner.limits.configured(
                policies.workspace_limits, now_s, maker=self.maker, names=(tenant, workspace)
            )
        for tenant, owner in self.tenants.items():
            policies = book.of(tenant=tenant)
            owner.limits = owner.limits.configured(
                policies.tenant_limits, now_s, maker=self.maker, names=(tenant,)
            )

    def _stores(self) -> tuple[KeyedStore[Any, Any], ...]:
        return (
            self.origins,
            self.tenants_at_origins,
            self.credentials,
            self.workspaces,
            self.tenants,
        )

    def _let_go(self, limits: Limiters, *machines: object) -> None:
        limits.let_go()
        self.maker.let_go(*machines)

    def _of_origin(self, origin: str) -> OfOrigin:
        self._appeared.set()
        policies, maker, names = self.book.of(origin=origin), self.maker, (origin,)
        return OfOrigin(
            maker.breaker(policies.breaker, Scope.ORIGIN, names),
            Limiters.of(policies.origin_limits, maker, names),
        )

    def _of_tenant_at_origin(self, key: tuple[str, str]) -> OfTenantAtOrigin:
        tenant, origin = key
        policies = self.book.of(tenant=tenant, origin=origin)
        return OfTenantAtOrigin(
            self.maker.breaker(policies.breaker, Scope.TENANT, key),
            self.maker.retry_quota(policies.retry_quota, key),
        )

    def _of_credential(self, key: Key) -> OfCredential:
        policies, maker = self.book.of(*key), self.maker
        credential = OfCredential(
            maker.cooldown(policies.cooldown, key),
            maker.learning(policies.header_learning, key),
            Limiters.of(policies.limits, maker, key),
        )
        maker.watch(credential.learning, lambda _now_s: credential.ring())
        return credential

    def _of_workspace(self, key: tuple[str, str]) -> OfOwner:
        policies = self.book.of(tenant=key[0], workspace=key[1])
        return OfOwner(Limiters.of(policies.workspace_limits, self.maker, key))

    def _of_tenant(self, tenant: str) -> OfOwner:
        limits = self.book.of(tenant=tenant).tenant_limits
        return OfOwner(Limiters.of(limits, self.maker, (tenant,)))
