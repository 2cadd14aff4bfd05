"""One attempt at a request, and what became of it: what the layers hand down and up.

Shape: a `Hop` is one request of a call towards one origin; it stays the same over all attempts at
it and holds what they share. An `Attempt` goes down through the layers, an `Ended` comes up. An
`Ended` is a value, whatever happened: only cancellation is raised through the layers.
"""

from typing import Final, Protocol

import msgspec
import trio

from vastar_client.wire.codec import one_buffer
from vastar_runtime.calls import Call
from vastar_runtime.pipeline.machines import OfCredential, OfOrigin, OfTenantAtOrigin
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.pipeline.tokens import TokenHold
from vastar_runtime.pipeline.volume import VolumeHold
from vastar_runtime.policy.admission import Admitted
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit
from vastar_runtime.policy.classify import AttemptResult, Fault, Meaning, Reached, Retry, classify
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.llm_usage import LlmRequest, read_request
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.transport import FaultKind, Place, TransportError, UpstreamResponse
from vastar_runtime.transport.messages import BodySource, UpstreamRequest
from vastar_runtime.transport.progress import Phase, Progress

__all__ = ["FIRST_ERROR", "NO_EVIDENCE", "Attempt", "Ended", "Holdings", "Hop", "Layer"]

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


class _Value(msgspec.Struct, eq=False):
    """Several are made for every call, and these are made in a third of the time of attrs'."""


class Holdings(_Value):
    """What one call holds until its answer's body has ended.

    Attributes:
        place: of the bulkhead, once it was admitted.
        is_in: whether the admission was asked; later hops of a call are not asked again.
        tokens: reserved for the answer that is being read.
        volume: the bytes of the request that is being answered, and those of the answer.
    """

    place: Admitted | None = None
    is_in: bool = False
    tokens: TokenHold | None = None
    volume: VolumeHold | None = None


class Hop(_Value):
    """One request of a call, over all attempts at it.

    Attributes:
        key: whose it is, and where it goes.
        shown: attempts that showed something of the upstream, in order; the last one will count.
    """

    call: Call
    request: UpstreamRequest
    key: Key
    policies: CallPolicies
    holdings: Holdings
    of_origin: OfOrigin
    of_tenant: OfTenantAtOrigin
    of_credential: OfCredential
    shown: list["Attempt"] = []  # a list of its own for each, as msgspec makes it
    _llm_request: LlmRequest | None = None

    def llm_request(self) -> LlmRequest | None:
        """What the body says of its tokens; None where tokens are not limited, or have no body."""
        if self._llm_request is None and self.policies.has_token_limits:
            body = self.request.body
            if isinstance(body, BodySource):
                # It cannot be read before it is sent: what it says of its length counts as prompt,
                # the rest is a guess, and the answer's usage puts it right.
                self._llm_request = LlmRequest(body.length_bytes or 0)
            elif body is not None:
                self._llm_request = read_request(one_buffer(body))
        return self._llm_request

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


class Attempt(_Value):
    """One try at a hop's request.

    Attributes:
        number: from 1; a hedge has the number of the attempt that it stands beside.
        progress: its own; that of the call's last attempt is the call's too.
        at_s: the time, as of the last wait: what does not wait need not ask the clock.
        place: of the connection pool, once it has one.
        begun_at_s: when it had one: from then on the upstream may be blamed. None until then.
        cooldown_round: in which its credential's cooldown let it out, None where it was not asked.
        permits: of the breakers, to be reported when the hop has ended.
        has_probe: whether a circuit waits for what becomes of it.
        meaning: what it showed, once it has ended.
        took_s: from when it had a place in the pool, once it has ended.
    """

    hop: Hop
    number: int
    progress: Progress
    at_s: float
    place: Place | None = None
    begun_at_s: float | None = None
    cooldown_round: int | None = None
    permits: list[tuple[Breaker, Permit]] = []
    has_probe: bool = False
    meaning: Meaning = NO_EVIDENCE
    took_s: float = 0.0


class Ended(_Value):
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
