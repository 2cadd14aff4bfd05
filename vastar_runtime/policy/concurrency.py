"""How many calls may be under way at once: in the runtime, per tenant, and per upstream of one.

A bulkhead keeps one slow upstream from taking the places of all others. Three counts, checked and
taken in one step. A count of zero is no entry, so that what idles takes no memory and the number
of keys that were ever seen does not matter. Streams live long and are counted in a bulkhead of
their own (`admission`).

Adaptive is off by default: where it is on, an upstream that says it has too much (429, 503, a
timeout: the driver judges) gets fewer calls at once, and more again as calls go well (AIMD).
"""

from collections import OrderedDict
from typing import NamedTuple

import attrs
from attrs.validators import ge, instance_of, le, optional

from vastar_runtime.policy.aimd import Aimd, AimdSettings
from vastar_runtime.policy.verdicts import Scope

__all__ = ["Bulkhead", "ConcurrencySettings", "Key"]

_MAX = 1_000_000


class Key(NamedTuple):
    """Whose call, and where it goes. Plain strings in a tuple: hashed on every call."""

    tenant: str
    workspace: str
    origin: str


def _count(default: int) -> int:
    validator = [instance_of(int), ge(1), le(_MAX)]
    return attrs.field(default=default, validator=validator)


@attrs.frozen
class ConcurrencySettings:
    """How many calls (or streams) may be under way at once.

    Attributes:
        max_in_runtime: in all.
        max_per_tenant: of one tenant.
        max_per_origin: of one (tenant, workspace, origin).
        adaptive: how to feel for less than `max_per_origin`; None = do not.

    Raises:
        ValueError: a number is out of range; the message names it.
    """

    max_in_runtime: int = _count(1000)
    max_per_tenant: int = _count(500)
    max_per_origin: int = _count(256)
    adaptive: AimdSettings | None = attrs.field(
        default=None, validator=optional(instance_of(AimdSettings))
    )


class Bulkhead:
    """The counts of one kind of call.

    The limits per tenant and origin come with each call, merged for it; the same key must come
    with the same settings until those are changed for all.

    Attributes:
        max_in_runtime: the bound in all; may be set at any time.
        in_flight: calls under way.
    """

    __slots__ = ("_adaptive", "_origins", "_tenants", "in_flight", "max_in_runtime")

    def __init__(self, max_in_runtime: int) -> None:
        self.max_in_runtime = max_in_runtime
        self.in_flight = 0
        self._tenants: dict[str, int] = {}
        self._origins: dict[Key, int] = {}
        self._adaptive: OrderedDict[Key, Aimd] = OrderedDict()

    def try_acquire(self, key: Key, settings: ConcurrencySettings) -> Scope | None:
        """Take a place of `key`, or take none and tell what is full, the narrowest first."""
        tenant = key[0]
        of_origin = self._origins.get(key, 0)
        of_tenant = self._tenants.get(tenant, 0)
        if of_origin >= settings.max_per_origin or (
            self._adaptive and of_origin >= self.limit_of(key, settings)
        ):
            return Scope.CREDENTIAL
        if of_tenant >= settings.max_per_tenant:
            return Scope.TENANT
        if self.in_flight >= self.max_in_runtime:
            return Scope.RUNTIME
        self._origins[key] = of_origin + 1
        self._tenants[tenant] = of_tenant + 1
        self.in_flight += 1
        return None

    def release(self, key: Key) -> None:
        """Give a place of `key` back."""
        of_origin = self._origins[key] - 1
        if of_origin:
            self._origins[key] = of_origin
        else:
            del self._origins[key]
        tenant = key[0]
        of_tenant = self._tenants[tenant] - 1
        if of_tenant:
            self._tenants[tenant] = of_tenant
        else:
            del self._tenants[tenant]
        self.in_flight -= 1

    def in_flight_of(self, key: Key) -> int:
        """Calls of `key` under way."""
        return self._origins.get(key, 0)

    def in_flight_of_tenant(self, tenant: str) -> int:
        """Calls of `tenant` under way."""
        return self._tenants.get(tenant, 0)

    def limit_of(self, key: Key, settings: ConcurrencySettings) -> int:
        """How many calls of `key` may be under way now; at least 1."""
        aimd = self._adaptive.get(key)
        if aimd is None or settings.adaptive is None:
            return settings.max_per_origin
        return max(int(settings.max_per_origin * aimd.ratio), 1)

    def overloaded(self, now_s: float, key: Key, settings: ConcurrencySettings) -> None:
        """The upstream of `key` has too much. Does nothing unless adaptive is on."""
        if settings.adaptive is None:
            return
        aimd = self._adaptive.get(key)
        if aimd is None:
            self._forget(now_s)
            aimd = self._adaptive[key] = Aimd(settings.adaptive)
        aimd.overloaded(now_s)

    def succeeded(self, key: Key) -> None:
        """A call of `key` went well."""
        aimd = self._adaptive.get(key)
        if aimd is not None:
            aimd.succeeded()
            if aimd.is_full:
                del self._adaptive[key]

    def _forget(self, now_s: float) -> None:
        """Look at two old feelings as a new one comes: that keeps up with any rate of new ones."""
        for _ in range(min(2, len(self._adaptive))):
            key = next(iter(self._adaptive))
            if self._adaptive[key].is_droppable(now_s):
                del self._adaptive[key]
            else:
                self._adaptive.move_to_end(key)
