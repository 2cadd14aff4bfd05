"""Between the values of this package and the payloads on the wire, native or JSON.

Native is the default: the body leaves and arrives as bytes, without base64 and without a copy on
the way out. JSON is what the published runtime understands; a body that is no text travels as
`body_base64`, which only this runtime reads.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from vastar_client._headers import Headers
from vastar_client.errors import CallTimeout, ConnectorException
from vastar_client.request import HTTPRequest
from vastar_client.response import HTTPResponse
from vastar_client.wire import (
    Buffer,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    HealthResponse,
    HttpRequest,
    LocalProtocolError,
    PayloadFormat,
    RemoteProtocolError,
    StreamEnd,
    decode_http_response,
    encode_http_request,
)

__all__ = [
    "error_of",
    "http_request_payload",
    "http_response",
    "payload_bytes",
    "payload_view",
    "succeeded",
    "unsendable",
]

Payload = tuple[Buffer | Sequence[Buffer], PayloadFormat]


class _JsonAnswer(msgspec.Struct):
    """The JSON payload of an HTTP answer; unknown keys are ignored."""

    status_code: int
    headers: dict[str, str] = {}
    body: str = ""
    body_base64: str | None = None
    headers_list: list[tuple[str, str]] | None = None


def http_request_payload(
    request: HTTPRequest, payload_format: Literal["native", "json"]
) -> Payload:
    """The payload of operation `request` of connector `http`.

    Raises:
        TypeError: it is no HTTPRequest, or its method, URL or a header is no string.
        ConnectorException: INVALID_REQUEST: a field cannot be written, such as a lone surrogate.
    """
    if not isinstance(request, HTTPRequest):
        raise TypeError(f"execute_http takes an HTTPRequest, not {type(request).__name__}")
    for name, value in (("method", request.method), ("url", request.url)):
        if not isinstance(value, str):
            raise TypeError(f"HTTPRequest.{name} is {type(value).__name__}: it must be str")
    if payload_format == "json":
        return msgspec.json.encode(_json_request(request)), PayloadFormat.JSON
    native = HttpRequest(
        method=request.method,
        url=request.url,
        headers=request.header_pairs(),
        body=request.body_bytes(),
        follow_redirects=request.follow_redirects,
        decode_content=request.decode_content,
    )
    try:
        return encode_http_request(native), PayloadFormat.NATIVE
    except LocalProtocolError as error:
        raise unsendable(error) from None


def unsendable(
    cause: Exception, disposition: Disposition = Disposition.NOT_SENT
) -> ConnectorException:
    """The error for a request that `cause` keeps from being sent, or from being sent whole."""
    error = ConnectorException(
        f"the request cannot be sent: {cause}",
        ErrorClass.INVALID_REQUEST,
        disposition=disposition,
    )
    error.__cause__ = cause
    return error


def _json_request(request: HTTPRequest) -> dict[str, Any]:
    """The keys that are set, so that the published runtime sees what its own SDK sends."""
    keys: dict[str, Any] = {"method": request.method, "url": request.url}
    pairs = request.header_pairs()
    if pairs:
        joined: dict[str, str] = {}
        for name, value in pairs:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        keys["headers"] = joined
    body = request.body_bytes()
    if body is not None:
        try:
            keys["body"] = bytes(body).decode()
        except UnicodeDecodeError:
            keys["body_base64"] = base64.b64encode(body).decode()
    if not request.follow_redirects:
        keys["follow_redirects"] = False
    if not request.decode_content:
        keys["decode_content"] = False
    return keys


_UNREADABLE: Final = (
    *(RemoteProtocolError, binascii.Error, RecursionError),
    *(msgspec.MsgspecError, UnicodeDecodeError),  # msgspec raises both for what is no JSON
)


def http_response(answer: ExecuteResponse) -> HTTPResponse:
    """The HTTP answer in a successful `answer`. The body is copied once, out of the frame.

    Raises:
        ConnectorException: PERMANENT: the runtime sent a payload that cannot be read.
    """
    url: str | None = None
    version: str | None = None
    pairs: Sequence[tuple[str, str]] | None
    try:
        if answer.payload_format is PayloadFormat.NATIVE:
            native = decode_http_response(payload_view(answer))
            status, pairs, headers = native.status_code, native.headers, Headers(native.headers)
            body = b"" if native.body is None else bytes(_one(native.body))
            url, version = native.url, native.http_version
        else:
            json = msgspec.json.decode(payload_view(answer), type=_JsonAnswer)
            status, pairs = json.status_code, json.headers_list
            headers = Headers(json.headers)
            body = json.body.encode() if json.body_base64 is None else _unbase64(json.body_base64)
    except _UNREADABLE as error:
        raise ConnectorException(
            f"the runtime's answer cannot be read: {error}",
            ErrorClass.PERMANENT,
            answer.request_id,
            disposition=Disposition.COMPLETED,
        ) from None
    return HTTPResponse(
        answer.request_id,
        status,
        headers,
        body,
        answer.duration_us,
        headers_list=list(pairs or headers.items()),
        url=url,
        http_version=version,
        attempts=answer.attempts,
        disposition=answer.disposition,
        queued_us=answer.queued_us,
        backoff_us=answer.backoff_us,
        refused_by=answer.refused_by,
        retry_after_ms=answer.retry_after_ms,
    )


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _one(buffers: Buffer | Sequence[Buffer]) -> Buffer:
    """The one buffer that a decoded vector is."""
    assert isinstance(buffers, bytes | bytearray | memoryview)
    return buffers


def payload_view(answer: ExecuteResponse) -> Buffer:
    """The payload of a decoded answer, empty when there is none."""
    return b"" if answer.payload is None else _one(answer.payload)


def payload_bytes(payload: object) -> Buffer:
    """What `execute()` sends for `payload`: bytes as they are, text as UTF-8, the rest as JSON.

    Raises:
        TypeError: it cannot be written as JSON.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        return payload
    return payload.encode() if isinstance(payload, str) else msgspec.json.encode(payload)


def error_of(answer: ExecuteResponse | StreamEnd) -> ConnectorException | None:
    """The exception that a final frame stands for, None when it is a success."""
    if answer.error_class is ErrorClass.SUCCESS:
        return None
    kind = CallTimeout if answer.error_class is ErrorClass.TIMEOUT else ConnectorException
    return kind(
        answer.error_message or "the runtime gave no reason",
        answer.error_class,
        answer.request_id,
        disposition=answer.disposition,
        retry_after_ms=answer.retry_after_ms,
        attempts=answer.attempts,
        refused_by=answer.refused_by,
        queued_us=answer.queued_us,
        backoff_us=answer.backoff_us,
    )


def succeeded(answer: ExecuteResponse | HealthResponse) -> ExecuteResponse:
    """The answer to a call, when it is a success.

    Raises:
        ConnectorException: it is none.
    """
    assert isinstance(answer, ExecuteResponse), "a call is answered by no other message"
    error = error_of(answer)
    if error is not None:
        raise error
    return answer
