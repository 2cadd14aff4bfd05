"""What the fake runtime does with one connection, sans-IO: frames in, frames out.

Both drivers of `testing.FakeRuntime`, memory and socket, feed one of these.
"""

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec

from vastar_client._headers import Headers
from vastar_client.errors import ConnectorException
from vastar_client.request import HTTPRequest
from vastar_client.response import HTTPResponse
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Buffer,
    Cancel,
    Connection,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    HttpResponse,
    Message,
    PayloadFormat,
    RemoteProtocolError,
    Role,
    decode_http_request,
    encode_http_response,
)

__all__ = ["FakePeer", "Frame", "HeldCall", "Reply", "Server", "read_call"]

Reply: TypeAlias = HTTPResponse | ConnectorException | bytes


Frame: TypeAlias = Callable[[], bytes]
"""Makes the bytes of a frame when it is due; none when its call has been answered meanwhile."""


@dataclass(eq=False)
class HeldCall:
    """A call that waits for its reply."""

    request: HTTPRequest | ExecuteRequest
    message: ExecuteRequest
    peer: "FakePeer"
    _answered: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def reply(self, reply: Reply) -> None:
        """Answer it now, unless it has ended. In memory call this from the client's event loop."""
        self.peer.answer(self, reply)

    def take(self) -> bool:
        """Whether it was still to be answered; from now on it is not."""
        return self._answered.acquire(blocking=False)


class Server(Protocol):
    """What a peer asks of the fake runtime that it belongs to."""

    health: HealthResponse

    def serve(self, peer: "FakePeer", message: ExecuteRequest) -> None:
        """Answer `message` now, later, or never."""

    def cancel(self, call: HeldCall | None, request_id: int) -> None:
        """The caller of `request_id` went away; `call` when it has no answer yet."""


class FakePeer:
    """The runtime's end of one connection.

    Args:
        server: answers the calls.
        deliver: takes a frame and the seconds to wait before it is made and sent.
        hang_up: ends the connection.

    Attributes:
        waiting: the calls that wait for their replies, by request id.
    """

    def __init__(
        self,
        server: Server,
        deliver: Callable[[Frame, float], None],
        hang_up: Callable[[], None],
    ) -> None:
        self.hang_up = hang_up
        self.later = deliver
        self._server = server
        self._connection = Connection(Role.RUNTIME)
        self.waiting: dict[int, HeldCall] = {}

    def receive(self, data: bytes) -> None:
        """Take bytes of the caller and serve what they complete."""
        self._connection.receive_data(data)
        while True:
            try:
                event = self._connection.next_event()
            except RemoteProtocolError as error:
                self._send(ExecuteResponse(error.request_id, error.error_class, str(error)))
                if error.closes:
                    self.hang_up()
                    return
                continue
            if event is NEED_DATA or event is END_OF_STREAM:
                return
            self._serve(event)

    def _serve(self, event: object) -> None:
        if isinstance(event, ExecuteRequest):
            self._server.serve(self, event)
        elif isinstance(event, HealthCheck):
            self._send(self._server.health)
        elif isinstance(event, Cancel):
            self._server.cancel(self.waiting.pop(event.request_id, None), event.request_id)

    def _send(self, message: Message) -> None:
        self.later(lambda: b"".join(self._connection.send(message)), 0)

    def answer(self, call: HeldCall, reply: Reply, delay_s: float = 0.0) -> None:
        """Answer `call` in so many seconds, unless it has an answer by then."""
        self.later(lambda: self.frame(call, reply), delay_s)

    def frame(self, call: HeldCall, reply: Reply) -> bytes:
        """The final frame of `call`, when it has had none."""
        if not call.take():
            return b""
        self.waiting.pop(call.message.request_id, None)
        try:
            return b"".join(self._connection.send(encode_reply(call.message, reply)))
        except Exception as error:  # noqa: BLE001  # a mistake in a test must not hang it
            why = ConnectorException(
                f"the reply of the FakeRuntime cannot be sent: {error}", ErrorClass.PERMANENT
            )
            return b"".join(self._connection.send(encode_reply(call.message, why)))


def read_call(message: ExecuteRequest) -> HTTPRequest | ExecuteRequest:
    """The HTTP request in a call of connector `http`; any other call as it is."""
    if message.connector_name != "http":
        return message
    payload = b"".join(_vector(message.payload or b""))
    fields: dict[str, Any]
    if message.payload_format is PayloadFormat.NATIVE:
        native = decode_http_request(payload)
        fields = {name: getattr(native, name) for name in _SHARED}
        fields["headers"] = list(native.headers)
        fields["body"] = None if native.body is None else b"".join(_vector(native.body))
    else:
        fields = {"method": "GET", **msgspec.json.decode(payload)}
        fields["params"] = fields.pop("query", None)
        encoded = fields.pop("body_base64", None)
        if encoded is not None:
            fields["body"] = base64.b64decode(encoded)
    return HTTPRequest(
        **fields,
        tenant_id=message.tenant_id,
        workspace_id=message.workspace_id,
        trace_id=message.trace_id,
        idempotency_key=message.idempotency_key,
    )


def _vector(buffers: Buffer | Sequence[Buffer]) -> Sequence[Buffer]:
    return [buffers] if isinstance(buffers, bytes | bytearray | memoryview) else buffers


_SHARED = ("method", "url", "follow_redirects", "decode_content")


def encode_reply(message: ExecuteRequest, reply: Reply) -> ExecuteResponse:
    """The answer to `message` that `reply` stands for, in the caller's payload format."""
    if isinstance(reply, ConnectorException):
        return ExecuteResponse(
            message.request_id,
            reply.error_class,
            reply.message,
            retry_after_ms=reply.retry_after_ms,
            disposition=reply.disposition,
            attempts=reply.attempts,
            refused_by=reply.refused_by,
            queued_us=reply.queued_us,
            backoff_us=reply.backoff_us,
        )
    payload: list[Buffer]
    if isinstance(reply, bytes):
        payload = [reply]
    elif message.payload_format is PayloadFormat.NATIVE:
        payload = encode_http_response(
            HttpResponse(reply.status_code, list(reply.headers_list), reply.body, "1.1")
        )
    else:
        payload = [msgspec.json.encode(_json_answer(reply))]
    answer = ExecuteResponse(
        message.request_id,
        ErrorClass.SUCCESS,
        payload=payload,
        disposition=Disposition.COMPLETED,
        attempts=1,
        payload_format=message.payload_format,
    )
    if not isinstance(reply, HTTPResponse):
        return answer
    return msgspec.structs.replace(
        answer,
        duration_us=reply.duration_us,
        attempts=reply.attempts or 1,
        refused_by=reply.refused_by,
        retry_after_ms=reply.retry_after_ms,
        queued_us=reply.queued_us,
        backoff_us=reply.backoff_us,
    )


def _json_answer(reply: HTTPResponse) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "status_code": reply.status_code,
        "headers": Headers(reply.headers_list),
        "body": reply.body.decode(errors="replace"),
        "is_streaming": reply.is_sse,
        "success": True,
    }
    if answer["body"].encode() != reply.body:
        answer["body_base64"] = base64.b64encode(reply.body).decode()
    return answer
