"""Response bytes made of choices, and one response as our parser and as h11 read it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import h11

from tools.fuzz.targets._inputs import Input
from vastar_runtime.transport import parser as parser_module
from vastar_runtime.transport.errors import InvalidResponse, ResponseCutShort
from vastar_runtime.transport.parser import ResponseParser

__all__ = ["METHODS", "Reading", "counting_from", "read_by_h11", "read_by_us", "wire_of"]

METHODS: Final = (b"GET", b"HEAD", b"POST")

_STATUS_LINES: Final = (
    *(b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in (
        (200, b"OK"), (200, b""), (204, b"No Content"), (304, b"Not Modified"), (100, b"Continue"),
        (103, b"Early Hints"), (101, b"Switching Protocols"), (199, b"X"), (404, b"Not \xe9"),
        (599, b"X"), (999, b"X"), (99, b"X"))),
    *(b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200\r\n", b"HTTP/2.0 200 OK\r\n", b"HTTP/1.1 200 OK\n"),
)  # fmt: skip
_FIELDS: Final = (
    *(b"Content-Length: %d\r\n" % length for length in (0, 1, 5, 10)),
    *(b"Content-Length: " + odd + b"\r\n" for odd in (b"+5", b"5, 5", b"5 5", b"-1", b"", b"0x5")),
    *(b"Transfer-Encoding: " + coding + b"\r\n" for coding in (
        b"chunked", b"Chunked", b"gzip, chunked", b"identity", b"chunked, chunked", b"chunked ",
        b"\x0bchunked", b"")),
    *(b"Connection: " + option + b"\r\n" for option in (
        b"close", b"keep-alive", b"Close, x", b"upgrade", b"keep-alive, close")),
    *(b"X-A: 1\r\n", b"X-A:\r\n", b"X-A:  v \t\r\n", b"X A: 1\r\n", b"X-A : 1\r\n", b": 1\r\n"),
    *(b"X-A: 1\r\n 2\r\n", b"X-A: 1\n", b"X-A: 1\r", b"X-A: \0\r\n", b"X-\xff: 1\r\n"),
    *(b"Upgrade: h2c\r\n", b"Trailer: X-A\r\n", b"Set-Cookie: a=b\r\n"),
)  # fmt: skip
_PARTS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"0\r\n\r\n", b"0\r\n", b"1\r\na\r\n", b"5\r\nhello\r\n"),
    *(b"5;a=b\r\nhello\r\n", b"5 \r\nhello\r\n", b"05\r\nhello\r\n", b"A\r\n0123456789\r\n"),
    *(b"0;last\r\n", b"ffffffffffffffff\r\n", b"hello", b"5\nhello\n", b"-1\r\n", b"0x1\r\na\r\n"),
)


@attrs.frozen
class Reading:
    """What came out of one response.

    Attributes:
        persistent: the connection may serve again.
        excess: bytes came behind its end.
        behind: those bytes, where they are known.
        error: words; empty when it was taken as whole.
        cut_short: the error is that the stream ended too early.
    """

    status: int = 0
    http_version: str = ""
    reason: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    persistent: bool = False
    excess: bool = False
    behind: bytes = b""
    error: str = ""
    cut_short: bool = False


def wire_of(source: Input) -> bytes:
    """All that is left of the input as the bytes of responses: free, or pieces and free bytes."""
    if source.chance():
        return source.rest()
    return b"".join(_pieces(source))


def _pieces(source: Input) -> Iterator[bytes]:
    while source.has_more:
        kind = source.number()
        if kind < len(_STATUS_LINES):
            yield _STATUS_LINES[kind]
        elif 32 <= kind < 32 + len(_FIELDS):  # noqa: PLR2004 - apart, so that lists may grow
            yield _FIELDS[kind - 32]
        elif 128 <= kind < 128 + len(_PARTS):  # noqa: PLR2004
            yield _PARTS[kind - 128]
        else:
            yield source.take(kind % 32)


@contextmanager
def counting_from(length_bytes: int) -> Iterator[None]:
    """Bodies are counted, past llhttp, from so many bytes on: usual ones are too long for here."""
    usual = parser_module._COUNTED_BYTES  # noqa: SLF001 - to be put back
    parser_module._COUNTED_BYTES = length_bytes  # noqa: SLF001 - for the time of one input
    try:
        yield
    finally:
        parser_module._COUNTED_BYTES = usual  # noqa: SLF001 - for the time of one input


def read_by_us(method: bytes, pieces: Sequence[bytes], limit_bytes: int = 65536) -> Reading:
    """The reading of `ResponseParser`, fed so many pieces and then the end of the stream."""
    parser = ResponseParser(limit_bytes)
    parser.begin(method)
    error, cut_short = "", False
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.feed_eof()
    except InvalidResponse as broken:
        error, cut_short = str(broken), isinstance(broken, ResponseCutShort)
    reading = Reading(
        parser.status,
        parser.http_version,
        parser.reason,
        tuple(parser.headers),
        b"".join(parser.body),
        tuple(parser.trailers),
        parser.complete and parser.keep_alive and not parser.excess,
        parser.excess,
        error=error,
        cut_short=cut_short,
    )
    parser.let_go()
    return reading


def read_by_h11(method: bytes, wire: bytes) -> Reading:
    """The reading of h11's client, given everything and then the end of the stream."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"h")]))
    connection.send(h11.EndOfMessage())
    reading = Reading()
    body = b""
    remaining = [wire, b""] if wire else [b""]
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(remaining.pop(0))
            elif isinstance(event, h11.Response):
                reading = attrs.evolve(
                    reading,
                    status=event.status_code,
                    http_version=event.http_version.decode(),
                    reason=bytes(event.reason),
                    headers=tuple((bytes(n), bytes(v)) for n, v in event.headers),
                )
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                trailers = tuple((bytes(n), bytes(v)) for n, v in event.headers)
                reading = attrs.evolve(reading, trailers=trailers)
                break
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return attrs.evolve(reading, body=body, error="paused or closed")
    except h11.RemoteProtocolError as broken:
        return attrs.evolve(reading, body=body, error=str(broken) or "?")
    behind = bytes(connection.trailing_data[0])
    # An empty list: the end of the stream was needed to see the end of the body.
    persistent = connection.their_state is h11.DONE and not behind and bool(remaining)
    return attrs.evolve(
        reading, body=body, persistent=persistent, excess=bool(behind), behind=behind
    )
