"""Work that is not HTTP behind the same policies: what the connectors of databases are given.

The layers are those that speak of any server: admission, retry, the configured rates, the circuit.
Connections, and the time of one attempt, are the work's own business. A piece of work says by
itself what its end means, as only it knows; it travels down in the place of a request.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

import trio

from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure
from vastar_runtime.pipeline.admitting import AdmissionLayer, leave
from vastar_runtime.pipeline.attempt import Attempt, Ended, Holdings, Layer
from vastar_runtime.pipeline.breaking import BreakerLayer
from vastar_runtime.pipeline.guarding import EgressGuard, Forbidden
from vastar_runtime.pipeline.hops import carry, make_hop, refuse
from vastar_runtime.pipeline.limiting import RateLimitLayer
from vastar_runtime.pipeline.retrying import RetryLayer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.classify import AttemptResult, Meaning
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.egress import rules_of_named
from vastar_runtime.transport import HttpTransport
from vastar_runtime.transport.messages import Origin, UpstreamRequest
from vastar_runtime.transport.progress import Progress

__all__ = ["LAYERS", "Work", "WorkLease", "Works", "named_addresses"]

LAYERS: Final = (AdmissionLayer, RetryLayer, RateLimitLayer, BreakerLayer)
"""Outermost first."""

Work = Callable[[Progress], Awaitable[tuple[Meaning, AttemptResult | None]]]

_NOWHERE: Final = Origin("work", "", 0)


class _WorkRequest(UpstreamRequest, frozen=True, kw_only=True):
    """A piece of work in the place of a request."""

    work: Work


class _WorkLayer:
    """Has the work done, once for each attempt."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._guard = surroundings.guard

    async def __call__(self, attempt: Attempt) -> Ended:
        """One attempt. Raises nothing but cancellation."""
        request = attempt.hop.request
        assert isinstance(request, _WorkRequest)
        attempt.begun_at_s = attempt.at_s
        attempt.hop.call.attempts += 1
        try:
            meaning, result = await request.work(attempt.progress)
        except Forbidden as error:
            self._guard.tell(attempt.hop.call, error)
            return Ended.by_refusal(error.refused)
        return Ended(meaning, trio.current_time(), result=result)


class Works:
    """Has work done behind the policies of a runtime."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._composed: dict[frozenset[str], Layer] = {}

    def lease(self, call: Call) -> "WorkLease":
        """A context for the work of `call`; leaving it gives back all that it holds."""
        return WorkLease(call, self.layers, self._around)

    def layers(self, idle: frozenset[str]) -> Layer:
        """The layers but for those that have nothing to do."""
        layer = self._composed.get(idle)
        if layer is None:
            layer = _WorkLayer(self._around)
            for around in reversed(LAYERS):
                if around.name not in idle:
                    layer = around(layer, self._around)
            self._composed[idle] = layer
        return layer


def named_addresses(
    guard: EgressGuard, transport: HttpTransport
) -> Callable[[str, Origin], Awaitable[list[str]]]:
    """What looks up servers of the configuration for a tenant, behind the egress guard.

    It raises OSError and UnicodeError where the lookup failed, and `Forbidden`.
    """

    async def look_up(tenant: str, server: Origin) -> list[str]:
        check = partial(guard.check_named_address, tenant, server)
        return await transport.look_up(tenant, server, check)

    return look_up


class WorkLease:
    """One call's work. A context manager; leaving it never waits."""

    __slots__ = ("_around", "_call", "_holdings", "_layers")

    def __init__(
        self, call: Call, layers: Callable[[frozenset[str]], Layer], surroundings: Surroundings
    ) -> None:
        self._call = call
        self._layers = layers
        self._around = surroundings
        self._holdings = Holdings()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave(self._holdings, self._around)

    async def run(self, origin: str, work: Work, server: Origin | None = None) -> Failure | None:
        """Have `work` done, as often as the policies say.

        Args:
            origin: the server, as policies and logs name it.
            work: one attempt; what it gives its caller is its own business. It may raise
                `Forbidden`, which is a refusal.
            server: where it is on the network, for the egress guard; None: nowhere.

        Returns:
            why one of our own policies refused the last attempt; None where it was made.
        """
        call, around = self._call, self._around
        call.origin = origin
        now_s = trio.current_time()
        key = Key(call.request.tenant_id, call.request.workspace_id or "", origin)
        policies = around.machines.book.of(*key)
        if server is not None:
            rules = rules_of_named(policies.egress)
            refused = around.guard.refuses(call, rules, server)
            if refused is not None:
                return refuse(call, refused, around)
        request = _WorkRequest(
            method=b"POST",
            origin=_NOWHERE,
            target=b"",
            headers=(),
            replayable=call.request.idempotency_key is not None,
            work=work,
        )
        hop = make_hop(call, request, key, policies, self._holdings, around, now_s)
        ended = await carry(hop, self._layers(policies.idle_layers), around, now_s)
        return None if ended.refused is None else refuse(call, ended.refused, around)
