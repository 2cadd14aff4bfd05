"""The hostile upstream: misbehaves on its first connections, or by path, and is well otherwise."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio

from tools.faults._catalogue_connections import CONNECTIONS
from tools.faults._catalogue_messages import MESSAGES
from tools.faults._misbehaviour import Misbehaviour
from tools.faults._steps import Request, Send, Step, play, received

__all__ = ["CATALOGUE", "WELL", "HostileUpstream", "serve_hostile"]

CATALOGUE: Final[dict[str, Misbehaviour]] = {one.name: one for one in (*CONNECTIONS, *MESSAGES)}
"""Every misbehaviour by its name."""

WELL: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nwell"
_MANY: Final[tuple[Step, ...]] = (Request(), Send(WELL)) * 10_000
_PATH: Final = re.compile(rb"^[A-Z]+ /([a-z0-9-]*)[ ?]")


@attrs.define
class HostileUpstream:
    """An HTTP upstream that means harm.

    Attributes:
        misbehaviour: what it does; None: the first path of each connection names it.
        times: on how many connections, before it behaves.
        connections: opened so far.
        port: where it listens; 0 until it does.
    """

    misbehaviour: Misbehaviour | None = None
    times: float = 1
    connections: int = 0
    port: int = 0

    async def serve_stream(
        self,
        stream: trio.abc.HalfCloseableStream,
        reset: Callable[[], None] | None = None,
    ) -> None:
        """Serve one connection; closes it.

        Args:
            stream: the connection.
            reset: makes its close a reset; by default what sockets need.
        """
        self.connections += 1
        if self.misbehaviour is None:
            await self._by_path(stream, reset)
        elif self.connections <= self.times:
            await play(_lasting(self.misbehaviour), stream, reset)
        else:
            await play(_MANY, stream, reset)

    async def _by_path(
        self, stream: trio.abc.HalfCloseableStream, reset: Callable[[], None] | None
    ) -> None:
        data = b""
        while b"\r\n" not in data:
            more = await received(stream)
            if not more:
                await trio.aclose_forcefully(stream)
                return
            data += more
        found = _PATH.match(data)
        named = CATALOGUE.get(found[1].decode()) if found else None
        await play(_lasting(named) if named else _MANY, stream, reset, unread=data)


def _lasting(misbehaviour: Misbehaviour) -> tuple[Step, ...]:
    """Its steps, and good behaviour behind them where the connection may be used again."""
    steps = misbehaviour.steps
    return (*steps[:-1], *_MANY) if misbehaviour.expected.reusable else steps


@asynccontextmanager
async def serve_hostile(
    misbehaviour: Misbehaviour | None = None,
    *,
    times: float = 1,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[HostileUpstream]:
    """A hostile upstream on TCP while the block runs.

    Raises:
        OSError: the address cannot be listened on.
    """
    upstream = HostileUpstream(misbehaviour, times)
    listeners = await trio.open_tcp_listeners(port, host=host)
    upstream.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, upstream.serve_stream, listeners))
        yield upstream
        nursery.cancel_scope.cancel()
