"""One response read twice: by our parser and by h11, as values that can be compared.

The two are meant to disagree here, and only here:
- h11 takes bare LF as a line end, obs-fold, blank space behind a chunk size, repeated equal
  Content-Length; ours refuses: each is a known way to make two parsers see different messages.
- h11 calls an HTTP version by its digits; ours knows 1.0 and 1.1 only.
- ours (llhttp) skips empty lines before a status line (RFC 9112, 2.2, has servers do so).
- ours refuses 101 and statuses under 100; h11 leaves both to its caller.
- ours bounds what h11 bounds elsewhere (very long chunk sizes, header blocks).
- a response to HTTP/1.0 keep-alive is reused by ours; h11 never does that.
"""

from collections.abc import Sequence

import attrs
import h11

from vastar_runtime.transport.errors import InvalidResponse
from vastar_runtime.transport.parser import ResponseParser

__all__ = ["Reading", "read_by_h11", "read_by_us"]


@attrs.frozen
class Reading:
    """What came out. `error` is empty when the response was taken as whole."""

    status: int = 0
    http_version: str = ""
    reason: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    persistent: bool = False
    excess: bool = False
    error: str = attrs.field(default="", eq=bool)


def read_by_us(method: bytes, pieces: Sequence[bytes], limit_bytes: int = 65536) -> Reading:
    """The reading of `ResponseParser`, fed so many pieces and then the end of the stream."""
    parser = ResponseParser(limit_bytes)
    parser.begin(method)
    error = ""
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.feed_eof()
    except InvalidResponse as broken:
        error = str(broken)
    return Reading(
        parser.status,
        parser.http_version,
        parser.reason,
        # h11 lowers the value of this one.
        tuple((n, v.lower() if n == b"transfer-encoding" else v) for n, v in parser.headers),
        b"".join(parser.body),
        tuple(parser.trailers),
        parser.complete and parser.keep_alive and not parser.excess,
        parser.excess,
        error,
    )


def read_by_h11(method: bytes, pieces: Sequence[bytes]) -> Reading:
    """The reading of h11's client."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"h")]))
    connection.send(h11.EndOfMessage())
    reading = Reading()
    body = b""
    remaining = [*pieces, b""]
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
    excess = bool(connection.trailing_data[0]) or any(remaining)
    # An empty list: the end of the stream was needed to see the end of the body.
    persistent = connection.their_state is h11.DONE and not excess and bool(remaining)
    return attrs.evolve(reading, body=body, persistent=persistent, excess=excess)
