"""What the fake runtime does with one connection, sans-IO: frames in, frames out.

Both drivers of `testing.FakeRuntime`, memory and socket, feed one of these.
"""

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec

from vastar_client._fake_streams import FakeStream, FakeUpload, StreamReply
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
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    HttpResponse,
    KeepAlive,
    Message,
    PayloadFormat,
    RemoteProtocolError,
    RequestChunk,
    Role,
    decode_http_request,
    encode_http_response,
)
from vastar_client.wire.limits import INITIAL_CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL_S
from vastar_client.wire.windows import ReceiveWindow, SendWindow

__all__ = ["FakePeer", "Frame", "HeldCall", "Reply", "Server", "read_call"]

Reply: TypeAlias = HTTPResponse | ConnectorException | bytes | StreamReply

Frame: TypeAlias = Callable[[], bytes]
"""Makes the bytes of a frame when it is due; none when its call has been answered meanwhile."""


@dataclass(eq=False)
class HeldCall:
    """A call that waits for its reply."""

    request: HTTPRequest | ExecuteRequest
    message: ExecuteRequest
    peer: "FakePeer"
    upload: FakeUpload | None = None
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
    streams: list[FakeStream]
    reads_bodies: bool
    keeps_deadlines: bool

    def serve(self, call: HeldCall) -> None:
        """Answer `call` now, later, or never, its body maybe still to come."""

    def body_came(self, call: HeldCall) -> None:
        """All of the body of `call` is there."""

    def cancel(self, call: HeldCall | None, request_id: int) -> None:
        """The caller of `request_id` went away; `call` when it has not had its final frame."""


class FakePeer:
    """The runtime's end of one connection.

    Args:
        server: answers the calls.
        deliver: takes a frame and the seconds to wait before it is made and sent.
        hang_up: ends the connection.
    """

    def __init__(
        self,
        server: Server,
        deliver: Callable[[Frame, float], None],
        hang_up: Callable[[], None],
    ) -> None:
        self.hang_up = hang_up
        self._deliver = deliver
        self._server = server
        self._connection = Connection(Role.RUNTIME)
        self._calls: dict[int, HeldCall] = {}
        self._streams: dict[int, FakeStream] = {}
        self._send_window = SendWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._receive_window = ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES)

    def later(self, make: Callable[[], Sequence[Message]], delay_s: float = 0.0) -> None:
        """Send the messages that `make` gives in so many seconds."""

        def frame() -> bytes:
            return b"".join(part for one in make() for part in self._connection.send(one))

        self._deliver(frame, delay_s)

    def receive(self, data: bytes) -> None:
        """Take bytes of the caller and serve what they complete."""
        self._connection.receive_data(data)
        while True:
            try:
                event = self._connection.next_event()
                if event is NEED_DATA or event is END_OF_STREAM:
                    return
                self._serve(event)
            except RemoteProtocolError as error:
                said = ExecuteResponse(error.request_id, error.error_class, str(error))
                self.later(lambda said=said: [said])  # type: ignore[misc]  # of this turn
                if error.closes:
                    self.hang_up()
                    return

    def _serve(self, event: object) -> None:
        if isinstance(event, ExecuteRequest):
            upload = FakeUpload(event) if event.body_follows else None
            call = self._calls[event.request_id] = HeldCall(event, event, self, upload)
            if event.stream:
                self._keep_alive(event.request_id)
            self._server.serve(call)
        elif isinstance(event, RequestChunk):
            self._take_chunk(event)
        elif isinstance(event, HealthCheck):
            self.later(lambda: [self._server.health])
        elif isinstance(event, CreditUpdate):
            self._take_credit(event)
        elif isinstance(event, Cancel):
            self._cancel(event.request_id)

    def _take_chunk(self, chunk: RequestChunk) -> None:
        """A piece of a body; of a call that is over it is dropped."""
        data_bytes = len(chunk.data or b"")
        self._receive_window.received(data_bytes)
        connection_bytes = self._receive_window.consumed(data_bytes)
        call = self._calls.get(chunk.request_id)
        stream_bytes = 0
        if call is not None and call.upload is not None:
            call.upload.take(chunk)
            if self._server.reads_bodies:
                stream_bytes = call.upload.window.consumed(data_bytes)
            if call.upload.ended:
                self._server.body_came(call)
        if connection_bytes or stream_bytes:
            # With the id, credit of the connection may come before any of the caller's.
            credit = CreditUpdate(
                stream_bytes, request_id=chunk.request_id, connection_bytes=connection_bytes
            )
            self.later(lambda: [credit])

    def _take_credit(self, credit: CreditUpdate) -> None:
        """More may be sent: of one stream, or of any."""
        self._send_window.grant(credit.connection_bytes)
        stream = self._streams.get(credit.request_id)
        if stream is not None:
            stream.grant(credit.credit_delta)
        going_on = list(self._streams.values()) if credit.connection_bytes else [stream]
        for one in filter(None, going_on):
            self.later(lambda one=one: self._advance(one))  # type: ignore[misc]  # of this turn

    def _advance(self, stream: FakeStream) -> list[Message]:
        messages = stream.advance(
            lambda make, delay_s: self.later(lambda: self._noted(stream, make()), delay_s)
        )
        return self._noted(stream, messages)

    def _noted(self, stream: FakeStream, messages: list[Message]) -> list[Message]:
        """`messages`; the stream is forgotten once it has ended."""
        if stream.ended:
            self._forget(stream.message.request_id)
        return messages

    def _forget(self, request_id: int) -> None:
        self._calls.pop(request_id, None)
        self._streams.pop(request_id, None)

    def _cancel(self, request_id: int) -> None:
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.cancelled = True
        self._server.cancel(self._calls.get(request_id), request_id)

    def _keep_alive(self, request_id: int) -> None:
        """Say every 15 s that the call is not forgotten, as long as it is not."""

        def beat() -> list[Message]:
            if request_id not in self._calls or not self._server.keeps_deadlines:
                return []
            self._keep_alive(request_id)
            return [KeepAlive(request_id)]

        self.later(beat, KEEP_ALIVE_INTERVAL_S)

    def answer(self, call: HeldCall, reply: Reply, delay_s: float = 0.0) -> None:
        """Answer `call` in so many seconds, unless it has an answer by then."""
        self.later(lambda: self._final(call, reply), delay_s)

    def end(
        self,
        call: HeldCall,
        why: ConnectorException,
        delay_s: float = 0.0,
        before: Callable[[], object] = bool,
    ) -> None:
        """End `call` in so many seconds, also in the middle of its answer, unless it has ended."""

        def final() -> list[Message]:
            before()
            stream = self._streams.get(call.message.request_id)
            if stream is None:
                return self._final(call, why)
            return self._noted(stream, stream.finish(why))

        self.later(final, delay_s)

    def _final(self, call: HeldCall, reply: Reply) -> list[Message]:
        """The answer to `call`, or the beginning of it, when it has had none."""
        if not call.take():
            return []
        if call.message.stream:
            return self._begin(call, reply)
        self._forget(call.message.request_id)
        try:
            answer = encode_reply(call.message, reply)
            Connection(Role.RUNTIME).send(answer)
        except Exception as error:  # noqa: BLE001  # a mistake in a test must not hang it
            why = ConnectorException(
                f"the reply of the FakeRuntime cannot be sent: {error}", ErrorClass.PERMANENT
            )
            answer = encode_reply(call.message, why)
        return [answer]

    def _begin(self, call: HeldCall, reply: Reply) -> list[Message]:
        """The first frames of a streamed answer."""
        if isinstance(reply, HTTPResponse):
            steps = [reply.body] if reply.body else []
            reply = StreamReply(
                steps,
                reply.status_code,
                reply.headers_list,
                attempts=reply.attempts or 1,
                refused_by=reply.refused_by,
                retry_after_ms=reply.retry_after_ms,
                queued_us=reply.queued_us,
                backoff_us=reply.backoff_us,
            )
        elif isinstance(reply, bytes):
            reply = StreamReply([reply])
        elif isinstance(reply, ConnectorException):
            reply = StreamReply([reply], attempts=reply.attempts)
        stream = FakeStream(
            call.request,
            call.message,
            reply,
            self._send_window,
            lambda: self.later(lambda: self._advance(stream)),
        )
        self._streams[call.message.request_id] = stream
        self._server.streams.append(stream)
        return self._advance(stream)


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
    if isinstance(reply, StreamReply):
        raise TypeError("a stream is no answer to a call without `stream`")
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
