"""A long JSON string in pieces: so that its reader can let others have their turn in between.

Decoders hold everybody up until they are through: a third of a second for what one frame may hold.
A piece ends where none of what makes up a character is torn apart: an escape, the two escapes of a
surrogate pair, the bytes of UTF-8.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["PIECE_BYTES", "bytes_of_base64", "utf8_of_text"]

PIECE_BYTES: Final = 256 * 1024
"""About a millisecond of work."""

_HIGH_HALF: Final = re.compile(rb"\\u[dD][89abAB]..")
_ESCAPE_BYTES: Final = 6
_LAST_OF_ONE_BYTE, _LAST_CONTINUATION = 0x7F, 0xBF
_QUAD: Final = 4


def utf8_of_text(raw: msgspec.Raw, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """What a JSON string says, as UTF-8.

    Args:
        raw: with its quotes; known to be one whole string.
        piece_bytes: of the JSON, at most, of each piece.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    inside = memoryview(raw)[1:-1]
    at = 0
    while at < len(inside):
        piece = bytes(inside[at : at + piece_bytes])
        if at + piece_bytes < len(inside):
            piece = piece[: _whole(piece, inside[at + piece_bytes])]
        at += len(piece)
        yield msgspec.json.decode(b'"%b"' % piece, type=str).encode()


def bytes_of_base64(raw: msgspec.Raw, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """What a JSON string of base64 says.

    Args:
        raw: with its quotes; known to be one whole string.
        piece_bytes: of the JSON, at most, of each piece.

    Raises:
        ValueError: it is not base64 (RFC 4648).
    """
    rest, is_padded = b"", False
    for piece in utf8_of_text(raw, piece_bytes):
        if is_padded:
            raise ValueError("something follows the padding")
        data = rest + piece
        whole = len(data) - len(data) % _QUAD
        quads, rest = data[:whole], data[whole:]
        is_padded = b"=" in quads
        yield b64decode(quads, validate=True)
    if rest:
        raise ValueError("the last four characters are not there")


def _whole(piece: bytes, following: int) -> int:
    """Up to where `piece` can be read alone.

    Args:
        piece: from where an earlier one ended.
        following: the byte behind it.
    """
    end = len(piece)
    last = piece.rfind(b"\\")
    if last >= end - _ESCAPE_BYTES and _begins_escape(piece, last):
        is_long = piece[last + 1 : last + 2] == b"u"
        if end - last < (_ESCAPE_BYTES if is_long else 2):
            end, following = last, piece[last]
    half = end - _ESCAPE_BYTES
    if half > 0 and _HIGH_HALF.fullmatch(piece, half, end) and _begins_escape(piece, half):
        return half
    while end > 1 and _LAST_OF_ONE_BYTE < following <= _LAST_CONTINUATION:
        end -= 1
        following = piece[end]
    return end


def _begins_escape(piece: bytes, at: int) -> bool:
    """Whether the backslash at `at` is not itself what another one before it escapes."""
    before = piece[:at]
    return (at - len(before.rstrip(b"\\"))) % 2 == 0
