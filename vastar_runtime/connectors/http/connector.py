"""The HTTP connector: one call in, one outcome out.

Shape: `execute` makes a valid request of the payload, sends it hop by hop, reads the body within
the limits of a frame and writes the answer. Everything that can go wrong becomes a `Failure`
value here; only cancellation and bugs pass through.

An event stream for a caller that did not ask to stream is collected, as the published runtime
does: the answer comes at the stream's end, or as soon as a `[DONE]` event arrived.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import attrs

from vastar_client.wire import LocalProtocolError, PayloadFormat, ResponseFormat
from vastar_runtime.audit import audit_limit
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.answer import HttpAnswer
from vastar_runtime.connectors.http.collecting import (
    AnswerTooLarge,
    collect,
    discard,
)
from vastar_runtime.connectors.http.decoding import BadContent, DecompressionBomb
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.json_text import PIECE_BYTES
from vastar_runtime.connectors.http.preparing import Plan, Preparer, body_bytes
from vastar_runtime.connectors.http.redirects import REDIRECTS, redirected
from vastar_runtime.connectors.http.relaying import Listener, relay
from vastar_runtime.connectors.http.target import Target, resolve_location
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Streamed, too_large
from vastar_runtime.policy.deadline import Limit
from vastar_runtime.transport.errors import LocalFault, TransportError
from vastar_runtime.transport.messages import UpstreamRequest, header_values
from vastar_runtime.transport.progress import Phase
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["HttpConnector", "HttpSettings", "Lease", "Upstreams"]


class Lease(Listener, Protocol):
    """One call's way to its upstreams, through the layers of policy."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what the call held; its answer's body has ended."""

    async def request(self, request: UpstreamRequest) -> UpstreamResponse | Failure:
        """The head of the response, or why a policy refused. Raises TransportError."""


class Upstreams(Protocol):
    """What the connector is given to send requests with."""

    def lease(self, call: Call) -> Lease:
        """The way of one call."""


@attrs.frozen
class HttpSettings:
    """The configuration of the connector.

    Attributes:
        max_redirects: hops followed before the call fails.
        accept_encoding: sent where the caller set no Accept-Encoding; empty sends none.
        header_timeout_s: until the head of a streamed answer, in each attempt, and of any answer
            to a body that follows its request without a deadline.
        idle_timeout_s: silence within its body.
    """

    max_redirects: int = 10
    accept_encoding: str = ""
    header_timeout_s: float = 60.0
    idle_timeout_s: float = 300.0


def _tell_bomb(call: Call) -> None:
    message = call.request
    audit_limit(
        "decompression:runtime",
        call.caller,
        message.tenant_id,
        workspace=message.workspace_id,
        origin=call.origin,
        trace_id=message.trace_id,
    )


class _TooManyRedirects(Exception):  # noqa: N818 - never leaves this module
    """The chain of redirects is longer than followed."""


_FAULTS: Final = (
    TransportError,
    BadContent,
    AnswerTooLarge,
    LocalProtocolError,
    _TooManyRedirects,
)
"""What may go wrong behind the connector's back; all else is a bug."""


class HttpConnector:
    """Operation `request` of connector `http` (any operation name, as published)."""

    can_stream = True

    def __init__(
        self, upstreams: Upstreams, settings: HttpSettings, random_u64: Callable[[], int]
    ) -> None:
        self._upstreams = upstreams
        self._random_u64 = random_u64
        self.configure(settings)

    def configure(self, settings: HttpSettings) -> None:
        """Serve the calls from now on under other settings."""
        self._settings = settings
        self._preparer = Preparer(settings.accept_encoding, self._random_u64)

    async def execute(self, call: Call) -> Outcome:
        """Make the HTTP call that `call` asks for. Raises nothing but cancellation."""
        try:
            if body_bytes(call.request.payload) > PIECE_BYTES:
                plan, request = await self._preparer.prepare_long(call)
            else:
                plan, request = self._preparer.prepare(call)
        except InvalidCall as error:
            return Failure(FailureKind.INVALID_REQUEST, str(error))
        call.limit_time(plan.call.timeout_ms)
        call.sent_bytes = body_bytes(plan.call.body)
        if call.stream is not None or (
            # Its long default is for sending the body, not for waiting behind it.
            call.upload is not None and call.deadline.limit is Limit.DEFAULT
        ):
            call.head_timeout_s = self._settings.header_timeout_s
        try:
            with self._upstreams.lease(call) as lease:
                answer = await self._follow(call, plan, request, lease)
            return answer.reply(_answer_format(call)) if isinstance(answer, HttpAnswer) else answer
        except _FAULTS as error:
            return self._failure(call, error)
        finally:
            if call.upload is not None:
                call.sent_bytes = call.upload.received_bytes

    def _failure(self, call: Call, error: Exception) -> Failure:
        """What `error` is to the caller."""
        match error:
            case TransportError():
                why = _fault_of_body(call, error)
                if why is not None:
                    return Failure(FailureKind.INVALID_REQUEST, why)
                kind = FailureKind.TIMEOUT if error.timed_out else FailureKind.UPSTREAM
                return Failure(kind, f"HTTP request failed: {error}")
            case BadContent():
                is_bomb = isinstance(error, DecompressionBomb)
                if is_bomb:
                    _tell_bomb(call)
                kind = FailureKind.UPSTREAM_PERMANENT if is_bomb else FailureKind.UPSTREAM
                return Failure(kind, f"HTTP request failed: {call.origin}: {error}")
            case _TooManyRedirects():
                return Failure(
                    FailureKind.UPSTREAM_PERMANENT,
                    f"HTTP request failed: more than {self._settings.max_redirects} redirects, "
                    f"the last one from {call.origin}",
                )
            case AnswerTooLarge():
                return too_large(call.max_answer_bytes)
        return Failure(
            FailureKind.UPSTREAM_PERMANENT,
            f"the response of {call.origin} cannot be handed on: {error}",
        )

    async def _follow(
        self, call: Call, plan: Plan, request: UpstreamRequest, lease: Lease
    ) -> HttpAnswer | Streamed | Failure:
        """Send `request` and what redirects make of it; the first answer that is none."""
        base, decode_content = plan.target, plan.decodes
        redirects_left = self._settings.max_redirects
        while True:
            response = await lease.request(request)
            if isinstance(response, Failure):
                return response
            async with response:
                call.status_code = response.status
                next_target, following = None, None
                if response.status in REDIRECTS and plan.call.follow_redirects:
                    next_target = _location(base, response)
                if next_target is not None:
                    following = redirected(request, response.status, next_target)
                if next_target is None or following is None:
                    if call.stream is not None:
                        return await relay(
                            call,
                            response,
                            lease,
                            decode_content=decode_content,
                            idle_timeout_s=self._settings.idle_timeout_s,
                        )
                    return await collect(
                        call, response, base.href, lease, decode_content=decode_content
                    )
                await discard(call, response)
            if not redirects_left:
                raise _TooManyRedirects
            redirects_left -= 1
            request, base = following, next_target
            call.next_hop()


def _fault_of_body(call: Call, error: TransportError) -> str | None:
    """Why the caller's own body, which follows its request, is what failed; None if it is not."""
    if call.upload is None:
        return None
    if call.upload.fault is not None:
        return call.upload.fault
    is_in_body = error.phase is Phase.SEND and isinstance(error.__cause__, LocalFault)
    return str(error.__cause__) if is_in_body else None


def _answer_format(call: Call) -> PayloadFormat:
    wanted = call.request.response_format
    if wanted is ResponseFormat.AS_REQUEST:
        return call.request.payload_format
    return PayloadFormat.JSON if wanted is ResponseFormat.JSON else PayloadFormat.NATIVE


def _location(base: Target, response: UpstreamResponse) -> Target | None:
    """Where the redirect leads; several Locations that disagree lead nowhere."""
    locations = set(header_values(response.headers, b"location"))
    return resolve_location(base, locations.pop()) if len(locations) == 1 else None
