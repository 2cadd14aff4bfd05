"""Streamed answers for plain threads: the same as `streaming`, over the loop thread.

Shape: what has come waits in the loop thread; a thread that has read up what it has fetches all of
that in one trip and works it off by itself, so there is no trip for each event. The trip leaves
what it brings with the response: an interrupted one loses nothing.

Threads may share a response: they take turns, each item goes to one of them. Any of them may close
it, which ends the iterations of the others.
"""

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from vastar_client._decoding import MAX_LINE_CHARACTERS, too_long
from vastar_client._stream_answer import (
    MAX_ERROR_BODY_BYTES,
    MAX_ERROR_BODY_S,
    MAX_READ_BYTES,
    StreamAnswer,
)
from vastar_client._streams import LiveStream
from vastar_client.errors import ConnectionClosed
from vastar_client.wire import StreamStart
from vastar_client.wire.sse import SSEEvent

if TYPE_CHECKING:
    from vastar_client._loop_thread import Job, LoopThread

__all__ = ["Stream", "StreamResponse"]

_T = TypeVar("_T")


class _Items(Generic[_T]):
    """An iterator over what a response reads."""

    __slots__ = ("_next",)

    def __init__(self, next_item: Callable[[], _T]) -> None:
        self._next = next_item

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        return self._next()


class StreamResponse(StreamAnswer):
    """A streamed answer. Read it in one way, inside its `with` block.

    Iterations hand on what arrives at once; one that was left goes on where it stopped. All of them
    raise `ConnectorException` where the answer breaks off, behind what came of it.
    """

    def __init__(
        self, loop: "LoopThread", owner: object, live: LiveStream, head: StreamStart, label: str
    ) -> None:
        super().__init__(live, head, label)
        self._loop = loop
        self._owner = owner  # a client that is forgotten closes its connection
        self._turn = threading.Lock()
        self._fetched: deque[bytes] = deque()

    def events(self, *, last_event_id: str = "") -> Iterator[SSEEvent]:
        """The server-sent events, as they come.

        Args:
            last_event_id: the id that events have before the stream sets one.

        Raises (while iterating):
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        return self._iterate("events", last_event_id=last_event_id)

    def content_deltas(self) -> Iterator[str]:
        """The pieces of text in an OpenAI-shaped stream of chat completions, up to its `[DONE]`.

        Raises (while iterating):
            SSELimitError: as `events`.
        """
        return self._iterate("content_deltas")

    def iter_bytes(self) -> Iterator[bytes]:
        """The body as it comes, in pieces of at most 256 KiB."""
        return self._iterate("iter_bytes")

    def iter_text(self) -> Iterator[str]:
        """The body as text by its charset, else UTF-8; U+FFFD stands for what cannot be decoded."""
        return self._iterate("iter_text")

    def iter_lines(self, *, max_characters: int = MAX_LINE_CHARACTERS) -> Iterator[str]:
        """The lines of the text, without their ends (LF, CRLF or CR).

        Raises (while iterating):
            ConnectorException: PERMANENT: a line is longer than `max_characters`.
        """
        return self._iterate("iter_lines", max_characters)

    def _iterate(
        self, what: str, max_characters: int = MAX_LINE_CHARACTERS, last_event_id: str = ""
    ) -> _Items[Any]:
        self._begin(what, max_characters, last_event_id)
        return _Items(self._next)

    def _next(self) -> Any:
        """The next item of whatever the body is read as."""
        with self._turn:
            reading = self._reading
            self._check_open()
            while not reading.ready:
                if reading.is_done and not reading.has_ended:
                    self._run(self._live.linger)
                    reading.stop()
                if reading.has_ended:
                    raise StopIteration
                if not self._fetched:
                    self._run(self._fetch)
                self._received(self._fetched.popleft())
            return reading.ready.popleft()

    async def _fetch(self) -> None:
        """In the loop thread: get all that is there."""
        self._fetched.extend(await self._live.take_all() or [b""])

    def _run(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """The outcome of `function`, run in the loop thread.

        Raises:
            WrongThreadError: this is a thread that must not wait for it.
        """
        from vastar_client._loop_thread import refuse_loop_thread  # noqa: PLC0415 - it brings Trio

        refuse_loop_thread()
        return self._loop.submit(function).wait()

    def read(self, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """The whole body, or what `iter_bytes` has left of it.

        Raises:
            ConnectorException: the answer breaks off, or is longer than `max_bytes` (PERMANENT).
        """
        parts: list[bytes] = []
        left_bytes = max_bytes
        for part in self.iter_bytes():
            parts.append(part)
            left_bytes -= len(part)
            if left_bytes < 0:
                raise too_long(f"more than {max_bytes} bytes: iterate over it", self.request_id)
        return b"".join(parts)

    def raise_for_status(self) -> Self:
        """This response, when its status is below 400.

        Raises:
            HTTPStatusError: the status is 400 or more; as `HTTPResponse.raise_for_status`.
                `error.response.body` has up to 64 KiB of the body, unless it was read before.
        """
        if self.ok:
            return self
        body = b""
        if not self._reading.has_begun:
            body = self._run(lambda: self._live.take_some(MAX_ERROR_BODY_BYTES, MAX_ERROR_BODY_S))
        self._as_response(body).raise_for_status()
        raise AssertionError("it raises for an error status")

    def close(self) -> None:
        """Leave the stream, in any thread; the upstream stops. Harmless when it has ended."""
        if self._live.closed:
            return
        was_finished = self._live.is_finished
        self._live.closed = True
        if not self._loop.call_soon(self._live.close) or was_finished:
            return
        if not self._loop.is_current_thread:
            with suppress(ConnectionClosed):  # the loop has ended meanwhile, and the stream with it
                self._loop.submit(self._live.aclose).wait()


class Stream:
    """A streamed call that begins where its `with` block does, once.

    It can also be iterated over by itself: `for event in client.stream(...)` makes the call, raises
    for a status of 400 or more, gives its server-sent events, and closes it.

    Args:
        begin: makes the call, in the loop thread.
    """

    def __init__(self, begin: Callable[[], "Job[StreamResponse]"]) -> None:
        self._begin = begin
        self._job: Job[StreamResponse] | None = None
        self._response: StreamResponse | None = None
        self._is_closed = False

    def __enter__(self) -> StreamResponse:
        if self._job is not None:
            raise RuntimeError("a stream can be entered once: call stream() again")
        self._job = self._begin()
        if self._is_closed:
            self._job.cancel_soon()
        self._response = self._job.wait()
        if self._is_closed:
            self._response.close()
        return self._response

    def close(self) -> None:
        """Leave it, in any thread, also while it begins."""
        self._is_closed = True
        if self._response is not None:
            self._response.close()
        elif self._job is not None:
            self._job.cancel_soon()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[SSEEvent]:
        with self as response:
            yield from response.raise_for_status().events()
