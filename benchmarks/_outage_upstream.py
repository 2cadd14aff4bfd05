"""An upstream in memory that dies for a while: what reaches it, what it can do, how it fails.

It does `capacity_per_s` calls a second, one after another in the order in which they come, also
those whose callers have given up: so what is owed after an outage takes time to work off, and a
storm can keep it from coming back. Around that, a network as TCP makes it: while packets vanish,
connections and requests are tried again after 1 s, 2 s, 4 s and so on (requests from 0.2 s), also
those of a caller that has closed its end.
"""

import errno
import os
import socket
from collections.abc import Sequence
from enum import Enum
from typing import Final

import attrs
import trio

from vastar_runtime.transport import Address, Channel
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair

__all__ = ["DyingUpstream", "Outage"]

_HEAD_END: Final = b"\r\n\r\n"
_GOOD: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_UNAVAILABLE: Final = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
_CONNECT_AGAIN_S: Final = 1.0
_SEND_AGAIN_S: Final = 0.2


class Outage(Enum):
    """How an upstream is away; the value is its name in the report."""

    REFUSED = "refused"
    """Its process died: open connections are reset and new ones refused, at once."""
    BLACK_HOLE = "black hole"
    """Its network is gone: nothing comes back."""
    UNAVAILABLE = "503"
    """Something in front of it answers 503, at once."""


@attrs.define(eq=False)
class DyingUpstream:
    """A `Network` with one upstream behind every name.

    Attributes:
        nursery: where its connections are served.
        capacity_per_s: calls it does a second.
        answer_s: what a call takes, beside the wait for its turn.
        outage: how it is away, or None.
        sent_s: when each attempt left the caller: a connection that was not had at once, or a
            request.
        arrived_s: when each request came, of those that got through.
    """

    nursery: trio.Nursery
    capacity_per_s: float
    answer_s: float
    outage: Outage | None = None
    sent_s: list[float] = attrs.field(factory=list)
    arrived_s: list[float] = attrs.field(factory=list)
    _free_at_s: float = 0.0
    _open: dict[MemoryChannel, None] = attrs.field(factory=dict)

    def die(self, outage: Outage) -> None:
        """Be away from now on."""
        self.outage = outage
        if outage is Outage.REFUSED:
            for channel in tuple(self._open):
                channel.reset()

    def return_(self) -> None:
        """Be there again."""
        self.outage = None

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:  # noqa: ARG002 - of the protocol
        """See `Network.resolve`."""
        await trio.lowlevel.checkpoint()
        return [Address(socket.AF_INET, ("192.0.2.1", port))]

    async def connect(self, address: Address) -> Channel:  # noqa: ARG002 - there is one
        """See `Network.connect`."""
        await trio.lowlevel.checkpoint()
        if self.outage is Outage.REFUSED:
            self.sent_s.append(trio.current_time())
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        was_counted = self.outage is Outage.BLACK_HOLE
        if was_counted:
            self.sent_s.append(trio.current_time())
            await self._until_through(_CONNECT_AGAIN_S)
        ours, theirs = memory_channel_pair()
        self._open[theirs] = None
        self.nursery.start_soon(self._serve, theirs, was_counted)
        return ours

    async def _until_through(self, again_s: float) -> None:
        """Try until something gets through, each time after twice as long."""
        while self.outage is Outage.BLACK_HOLE:
            await trio.sleep(again_s)
            again_s *= 2

    async def _serve(self, channel: MemoryChannel, was_counted: bool) -> None:
        """One connection; `was_counted`: opening it was the attempt of its first request."""
        unread = b""
        try:
            while data := await channel.receive_some():
                unread += data
                if not unread.endswith(_HEAD_END):
                    continue
                unread = b""
                if not was_counted:
                    self.sent_s.append(trio.current_time())
                was_counted = False
                answer = await self._answer()
                await channel.send_buffers((answer,))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the caller left, or this side died
        finally:
            self._open.pop(channel, None)
            channel.abort()

    async def _answer(self) -> bytes:
        await self._until_through(_SEND_AGAIN_S)
        now_s = trio.current_time()
        self.arrived_s.append(now_s)
        if self.outage is Outage.UNAVAILABLE:
            return _UNAVAILABLE
        self._free_at_s = max(now_s, self._free_at_s) + 1 / self.capacity_per_s
        await trio.sleep_until(self._free_at_s + self.answer_s)
        await self._until_through(_SEND_AGAIN_S)
        return _GOOD
