"""Two channels joined in memory: what a socket pair is, for virtual time.

Trio's own memory streams have no bound, cannot be reset and cannot be looked at, and all of that
matters here: a slow reader must slow its writer, an upstream may reset, and the pool looks at idle
connections. Closing one end lets the other read what was sent and then the end; `reset` throws that
away.
"""

import errno
import math
import os
from collections.abc import Sequence

import trio

from vastar_runtime.transport.channel import RECEIVE_BYTES, drop_sent
from vastar_runtime.transport.errors import ChannelStalled
from vastar_runtime.transport.messages import Buffer

__all__ = ["MemoryChannel", "memory_channel_pair"]


class _Pipe:
    """One direction: a bounded buffer. Whatever changes wakes everybody who waits on it."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.data = bytearray()
        self.ended = False  # nothing more will be written
        self.reset = False
        self.unread = False  # nobody will read
        self._changed = trio.lowlevel.ParkingLot()

    def change(self) -> None:
        self._changed.unpark_all()

    async def wait(self) -> None:
        await self._changed.park()


class MemoryChannel:
    """One end of a pair, a `Channel`; made by `memory_channel_pair`.

    Attributes:
        receive_limit_bytes: most bytes that one receive gives; 1 cuts everything into single bytes.
        closed: whether this end was closed.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing
        self.receive_limit_bytes = RECEIVE_BYTES
        self.closed = False

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """See `Channel.receive_some`."""
        await trio.lowlevel.checkpoint()
        pipe = self._in
        while True:
            if self.closed:
                raise trio.ClosedResourceError("this channel was closed")
            if pipe.reset:
                raise _broken(errno.ECONNRESET)
            if pipe.data:
                count = min(max_bytes, self.receive_limit_bytes)
                data = bytes(pipe.data[:count])
                del pipe.data[:count]
                pipe.change()
                return data
            if pipe.ended:
                return b""
            await pipe.wait()

    async def send_buffers(
        self, buffers: Sequence[Buffer], *, stall_timeout_s: float | None = None
    ) -> None:
        """See `Channel.send_buffers`."""
        await trio.lowlevel.checkpoint()
        rest = self.try_send(buffers)
        while rest:
            with trio.move_on_after(math.inf if stall_timeout_s is None else stall_timeout_s) as sc:
                await self._out.wait()
            if sc.cancelled_caught:
                raise ChannelStalled(f"no byte was taken for {stall_timeout_s} s")
            rest = self.try_send(rest)

    def try_send(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """See `Channel.try_send`."""
        pipe = self._out
        if self.closed:
            raise trio.ClosedResourceError("this channel was closed")
        if pipe.reset or pipe.unread or pipe.ended:
            raise _broken(errno.ECONNRESET if pipe.reset else errno.EPIPE)
        held = len(pipe.data)
        for buffer in buffers:
            room = pipe.capacity_bytes - len(pipe.data)
            pipe.data += memoryview(buffer)[:room]
        sent = len(pipe.data) - held
        if sent:
            pipe.change()
        return drop_sent(buffers, sent)

    def is_readable(self) -> bool:
        """See `Channel.is_readable`."""
        return self.closed or bool(self._in.data) or self._in.ended or self._in.reset

    async def wait_hangup(self) -> None:
        """See `Channel.wait_hangup`."""
        await trio.lowlevel.checkpoint()
        while not (self._in.reset or (self._in.ended and self._out.unread)):
            if self.closed:
                raise trio.ClosedResourceError("this channel was closed")
            await self._in.wait()

    async def send_eof(self) -> None:
        """See `Channel.send_eof`."""
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError("this channel was closed")
        self._out.ended = True
        self._out.change()

    async def aclose(self) -> None:
        """See `Channel.aclose`."""
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """See `Channel.abort`. The other end still reads what was sent, then the end."""
        if self.closed:
            return
        self.closed = True
        self._out.ended = True
        self._in.unread = True
        self._in.data.clear()
        self._out.change()
        self._in.change()

    def reset(self) -> None:
        """Close as a reset does: the other end fails at once, and what was on its way is lost."""
        self.abort()
        self._out.data.clear()
        self._out.reset = self._in.reset = True
        self._out.change()


def memory_channel_pair(
    capacity_bytes: int = RECEIVE_BYTES,
) -> tuple[MemoryChannel, MemoryChannel]:
    """Two joined channels, each direction holding at most `capacity_bytes` unread bytes."""
    one, other = _Pipe(capacity_bytes), _Pipe(capacity_bytes)
    return MemoryChannel(one, other), MemoryChannel(other, one)


def _broken(number: int) -> trio.BrokenResourceError:
    cause = OSError(number, os.strerror(number))
    error = trio.BrokenResourceError(str(cause))
    error.__cause__ = cause
    return error
