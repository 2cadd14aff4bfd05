"""What an upstream does on a connection, step by step, over any Trio stream.

A misbehaviour is a tuple of these values; `play` carries them out. Nothing is decided here: what is
sent, and when, stands in the catalogue. Time is Trio's, so a mock clock makes it free and exact.
"""

import math
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs
import trio

__all__ = [
    "Close",
    "Flood",
    "HalfClose",
    "Pause",
    "PeerGoneError",
    "Request",
    "RequestHead",
    "Reset",
    "Send",
    "Step",
    "Wait",
    "play",
    "received",
    "reset_of",
]

_RECEIVE_BYTES: Final = 65_536
_LONGEST_HEAD_BYTES: Final = 1 << 20
_FLOOD_PIECE_BYTES: Final = 32_768


class PeerGoneError(EOFError):
    """The peer closed where a request was due."""


@attrs.frozen
class Request:
    """Read one request, its head and its body, counted or in chunks."""


@attrs.frozen
class RequestHead:
    """Read the head of a request, and none of its body."""


@attrs.frozen
class Send:
    """Send `data`; a function makes what is too large to be kept.

    Attributes:
        piece_bytes: in pieces of so many bytes; None: all at once.
        gap_s: waited before each piece but the first.
    """

    data: bytes | Callable[[], bytes]
    piece_bytes: int | None = None
    gap_s: float = 0.0


@attrs.frozen
class Flood:
    """Send the same bytes again and again until the peer goes away."""

    data: bytes


@attrs.frozen
class Wait:
    """Say nothing for a time, or for ever, until the peer goes away; what it sends is dropped."""

    seconds: float = math.inf


@attrs.frozen
class Pause:
    """Neither say nor take anything for a time."""

    seconds: float = 60.0


@attrs.frozen
class HalfClose:
    """End the own half of the connection."""


@attrs.frozen
class Reset:
    """Reset the connection: what is on its way may be lost. The script ends."""


@attrs.frozen
class Close:
    """Close the connection. The script ends; so it does behind its last step."""


Step: TypeAlias = Request | RequestHead | Send | Flood | Wait | Pause | HalfClose | Reset | Close


def reset_of(stream: trio.abc.Stream) -> Callable[[], None]:
    """What makes the close of `stream` a reset; nothing where it is no socket."""

    def reset() -> None:
        if isinstance(stream, trio.SocketStream):
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return reset


async def play(
    steps: Sequence[Step],
    stream: trio.abc.HalfCloseableStream,
    reset: Callable[[], None] | None = None,
    unread: bytes = b"",
) -> None:
    """Carry out `steps`, and close.

    Args:
        steps: what to do, in order.
        stream: the connection; closed at the end, whatever happens.
        reset: called before the close of a `Reset`; by default what sockets need.
        unread: of the peer's bytes, read before.
    """
    reader = _Reader(stream, unread)
    try:
        for step in steps:
            if isinstance(step, Reset):
                (reset or reset_of(stream))()
            if isinstance(step, Reset | Close):
                return
            await _do(step, stream, reader)
    except (trio.BrokenResourceError, trio.ClosedResourceError, PeerGoneError):
        return  # the peer has left, as it may
    finally:
        await trio.aclose_forcefully(stream)


async def _do(step: Step, stream: trio.abc.HalfCloseableStream, reader: "_Reader") -> None:
    """A step that is not the last."""
    match step:
        case Request():
            await reader.request()
        case RequestHead():
            await reader.head()
        case Send():
            await _send(stream, step)
        case Flood(data):
            many = data * (1 + _FLOOD_PIECE_BYTES // len(data))
            while True:
                await stream.send_all(many)
        case Wait(seconds):
            with trio.move_on_after(seconds):
                await reader.until_gone()
        case Pause(seconds):
            await trio.sleep(seconds)
        case HalfClose():
            await stream.send_eof()


async def received(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes next; nothing once the peer has gone, in whatever way."""
    try:
        return bytes(await stream.receive_some(_RECEIVE_BYTES))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


async def _send(stream: trio.abc.SendStream, step: Send) -> None:
    data = step.data if isinstance(step.data, bytes) else step.data()
    size = step.piece_bytes or len(data) or 1
    for start in range(0, len(data), size):
        if start and step.gap_s:
            await trio.sleep(step.gap_s)
        await stream.send_all(data[start : start + size])


class _Reader:
    """Requests out of a stream, as far as a misbehaving server cares for them."""

    def __init__(self, stream: trio.abc.ReceiveStream, unread: bytes) -> None:
        self._stream = stream
        self._unread = unread

    async def _more(self) -> None:
        data = await self._stream.receive_some(_RECEIVE_BYTES)
        if not data or len(self._unread) > _LONGEST_HEAD_BYTES:
            raise PeerGoneError
        self._unread += data

    async def until_gone(self) -> None:
        """Read and drop until the peer closes."""
        while await self._stream.receive_some(_RECEIVE_BYTES):
            pass

    async def head(self) -> bytes:
        while b"\r\n\r\n" not in self._unread:
            await self._more()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head

    async def request(self) -> None:
        for line in (await self.head()).lower().split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                await self._skip(int(value))
            elif name == b"transfer-encoding":
                await self._skip_chunks()

    async def _skip(self, count: int) -> None:
        while count > len(self._unread):
            count -= len(self._unread)
            self._unread = b""
            await self._more()
        self._unread = self._unread[count:]

    async def _skip_chunks(self) -> None:
        size = 1
        while size:
            while b"\r\n" not in self._unread:
                await self._more()
            line, _, self._unread = self._unread.partition(b"\r\n")
            size = int(line, 16)
            await self._skip(size + 2)
