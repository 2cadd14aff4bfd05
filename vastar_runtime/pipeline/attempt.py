"""One attempt at a request, and what became of it: what the layers hand down and up.

Shape: a `Hop` is one request of a call towards one origin; it stays the same over all attempts at
it and holds what they share. An `Attempt` goes down through the layers, an `Ended` comes up. An
`Ended` is a value, whatever happened: only cancellation is raised through the layers.
"""

from typing import Final, Protocol

import attrs

from vastar_runtime.calls import Call
from vastar_runtime.pipeline.machines import OfCredential, OfOrigin, OfTenantAtOrigin
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.pipeline.tokens import TokenHold
from vastar_runtime.policy.admission import Admitted
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit
from vastar_runtime.policy.classify import AttemptResult, Fault, Meaning, Reached, Retry, classify
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.transport import FaultKind, Place, TransportError, UpstreamResponse
from vastar_runtime.transport.messages import UpstreamRequest
from vastar_runtime.transport.progress import Phase, Progress

__all__ = ["NO_EVIDENCE", "Attempt", "Ended", "Held", "Holdings", "Hop", "Layer"]

NO_EVIDENCE: Final = Meaning(Retry.NEVER, Evidence.NONE, Evidence.NONE)
"""Of what says nothing about the upstream: a refusal of our own, a cancellation."""

_FINE_STATUSES: Final = range(100, 400)
_FINE: Final = classify("GET", AttemptResult(200), has_idempotency_key=False)

_FAULTS: Final = {
    FaultKind.LOOKUP: Fault.LOOKUP,
    FaultKind.CONNECT: Fault.CONNECT,
    FaultKind.TLS: Fault.TLS,
    FaultKind.UNTRUSTED: Fault.UNTRUSTED,
    FaultKind.RESET: Fault.RESET,
    FaultKind.GARBLED: Fault.GARBLED,
    FaultKind.LOCAL: Fault.LOCAL_ERROR,
}


@attrs.define(eq=False)
class Holdings:
    """What one call holds until its answer's body has ended.

    Attributes:
        place: of the bulkhead, once it was admitted.
        is_in: whether the admission was asked; later hops of a call are not asked again.
        tokens: reserved for the answer that is being read.
    """

    place: Admitted | None = None
    is_in: bool = False
    tokens: TokenHold | None = None


@attrs.frozen
class Held:
    """Evidence of an attempt that counts only if no other attempt follows it."""

    breaker: Breaker
    permit: Permit
    evidence: Evidence
    took_s: float


@attrs.define(eq=False)
class Hop:
    """One request of a call, over all attempts at it.

    Attributes:
        key: whose it is, and where it goes.
        held: what the last attempt showed, until another one follows or the hop ends.
    """

    call: Call
    request: UpstreamRequest
    key: Key
    policies: CallPolicies
    holdings: Holdings
    of_origin: OfOrigin
    of_tenant: OfTenantAtOrigin
    of_credential: OfCredential
    held: list[Held] = attrs.field(factory=list)

    @property
    def method(self) -> str:
        """The method, as policies compare it."""
        return self.request.method.decode("ascii", "replace")

    def begin_use(self) -> None:
        """Keep the machines of this hop from being dropped."""
        self.of_origin.users += 1
        self.of_tenant.users += 1
        self.of_credential.users += 1

    def end_use(self) -> None:
        """The other half of `begin_use`."""
        self.of_origin.users -= 1
        self.of_tenant.users -= 1
        self.of_credential.users -= 1


@attrs.define(eq=False)
class Attempt:
    """One try at a hop's request.

    Attributes:
        number: from 1.
        progress: its own; that of the call's last attempt is the call's too.
        place: of the connection pool, while it has one.
    """

    hop: Hop
    number: int
    progress: Progress
    place: Place | None = None


@attrs.define(eq=False)
class Ended:
    """How an attempt ended: with a response, an error, or a refusal of our own.

    Attributes:
        meaning: what that says to whom.
        result: what `meaning` was made of; None where all is well, or one of us refused.
    """

    meaning: Meaning
    response: UpstreamResponse | None = None
    error: TransportError | None = None
    refused: Refused | None = None
    result: AttemptResult | None = None

    @classmethod
    def with_response(
        cls, hop: Hop, response: UpstreamResponse, retry_after_s: float | None
    ) -> "Ended":
        """Of an attempt that was answered; `retry_after_s` is what the answer asks for."""
        if response.status in _FINE_STATUSES:
            return cls(_FINE, response)
        result = AttemptResult(
            response.status, None, Reached.RESPONSE_STARTED, retry_after_s=retry_after_s
        )
        return cls(_meaning(hop, result), response, result=result)

    @classmethod
    def with_error(cls, hop: Hop, error: TransportError, fault: Fault | None = None) -> "Ended":
        """Of an attempt without an answer; `fault` where it is not what the error itself says."""
        if fault is None:
            is_proxys = error.phase is Phase.PROXY and error.kind is FaultKind.CONNECT
            fault = Fault.PROXY if is_proxys else _FAULTS[error.kind]
        result = AttemptResult(0, fault, Reached(int(error.disposition)))
        return cls(_meaning(hop, result), error=error, result=result)

    @classmethod
    def by_refusal(cls, refused: Refused) -> "Ended":
        """Of an attempt that one of our own policies did not let out."""
        return cls(NO_EVIDENCE, refused=refused)


class Layer(Protocol):
    """Something that an attempt goes through: a policy's driver, or the transport below them."""

    async def __call__(self, attempt: Attempt) -> Ended:
        """What becomes of `attempt`. Raises nothing but cancellation."""


def _meaning(hop: Hop, result: AttemptResult) -> Meaning:
    return classify(hop.method, result, has_idempotency_key=hop.request.replayable)
