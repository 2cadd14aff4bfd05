"""Compressed bodies: in any split the same bytes or the same refusal; what was encoded comes back.

Input: the codings, where to cut, whether the body is free bytes, or one that is encoded here and
then spoiled: members, padding or rubbish behind it, bytes changed.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Final

import brotli

from tools.fuzz.targets._inputs import Input, cut
from vastar_runtime.connectors.http.decoding import BadContent, decoder_for

__all__ = ["check"]

_LONGEST_PIECE_BYTES: Final = 96 * 1024
"""64 KiB, but for br, whose library stops at the end of a buffer of its own."""
_MOST_BYTES: Final = 4 * 1024 * 1024
_CUT_SHORT: Final = b"a body that must not be taken for whole"
_CODINGS: Final = (
    ["gzip"],
    ["deflate"],
    ["br"],
    ["gzip", "br"],
    ["deflate", "gzip"],
    ["x-gzip", "gzip"],
    ["gzip", "zstd"],
)


def _zlib(bits: int) -> Callable[[bytes], bytes]:
    def encode(data: bytes) -> bytes:
        encoder = zlib.compressobj(6, zlib.DEFLATED, bits)
        return encoder.compress(data) + encoder.flush()

    return encode


_ENCODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": _zlib(31),
    "x-gzip": _zlib(31),
    "deflate": _zlib(15),
    "br": lambda data: brotli.compress(data, quality=1),
}


def check(data: bytes) -> bool:
    """Decode one body, whole and cut; whether it was sound.

    Raises:
        AssertionError: the bytes differ, or are not those that were encoded.
    """
    source = Input(data)
    codings = source.pick(_CODINGS)
    cuts = source.cuts()
    body, expected = (source.rest(), None) if source.chance() else _encoded(codings, source)
    if decoder_for(codings) is None:
        assert not set(codings) <= _ENCODERS.keys()
        return False
    whole = _decoded(codings, [body] if body else [])
    pieces = _decoded(codings, cut(body, cuts))
    if isinstance(whole, str) or isinstance(pieces, str):
        # Of a chain the words are those of the stage that is first to see it.
        assert type(whole) is type(pieces), (whole, pieces)
        assert whole == pieces or len(codings) > 1, (whole, pieces)
        assert expected is None or expected is _CUT_SHORT, (expected, whole)
        return False
    assert whole == pieces
    assert expected is not _CUT_SHORT, (body, whole)
    assert expected is None or whole == expected, (expected, whole)
    return True


def _encoded(codings: list[str], source: Input) -> tuple[bytes, bytes | None]:
    """A body, and what it stands for; None where it was spoiled and may stand for anything."""
    expected = body = source.blob() * source.pick((1, 1, 50, 300))
    for name in codings:
        body = _ENCODERS.get(name, bytes)(body)
    match source.number() % 6:
        case 1 if codings[-1] in {"gzip", "x-gzip"} and len(codings) == 1:  # a second member
            return body + body, expected * 2
        case 2 if codings[-1] == "gzip":  # padding, and rubbish, which browsers ignore as well
            return body + b"\0" * source.number() + b"rubbish", expected
        case 3:
            return body + source.rest(), None
        case 4:
            at = source.number(2) % (len(body) + 1)
            return body[:at] + source.take(1) + body[at + 1 :], None
        case 5:
            short = body[: source.number(2)]
            return short, _CUT_SHORT if 0 < len(short) < len(body) else None
        case _:
            return body, expected


def _decoded(codings: list[str], pieces: list[bytes]) -> bytes | str:
    """The bytes, or why there are none."""
    decoder = decoder_for(codings)
    assert decoder is not None
    found = bytearray()
    try:
        for piece in pieces:
            for part in decoder.decode(piece):
                assert len(part) <= _LONGEST_PIECE_BYTES
                found += part
                if len(found) > _MOST_BYTES:
                    return "more than is looked at here"
        decoder.finish()
    except BadContent as error:
        return str(error)
    return bytes(found)
