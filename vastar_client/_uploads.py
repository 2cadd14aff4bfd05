"""A body on its way: one task fetches pieces from its source, the writer cuts chunks from them.

Shape: the two meet in `Upload`, which has no I/O. The feeding task puts pieces as long as less than
a chunk of them waits; the writer takes as much as both windows allow at the moment at which it
writes, small pieces together, so no credit is spent on what is never sent, and a body that is given
up leaves nothing in any queue.

The feeding task belongs to the client's connection, not to the task that made the call: an answer
may begin before its body has been sent whole, and is then read while the rest still goes out. It
ends with the call.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import anyio

from vastar_client._bodies import Source
from vastar_client.wire import Buffer, RequestChunk
from vastar_client.wire.limits import INITIAL_STREAM_WINDOW_BYTES
from vastar_client.wire.windows import SendWindow

__all__ = ["MAX_CHUNK_BYTES", "Upload"]

MAX_CHUNK_BYTES: Final = 65_536
"""Data in one chunk: other frames get their turn behind each."""


class Upload:
    """The body of one call, from its source to its last chunk.

    Attributes:
        window: what the runtime still takes of it.
        ended: set once the source is not touched any more.
        queued: whether the writer has it in its line; the session's own mark.
    """

    def __init__(self, source: Source) -> None:
        self.window = SendWindow(INITIAL_STREAM_WINDOW_BYTES)
        self.ended = anyio.Event()
        self.queued = False
        self._source = source
        self._pieces: deque[memoryview] = deque()
        self._pending_bytes = 0
        self._is_last = False
        self._is_over = False
        self._sequence = 0
        self._room = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def has_chunk(self) -> bool:
        """Whether a chunk can be cut, as far as the windows of the stream says."""
        if self._is_over:
            return False
        return self.window.available_bytes > 0 if self._pending_bytes else self._is_last

    def next_chunk(self, request_id: int, connection: SendWindow) -> RequestChunk | None:
        """The next chunk, within both windows; None when that of the connection is spent."""
        assert self.has_chunk, "asked for, and taken, in one step"
        size_bytes = min(self._pending_bytes, MAX_CHUNK_BYTES, self.window.available_bytes)
        size_bytes = connection.take(size_bytes)
        if self._pending_bytes and not size_bytes:
            return None
        self.window.take(size_bytes)
        data = self._cut(size_bytes)
        self._is_over = self._is_last and not self._pending_bytes
        chunk = RequestChunk(request_id, self._sequence, data, self._is_over)
        self._sequence += 1
        return chunk

    def _cut(self, size_bytes: int) -> Buffer:
        """The next bytes; one piece, or a part of it, is not copied."""
        self._pending_bytes -= size_bytes
        if self._pending_bytes < MAX_CHUNK_BYTES:
            self._room.set()
        parts: list[memoryview] = []
        while size_bytes:
            piece = self._pieces.popleft()
            if len(piece) > size_bytes:
                self._pieces.appendleft(piece[size_bytes:])
                piece = piece[:size_bytes]
            parts.append(piece)
            size_bytes -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stop(self) -> None:
        """The call is over: no more chunks, and leave the source alone."""
        self._is_over = True
        self._scope.cancel()

    async def feed(
        self,
        offer: Callable[[], object],
        fail: Callable[[Exception], object],
    ) -> None:
        """Fetch the body, piece by piece, until its end or `stop`.

        Args:
            offer: tells the writer that there is a chunk.
            fail: takes what the source raises; nothing but a cancellation leaves this.
        """
        try:
            with self._scope:
                try:
                    await self._feed(offer)
                finally:
                    await self._source.aclose()
        except Exception as error:  # noqa: BLE001 - the caller's own, which it gets back
            self._source.error = error
            fail(error)
        finally:
            self.ended.set()

    async def _feed(self, offer: Callable[[], object]) -> None:
        while piece := await self._source.read():
            self._put(piece)
            offer()
            if self._pending_bytes >= MAX_CHUNK_BYTES:
                self._room = anyio.Event()
                await self._room.wait()
        self._is_last = True
        offer()

    def _put(self, piece: Buffer) -> None:
        self._pieces.append(memoryview(piece))
        self._pending_bytes += len(piece)
