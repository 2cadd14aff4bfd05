"""Where the pieces of a request body come from while it is sent: bytes, files, iterators.

Shape: one `Source` for each kind, asked for a piece at a time by the task that feeds the upload.
What may block (a file, a plain iterator, whatever is behind it) is read by a thread of its own, so
that neither the event loop nor the other calls wait for it; a generator may itself make blocking
calls through the runtime, such as reading the answer that it passes on. The thread is some 64 KiB
ahead, so that a body of many small pieces does not cost a trip between threads for each of them,
and a piece that comes alone is handed on at once.

A call that ends early abandons its thread: the read that is under way goes on until it returns, and
what it brings is dropped.

Sending something twice must not send less the second time without a word. So a file is put back to
where it stood, once the call is over; a generator is closed, and one that has ended is refused.
"""

import contextvars
import inspect
import io
import os
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from vastar_client._call_soon import CallSoon, call_soon_function
from vastar_client.request import Readable, StreamedBody
from vastar_client.wire import Buffer

__all__ = ["BytesSource", "Source", "source_of"]

_READ_BYTES: Final = 262_144
"""Asked of a file at once: four chunks, so that the way out of its thread (0.1 ms) is shared."""

_AHEAD_BYTES: Final = 65_536
"""What a thread may have ready; it reads no further piece above that."""


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

    async def read(self) -> Buffer:
        """The next piece, never an empty one; `b""` at the end, once.

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

    async def read(self) -> Buffer:
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


class _Threaded(Source):
    """Pieces that a thread reads ahead."""

    def __init__(self, pieces: Iterator[Any]) -> None:
        self._pieces = pieces
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()  # guards what follows
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._has_ended = False
        self._is_stopped = False
        self._is_waiting = False
        self._is_held = True  # whether the thread may have to let go of the pieces
        self._failure: Exception | None = None
        self._news: anyio.Event | None = None  # of the event loop

    async def read(self) -> Buffer:
        """All that is ready, as soon as there is any."""
        if self._thread is None:
            self._begin(call_soon_function())
        while True:
            self._news = anyio.Event()
            with self._changed:
                if self._ready:
                    parts, self._ready = self._ready, []
                    self._ready_bytes = 0
                    self._changed.notify()
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                if self._failure is not None:
                    raise self._failure
                if self._has_ended:
                    return b""
            await self._news.wait()

    def _begin(self, call_soon: CallSoon) -> None:
        context = contextvars.copy_context()
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None:  # no event loop runs there
            context.run(sniffio.current_async_library_cvar.set, None)
        self._thread = threading.Thread(
            target=lambda: context.run(self._read_ahead, call_soon),
            name="vastar-client body",
            daemon=True,
        )
        self._thread.start()

    def _read_ahead(self, call_soon: CallSoon) -> None:
        """In the thread: read until the end, or until it is stopped."""
        failure: Exception | None = None
        try:
            for piece in self._pieces:
                data = _as_bytes(piece)
                if data and not self._hand_over(data, call_soon):
                    break
        except Exception as error:  # noqa: BLE001 - the caller's own, which it gets back
            failure = error
        except BaseException as error:  # noqa: BLE001 - it would end the thread without a word
            failure = RuntimeError("the thread that reads the body was ended")
            failure.__cause__ = error
        with self._changed:
            self._failure = failure
            self._has_ended = True
            lets_go = self._is_stopped and self._is_held
        call_soon(self._tell)
        if lets_go:
            self._let_go()

    def _hand_over(self, data: bytes, call_soon: CallSoon) -> bool:
        """In the thread: whether more is wanted, as soon as there is room for it."""
        with self._changed:
            is_first = not self._ready
            self._ready.append(data)
            self._ready_bytes += len(data)
        if is_first:
            call_soon(self._tell)
        with self._changed:
            self._is_waiting = True
            self._changed.wait_for(lambda: self._is_stopped or self._ready_bytes < _AHEAD_BYTES)
            self._is_waiting = False
            return not self._is_stopped

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    def _let_go(self) -> None:
        """End a generator, which cannot begin anew."""
        if inspect.isgenerator(self._pieces):
            self._pieces.close()

    async def aclose(self) -> None:
        """End the thread; where it is in the middle of the pieces, it lets go of them itself."""
        with self._changed:
            is_idle = self._is_waiting or self._has_ended or self._thread is None
            self._is_held = self._is_held and not is_idle
            self._is_stopped = True
            self._changed.notify()
        if is_idle:
            self._let_go()


class _File(_Threaded):
    """A file, or what can be read like one."""

    def __init__(self, file: Readable) -> None:
        super().__init__(self._blocks())
        # What is there, rather than waiting for a whole block: it may be a pipe.
        self._read: Callable[[int], Any] = getattr(file, "read1", None) or file.read
        self._first: Any = b""
        self._rewind: Callable[[], object] | None = None
        self._in_use = threading.Lock()  # so that no block is read behind the rewinding
        self._is_memory = isinstance(file, io.BytesIO | io.StringIO)
        seekable = getattr(file, "seekable", None)
        if seekable is not None and seekable():
            with suppress(OSError):  # it was wrong about that
                self._measure(file)

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
            self.length_bytes = length_bytes

    def _blocks(self) -> Iterator[Any]:
        """The blocks, up to the length that was declared: a log file grows meanwhile."""
        if self._first:
            yield self._first
        left_bytes = self.length_bytes
        while left_bytes is None or left_bytes:
            wanted_bytes = _READ_BYTES if left_bytes is None else min(_READ_BYTES, left_bytes)
            with self._in_use:
                block = None if self._is_stopped else self._read(wanted_bytes)
            if not block:
                return
            yield block
            if left_bytes is not None:
                left_bytes -= len(block)

    async def read(self) -> Buffer:
        """The next block; of a file in memory at once, which a virtual clock can wait for."""
        if not self._is_memory:
            return await super().read()
        await checkpoint()
        return _as_bytes(next(self._pieces, b""))

    async def aclose(self) -> None:
        """Put the file back to where it stood; a block that is being read takes a moment."""
        await super().aclose()
        if self._rewind is not None:
            with self._in_use, suppress(OSError, ValueError):  # closed meanwhile
                self._rewind()


class _AsyncFile(Source):
    """A file of an event loop: `read` is a coroutine function."""

    def __init__(self, file: Readable) -> None:
        self._file = file

    async def read(self) -> Buffer:
        """The next block."""
        return _as_bytes(await self._file.read(_READ_BYTES))


class _Pieces(_Threaded):
    """A plain iterator."""

    def __init__(self, pieces: Iterator[Any]) -> None:
        if inspect.isgenerator(pieces) and pieces.gi_frame is None:
            raise _used_up("generator")
        super().__init__(pieces)


class _AsyncPieces(Source):
    """An async iterator."""

    def __init__(self, pieces: AsyncIterator[Any]) -> None:
        if inspect.isasyncgen(pieces) and pieces.ag_frame is None:
            raise _used_up("async generator")
        self._pieces = pieces

    async def read(self) -> Buffer:
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
