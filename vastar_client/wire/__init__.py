"""The wire protocol, sans-IO: bytes and messages, shared by both ends (`fbs/README.md`).

`framing > codec > state`, joined in `Connection`. No I/O and no event loop in here.
"""

from vastar_client.wire.codec import (
    decode_http_request,
    decode_http_response,
    encode_http_request,
    encode_http_response,
)
from vastar_client.wire.connection import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    FrameTooLongError,
    Signal,
)
from vastar_client.wire.enums import (
    Disposition,
    ErrorClass,
    MessageType,
    PayloadFormat,
    ResponseFormat,
)
from vastar_client.wire.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from vastar_client.wire.messages import (
    Authenticate,
    Buffer,
    Cancel,
    CreditUpdate,
    ExecuteRequest,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
    HttpRequest,
    HttpResponse,
    KeepAlive,
    KeyValues,
    Message,
    RequestChunk,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.state import Phase, Role

__all__ = [
    "END_OF_STREAM",
    "NEED_DATA",
    "Authenticate",
    "Buffer",
    "Cancel",
    "Connection",
    "CreditUpdate",
    "Disposition",
    "ErrorClass",
    "ExecuteRequest",
    "ExecuteResponse",
    "FrameTooLongError",
    "Goaway",
    "HealthCheck",
    "HealthResponse",
    "HttpRequest",
    "HttpResponse",
    "KeepAlive",
    "KeyValues",
    "LocalProtocolError",
    "Message",
    "MessageType",
    "PayloadFormat",
    "Phase",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestChunk",
    "ResponseFormat",
    "Role",
    "Signal",
    "StreamChunk",
    "StreamEnd",
    "StreamStart",
    "decode_http_request",
    "decode_http_response",
    "encode_http_request",
    "encode_http_response",
]
