"""What tests of HTTP calls through the whole runtime say again and again."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.support.running import UPSTREAM_PORT, URL
from vastar_client.wire import (
    ErrorClass,
    ExecuteResponse,
    HttpRequest,
    HttpResponse,
    PayloadFormat,
    decode_http_response,
    encode_http_request,
)
from vastar_runtime.transport.fake import Request, Script, Send, Step
from vastar_runtime.transport.memory import MemoryChannel

__all__ = [
    "NATIVE",
    "ORIGIN",
    "RAW_PORT",
    "RAW_URL",
    "json_of",
    "native_of",
    "native_payload",
    "raw",
]

ORIGIN = f"http://127.0.0.1:{UPSTREAM_PORT}"
NATIVE = {"payload_format": PayloadFormat.NATIVE}
RAW_PORT = 4700
RAW_URL = f"http://127.0.0.1:{RAW_PORT}"

assert URL == ORIGIN


def json_of(answer: ExecuteResponse) -> dict[str, Any]:
    """The JSON payload of a success."""
    assert answer.error_class is ErrorClass.SUCCESS, answer.error_message
    assert answer.error_message is None
    assert answer.payload_format is PayloadFormat.JSON
    fields = msgspec.json.decode(bytes(answer.payload))  # type: ignore[arg-type]
    assert isinstance(fields, dict)
    return fields


def native_of(answer: ExecuteResponse) -> HttpResponse:
    """The native payload of a success."""
    assert answer.error_class is ErrorClass.SUCCESS, answer.error_message
    assert answer.payload_format is PayloadFormat.NATIVE
    return decode_http_response(bytes(answer.payload))  # type: ignore[arg-type]


def native_payload(*args: Any, **fields: Any) -> bytes:
    """An HttpRequest as payload; the call needs `**NATIVE` beside it."""
    return b"".join(map(bytes, encode_http_request(HttpRequest(*args, **fields))))


def raw(data: bytes, *more: Step) -> Callable[[MemoryChannel], Awaitable[None]]:
    """An upstream that answers each request of a connection with these bytes, then does `more`."""
    return Script([Request(), Send(data), *more])
