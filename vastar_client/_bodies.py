"""Where the pieces of a request body come from while it is sent: bytes, files, iterators.

Shape: one `Source` for each kind, asked for a piece at a time by the task that feeds the upload.
What may block (a file, a plain iterator, whatever is behind it) is asked in a worker thread, so
that neither the event loop nor the other calls wait for it; a generator may itself make blocking
calls through the runtime, such as reading the answer that it passes on.

A call that ends early abandons its thread: the read that is under way goes on until it returns, and
what it brings is dropped.

Sending something twice must not send less the second time without a word. So a file is put back to
where it stood, once the call is over; a generator is closed, and one that has ended is refused.
"""

import inspect
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from vastar_client.request import Readable, StreamedBody
from vastar_client.wire import Buffer

__all__ = ["BytesSource", "Source", "source_of"]

_READ_BYTES: Final = 262_144
"""Asked of a file at once: four chunks, so that the way through a thread (0.1 ms) is shared."""

_END: Final = object()


_UNPACKERS: Final = {
    "gzip", "bz2", "lzma", "zipfile", "_compression", "compression._common._streams",
}  # fmt: skip
"""Modules of files whose length is only known once all of them was unpacked."""


class Source:
    """A body that is still to be sent.

    Attributes:
        length_bytes: how long it will be, None where nobody knows.
        error: what reading it raised.
    """

    length_bytes: int | None = None
    error: Exception | None = None

    async def read(self, threads: anyio.CapacityLimiter) -> Buffer:
        """The next piece, never an empty one; `b""` at the end, once.

        Args:
            threads: bounds the worker threads that wait for files and iterators.

        Raises:
            Exception: whatever the caller's own file or iterator raises.
            TypeError: it gave something else than bytes or text.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """The call is over, with the body or without it."""


class BytesSource(Source):
    """A body that is there already, but too long for a frame."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self.length_bytes = len(data)

    async def read(self, threads: anyio.CapacityLimiter) -> Buffer:  # noqa: ARG002 - a Source's
        """All of it, then its end."""
        data, self._data = self._data, b""
        return data


def source_of(body: StreamedBody) -> Source:
    """The source of what `HTTPRequest.streamed_body` found.

    Raises:
        ValueError: it is a generator that has ended: it would send an empty body.
    """
    if isinstance(body, Readable):
        is_async = isinstance(body, AsyncIterable) or inspect.iscoroutinefunction(body.read)
        return _AsyncFile(body) if is_async else _File(body)
    if isinstance(body, AsyncIterable):
        return _AsyncPieces(aiter(body))
    return _Pieces(iter(body))


class _File(Source):
    """A file, or what can be read like one."""

    def __init__(self, file: Readable) -> None:
        # What is there, rather than waiting for a whole block: it may be a pipe.
        self._read: Callable[[int], Any] = getattr(file, "read1", None) or file.read
        self._first: Any = b""
        self._rewind: Callable[[], object] | None = None
        self._left_bytes: int | None = None
        self._is_memory = isinstance(file, io.BytesIO | io.StringIO)
        seekable = getattr(file, "seekable", None)
        if seekable is not None and seekable():
            with suppress(OSError):  # it was wrong about that
                self._measure(file)
        self.length_bytes = self._left_bytes

    def _measure(self, file: Any) -> None:
        """Note where the file stands, and how much is behind that."""
        begin = file.tell()
        self._rewind = lambda: file.seek(begin)
        if isinstance(file, io.TextIOBase) or _unpacks(getattr(file, "raw", file)):
            return
        length_bytes = file.seek(0, os.SEEK_END) - begin
        file.seek(begin)
        if length_bytes <= 0:
            # Empty, or one of those that have a size of 0 whatever is in them (/proc).
            self._first = self._read(_READ_BYTES)
            length_bytes = 0
        if not self._first:
            self._left_bytes = length_bytes

    async def read(self, threads: anyio.CapacityLimiter) -> Buffer:
        """The next block, up to the length that was declared: a log file grows meanwhile."""
        if self._first:
            piece, self._first = self._first, b""
            return _as_bytes(piece)
        left_bytes = self._left_bytes
        wanted_bytes = _READ_BYTES if left_bytes is None else min(_READ_BYTES, left_bytes)
        if not wanted_bytes:
            return b""
        if self._is_memory:
            await checkpoint()
            piece = self._read(wanted_bytes)
        else:
            piece = await anyio.to_thread.run_sync(
                self._read, wanted_bytes, limiter=threads, abandon_on_cancel=True
            )
        data = _as_bytes(piece)
        if left_bytes is not None:
            self._left_bytes = left_bytes - len(data)
        return data

    async def aclose(self) -> None:
        """Put the file back to where it stood."""
        if self._rewind is not None:
            with suppress(OSError, ValueError):  # closed meanwhile
                self._rewind()


class _AsyncFile(Source):
    """A file of an event loop: `read` is a coroutine function."""

    def __init__(self, file: Readable) -> None:
        self._file = file

    async def read(self, threads: anyio.CapacityLimiter) -> Buffer:  # noqa: ARG002
        """The next block."""
        return _as_bytes(await self._file.read(_READ_BYTES))


class _Pieces(Source):
    """A plain iterator."""

    def __init__(self, pieces: Iterator[Any]) -> None:
        if inspect.isgenerator(pieces) and pieces.gi_frame is None:
            raise _used_up("generator")
        self._pieces = pieces

    async def read(self, threads: anyio.CapacityLimiter) -> Buffer:
        """The next piece that is not empty."""
        while True:
            piece = await anyio.to_thread.run_sync(
                next, self._pieces, _END, limiter=threads, abandon_on_cancel=True
            )
            if piece is _END:
                return b""
            if data := _as_bytes(piece):
                return data

    async def aclose(self) -> None:
        """End a generator, which cannot begin anew."""
        if inspect.isgenerator(self._pieces):
            with suppress(ValueError):  # its thread was abandoned and is still in it
                self._pieces.close()


class _AsyncPieces(Source):
    """An async iterator."""

    def __init__(self, pieces: AsyncIterator[Any]) -> None:
        if inspect.isasyncgen(pieces) and pieces.ag_frame is None:
            raise _used_up("async generator")
        self._pieces = pieces

    async def read(self, threads: anyio.CapacityLimiter) -> Buffer:  # noqa: ARG002
        """The next piece that is not empty."""
        async for piece in self._pieces:
            if data := _as_bytes(piece):
                return data
        return b""

    async def aclose(self) -> None:
        """End a generator, which cannot begin anew."""
        if inspect.isasyncgen(self._pieces):
            await self._pieces.aclose()


def _unpacks(file: object) -> bool:
    return any(base.__module__ in _UNPACKERS for base in type(file).__mro__)


def _used_up(what: str) -> ValueError:
    return ValueError(
        f"the body is a {what} that was used up: give each call a new one, or a file or an object "
        "that can be iterated again"
    )


def _as_bytes(piece: object) -> bytes:
    """One piece as it travels: text as UTF-8.

    Raises:
        TypeError: it is neither bytes nor text.
    """
    if isinstance(piece, str):
        return piece.encode()
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise TypeError(f"a piece of the body is {type(piece).__name__}: it must be bytes or str")
    return bytes(piece)  # a copy of what its maker may use again for the next piece
