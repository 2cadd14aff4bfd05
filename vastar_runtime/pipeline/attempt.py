"""One attempt at a request, and what became of it: what the layers hand down and up.

Shape: a `Hop` is one request of a call towards one origin; it stays the same over all attempts at
it and holds what they share. An `Attempt` goes down through the layers, an `Ended` comes up. An
`Ended` is a value, whatever happened: only cancellation is raised through the layers.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import attrs
import trio

from vastar_runtime.calls import Call
from vastar_runtime.pipeline.machines import OfCredential, OfOrigin, OfTenantAtOrigin
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.pipeline.tokens import TokenHold
from vastar_runtime.policy.admission import Admitted
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit
from vastar_runtime.policy.classify import AttemptResult, Fault, Meaning, Reached, Retry, classify
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.llm_usage import LlmRequest
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.transport import FaultKind, Place, TransportError, UpstreamResponse
from vastar_runtime.transport.messages import UpstreamRequest
from vastar_runtime.transport.progress import Phase, Progress

__all__ = ["FIRST_ERROR", "NO_EVIDENCE", "Attempt", "Ended", "Holdings", "Hop", "Layer", "Permits"]

NO_EVIDENCE: Final = Meaning(Retry.NEVER, Evidence.NONE, Evidence.NONE)
"""Of what says nothing about the upstream: a refusal of our own, a cancellation."""

FIRST_ERROR: Final = 400
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


class Permits(NamedTuple):
    """What the breakers gave an attempt, and what it showed: told them when the hop has ended."""

    breaker: Breaker
    permit: Permit
    evidence: Evidence
    took_s: float


@attrs.define(eq=False)
class Hop:
    """One request of a call, over all attempts at it.

    Attributes:
        key: whose it is, and where it goes.
        shown: attempts that showed something of the upstream, in order; the last one will count.
        llm_request: what the body says of its tokens, once it was read.
    """

    call: Call
    request: UpstreamRequest
    key: Key
    policies: CallPolicies
    holdings: Holdings
    of_origin: OfOrigin
    of_tenant: OfTenantAtOrigin
    of_credential: OfCredential
    shown: list["Attempt"] = attrs.field(factory=list)
    llm_request: LlmRequest | None = None

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
        number: from 1; a hedge has the number of the attempt that it stands beside.
        progress: its own; that of the call's last attempt is the call's too.
        place: of the connection pool, once it has one.
        begun_at_s: when it had one: from then on the upstream may be blamed. None until then.
        permits: of the breakers, to be reported when the hop has ended.
    """

    hop: Hop
    number: int
    progress: Progress
    place: Place | None = None
    begun_at_s: float | None = None
    permits: Sequence[Permits] = ()


@attrs.define(eq=False)
class Ended:
    """How an attempt ended: with a response, an error, or a refusal of our own.

    Attributes:
        meaning: what that says to whom.
        at_s: when.
        result: what `meaning` was made of; None where all is well, or one of us refused.
    """

    meaning: Meaning
    at_s: float
    response: UpstreamResponse | None = None
    error: TransportError | None = None
    refused: Refused | None = None
    result: AttemptResult | None = None

    @classmethod
    def with_response(
        cls, hop: Hop, at_s: float, response: UpstreamResponse, retry_after_s: float | None
    ) -> "Ended":
        """Of an attempt that was answered; `retry_after_s` is what the answer asks for."""
        if response.status < FIRST_ERROR:
            return cls(_FINE, at_s, response)
        result = AttemptResult(
            response.status, None, Reached.RESPONSE_STARTED, retry_after_s=retry_after_s
        )
        return cls(_meaning(hop, result), at_s, response, result=result)

    @classmethod
    def with_error(cls, hop: Hop, error: TransportError, fault: Fault | None = None) -> "Ended":
        """Of an attempt without an answer; `fault` where it is not what the error itself says."""
        if fault is None:
            is_proxys = error.phase is Phase.PROXY and error.kind is FaultKind.CONNECT
            fault = Fault.PROXY if is_proxys else _FAULTS[error.kind]
        result = AttemptResult(0, fault, Reached(int(error.disposition)))
        now_s = trio.current_time()
        return cls(_meaning(hop, result), now_s, error=error, result=result)

    @classmethod
    def by_refusal(cls, refused: Refused) -> "Ended":
        """Of an attempt that one of our own policies did not let out."""
        return cls(NO_EVIDENCE, trio.current_time(), refused=refused)


class Layer(Protocol):
    """Something that an attempt goes through: a policy's driver, or the transport below them."""

    async def __call__(self, attempt: Attempt) -> Ended:
        """What becomes of `attempt`. Raises nothing but cancellation."""


def _meaning(hop: Hop, result: AttemptResult) -> Meaning:
    return classify(hop.method, result, has_idempotency_key=hop.request.replayable)
