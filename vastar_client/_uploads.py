"""A body on its way: one task fetches pieces from its source, the writer cuts chunks from them.

Shape: the two meet in `Upload`, which has no I/O. The feeding task puts one piece and waits until
all of it has been cut up; the writer takes as much as both windows allow at the moment at which it
writes, so no credit is spent on what is never sent, and a body that is given up leaves nothing
in any queue.

The feeding task belongs to the client's connection, not to the task that made the call: an answer
may begin before its body has been sent whole, and is then read while the rest still goes out. It
ends with the call.
"""

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
        self._piece = memoryview(b"")
        self._is_last = False
        self._is_over = False
        self._sequence = 0
        self._cut_up = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def has_chunk(self) -> bool:
        """Whether a chunk can be cut, as far as the windows of the stream says."""
        if self._is_over:
            return False
        return self.window.available_bytes > 0 if self._piece else self._is_last

    def next_chunk(self, request_id: int, connection: SendWindow) -> RequestChunk | None:
        """The next chunk, within both windows; None when that of the connection is spent."""
        assert self.has_chunk, "asked for, and taken, in one step"
        size_bytes = min(len(self._piece), MAX_CHUNK_BYTES, self.window.available_bytes)
        size_bytes = connection.take(size_bytes)
        if self._piece and not size_bytes:
            return None
        self.window.take(size_bytes)
        data, self._piece = self._piece[:size_bytes], self._piece[size_bytes:]
        self._is_over = self._is_last and not self._piece
        chunk = RequestChunk(request_id, self._sequence, data, self._is_over)
        self._sequence += 1
        if not self._piece:
            self._cut_up.set()
        return chunk

    def stop(self) -> None:
        """The call is over: no more chunks, and leave the source alone."""
        self._is_over = True
        self._scope.cancel()

    async def feed(
        self,
        threads: anyio.CapacityLimiter,
        offer: Callable[[], object],
        fail: Callable[[Exception], object],
    ) -> None:
        """Fetch the body, piece by piece, until its end or `stop`.

        Args:
            threads: as `Source.read` wants it.
            offer: tells the writer that there is a chunk.
            fail: takes what the source raises; nothing but a cancellation leaves this.
        """
        try:
            with self._scope:
                try:
                    await self._feed(threads, offer)
                finally:
                    await self._source.aclose()
        except Exception as error:  # noqa: BLE001 - the caller's own, which it gets back
            self._source.error = error
            fail(error)
        finally:
            self.ended.set()

    async def _feed(self, threads: anyio.CapacityLimiter, offer: Callable[[], object]) -> None:
        while piece := await self._source.read(threads):
            self._put(piece)
            offer()
            await self._cut_up.wait()
        self._is_last = True
        offer()

    def _put(self, piece: Buffer) -> None:
        self._piece = memoryview(piece)
        self._cut_up = anyio.Event()
