"""The layers that a call meets, in order, outermost first: composed here and nowhere else.

A call goes through `_within_deadline` to its connector; each request that the connector makes goes
through `LAYERS` to an upstream. The order is DEFAULTS.md's, and each place has its reason:

1. **deadline**: outermost, because it bounds everything below, queueing and backoff included. It is
   the only layer that cancels, and the only one that catches the cancellation of its call's scope.
2. **connector**: turns the call into requests; before it nobody knows where the call goes.
3. **admission**: once for a call and outside of its retries. A call that waits to try again is
   under way and keeps its place, so retries cannot crowd out calls that were let in.
4. **retry**: outside of all that an attempt pays for, so that each attempt pays for itself.
5. **hedging**: inside of retry, so that a hedge is part of one attempt and never multiplies them.
6. **learned_limit**: what the upstream told of itself; before our own limits, as nothing that is
   configured here makes it untrue.
7. **rate_limit**: what is configured. Both before the breaker, because they may wait: who has
   waited asks the circuit as it is then, and a probe's lease is not spent in a line.
8. **circuit_breaker**: next to the pool, so that what it lets out goes out, and what it refuses
   costs no connection.
9. **connection_pool**: waiting for a connection says nothing about the upstream...
10. **attempt_timeout**: ...so the limit on one attempt begins behind it.
11. **transport**: the bytes.

A layer that has nothing to do for a call, because its policy is off, is left out of its way.

A layer gives an outcome; none raises but for cancellation from outside. To change the order is to
move a line of `LAYERS`; `DESCRIPTOR` follows it, and the test that asserts it fails.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final, Protocol

from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure, FailureKind, Outcome
from vastar_runtime.pipeline.admitting import AdmissionLayer
from vastar_runtime.pipeline.attempt import Layer
from vastar_runtime.pipeline.breaking import BreakerLayer
from vastar_runtime.pipeline.connecting import AttemptTimeoutLayer, PoolLayer, TransportLayer
from vastar_runtime.pipeline.hedged import HedgingLayer
from vastar_runtime.pipeline.learning import LearnedLimitLayer
from vastar_runtime.pipeline.limiting import RateLimitLayer
from vastar_runtime.pipeline.retrying import RetryLayer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.pipeline.upstreams import Upstreams
from vastar_runtime.policy.deadline import Limit
from vastar_runtime.transport.progress import Phase

__all__ = ["DESCRIPTOR", "LAYERS", "Connector", "Pipeline", "compose"]


class NamedLayer(Protocol):
    """A layer as it is composed: its name, and how it is put around another."""

    name: str

    def __call__(self, inner: Layer, surroundings: Surroundings) -> Layer:
        """The layer around `inner`."""


LAYERS: Final[tuple[NamedLayer, ...]] = (
    AdmissionLayer,
    RetryLayer,
    HedgingLayer,
    LearnedLimitLayer,
    RateLimitLayer,
    BreakerLayer,
    PoolLayer,
    AttemptTimeoutLayer,
)

DESCRIPTOR: Final = ("deadline", "connector", *(each.name for each in LAYERS), "transport")
"""The layers by name, for tests and people."""


def compose(surroundings: Surroundings) -> Upstreams:
    """The transport behind all layers."""
    return Upstreams(partial(_around_transport, surroundings), surroundings)


def _around_transport(surroundings: Surroundings, idle: frozenset[str]) -> Layer:
    """The layers around the transport, but for those that have nothing to do."""
    layer: Layer = TransportLayer(surroundings)
    for around in reversed(LAYERS):
        if around.name not in idle:
            layer = around(layer, surroundings)
    return layer


_DOING: Final[Mapping[Phase, str]] = {
    Phase.DNS: "looking up the name",
    Phase.CONNECT: "connecting",
    Phase.PROXY: "asking the proxy",
    Phase.TLS: "shaking hands over TLS",
}
"""Phases whose own words do not go with "while"."""


class Connector(Protocol):
    """What answers the calls to one connector name.

    Attributes:
        can_stream: whether it takes bodies and gives answers piece by piece, where that is asked.
    """

    can_stream: bool

    async def execute(self, call: Call) -> Outcome:
        """Answer `call`. Raises nothing but cancellation; anything else is a bug."""


class Pipeline:
    """The layers around a set of connectors, by name."""

    def __init__(self, connectors: Mapping[str, Connector]) -> None:
        self._connectors = dict(connectors)

    async def run(self, call: Call) -> Outcome:
        """What becomes of `call`."""
        connector = self._connectors.get(call.request.connector_name)
        if connector is None:
            name = call.request.connector_name[:100]
            known = ", ".join(sorted(self._connectors))
            return Failure(
                FailureKind.INVALID_REQUEST, f"Unknown connector: {name}; known are {known}"
            )
        if (call.stream is not None or call.upload is not None) and not connector.can_stream:
            flag = "stream" if call.stream is not None else "body_follows"
            words = f"does not stream: send the call without `{flag}`"
            return Failure(
                FailureKind.INVALID_REQUEST, f"connector {call.request.connector_name} {words}"
            )
        return await _within_deadline(call, connector)


async def _within_deadline(call: Call, connector: Connector) -> Outcome:
    if call.deadline.had_passed_at_arrival:
        late_ms = round(-call.deadline.budget_s * 1000)
        return Failure(
            FailureKind.TIMEOUT,
            f"the {Limit.CALLER.value} had passed {late_ms} ms before the call arrived",
        )
    with call.scope:
        return await connector.execute(call)
    # Only reached when the call's own scope was cancelled.
    if call.cancelled_as is not None:
        return _cancelled(call, call.cancelled_as)
    return _timed_out(call)


def _cancelled(call: Call, why: FailureKind) -> Failure:
    if why is FailureKind.CANCELLED:
        return Failure(why, call.cancelled_words or "cancelled by caller")
    return Failure(why, f"the runtime ended the call while {_doing(call)}")


def _timed_out(call: Call) -> Failure:
    limit = call.deadline.limit
    budget_ms = call.deadline.budget_s * 1000
    return Failure(
        FailureKind.TIMEOUT,
        f"timed out: the {limit.value} of {budget_ms:.0f} ms passed while {_doing(call)}",
    )


def _doing(call: Call) -> str:
    """What was going on, and where."""
    if not call.origin:
        return "preparing the call"
    if call.waiting_for:
        return f"{call.waiting_for} ({call.origin})"
    phase = call.progress.phase
    return f"{_DOING.get(phase, phase.value)} ({call.origin})"
