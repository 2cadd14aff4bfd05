"""What the caller asked: the JSON or native payload as one value.

JSON keys and their rules are those of the published runtime (PROTOCOL.md section 3) plus ours:
`query`, `body_base64`, `follow_redirects`, `decode_content`. Unknown keys are ignored, as there.

All of this runs between two turns of the event loop, with every other caller waiting. So what
costs more than a look at each byte (`query`, a `body` that is no text) stays raw at first and is
refused, not worked through, when it is too much.
"""

import json
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec

from vastar_client.wire import (
    Buffer,
    KeyValues,
    PayloadFormat,
    RemoteProtocolError,
    decode_http_request,
)
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.target import with_query

__all__ = ["HttpCall", "parse_payload"]

METHODS: Final = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE QUERY "
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR "
    b"MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH REBIND REPORT SEARCH "
    b"UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
"""IANA's method registry without CONNECT and PRI, which are no requests to a resource."""

_MAX_TIMEOUT_MS: Final = 2**63
_MAX_QUERY_BYTES: Final = 64 * 1024
"""Encoded; as the limit of a whole URL."""
_MAX_QUERY_JSON_BYTES: Final = 8 * _MAX_QUERY_BYTES
"""Any query within the limit fits, also with every character as a \\u escape."""
_MAX_BODY_JSON_BYTES: Final = 8 * 1024 * 1024
_MAX_BODY_JSON_VALUES: Final = 500_000
"""Commas and brackets; what a body costs to rewrite depends on its values more than its bytes."""


class HttpCall(msgspec.Struct, frozen=True):
    """An HTTP request as the caller described it, not validated as HTTP yet.

    Attributes:
        timeout_ms: for connect, headers and body together; 0 is none.
        decode_content: undo Content-Encoding, unless the caller set Accept-Encoding.
    """

    method: bytes
    url: str
    headers: KeyValues = ()
    body: Buffer | Sequence[Buffer] | None = None
    timeout_ms: int = 0
    follow_redirects: bool = True
    decode_content: bool = True

    def __repr__(self) -> str:
        """Nothing of URL, headers and body: they hold secrets."""
        return f"HttpCall(method={self.method!r}, timeout_ms={self.timeout_ms})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same, for `rich`."""
        return [("method", self.method), ("timeout_ms", self.timeout_ms)]


class _JsonPayload(msgspec.Struct):
    """The JSON object; `msgspec` holds it against these types in one pass."""

    url: str | None = None
    method: str | None = None
    headers: dict[str, str] | None = None
    body: msgspec.Raw = msgspec.Raw()
    timeout_ms: int | None = None
    query: msgspec.Raw = msgspec.Raw()
    body_base64: str | None = None
    follow_redirects: bool | None = None
    decode_content: bool | None = None


_JSON_DECODER: Final = msgspec.json.Decoder(_JsonPayload)
_QUERY_DECODER: Final[msgspec.json.Decoder[dict[str, Any] | None]] = msgspec.json.Decoder(
    dict[str, Any] | None
)
_SORTING_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_TOO_DEEP: Final = "arrays and objects are nested too deeply"


def parse_payload(payload: Buffer, payload_format: PayloadFormat) -> HttpCall:
    """The HTTP request in `payload`.

    Raises:
        InvalidCall: naming the key at fault and what would be right.
    """
    if payload_format is PayloadFormat.NATIVE:
        return _parse_native(payload)
    return _parse_json(payload)


def _parse_native(payload: Buffer) -> HttpCall:
    try:
        request = decode_http_request(payload)
    except RemoteProtocolError as error:
        raise InvalidCall(f"Invalid HTTP params: {error}") from None
    return HttpCall(
        method=_method(request.method),
        url=_required_url(request.url),
        headers=request.headers,
        body=_none_if_empty(request.body),
        timeout_ms=request.timeout_ms,
        follow_redirects=request.follow_redirects,
        decode_content=request.decode_content,
    )


def _parse_json(payload: Buffer) -> HttpCall:
    fields = _decode_json(payload)
    if fields.timeout_ms is not None and not 0 <= fields.timeout_ms <= _MAX_TIMEOUT_MS:
        raise InvalidCall(
            f"Invalid HTTP params: timeout_ms is {fields.timeout_ms}; expected a non-negative "
            "number of milliseconds"
        )
    url = _required_url(fields.url)
    if query := _query(bytes(fields.query)):
        url = with_query(url, _encode_query(query))
    return HttpCall(
        method=b"GET" if fields.method is None else _method(fields.method),
        url=url,
        headers=tuple((fields.headers or {}).items()),
        body=_json_body(fields),
        timeout_ms=fields.timeout_ms or 0,
        follow_redirects=fields.follow_redirects is not False,
        decode_content=fields.decode_content is not False,
    )


def _decode_json(payload: Buffer) -> _JsonPayload:
    try:
        return _JSON_DECODER.decode(payload)
    except msgspec.ValidationError as error:
        if str(error).startswith("Expected `object`") and " - at" not in str(error):
            # JSON, but no object: as published, that is an object without a url.
            raise InvalidCall("Missing required field: url") from None
        raise InvalidCall(f"Invalid HTTP params: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidCall(f"Invalid HTTP params: {_problem(payload, error)}") from None
    except RecursionError:
        raise InvalidCall(f"Invalid HTTP params: {_TOO_DEEP}") from None


def _problem(payload: Buffer, error: Exception) -> str:
    """What is wrong with the JSON; `msgspec` says "truncated" of half a surrogate pair, too."""
    with suppress(ValueError, RecursionError):
        if "truncated" in str(error) and json.loads(bytes(payload)):
            return "a \\u escape from d800 to dfff without its other half is not text"
    return str(error)


def _required_url(url: str | None) -> str:
    if url is None:
        raise InvalidCall("Missing required field: url")
    return url


def _method(text: str) -> bytes:
    method = text.upper().encode(errors="replace")
    if method not in METHODS:
        shown = "".join(each if each.isprintable() else "?" for each in text[:40])
        raise InvalidCall(
            f"Unsupported HTTP method: {shown}; expected GET, HEAD, POST, PUT, PATCH, DELETE, "
            "OPTIONS or another method of IANA's registry"
        )
    return method


def _none_if_empty(body: Any) -> Any:
    return body if body is not None and len(body) else None


def _json_body(fields: _JsonPayload) -> bytes | None:
    """The body's bytes: text as UTF-8, any other JSON value as its compact text, keys sorted."""
    raw = bytes(fields.body)
    absent = not raw or raw == b"null"
    if fields.body_base64 is not None:
        if not absent:
            raise InvalidCall("Invalid HTTP params: body and body_base64 are both set; give one")
        return _decode_base64(fields.body_base64) or None
    if absent:
        return None
    try:
        if raw.startswith(b'"'):
            return msgspec.json.decode(raw, type=str).encode() or None
        return _compact(raw)
    except UnicodeDecodeError as error:  # `msgspec.Raw` looks at the structure only
        raise InvalidCall(f"Invalid HTTP params: body: {error}") from None
    except RecursionError:
        raise InvalidCall(f"Invalid HTTP params: body: {_TOO_DEEP}") from None
    except ValueError:
        raise InvalidCall(
            "Invalid HTTP params: body: a number is out of range; send it as text"
        ) from None


def _compact(raw: bytes) -> bytes:
    """The JSON `raw` without blanks, keys sorted."""
    if len(raw) > _MAX_BODY_JSON_BYTES:
        raise _body_too_large(f"{_MAX_BODY_JSON_BYTES} bytes")
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MAX_BODY_JSON_VALUES:
        raise _body_too_large(f"{_MAX_BODY_JSON_VALUES} commas and opening brackets")
    return _SORTING_ENCODER.encode(msgspec.json.decode(raw))


def _body_too_large(limit: str) -> InvalidCall:
    return InvalidCall(
        f"Invalid HTTP params: body is JSON of more than {limit}; send it as text (a JSON string), "
        "as body_base64 or in the native form"
    )


def _decode_base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise InvalidCall("Invalid HTTP params: body_base64 is not base64 (RFC 4648)") from None


def _query(raw: bytes) -> dict[str, Any] | None:
    """The `query` object, or None where there is none."""
    if not raw:
        return None
    if len(raw) > _MAX_QUERY_JSON_BYTES:
        raise _query_too_long()
    try:
        return _QUERY_DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem, _, path = str(error).partition(" - at `$")
        raise InvalidCall(f"Invalid HTTP params: {problem} - at `$.query{path or '`'}") from None
    except RecursionError:
        raise InvalidCall(f"Invalid HTTP params: query: {_TOO_DEEP}") from None


def _encode_query(query: dict[str, Any]) -> str:
    """`application/x-www-form-urlencoded`; a list repeats its key, null leaves it out."""
    pairs: list[str] = []
    left_bytes = _MAX_QUERY_BYTES
    for key, value in query.items():
        name = quote_plus(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, (dict, list)):
                raise InvalidCall(
                    f"Invalid HTTP params: query.{key[:60]} is nested; expected text, a number, "
                    "true, false or a list of these"
                )
            if item is not None:
                text = item if isinstance(item, str) else json.dumps(item)
                pair = f"{name}={quote_plus(text)}"
                left_bytes -= len(pair) + 1
                if left_bytes < 0:
                    raise _query_too_long()
                pairs.append(pair)
    return "&".join(pairs)


def _query_too_long() -> InvalidCall:
    return InvalidCall(
        f"Invalid HTTP params: query is longer than {_MAX_QUERY_BYTES} bytes when encoded; "
        "send what is longer in the body"
    )
