"""A whole exchange over a channel: what the parser reads is what comes out, and once.

Input: the method, where the pieces end, how the channel ends, then the bytes of the response. The
channel is made of the pieces; it ends in good order, or breaks. Trio runs, on a clock that nobody
waits for.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

import trio
import trio.testing

from tools.fuzz.targets._http import METHODS, read_by_us, wire_of
from tools.fuzz.targets._inputs import Input, cut
from vastar_client.wire import Disposition
from vastar_runtime.transport.errors import InvalidResponse, TransportError
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.messages import Origin, UpstreamRequest
from vastar_runtime.transport.parser import ResponseParser
from vastar_runtime.transport.pool import Slot
from vastar_runtime.transport.progress import Progress
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["check"]

_ORIGIN: Final = Origin("http", "upstream.test", 80)
_HEAD_LIMIT_BYTES: Final = 200


class _Channel:
    """A channel that was told what will come."""

    def __init__(self, pieces: Sequence[bytes], *, breaks: bool) -> None:
        self._pieces = list(pieces)
        self._breaks = breaks
        self.sent = b""
        self.aborted = False

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._pieces:
            piece = self._pieces.pop(0)
            assert 0 < len(piece) <= max_bytes
            return piece
        if self._breaks:
            raise trio.BrokenResourceError("reset")
        return b""

    def try_send(self, buffers: Sequence[Any]) -> Sequence[Any] | None:
        self.sent += b"".join(buffers)
        return ()

    def abort(self) -> None:
        self.aborted = True


def check(data: bytes) -> bool:
    """Exchange one request for one response; whether it came whole.

    Raises:
        AssertionError: it is another than the parser's own, or its connection was given back twice,
            or as one that can serve again when it cannot.
    """
    source = Input(data)
    method = source.pick(METHODS)
    cuts, breaks = source.cuts(), source.chance()
    wire = wire_of(source)
    pieces = cut(wire, cuts)
    channel = _Channel(pieces, breaks=breaks)
    given_back: list[bool] = []
    progress = Progress()
    found = trio.run(_exchange, channel, method, progress, given_back)
    expected = read_by_us(method, _needed(method, pieces), _HEAD_LIMIT_BYTES)
    assert channel.sent.startswith(method + b" / HTTP/1.1\r\nhost: upstream.test\r\n")
    if isinstance(found, TransportError):
        assert expected.error or breaks, (found, expected)
        assert given_back in ([], [False]), given_back
        reached = Disposition.RESPONSE_STARTED if wire else Disposition.SENT_NO_RESPONSE
        assert progress.disposition is reached, progress.disposition
        return False
    assert not expected.error, (found, expected)
    status, headers, body, trailers = found
    assert (status, tuple(headers), body, tuple(trailers)) == (
        expected.status,
        expected.headers,
        expected.body,
        expected.trailers,
    ), (found, expected)
    assert progress.disposition is Disposition.COMPLETED
    assert given_back == [expected.persistent], (given_back, expected)
    return True


def _needed(method: bytes, pieces: list[bytes]) -> list[bytes]:
    """The pieces that a reader takes who stops at the end of the response."""
    parser = ResponseParser(_HEAD_LIMIT_BYTES)
    parser.begin(method)
    taken = []
    for piece in pieces:
        taken.append(piece)
        try:
            parser.feed(piece)
        except InvalidResponse:
            break
        if parser.complete:
            break
    parser.let_go()
    return taken


async def _exchange(
    channel: _Channel, method: bytes, progress: Progress, given_back: list[bool]
) -> Any:
    connection = Http1Connection(
        cast("Any", channel), _ORIGIN, head_limit_bytes=_HEAD_LIMIT_BYTES, now_s=0.0
    )
    request = UpstreamRequest(
        method=method, origin=_ORIGIN, target=b"/", headers=[(b"host", b"upstream.test")]
    )
    slot = cast("Slot[Http1Connection]", None)
    try:
        await connection.exchange(request, progress)
        response = UpstreamResponse(
            connection, slot, lambda _slot: given_back.append(connection.reusable)
        )
        body = await response.read_all()
    except TransportError as error:
        return error
    return response.status, response.headers, body, response.trailers
