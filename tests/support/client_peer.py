"""A runtime's end that a test plays by hand: what the client said, frames that no runtime sends."""

from contextlib import asynccontextmanager

import anyio
import trio
import trio.testing
from anyio.abc import ByteStream

from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    Role,
    StreamChunk,
    StreamEnd,
    StreamStart,
)

__all__ = ["ManualPeer", "entered"]


class ManualPeer(ByteStream):
    """The client's end of a connection whose other end is the test.

    Attributes:
        said: every message of the client so far.
    """

    def __init__(self) -> None:
        self.said = []
        self._connection = Connection(Role.RUNTIME)
        self._unread = []
        self._news = anyio.Event()
        self._ended = False

    async def dial(self):
        """The only connection there is."""
        return self

    # What the test does

    def say(self, *messages) -> None:
        """Send `messages`, in one piece, whatever they are."""
        self._unread.append(b"".join(p for m in messages for p in self._connection.send(m)))
        self._news.set()

    def hang_up(self) -> None:
        """End the connection."""
        self._ended = True
        self._news.set()

    def all_of(self, kind):
        """What of a type the client has said so far."""
        return [message for message in self.said if isinstance(message, kind)]

    @property
    def request_id(self) -> int:
        """The id of the client's last call."""
        return self.all_of(ExecuteRequest)[-1].request_id

    def start(self, status_code=200, **fields):
        """The head of the last call's answer."""
        self.say(StreamStart(self.request_id, status_code, **fields))

    def chunk(self, data, sequence):
        """Data of it."""
        self.say(StreamChunk(self.request_id, sequence, data))

    def end(self, *args, **fields):
        """The end of it."""
        self.say(StreamEnd(self.request_id, *args, **fields))

    def answer(self, payload=b'{"status_code": 200}', **fields):
        """The one answer to the last call."""
        self.say(ExecuteResponse(self.request_id, payload=payload, **fields))

    # What the client does

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._ended:
            raise anyio.BrokenResourceError
        self._connection.receive_data(bytes(item))
        while (event := self._connection.next_event()) is not NEED_DATA:
            assert event is not END_OF_STREAM
            self.said.append(event)
            if isinstance(event, HealthCheck):
                self.say(HealthResponse(healthy=True))

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._unread:
            if self._ended:
                raise anyio.EndOfStream
            self._news = anyio.Event()
            await self._news.wait()
        return self._unread.pop(0)

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._ended = True
        await anyio.lowlevel.checkpoint()

    @property
    def extra_attributes(self):
        return {}


@asynccontextmanager
async def entered(peer, stream):
    """The response of `stream`, to which the peer has said the head."""
    async with trio.open_nursery() as nursery:
        responses = []

        @nursery.start_soon
        async def enter():
            responses.append(await stream.__aenter__())

        await trio.testing.wait_all_tasks_blocked()
        peer.start()
    try:
        yield responses[0]
    finally:
        await stream.__aexit__(None, None, None)
