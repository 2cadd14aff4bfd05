"""What a connector is given to reach upstreams: the transport behind all layers of policy.

A `Lease` is one call's: it begins with the call's first request and ends when the answer's body
has ended, whichever way. While it lasts it holds the call's place in the bulkhead and the tokens
that its answer may still cost. Each request through it is a hop: it meets the attempt layers anew,
with its own origin.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import trio

from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure
from vastar_runtime.pipeline.admitting import leave
from vastar_runtime.pipeline.attempt import Holdings, Hop, Layer
from vastar_runtime.pipeline.connecting import AttemptTimeoutLayer
from vastar_runtime.pipeline.hops import carry, make_hop, refuse
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.classify import AttemptResult
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.modes import Mode
from vastar_runtime.transport.messages import UpstreamRequest
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["Lease", "Upstreams"]

_OF_TIME: Final = frozenset({AttemptTimeoutLayer.name})


class _Layers(Protocol):
    """Chooses the layers of a call."""

    def __call__(self, policies: CallPolicies, *, is_timed: bool) -> Layer:
        """Those that `policies` need; `is_timed`: the call bounds its attempts by itself."""


class Upstreams:
    """The upstreams of a runtime behind its policies.

    Args:
        compose: the outermost of the layers, but for those of the names given.
        surroundings: what they stand on.
    """

    def __init__(
        self, compose: Callable[[frozenset[str]], Layer], surroundings: Surroundings
    ) -> None:
        self._compose = compose
        self._around = surroundings
        # As many as there are combinations of policies that are off in the configuration.
        self._composed: dict[frozenset[str], Layer] = {}

    def lease(self, call: Call) -> "Lease":
        """A context for the requests of `call`; leaving it gives back all that they hold."""
        return Lease(call, self._layers, self._around)

    def _layers(self, policies: CallPolicies, *, is_timed: bool) -> Layer:
        idle = policies.idle_layers
        if is_timed:  # whatever is configured for the attempts of others
            idle -= _OF_TIME
        layers = self._composed.get(idle)
        if layers is None:
            layers = self._composed[idle] = self._compose(idle)
        return layers


class Lease:
    """One call's way to its upstreams. A context manager; leaving it never waits."""

    __slots__ = ("_around", "_call", "_holdings", "_layers")

    def __init__(self, call: Call, layers: _Layers, surroundings: Surroundings) -> None:
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
        self._settle()

    async def request(self, request: UpstreamRequest) -> UpstreamResponse | Failure:
        """Send `request`, as often as the policies say, and give the head of the answer.

        Returns:
            the response, to be read and closed; or why one of our own policies refused it.

        Raises:
            TransportError: there is no response.
        """
        call, around = self._call, self._around
        self._settle()  # of a redirect, whose answer has ended: it holds nothing any more
        asked, origin = call.request, str(request.origin)
        call.origin = origin
        key = Key(asked.tenant_id, asked.workspace_id or "", origin)
        policies = around.machines.book.of(*key)
        refused = around.guard.refuses(call, policies.egress, request.origin)
        if refused is None and policies.egress.judges_names:
            refused = around.guard.refuses_site(call, policies.egress, request)
        if refused is not None:
            return refuse(call, refused, around)
        now_s = trio.current_time()
        hop = make_hop(call, request, key, policies, self._holdings, around, now_s)
        layers = self._layers(policies, is_timed=call.head_timeout_s is not None)
        ended = await carry(hop, layers, around, now_s)
        if ended.result is not None:
            _tell_when(hop, ended.at_s, ended.result)
        if ended.refused is not None:
            return refuse(call, ended.refused, around)
        if ended.error is not None:
            raise ended.error
        assert ended.response is not None, "an attempt ends with a response, an error or a refusal"
        return ended.response

    @property
    def wants_events(self) -> bool:
        """Whether somebody counts what the events of the answer's stream say."""
        return self._holdings.tokens is not None

    def saw(self, data: bytes) -> None:
        """A piece of the answer's body, decoded, was read: it may tell what the call has cost."""
        if self._holdings.tokens is not None:
            self._holdings.tokens.saw(data)
        if self._holdings.volume is not None:
            self._holdings.volume.passed()

    def saw_event(self, data: str) -> None:
        """The data of an event of the answer's stream was read: as `saw`."""
        if self._holdings.tokens is not None:
            self._holdings.tokens.saw_event(data)

    def _settle(self) -> None:
        """The answer that tokens or bytes were held for has ended."""
        tokens, self._holdings.tokens = self._holdings.tokens, None
        if tokens is not None:
            tokens.settle(trio.current_time())
        volume, self._holdings.volume = self._holdings.volume, None
        if volume is not None:
            volume.settle(trio.current_time())


def _tell_when(hop: Hop, at_s: float, result: AttemptResult) -> None:
    """Tell the caller when to come back: as the answer asks, and not while the credential rests."""
    now_s, when_s = trio.current_time(), 0.0
    if result.retry_after_s is not None:
        when_s = at_s + result.retry_after_s - now_s  # it may have been waited for already
    if hop.policies.cooldown.mode is Mode.ENFORCE:
        when_s = max(when_s, hop.of_credential.cooldown.rest_s(now_s))
    if when_s > 0:
        hop.call.come_back_after(when_s)
