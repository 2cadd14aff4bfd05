"""The tables of the schema as values: for each slot a name and a kind.

One description serves the checked reader and the writer, and the tests hold it against
`fbs/vastar_ipc.fbs` through the generated code. The default of a field is that of the message
class, so it is written down once, there.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any, Final

import attrs
import msgspec

from vastar_client.wire import messages
from vastar_client.wire.enums import (
    Disposition,
    ErrorClass,
    MessageType,
    PayloadFormat,
    ResponseFormat,
)

__all__ = ["HTTP_REQUEST", "HTTP_RESPONSE", "TABLES", "Field", "Kind", "Table"]


class Kind(Enum):
    """What a slot holds: the value is (struct code of the inline part, its width in bytes)."""

    BOOL = ("?", 1)
    I8_ENUM = ("b", 1)
    U16 = ("H", 2)
    I32 = ("i", 4)
    U32 = ("I", 4)
    I64 = ("q", 8)
    U64 = ("Q", 8)
    STRING = ("I ", 4)
    KEY_VALUES = ("I  ", 4)
    BYTES = ("I   ", 4)
    # The blanks tell the members apart (an Enum would take equal values for one member);
    # struct ignores them.

    def __init__(self, code: str, width_bytes: int) -> None:
        self.code = code.strip()
        self.width_bytes = width_bytes


@attrs.frozen
class Field:
    """One slot. `members` is set for I8_ENUM; a required field must be there on receipt."""

    name: str
    kind: Kind
    members: type[IntEnum] | None = None
    required: bool = False


@attrs.frozen
class Table:
    """A table: `fields[i]` is slot `i`; `value_type` is the message class it becomes.

    Attributes:
        defaults: the value of every field when its slot is absent; it is not written then.
        initial: what a reader starts from: 0 for each number (`request_id`, `status_code`) for
            which the message class itself has no default.
    """

    name: str
    value_type: type[msgspec.Struct]
    fields: tuple[Field, ...]
    defaults: tuple[Any, ...] = attrs.field(init=False)
    initial: Mapping[str, Any] = attrs.field(init=False)
    required: frozenset[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Take the defaults over from the message class, and check that the names agree."""
        by_name = {field.name: field for field in msgspec.structs.fields(self.value_type)}
        assert by_name.keys() == {field.name for field in self.fields}, self.name
        defaults: list[Any] = []
        initial: dict[str, Any] = {}
        for field in self.fields:
            default = by_name[field.name].default
            if default is msgspec.NODEFAULT:
                default = None if field.required else 0
                if not field.required:
                    initial[field.name] = default
            defaults.append(default)
        set_attribute = object.__setattr__  # frozen: this is the constructor's own business
        set_attribute(self, "defaults", tuple(defaults))
        set_attribute(self, "initial", MappingProxyType(initial))
        set_attribute(self, "required", frozenset(f.name for f in self.fields if f.required))


_REQUEST_ID: Final = Field("request_id", Kind.U64)
_ERROR_CLASS: Final = Field("error_class", Kind.I8_ENUM, ErrorClass)
_DISPOSITION: Final = Field("disposition", Kind.I8_ENUM, Disposition)
_PAYLOAD_FORMAT: Final = Field("payload_format", Kind.I8_ENUM, PayloadFormat)

TABLES: Final[Mapping[MessageType, Table]] = MappingProxyType(
    {
        MessageType.EXECUTE_REQUEST: Table(
            "ExecuteRequest",
            messages.ExecuteRequest,
            (
                _REQUEST_ID,
                Field("tenant_id", Kind.STRING, required=True),
                Field("workspace_id", Kind.STRING),
                Field("trace_id", Kind.STRING),
                Field("connector_name", Kind.STRING, required=True),
                Field("operation", Kind.STRING, required=True),
                Field("deadline_at_ms", Kind.U64),
                Field("payload", Kind.BYTES),
                Field("headers", Kind.KEY_VALUES),
                Field("stream", Kind.BOOL),
                _PAYLOAD_FORMAT,
                Field("idempotency_key", Kind.STRING),
                Field("response_format", Kind.I8_ENUM, ResponseFormat),
                Field("body_follows", Kind.BOOL),
            ),
        ),
        MessageType.EXECUTE_RESPONSE: Table(
            "ExecuteResponse",
            messages.ExecuteResponse,
            (
                _REQUEST_ID,
                _ERROR_CLASS,
                Field("error_message", Kind.STRING),
                Field("payload", Kind.BYTES),
                Field("duration_us", Kind.U64),
                Field("retry_after_ms", Kind.U32),
                _DISPOSITION,
                Field("attempts", Kind.U16),
                _PAYLOAD_FORMAT,
                Field("refused_by", Kind.STRING),
                Field("queued_us", Kind.U64),
                Field("backoff_us", Kind.U64),
            ),
        ),
        MessageType.HEALTH_RESPONSE: Table(
            "HealthCheckResponse",
            messages.HealthResponse,
            (
                Field("healthy", Kind.BOOL),
                Field("message", Kind.STRING),
                Field("active_requests", Kind.U32),
                Field("available_credits", Kind.U32),
            ),
        ),
        MessageType.CREDIT_UPDATE: Table(
            "CreditUpdate",
            messages.CreditUpdate,
            (
                Field("credit_delta", Kind.I32),
                Field("total_credits", Kind.U32),
                _REQUEST_ID,
                Field("connection_bytes", Kind.I64),
            ),
        ),
        MessageType.STREAM_START: Table(
            "StreamStart",
            messages.StreamStart,
            (
                _REQUEST_ID,
                Field("status_code", Kind.U16),
                Field("headers", Kind.KEY_VALUES),
                Field("is_sse", Kind.BOOL),
            ),
        ),
        MessageType.STREAM_CHUNK: Table(
            "StreamChunk",
            messages.StreamChunk,
            (_REQUEST_ID, Field("sequence", Kind.U32), Field("data", Kind.BYTES)),
        ),
        MessageType.STREAM_END: Table(
            "StreamEnd",
            messages.StreamEnd,
            (
                _REQUEST_ID,
                _ERROR_CLASS,
                Field("error_message", Kind.STRING),
                Field("duration_us", Kind.U64),
                Field("retry_after_ms", Kind.U32),
                _DISPOSITION,
                Field("attempts", Kind.U16),
                Field("trailers", Kind.KEY_VALUES),
                Field("total_bytes", Kind.U64),
                Field("refused_by", Kind.STRING),
                Field("queued_us", Kind.U64),
                Field("backoff_us", Kind.U64),
            ),
        ),
        MessageType.CANCEL: Table("Cancel", messages.Cancel, (_REQUEST_ID,)),
        MessageType.GOAWAY: Table(
            "Goaway",
            messages.Goaway,
            (Field("reason", Kind.STRING), Field("drain_ms", Kind.U32)),
        ),
        MessageType.REQUEST_CHUNK: Table(
            "RequestChunk",
            messages.RequestChunk,
            (
                _REQUEST_ID,
                Field("sequence", Kind.U32),
                Field("data", Kind.BYTES),
                Field("last", Kind.BOOL),
            ),
        ),
        MessageType.KEEP_ALIVE: Table("KeepAlive", messages.KeepAlive, (_REQUEST_ID,)),
        MessageType.AUTHENTICATE: Table(
            "Authenticate", messages.Authenticate, (Field("token", Kind.STRING),)
        ),
    }
)
"""The table of each message type; HEALTH_CHECK has none."""

HTTP_REQUEST: Final = Table(
    "HttpRequest",
    messages.HttpRequest,
    (
        Field("method", Kind.STRING, required=True),
        Field("url", Kind.STRING, required=True),
        Field("headers", Kind.KEY_VALUES),
        Field("body", Kind.BYTES),
        Field("timeout_ms", Kind.U32),
        Field("follow_redirects", Kind.BOOL),
        Field("decode_content", Kind.BOOL),
    ),
)
HTTP_RESPONSE: Final = Table(
    "HttpResponse",
    messages.HttpResponse,
    (
        Field("status_code", Kind.U16),
        Field("headers", Kind.KEY_VALUES),
        Field("body", Kind.BYTES),
        Field("http_version", Kind.STRING),
        Field("url", Kind.STRING),
    ),
)
