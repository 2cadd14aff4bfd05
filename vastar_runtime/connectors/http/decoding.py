"""Content decoding: gzip, deflate and br, in steps of bounded size.

A compressed body may stand for a thousand times its bytes, so a decoder is never asked for "all":
each step yields at most 64 KiB (br, whose library stops at the end of a buffer of its own, half as
much again), and the caller stops when it has had enough. Input that yields
next to nothing (empty gzip members, padding inside a second coding) costs time all the same: it is
bounded, and between the stages of a chain each step is told by an empty piece, so that the caller
can let others run.

How long a whole answer may be is for the caller to say; a stream may be of any length. So there is
a bound on the ratio too: a body of more than 1 MiB that is more than 1000 times as long as it came,
or 10,000 times with br, is refused as a bomb. It is drawn where nothing of use is lost: deflate
reaches 1032 at the very most (zlib's own figure), and equal rows of JSON come close to that; br has
no such end, as one command may copy 16 MiB. Others draw it at 100 to 250, for archives and requests
(Apache's mod_deflate: 200); here the bound on the length protects from what lies between.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

__all__ = ["BadContent", "ContentDecoder", "DecompressionBomb", "codings_of", "decoder_for"]

_STEP_BYTES: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZLIB_METHOD_DEFLATE: Final = 8
_MAX_MEMBERS: Final = 1000
"""Of one gzip body: 62 MiB in the 64 KiB blocks of a parallel compressor."""
_RATIO_FROM_BYTES: Final = 1024 * 1024
"""Less may have any ratio: it costs no more than a millisecond or two."""
_MAX_RATIO: Final = 1000
_MAX_RATIO_BR: Final = 10_000
_MAX_BETWEEN_BYTES: Final = 64 * 1024 * 1024
"""What one stage of a chain may hand to the next: six times the longest answer."""


class BadContent(Exception):  # noqa: N818 - named by who is at fault: the upstream's content
    """The body is not what its Content-Encoding says."""


class DecompressionBomb(BadContent):
    """It is made to cost more than it brings; the same request would bring it again."""


class ContentDecoder(Protocol):
    """Decodes one coding."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """What `data` yields, in pieces of bounded size. Raises BadContent.

        An empty piece says that a step of up to 64 KiB was taken which may yield nothing.
        """

    def finish(self) -> None:
        """The input is over. Raises BadContent when the coding was not."""


class _Zlib:
    """gzip (RFC 1952, several members) and deflate (RFC 9110 8.4.1.2, with or without header).

    What follows the end is ignored: zeros that pad, and rubbish, as browsers do. It is also not
    shown to zlib, which would keep all of it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._decompressor: zlib._Decompress | None = None
        self._head = b""
        self._members = 0
        self._over = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        # In slices, because each member copies what is behind it.
        for start in range(0, len(data), _STEP_BYTES):
            yield from self._decode(data[start : start + _STEP_BYTES])

    def _decode(self, data: bytes) -> Iterator[bytes]:
        while data and not self._over:
            if self._decompressor is None:
                if self._members and not (data := data.lstrip(b"\0")):
                    return
                if self._members == _MAX_MEMBERS:
                    raise DecompressionBomb(f"the gzip body has more than {_MAX_MEMBERS} members")
                bits = _GZIP if self._name == "gzip" else _deflate_bits(data)
                self._decompressor = zlib.decompressobj(bits)
                self._head = b""
            decompressor = self._decompressor
            yield from self._inflate(decompressor, data)
            if not decompressor.eof:
                return
            data = decompressor.unused_data
            self._decompressor = None
            self._members += 1
            self._over = self._name != "gzip"

    def _inflate(self, decompressor: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
        """What one member yields of `data`."""
        self._head = (self._head + data[:2])[:2]
        while True:
            try:
                piece = decompressor.decompress(data, _STEP_BYTES)
            except zlib.error:
                if not self._members or self._head == _GZIP_MAGIC:
                    raise BadContent(f"the body is not valid {self._name}") from None
                self._over = True  # no further member, but rubbish
                self._decompressor = None
                return
            if piece:
                yield piece
            data = decompressor.unconsumed_tail
            # A full step may have left output inside, also where all input was taken.
            if decompressor.eof or not (data or len(piece) == _STEP_BYTES):
                return

    def finish(self) -> None:
        if self._decompressor is not None:
            raise BadContent(f"the {self._name} body ends before its end")


def _deflate_bits(data: bytes) -> int:
    """Zlib's window bits for "deflate": real zlib, or the raw form that some servers send."""
    is_zlib = data[0] & 0x0F == _ZLIB_METHOD_DEFLATE and data[0] >> 4 <= 7  # noqa: PLR2004 - RFC 1950
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


class _Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        import brotli  # noqa: PLC0415 - 1 MB and 2 ms that most runtimes never need

        self._error = brotli.error
        self._decompressor = brotli.Decompressor()
        self._begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        self._begun = self._begun or bool(data)
        while True:
            try:
                piece = self._decompressor.process(data, output_buffer_limit=_STEP_BYTES)
            except self._error:
                raise BadContent("the body is not valid br") from None
            if piece:
                yield piece
            # A full step may have left output inside, also where all input was taken.
            full = len(piece) >= _STEP_BYTES or not self._decompressor.can_accept_more_data()
            if self._decompressor.is_finished() or not full:
                return
            data = b""

    def finish(self) -> None:
        if self._begun and not self._decompressor.is_finished():
            raise BadContent("the br body ends before its end")


class _Chain:
    """Several codings, the one applied last undone first."""

    def __init__(self, first: ContentDecoder, then: ContentDecoder) -> None:
        self._first = first
        self._then = then
        self._between_bytes = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        for piece in self._first.decode(data):
            self._between_bytes += len(piece)
            if self._between_bytes > _MAX_BETWEEN_BYTES:
                raise DecompressionBomb(
                    "the body is encoded several times and longer than "
                    f"{_MAX_BETWEEN_BYTES} bytes in between"
                )
            yield b""
            if piece:
                yield from self._then.decode(piece)

    def finish(self) -> None:
        self._first.finish()
        self._then.finish()


class _Bounded:
    """Refuses what becomes too many times as long as it came, over all codings together."""

    def __init__(self, inner: ContentDecoder, codings: list[str]) -> None:
        self._inner = inner
        self._names = ", ".join(codings)
        self._max_ratio = _MAX_RATIO_BR if "br" in codings else _MAX_RATIO
        self._taken_bytes = 0
        self._given_bytes = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        self._taken_bytes += len(data)
        most_bytes = max(self._taken_bytes * self._max_ratio, _RATIO_FROM_BYTES)
        for piece in self._inner.decode(data):
            self._given_bytes += len(piece)
            if self._given_bytes > most_bytes:
                raise DecompressionBomb(
                    f"the body ({self._names}) decodes to more than {self._max_ratio} times its "
                    "length, as a decompression bomb does"
                )
            yield piece

    def finish(self) -> None:
        self._inner.finish()


_DECODERS: Final[Mapping[str, Callable[[], ContentDecoder]]] = {
    "gzip": lambda: _Zlib("gzip"),
    "x-gzip": lambda: _Zlib("gzip"),
    "deflate": lambda: _Zlib("deflate"),
    "br": _Brotli,
}
_MAX_CODINGS: Final = 4


def codings_of(content_encoding: str) -> list[str]:
    """The codings that a Content-Encoding value lists, in the order they were applied."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    return [name for name in names if name and name != "identity"]


def decoder_for(codings: list[str]) -> ContentDecoder | None:
    """A decoder of `codings`, or None where one of them is unknown (the body stays as it is)."""
    if not 0 < len(codings) <= _MAX_CODINGS or not _DECODERS.keys() >= set(codings):
        return None
    decoder = _DECODERS[codings[-1]]()
    for name in reversed(codings[:-1]):
        decoder = _Chain(decoder, _DECODERS[name]())
    return _Bounded(decoder, codings)
