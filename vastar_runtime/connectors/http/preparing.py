"""From a call's payload to the request that goes upstream; what is asked again is made once.

Callers ask for the same few things again and again. A payload without a body, that is short, is
known by its bytes: what was made of it (parsed, validated, completed, in order) serves the next
call that brings the same bytes, and only what belongs to one call (its trace id, its idempotency
key, a body that follows) is put in between. That takes 1 us instead of 14. The number of payloads
known is bounded; they may hold keys of callers, as the calls themselves do, and are shown nowhere.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import trio

from vastar_client.wire import ExecuteRequest, PayloadFormat
from vastar_client.wire.codec import buffers_bytes, one_buffer
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.headers import declared_bytes, encode_headers, has_header
from vastar_runtime.connectors.http.payload import HttpCall, begin_payload, parse_payload
from vastar_runtime.connectors.http.target import Target, parse_target
from vastar_runtime.connectors.http.tracing import trace_header
from vastar_runtime.transport import StreamedBody
from vastar_runtime.transport.messages import Body, Headers, UpstreamRequest

__all__ = ["Plan", "Preparer", "body_bytes"]

_MAX_KNOWN: Final = 1024
_MAX_KNOWN_BYTES: Final = 1024
"""Of one payload: all of them together, and what is made of them, stay within some megabytes."""


class Plan(msgspec.Struct, frozen=True):
    """What a payload asks for, whoever brings it.

    Attributes:
        target: of the URL.
        decodes: undo the upstream's Content-Encoding.
        first: the headers of the caller, and the credentials of its URL.
        last: those that complete them, behind what belongs to one call.
        request: all of it, where nothing belongs to one call and there is no body.
    """

    call: HttpCall
    target: Target
    decodes: bool
    first: Headers
    last: Headers
    request: UpstreamRequest

    def __repr__(self) -> str:
        """Nothing of what it asks for: that holds secrets."""
        return "Plan()"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return []


class Preparer:
    """Makes requests of calls.

    Args:
        accept_encoding: sent where the caller set no Accept-Encoding; empty sends none.
        random_u64: for span ids.
    """

    def __init__(self, accept_encoding: str, random_u64: Callable[[], int]) -> None:
        self._accept_encoding = accept_encoding.encode()
        self._random_u64 = random_u64
        self._known: dict[tuple[bytes, PayloadFormat], Plan] = {}

    def prepare(self, call: Call) -> tuple[Plan, UpstreamRequest]:
        """What `call` asks for, and the first request of it.

        Raises:
            InvalidCall: naming what is wrong and what would be right.
        """
        message = call.request
        payload = one_buffer(message.payload)
        plan = key = None
        if len(payload) <= _MAX_KNOWN_BYTES and call.upload is None:
            key = bytes(payload), message.payload_format
            plan = self._known.get(key)
        if plan is None:
            plan = self._plan(call, parse_payload(payload, message.payload_format))
            if key is not None and plan.call.body is None:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[key] = plan
        return plan, self._request(call, plan)

    async def prepare_long(self, call: Call) -> tuple[Plan, UpstreamRequest]:
        """The same for a payload that is long: others have their turns while it is read.

        Raises:
            InvalidCall: as `prepare`.
        """
        message = call.request
        asked, pieces = begin_payload(one_buffer(message.payload), message.payload_format)
        if pieces is not None:
            body: list[bytes] = []
            for piece in pieces:
                body.append(piece)
                await trio.lowlevel.checkpoint()
            asked = msgspec.structs.replace(asked, body=body)
        plan = self._plan(call, asked)
        return plan, self._request(call, plan)

    def _plan(self, call: Call, asked: HttpCall) -> Plan:
        target = parse_target(asked.url)
        first = encode_headers(
            asked.headers, None if call.upload is not None else body_bytes(asked.body)
        )
        given = {name for name, _ in first}
        if target.authorization is not None and b"authorization" not in given:
            first.append((b"authorization", target.authorization))
        last: Headers = []
        if b"accept" not in given:
            last.append((b"accept", b"*/*"))
        if self._accept_encoding and b"accept-encoding" not in given:
            last.append((b"accept-encoding", self._accept_encoding))
        if b"host" not in given:
            last.append((b"host", target.origin.authority.encode()))
        return Plan(
            asked,
            target,
            # Who asks for an encoding wants it as it comes; what the runtime asked for it undoes.
            asked.decode_content and b"accept-encoding" not in given,
            first,
            last,
            _request(asked, target, [*first, *last], asked.body),
        )

    def _request(self, call: Call, plan: Plan) -> UpstreamRequest:
        """The request of `plan` with what belongs to `call`, in the published runtime's order."""
        message = call.request
        if call.upload is None and not message.idempotency_key and not message.trace_id:
            return plan.request
        headers = [*plan.first]
        given = {name for name, _ in headers}
        if message.idempotency_key and b"idempotency-key" not in given:
            headers += encode_headers([("idempotency-key", message.idempotency_key)], 0)
        if message.trace_id and not given & {b"traceparent", b"x-trace-id"}:
            headers.append(trace_header(message.trace_id, self._random_u64))
        headers += plan.last
        if call.upload is None:
            return _request(plan.call, plan.target, headers, plan.call.body, message)
        if plan.call.body is not None:
            raise InvalidCall("a body is given and `body_follows` is set; give one of the two")
        body = StreamedBody(call.upload.receive, declared_bytes(plan.call.headers))
        return _request(plan.call, plan.target, headers, body, message)


def _request(
    asked: HttpCall,
    target: Target,
    headers: Headers,
    body: Body | StreamedBody,
    message: ExecuteRequest | None = None,
) -> UpstreamRequest:
    has_key = message is not None and bool(message.idempotency_key)
    return UpstreamRequest(
        method=asked.method,
        origin=target.origin,
        target=target.path_and_query,
        headers=headers,
        body=body,
        replayable=has_key or has_header(headers, b"idempotency-key"),
    )


def body_bytes(body: Body) -> int:
    """The length of a body."""
    if body is None:
        return 0
    return buffers_bytes(body) if isinstance(body, (list, tuple)) else len(body)
