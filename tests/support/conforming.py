"""A runtime in memory as the conformance kit sees it, and one that lies.

`Liar` stands between the kit and the runtime and changes the frames of answers: each lie is one
function from a frame to the frames that go out instead.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import trio

from tests.support.running import UPSTREAM_PORT, Running, running
from tests.support.sessions import WALL_START_MS, CallerEnd
from tools.conformance import Upstream, World
from vastar_client.wire import framing
from vastar_runtime.transport.channel import ChannelStream
from vastar_runtime.transport.memory import MemoryChannel

__all__ = ["Frame", "Lie", "conforming"]

Frame = tuple[int, bytes]
"""Type and FlatBuffer."""
Lie = Callable[[Frame], Iterable[bytes | None]]
"""What is sent instead of a frame; None closes the connection."""


class End(trio.abc.HalfCloseableStream):
    """A caller's end whose close is seen as one, not as a half close; maybe through a lie."""

    def __init__(self, caller: CallerEnd, lie: Lie | None) -> None:
        self._caller = caller
        self._lie = lie
        self._decoder = framing.FrameDecoder(1 << 30)
        self._closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._closed:
            data = bytes(await self._caller.stream.receive_some(max_bytes))
            if self._lie is None or not data:
                return data
            self._decoder.receive_data(data)
            out = b""
            while (frame := self._decoder.next_frame()) is not None:
                for piece in self._lie((frame[0], bytes(frame[1]))):
                    if piece is None:
                        self._closed = True
                        break
                    out += piece
            if out:
                return out
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._caller.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await self._caller.half_close()

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self._caller.close()


@asynccontextmanager
async def conforming(lie: Lie | None = None) -> AsyncIterator[tuple[World, Running]]:
    """What the kit's rules are played in, in virtual time."""
    began_s = trio.current_time()
    async with running() as runtime:
        upstream = Upstream(UPSTREAM_PORT)

        async def serve(channel: MemoryChannel) -> None:
            await upstream.serve_stream(ChannelStream(channel))

        async def connect() -> End:
            return End(runtime.caller(), lie)

        runtime.network.handlers[UPSTREAM_PORT] = serve
        yield (
            World(
                connect,
                upstream,
                lambda: WALL_START_MS + (trio.current_time() - began_s) * 1000,
            ),
            runtime,
        )
