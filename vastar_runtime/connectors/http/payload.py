"""What the caller asked: the JSON or native payload as one value.

JSON keys and their rules are those of the published runtime (PROTOCOL.md section 3) plus ours:
`query`, `body_base64`, `follow_redirects`, `decode_content`. Unknown keys are ignored, as there.

All of this runs between two turns of the event loop, with every other caller waiting. So what
costs more than a look at each byte (`headers`, `query`, a body) stays raw at first. When it is too
much it is refused, not worked through; a body of text or base64 is read in pieces instead.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
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
from vastar_runtime.connectors.http.json_text import PIECE_BYTES, bytes_of_base64, utf8_of_text
from vastar_runtime.connectors.http.target import with_query

__all__ = ["HttpCall", "begin_payload", "parse_payload"]

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
_MAX_HEADERS_JSON_BYTES: Final = 512 * 1024
"""Any headers within their limits fit, also with every character as a \\u escape."""
_MAX_METHOD_CHARACTERS: Final = 64
_MAX_EXPLAINED_BYTES: Final = 64 * 1024
"""Of a payload that is read once more to find a better word for what is wrong with it."""
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
    headers: msgspec.Raw = msgspec.Raw()
    body: msgspec.Raw = msgspec.Raw()
    timeout_ms: int | None = None
    query: msgspec.Raw = msgspec.Raw()
    body_base64: msgspec.Raw = msgspec.Raw()
    follow_redirects: bool | None = None
    decode_content: bool | None = None


_JSON_DECODER: Final = msgspec.json.Decoder(_JsonPayload)
_QUERY_DECODER: Final[msgspec.json.Decoder[dict[str, Any] | None]] = msgspec.json.Decoder(
    dict[str, Any] | None
)
_HEADERS_DECODER: Final[msgspec.json.Decoder[dict[str, str] | None]] = msgspec.json.Decoder(
    dict[str, str] | None
)
_TEXT_DECODER: Final[msgspec.json.Decoder[str | None]] = msgspec.json.Decoder(str | None)
_SORTING_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_QUOTE: Final = ord('"')
_ValueT = TypeVar("_ValueT")
_TOO_DEEP: Final = "arrays and objects are nested too deeply"


def parse_payload(payload: Buffer, payload_format: PayloadFormat) -> HttpCall:
    """The HTTP request in `payload`, its body read at one go.

    Raises:
        InvalidCall: naming the key at fault and what would be right.
    """
    call, pieces = begin_payload(payload, payload_format)
    if pieces is not None:
        call = msgspec.structs.replace(call, body=b"".join(pieces) or None)
    return call


def begin_payload(
    payload: Buffer, payload_format: PayloadFormat
) -> tuple[HttpCall, Iterator[bytes] | None]:
    """The HTTP request in `payload`, and the pieces of its body, if they are still to be read.

    Raises:
        InvalidCall: naming the key at fault and what would be right; so do the pieces.
    """
    if payload_format is PayloadFormat.NATIVE:
        return _parse_native(payload), None
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


def _parse_json(payload: Buffer) -> tuple[HttpCall, Iterator[bytes] | None]:
    fields = _decode_json(payload)
    if fields.timeout_ms is not None and not 0 <= fields.timeout_ms <= _MAX_TIMEOUT_MS:
        raise InvalidCall(
            f"Invalid HTTP params: timeout_ms is {fields.timeout_ms}; expected a non-negative "
            "number of milliseconds"
        )
    headers = _headers(fields.headers)
    url = _required_url(fields.url)
    if query := _query(fields.query):
        url = with_query(url, _encode_query(query))
    method = b"GET" if fields.method is None else _method(fields.method)
    body, pieces = _json_body(fields)
    call = HttpCall(
        method=method,
        url=url,
        headers=headers,
        body=body,
        timeout_ms=fields.timeout_ms or 0,
        follow_redirects=fields.follow_redirects is not False,
        decode_content=fields.decode_content is not False,
    )
    return call, pieces


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
        is_short = len(payload) <= _MAX_EXPLAINED_BYTES
        if is_short and "truncated" in str(error) and json.loads(bytes(payload)):
            return "a \\u escape from d800 to dfff without its other half is not text"
    return str(error)


def _required_url(url: str | None) -> str:
    if url is None:
        raise InvalidCall("Missing required field: url")
    return url


def _method(text: str) -> bytes:
    method = text[: _MAX_METHOD_CHARACTERS + 1].upper().encode(errors="replace")
    if method not in METHODS:
        shown = "".join(each if each.isprintable() else "?" for each in text[:40])
        raise InvalidCall(
            f"Unsupported HTTP method: {shown}; expected GET, HEAD, POST, PUT, PATCH, DELETE, "
            "OPTIONS or another method of IANA's registry"
        )
    return method


def _none_if_empty(body: Any) -> Any:
    return body if body is not None and len(body) else None


def _json_body(fields: _JsonPayload) -> tuple[bytes | None, Iterator[bytes] | None]:
    """The body's bytes: text as UTF-8, any other JSON value as its compact text, keys sorted.

    What is long text or base64 comes as the pieces that it is still to be read in.
    """
    raw, base64 = fields.body, fields.body_base64
    if _is_there(base64):
        if memoryview(base64)[0] != _QUOTE:
            _decode_key("body_base64", _TEXT_DECODER, base64)
        if _is_there(raw):
            raise InvalidCall("Invalid HTTP params: body and body_base64 are both set; give one")
        return _read_if_short(base64, _pieces_of_base64(base64))
    if not _is_there(raw):
        return None, None
    if memoryview(raw)[0] == _QUOTE:
        return _read_if_short(raw, _pieces_of_text(raw))
    try:
        return _compact(bytes(raw)), None
    except UnicodeDecodeError as error:  # `msgspec.Raw` looks at the structure only
        raise InvalidCall(f"Invalid HTTP params: body: {error}") from None
    except RecursionError:
        raise InvalidCall(f"Invalid HTTP params: body: {_TOO_DEEP}") from None
    except ValueError:
        raise InvalidCall(
            "Invalid HTTP params: body: a number is out of range; send it as text"
        ) from None


def _is_there(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[: len(b"null") + 1]) not in (b"", b"null")


def _read_if_short(
    raw: msgspec.Raw, pieces: Iterator[bytes]
) -> tuple[bytes | None, Iterator[bytes] | None]:
    if len(memoryview(raw)) > PIECE_BYTES:
        return None, pieces
    return b"".join(pieces) or None, None


def _pieces_of_text(raw: msgspec.Raw) -> Iterator[bytes]:
    try:
        yield from utf8_of_text(raw)
    except UnicodeDecodeError as error:  # `msgspec.Raw` looks at the structure only
        raise InvalidCall(f"Invalid HTTP params: body: {error}") from None


def _pieces_of_base64(raw: msgspec.Raw) -> Iterator[bytes]:
    try:
        yield from bytes_of_base64(raw)
    except ValueError:
        raise InvalidCall("Invalid HTTP params: body_base64 is not base64 (RFC 4648)") from None


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


def _headers(raw: msgspec.Raw) -> tuple[tuple[str, str], ...]:
    """The pairs of the `headers` object, none where there is none."""
    if len(memoryview(raw)) > _MAX_HEADERS_JSON_BYTES:
        raise InvalidCall(f"Invalid headers: more than {_MAX_HEADERS_JSON_BYTES} bytes of JSON")
    return tuple((_decode_key("headers", _HEADERS_DECODER, raw) or {}).items())


def _query(raw: msgspec.Raw) -> dict[str, Any] | None:
    """The `query` object, or None where there is none."""
    if len(memoryview(raw)) > _MAX_QUERY_JSON_BYTES:
        raise _query_too_long()
    return _decode_key("query", _QUERY_DECODER, raw)


def _decode_key(
    key: str, decoder: msgspec.json.Decoder[_ValueT], raw: msgspec.Raw
) -> _ValueT | None:
    """What `raw`, the value of `key`, is; None where there is none."""
    if not memoryview(raw):
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem, _, path = str(error).partition(" - at `$")
        raise InvalidCall(f"Invalid HTTP params: {problem} - at `$.{key}{path or '`'}") from None
    except RecursionError:
        raise InvalidCall(f"Invalid HTTP params: {key}: {_TOO_DEEP}") from None


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
