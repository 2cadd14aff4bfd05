"""Request headers: validated, in the caller's order, completed as the published runtime does.

RFC 9110 section 5 says what a name and a value may hold. What describes the connection rather
than the message (RFC 9110 section 7.6.1) is the transport's own and is dropped; what would change
how the message is framed or would switch protocols is refused, because dropping it in silence
would send something else than was asked.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.redaction import redact_text

__all__ = ["declared_bytes", "encode_headers", "has_header", "without_headers"]

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_BAD_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_DROPPED: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"expect"}
)
"""Of the connection, not of the message. Expect: the body is sent at once, nothing to wait for."""

_MAX_NAME_CHARACTERS: Final = 256
"""Also bounds what the cache of names can hold."""

_MAX_HEADERS: Final = 256
_MAX_HEADERS_BYTES: Final = 64 * 1024
"""Of names and values together. No common server takes as many, or as much."""

_REFUSED: Final[Mapping[bytes, str]] = {
    b"transfer-encoding": "the runtime frames the body itself; leave it out",
    b"upgrade": "connections cannot be upgraded to another protocol; leave it out",
}


def _encode_name(name: str) -> bytes:
    """The name in lower case, as HTTP/2 writes it and the published runtime sends it."""
    if len(name) > _MAX_NAME_CHARACTERS:
        raise InvalidCall(f"Invalid header name of {len(name)} characters: far too long")
    return _encode_short_name(name)


@lru_cache(maxsize=1024)
def _encode_short_name(name: str) -> bytes:
    encoded = name.encode(errors="replace").lower()
    if not _TOKEN.fullmatch(encoded) or not name.isascii():
        # What does not look like a name may well be a whole header line, secret included.
        raise InvalidCall(
            f"Invalid header name {redact_text(name)[:60]!r}: expected letters, digits and "
            "!#$%&'*+-.^_`|~"
        )
    if encoded in _REFUSED:
        raise InvalidCall(f"Invalid header {name!r}: {_REFUSED[encoded]}")
    return encoded


def encode_headers(
    pairs: Iterable[tuple[str, str]], body_bytes: int | None
) -> list[tuple[bytes, bytes]]:
    """The headers to send, in order, repeats kept.

    Args:
        pairs: as the caller gave them.
        body_bytes: length of the body, which a Content-Length of the caller must agree with; None
            where that is not known yet (see `declared_bytes`).

    Raises:
        InvalidCall: a name or value that HTTP does not allow; names the header, never its value.
    """
    encoded: list[tuple[bytes, bytes]] = []
    room_bytes = _MAX_HEADERS_BYTES
    for name, value in pairs:
        key = _encode_name(name)
        data = value.encode(errors="surrogatepass").strip(b" \t")
        if _BAD_IN_VALUE.search(data):
            raise InvalidCall(
                f"Invalid value of header {name!r}: CR, LF, NUL and control characters "
                "are not allowed"
            )
        room_bytes -= len(key) + len(data)
        if room_bytes < 0 or len(encoded) >= _MAX_HEADERS:
            raise InvalidCall(
                f"Invalid headers: more than {_MAX_HEADERS} of them, or {_MAX_HEADERS_BYTES} bytes"
            )
        if key in _DROPPED:
            continue
        if key == b"content-length":
            if body_bytes is not None and data != b"%d" % body_bytes:
                raise InvalidCall(
                    f"Invalid header {name!r}: the body has {body_bytes} bytes; leave it out"
                )
            continue
        if key == b"host" and has_header(encoded, b"host"):
            raise InvalidCall(f"Invalid header {name!r}: it is given twice; give it once")
        encoded.append((key, data))
    return encoded


def declared_bytes(pairs: Iterable[tuple[str, str]]) -> int | None:
    """The Content-Length that a caller gives for a body that follows, None where it gives none.

    Raises:
        InvalidCall: it is no number, or two that differ.
    """
    found = {value.strip(" \t") for name, value in pairs if name.lower() == "content-length"}
    if not found:
        return None
    text = found.pop()
    if found or not _LENGTH.fullmatch(text):
        raise InvalidCall("Invalid header 'content-length': give one number of bytes, or none")
    return int(text)


def has_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bool:
    """Whether `headers` (names in lower case) hold `name`."""
    return any(key == name for key, _ in headers)


def without_headers(
    headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    """`headers` (names in lower case) without those in `names`."""
    return [pair for pair in headers if pair[0] not in names]
