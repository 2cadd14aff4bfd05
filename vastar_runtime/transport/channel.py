"""A byte pipe, and the two kinds that carry most of the traffic.

`Channel` is what the HTTP connection and the sessions with callers are written against. It differs
from `trio.abc.Stream` where that costs: it takes several buffers at once and never joins big ones,
it tries before it waits (saving a scheduler pass whenever the socket is ready), it can be thrown
away synchronously, and it can be looked at without reading. Both ends raise Trio's own exceptions:
`BrokenResourceError` when the peer or the network failed (its cause is the `OSError`),
`ClosedResourceError` when this side closed.

Try-before-wait must not starve others: after `_EAGER_LIMIT` receives or sends that were served at
once, the next takes a full checkpoint. A receive that got less than it asked for has emptied the
socket, so the next one waits without trying: a try that fails costs as much as one that succeeds.
"""

import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from vastar_runtime.transport.errors import ChannelStalled
from vastar_runtime.transport.messages import Buffer

__all__ = ["Channel", "ChannelStream", "SocketChannel", "StreamChannel", "drop_sent"]

RECEIVE_BYTES = 65536
_JOIN_BYTES = 65536
"""Below this, one copy is cheaper than the kernel's walk over many buffers."""
_MAX_BUFFERS = 512
"""At most this many in one sendmsg; Linux and macOS take 1024."""
_PIECE_BYTES = 65536
"""A stream is given so much at a time: it may copy, or encrypt, all it is given at once."""
_EAGER_LIMIT = 16
_LOCAL_SEND_BYTES = 1024 * 1024
"""Of a Unix socket, as far as the system allows: by default less than a large chunk fits, and the
sender is woken only when three quarters of it are read."""


class Channel(Protocol):
    """A two-way byte pipe. One task may receive while another sends."""

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """The next bytes, at least one; `b""` at the end of the stream.

        Raises:
            trio.BrokenResourceError: the connection failed.
            trio.ClosedResourceError: this side closed it.
        """
        ...

    async def send_buffers(
        self, buffers: Sequence[Buffer], *, stall_timeout_s: float | None = None
    ) -> None:
        """Send all bytes in order. Cancelled, it leaves an unknown part sent: abort then.

        Raises:
            ChannelStalled: the peer took no byte for `stall_timeout_s`.
            trio.BrokenResourceError: the connection failed.
            trio.ClosedResourceError: this side closed it.
        """
        ...

    def try_send(self, buffers: Sequence[Buffer]) -> Sequence[Buffer] | None:
        """Send what goes at once; what is left, or `None` where this cannot be tried.

        Raises: as `send_buffers`; nothing of `buffers` was sent then.
        """
        ...

    def is_readable(self) -> bool:
        """Whether bytes, the end or a failure are waiting to be received. Never blocks."""
        ...

    async def wait_hangup(self) -> None:
        """Return when the peer has closed both directions; silent through a half-close."""
        ...

    async def send_eof(self) -> None:
        """Close the sending direction, where the pipe knows such a thing; else do nothing."""
        ...

    async def aclose(self) -> None:
        """Close in good order."""
        ...

    def abort(self) -> None:
        """Close now, without waiting for anything. Does nothing when closed already."""
        ...


class SocketChannel:
    """A channel over a connected stream socket of the standard library, which it then owns."""

    __slots__ = ("_closed", "_drained", "_eager", "_hangup", "_poll", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            with suppress(OSError):  # Linux takes less for more, BSDs and macOS refuse it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LOCAL_SEND_BYTES)
        self._sock = sock
        self._eager = 0
        self._drained = False
        self._closed = False
        self._hangup: select.epoll | None = None
        self._poll: select.poll | None = None

    @property
    def socket(self) -> socket.socket:
        """The socket, for options and addresses. Reading or writing it is the channel's."""
        return self._sock

    def _failure(self, error: OSError) -> Exception:
        if self._closed:
            return trio.ClosedResourceError("this channel was closed")
        broken = trio.BrokenResourceError(str(error))
        broken.__cause__ = error
        return broken

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """See `Channel.receive_some`."""
        if self._drained and not self._closed:
            self._eager = 0
            await trio.lowlevel.wait_readable(self._sock)
        elif self._eager >= _EAGER_LIMIT:
            self._eager = 0
            await trio.lowlevel.checkpoint()
        while True:
            try:
                data = self._sock.recv(max_bytes)
            except BlockingIOError:
                pass
            except OSError as error:
                raise self._failure(error) from error
            else:
                self._eager += 1
                self._drained = len(data) < max_bytes
                return data
            self._eager = 0
            await trio.lowlevel.wait_readable(self._sock)

    async def send_buffers(
        self, buffers: Sequence[Buffer], *, stall_timeout_s: float | None = None
    ) -> None:
        """See `Channel.send_buffers`. Every byte taken starts the stall timer again."""
        if self._eager >= _EAGER_LIMIT:
            self._eager = 0
            await trio.lowlevel.checkpoint()
        self._eager += 1
        rest = self.try_send(buffers)
        while rest:
            self._eager = 0
            await self._wait_writable(stall_timeout_s)
            rest = self.try_send(rest)

    async def _wait_writable(self, stall_timeout_s: float | None) -> None:
        if stall_timeout_s is None:
            await trio.lowlevel.wait_writable(self._sock)
            return
        with trio.move_on_after(stall_timeout_s) as scope:
            await trio.lowlevel.wait_writable(self._sock)
        if scope.cancelled_caught:
            raise ChannelStalled(f"no byte was taken for {stall_timeout_s} s")

    def try_send(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """See `Channel.try_send`."""
        size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if 0 < size <= _JOIN_BYTES and len(buffers) > 1:
            buffers = [b"".join(buffers)]
        unsent = size
        while unsent:
            part = buffers if len(buffers) <= _MAX_BUFFERS else buffers[:_MAX_BUFFERS]
            try:
                sent = self._sock.send(part[0]) if len(part) == 1 else self._sock.sendmsg(part)
            except BlockingIOError:
                return buffers
            except OSError as error:
                if unsent < size:
                    return buffers  # a part is gone; the next attempt tells why no more
                raise self._failure(error) from error
            unsent -= sent
            if unsent:
                buffers = drop_sent(buffers, sent)
        return ()

    def is_readable(self) -> bool:
        """See `Channel.is_readable`. Asked with every call: a poll takes a third of a peek."""
        if self._closed:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._sock, select.POLLIN)
        return bool(self._poll.poll(0))

    async def wait_hangup(self) -> None:
        """See `Channel.wait_hangup`. For one task at a time; never returns without epoll.

        A socket registered under mask 0 reports only EPOLLHUP and EPOLLERR: silent through a
        half-close, awake at the full close of a Unix socket or a reset of a TCP one (epoll_ctl(2)).

        Raises:
            trio.ClosedResourceError: this side closed the channel meanwhile.
        """
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if not hasattr(select, "epoll"):
            await trio.sleep_forever()
        self._hangup = select.epoll()
        try:
            self._hangup.register(self._sock, 0)
            await trio.lowlevel.wait_readable(self._hangup.fileno())
        finally:
            if self._hangup is not None:
                self._hangup.close()
                self._hangup = None

    async def send_eof(self) -> None:
        """See `Channel.send_eof`."""
        await trio.lowlevel.checkpoint()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._failure(error) from error

    async def aclose(self) -> None:
        """See `Channel.aclose`. What was sent is still delivered by the system."""
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """See `Channel.abort`. Tasks waiting on the channel get `trio.ClosedResourceError`."""
        if self._closed:
            return
        self._closed = True
        if self._hangup is not None:
            trio.lowlevel.notify_closing(self._hangup.fileno())
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


def drop_sent(buffers: Sequence[Buffer], sent: int) -> list[Buffer]:
    """What is left of `buffers` behind their first `sent` bytes, without copying any."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[index + 1 :]]
        sent -= len(buffer)
    return []


class StreamChannel:
    """A channel over any Trio stream: TLS, or a memory stream in a test.

    Args:
        stream: what carries the bytes.
        abort: closes it synchronously; without it the stream is taken apart by its known parts.
        look: tells whether something is waiting to be received; without it, never.
        hangup: set when the peer has closed both directions; without it, never.
    """

    __slots__ = ("_abort", "_closed", "_hangup", "_look", "_stream")

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        abort: Callable[[], None] | None = None,
        look: Callable[[], bool] | None = None,
        hangup: trio.Event | None = None,
    ) -> None:
        self._stream = stream
        self._abort = abort
        self._look = look
        self._hangup = hangup
        self._closed = False

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """See `Channel.receive_some`."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_buffers(
        self, buffers: Sequence[Buffer], *, stall_timeout_s: float | None = None
    ) -> None:
        """See `Channel.send_buffers`. The stall timer starts again every 64 KiB."""
        if sum(map(len, buffers)) <= _PIECE_BYTES:
            buffers = (b"".join(buffers),)
        for buffer in buffers:
            view = memoryview(buffer)
            for start in range(0, len(view), _PIECE_BYTES):
                await self._send_piece(view[start : start + _PIECE_BYTES], stall_timeout_s)

    async def _send_piece(self, piece: memoryview, stall_timeout_s: float | None) -> None:
        if stall_timeout_s is None:
            await self._stream.send_all(piece)
            return
        with trio.move_on_after(stall_timeout_s) as scope:
            await self._stream.send_all(piece)
        if scope.cancelled_caught:
            raise ChannelStalled(f"no progress for {stall_timeout_s} s")

    def try_send(self, buffers: Sequence[Buffer]) -> None:  # noqa: ARG002 - streams cannot try
        """See `Channel.try_send`."""
        return

    def is_readable(self) -> bool:
        """See `Channel.is_readable`."""
        return self._closed or (self._look is not None and self._look())

    async def wait_hangup(self) -> None:
        """See `Channel.wait_hangup`."""
        if self._hangup is None:
            await trio.sleep_forever()
        else:
            await self._hangup.wait()

    async def send_eof(self) -> None:
        """See `Channel.send_eof`."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """See `Channel.aclose`."""
        self._closed = True
        await self._stream.aclose()

    def abort(self) -> None:
        """See `Channel.abort`."""
        if not self._closed:
            self._closed = True
            if self._abort is None:
                _close_now(self._stream)
            else:
                self._abort()


def _close_now(stream: object) -> None:
    """Close a stream without waiting: the sockets and memory streams inside it."""
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()
    elif isinstance(stream, trio.StapledStream):
        _close_now(stream.send_stream)
        _close_now(stream.receive_stream)
    elif isinstance(stream, trio.SSLStream):
        _close_now(stream.transport_stream)
    elif isinstance(stream, ChannelStream):
        stream.channel.abort()
    elif callable(close := getattr(stream, "close", None)):
        close()  # the halves of a memory stream
    else:
        raise TypeError(f"{type(stream).__name__} needs StreamChannel(..., abort=...)")


class ChannelStream(trio.abc.HalfCloseableStream):
    """A channel as a Trio stream: what TLS and httpcore's interface are laid over."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `Channel.receive_some`."""
        return await self.channel.receive_some(max_bytes or RECEIVE_BYTES)

    async def send_all(self, data: Buffer) -> None:
        """See `Channel.send_buffers`."""
        await self.channel.send_buffers((data,))

    async def wait_send_all_might_not_block(self) -> None:
        """Sending waits by itself."""
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """See `Channel.send_eof`."""
        await self.channel.send_eof()

    async def aclose(self) -> None:
        """See `Channel.aclose`."""
        await self.channel.aclose()
