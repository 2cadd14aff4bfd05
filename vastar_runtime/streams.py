"""The streams of calls: answers handed on in pieces, request bodies as they come, under credit.

Shape: values that a call owns and its session feeds. An `AnswerStream` turns what the connector
reads into frames and waits where the caller has granted no more; an `Upload` keeps what the caller
sent until the upstream takes it. Neither knows a socket: frames go out through a function of the
session. What all streams of a connection share is a `ConnectionCredit`.

Bounds (PROTOCOL.md, section 6): at most one window of a stream is held for it in each direction.
Who reads slowly is waited for by its own call alone, which then reads no more from its upstream.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from vastar_client.wire import CreditUpdate, Message, StreamChunk, StreamStart
from vastar_client.wire.codec import one_buffer
from vastar_client.wire.limits import (
    INITIAL_CONNECTION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
)
from vastar_client.wire.messages import Buffer, RequestChunk
from vastar_client.wire.windows import ReceiveWindow, SendWindow
from vastar_runtime.transport import BodyAborted

__all__ = ["MAX_CHUNK_BYTES", "AnswerStream", "ConnectionCredit", "Upload"]

MAX_CHUNK_BYTES: Final = 262_144
"""Of data in one frame: others on the connection shall not wait for more, which is 0.3 ms."""


_JOINED_BYTES: Final = 4096


class ConnectionCredit:
    """What all answers of a connection may send together."""

    __slots__ = ("_more", "window")

    def __init__(self) -> None:
        self.window = SendWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._more = trio.Event()

    def grant(self, more_bytes: int) -> None:
        """The caller allows more. Raises RemoteProtocolError where that overflows."""
        self.window.grant(more_bytes)
        self._wake()

    def give_back(self, taken_bytes: int) -> None:
        """So much was taken and not sent."""
        self.window.available_bytes += taken_bytes
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = trio.Event()

    async def wait(self) -> None:
        """Return when there may be more than there was."""
        await self._more.wait()


class AnswerStream:
    """The answer of one call, on its way to a caller that asked to have it as it comes.

    Args:
        request_id: of the call.
        shared: what all streams of the connection may send.
        put: queues a frame; waits while the caller does not read.

    Attributes:
        has_started: the head is on its way: from here on nothing is tried again.
        total_bytes: of data sent.
        last_sent_at_s: when anything was sent last, or when it began.
    """

    __slots__ = (
        "_give_up",
        "_is_waiting",
        "_more",
        "_put",
        "_request_id",
        "_sequence",
        "_shared",
        "_window",
        "has_started",
        "last_sent_at_s",
        "total_bytes",
    )

    def __init__(
        self,
        request_id: int,
        shared: ConnectionCredit,
        put: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._request_id = request_id
        self._shared = shared
        self._put = put
        self._window = SendWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._more = trio.Event()
        self._is_waiting = False
        self._give_up: Callable[[], None] | None = None
        self._sequence = 0
        self.has_started = False
        self.total_bytes = 0
        self.last_sent_at_s = trio.current_time()

    def grant(self, more_bytes: int) -> None:
        """The caller has consumed so much. Raises RemoteProtocolError where that overflows."""
        self._window.grant(more_bytes)
        self._more.set()

    def grants_have_ended(self, give_up: Callable[[], None]) -> None:
        """The caller can grant no more: `give_up` ends the call when it needs more."""
        self._give_up = give_up
        if self._is_waiting:
            give_up()

    async def start(
        self, status_code: int, headers: Sequence[tuple[str, str]], *, is_sse: bool
    ) -> None:
        """Send the head."""
        self.has_started = True
        await self._send(StreamStart(self._request_id, status_code, headers, is_sse))

    async def send(self, data: Buffer) -> None:
        """Send a piece of the body, as the caller's credit allows."""
        rest = memoryview(data)
        while rest:
            size = min(len(rest), MAX_CHUNK_BYTES, self._shared.window.available_bytes)
            size = self._window.take(size)
            if not size:
                await self._wait_for_credit()
                continue
            self._shared.window.take(size)
            try:
                await self._send(StreamChunk(self._request_id, self._sequence, rest[:size]))
            except BaseException:
                self._shared.give_back(size)  # it waited for room, and is not on its way
                raise
            self._sequence += 1
            self.total_bytes += size
            rest = rest[size:]

    async def _send(self, message: Message) -> None:
        self.last_sent_at_s = trio.current_time()
        await self._put(message)

    async def _wait_for_credit(self) -> None:
        if self._give_up is not None:
            self._give_up()
        self._is_waiting = True
        try:
            if self._window.available_bytes:
                await self._shared.wait()
            else:
                self._more = trio.Event()
                await self._more.wait()
        finally:
            self._is_waiting = False


class Upload:
    """The body of one call's request, as its caller sends it.

    Args:
        request_id: of the call.
        grant: sends credit, without waiting.

    Attributes:
        received_bytes: so far.
    """

    __slots__ = (
        "_aborted",
        "_arrived",
        "_grant",
        "_has_ended",
        "_pieces",
        "_request_id",
        "_sequence",
        "_timed",
        "_window",
        "received_bytes",
    )

    def __init__(self, request_id: int, grant: Callable[[CreditUpdate], None]) -> None:
        self._request_id = request_id
        self._grant = grant
        self._window = ReceiveWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._pieces: deque[Buffer] = deque()
        self._arrived = trio.Event()
        self._sequence = 0
        self._has_ended = False
        self._aborted: str | None = None
        self.received_bytes = 0
        self._timed: tuple[trio.CancelScope, float] | None = None

    @property
    def fault(self) -> str | None:
        """Why there will be no whole body, where that is certain."""
        return self._aborted

    def put(self, chunk: RequestChunk) -> None:
        """A frame of the body came.

        Raises:
            RemoteProtocolError: it is more than was granted; the connection is to be closed.
        """
        data = one_buffer(chunk.data)
        self._window.received(len(data))
        if self._aborted is not None:
            return
        if self._has_ended:
            self.abort("a chunk of the request body came behind the last one")
        elif chunk.sequence != self._sequence:
            self.abort(
                f"chunk {chunk.sequence} of the request body came where {self._sequence} was due"
            )
        else:
            self._sequence += 1
            self._has_ended = chunk.last
            self._keep(data)
        self._arrived.set()

    def _keep(self, data: Buffer) -> None:
        """Small pieces are joined, as each would pin all the bytes that it was received with."""
        self.received_bytes += len(data)
        if len(data) >= _JOINED_BYTES and len(data) * 2 >= _pinned_bytes(data):
            self._pieces.append(data)
        elif len(data):
            last = self._pieces[-1] if self._pieces else None
            if isinstance(last, bytearray):
                last += data
            else:
                self._pieces.append(bytearray(data))

    def abort(self, why: str) -> None:
        """There will be no more of it, although it has not ended."""
        if self._aborted is None:
            self._aborted = why
            self._arrived.set()

    def restarts(self, patience: trio.CancelScope, timeout_s: float) -> None:
        """Give whoever takes the body `timeout_s` anew for each piece, and when all were taken.

        While the caller is waited for, it is not the taker's turn: then `patience` does not end.
        """
        self._timed = patience, timeout_s

    def _restart(self) -> None:
        if self._timed is not None:
            patience, timeout_s = self._timed
            patience.deadline = trio.current_time() + timeout_s

    async def _wait(self) -> None:
        self._arrived = trio.Event()
        if self._timed is not None:
            self._timed[0].deadline = math.inf
        try:
            await self._arrived.wait()
        finally:
            self._restart()

    @property
    def has_ended(self) -> bool:
        """Whether its last chunk came."""
        return self._has_ended

    async def receive(self) -> Buffer:
        """The next piece, `b""` at the end; to be consumed at once: it grants credit for it.

        Raises:
            BodyAborted: there will be no whole body.
        """
        self._restart()  # the piece before has been taken
        while not self._pieces:
            if self._aborted is not None:
                raise BodyAborted(self._aborted)
            if self._has_ended:
                return b""
            await self._wait()
        data = self._pieces.popleft()
        grant_bytes = self._window.consumed(len(data))
        if grant_bytes and not self._has_ended:
            self._grant(CreditUpdate(credit_delta=grant_bytes, request_id=self._request_id))
        return data


def _pinned_bytes(data: Buffer) -> int:
    """What stays in memory as long as `data`."""
    owner = data.obj if isinstance(data, memoryview) else data
    return len(owner) if isinstance(owner, bytes | bytearray) else len(data)
