"""The messages as frozen values: what a frame means, without its bytes.

`msgspec.Struct` rather than attrs: these are made for every frame, and a frozen attrs class of
this width costs about four times as much to construct. Their `repr` shows sizes, never bodies,
headers or tokens, so that a message may stand in a log line or a traceback.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec

from vastar_client.wire.enums import (
    Disposition,
    ErrorClass,
    MessageType,
    PayloadFormat,
    ResponseFormat,
)

__all__ = [
    "Authenticate",
    "Buffer",
    "Cancel",
    "CreditUpdate",
    "ExecuteRequest",
    "ExecuteResponse",
    "Goaway",
    "HealthCheck",
    "HealthResponse",
    "HttpRequest",
    "HttpResponse",
    "KeepAlive",
    "KeyValues",
    "Message",
    "RawKeyValues",
    "RequestChunk",
    "StreamChunk",
    "StreamEnd",
    "StreamStart",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
KeyValues: TypeAlias = Sequence[tuple[str, str]]
RawKeyValues: TypeAlias = Sequence[tuple[str | bytes, str | bytes]]
"""As the writer takes them: bytes must be UTF-8."""

_SECRET_FIELDS = frozenset({"payload", "headers", "body", "data", "token", "trailers", "url"})


class _Value(msgspec.Struct, frozen=True):
    """Base of all messages: a `repr` that tells sizes of what may be secret.

    Sizes are bytes of one buffer or of text, else a count: of buffers, or of pairs.
    """

    def __repr__(self) -> str:
        parts = (f"{name}={shown}" for name, shown in self.__rich_repr__())
        return f"{type(self).__name__}({', '.join(parts)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """(name, text) of each field. msgspec's own hands every value to pretty printers.

        Text is quoted: it comes from the peer, who must not write lines into a log.
        """
        shown: list[tuple[str, Any]] = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in _SECRET_FIELDS and value is not None:
                shown.append((name, f"<{len(value)}>"))
            else:
                shown.append((name, repr(value) if isinstance(value, str) else str(value)))
        return shown


class ExecuteRequest(_Value, frozen=True):
    """A call: run `operation` of `connector_name` with `payload` on behalf of a tenant."""

    TYPE: ClassVar = MessageType.EXECUTE_REQUEST

    request_id: int
    tenant_id: str
    connector_name: str
    operation: str
    workspace_id: str | None = None
    trace_id: str | None = None
    deadline_at_ms: int = 0
    payload: Buffer | Sequence[Buffer] | None = None
    headers: KeyValues | None = None
    stream: bool = False
    payload_format: PayloadFormat = PayloadFormat.JSON
    idempotency_key: str | None = None
    response_format: ResponseFormat = ResponseFormat.AS_REQUEST
    body_follows: bool = False


class ExecuteResponse(_Value, frozen=True):
    """The one answer to a call that is not a stream.

    `payload` is one buffer when decoded; the encoder also takes a sequence of buffers, which
    leave one after another as one vector, without being joined.
    """

    TYPE: ClassVar = MessageType.EXECUTE_RESPONSE

    request_id: int
    error_class: ErrorClass = ErrorClass.SUCCESS
    error_message: str | None = None
    payload: Buffer | Sequence[Buffer] | None = None
    duration_us: int = 0
    retry_after_ms: int = 0
    disposition: Disposition = Disposition.UNKNOWN
    attempts: int = 0
    payload_format: PayloadFormat = PayloadFormat.JSON
    refused_by: str | None = None
    queued_us: int = 0
    backoff_us: int = 0


class HealthCheck(_Value, frozen=True):
    """Are you well? Carries nothing; a payload is ignored."""

    TYPE: ClassVar = MessageType.HEALTH_CHECK


class HealthResponse(_Value, frozen=True):
    """The runtime's state in four fields (table HealthCheckResponse)."""

    TYPE: ClassVar = MessageType.HEALTH_RESPONSE

    healthy: bool = False
    message: str | None = None
    active_requests: int = 0
    available_credits: int = 0


class CreditUpdate(_Value, frozen=True):
    """Leave to send more: requests (`request_id` 0) or bytes of the stream `request_id`."""

    TYPE: ClassVar = MessageType.CREDIT_UPDATE

    credit_delta: int = 0
    total_credits: int = 0
    request_id: int = 0
    connection_bytes: int = 0


class StreamStart(_Value, frozen=True):
    """The head of a streamed answer. After it nothing is retried."""

    TYPE: ClassVar = MessageType.STREAM_START

    request_id: int
    status_code: int = 0
    headers: KeyValues | None = None
    is_sse: bool = False


class StreamChunk(_Value, frozen=True):
    """Bytes of a streamed answer's body, in order."""

    TYPE: ClassVar = MessageType.STREAM_CHUNK

    request_id: int
    sequence: int = 0
    data: Buffer | None = None


class StreamEnd(_Value, frozen=True):
    """The one final frame of a streamed answer."""

    TYPE: ClassVar = MessageType.STREAM_END

    request_id: int
    error_class: ErrorClass = ErrorClass.SUCCESS
    error_message: str | None = None
    duration_us: int = 0
    retry_after_ms: int = 0
    disposition: Disposition = Disposition.UNKNOWN
    attempts: int = 0
    trailers: KeyValues | None = None
    total_bytes: int = 0
    refused_by: str | None = None
    queued_us: int = 0
    backoff_us: int = 0


class Cancel(_Value, frozen=True):
    """The caller no longer wants the answer of `request_id`."""

    TYPE: ClassVar = MessageType.CANCEL

    request_id: int


class Goaway(_Value, frozen=True):
    """The runtime is leaving: no new calls here, `drain_ms` for those under way."""

    TYPE: ClassVar = MessageType.GOAWAY

    reason: str | None = None
    drain_ms: int = 0


class RequestChunk(_Value, frozen=True):
    """Bytes of a streamed request body, in order."""

    TYPE: ClassVar = MessageType.REQUEST_CHUNK

    request_id: int
    sequence: int = 0
    data: Buffer | None = None
    last: bool = False


class KeepAlive(_Value, frozen=True):
    """The stream is alive though silent."""

    TYPE: ClassVar = MessageType.KEEP_ALIVE

    request_id: int


class Authenticate(_Value, frozen=True):
    """The caller's token; answered by a HealthResponse."""

    TYPE: ClassVar = MessageType.AUTHENTICATE

    token: str | None = None


Message: TypeAlias = (
    ExecuteRequest
    | ExecuteResponse
    | HealthCheck
    | HealthResponse
    | CreditUpdate
    | StreamStart
    | StreamChunk
    | StreamEnd
    | Cancel
    | Goaway
    | RequestChunk
    | KeepAlive
    | Authenticate
)


class HttpRequest(_Value, frozen=True):
    """The native payload of operation `request` of connector `http`."""

    url: str
    method: str = "GET"
    headers: KeyValues = ()
    body: Buffer | Sequence[Buffer] | None = None
    timeout_ms: int = 0
    follow_redirects: bool = True
    decode_content: bool = True


class HttpResponse(_Value, frozen=True):
    """The native payload of its answer: headers in order, repeats kept, body as bytes.

    `body`: as the payload of ExecuteResponse. The encoder takes headers of bytes as well
    (`RawKeyValues`).
    """

    status_code: int
    headers: KeyValues = ()
    body: Buffer | Sequence[Buffer] | None = None
    http_version: str | None = None
    url: str | None = None
