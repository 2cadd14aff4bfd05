"""Streamed answers on an event loop: events, text and bytes as they arrive, on Trio and asyncio.

Shape: `AsyncStream` is what `AsyncRuntimeClient.stream` returns: entering it makes the call and
gives the response, leaving it cancels what is not finished. The response reads in its caller's own
task; there is no task group or cancel scope between entering and leaving, so both may happen inside
an async generator. The iterators are plain objects for the same reason: breaking out of a loop over
one leaves no generator behind that somebody would have to close.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from vastar_client._decoding import MAX_LINE_CHARACTERS, too_long
from vastar_client._stream_answer import (
    MAX_ERROR_BODY_BYTES,
    MAX_ERROR_BODY_S,
    MAX_READ_BYTES,
    StreamAnswer,
)
from vastar_client.wire.sse import SSEEvent

__all__ = ["AsyncStream", "AsyncStreamResponse"]

_T = TypeVar("_T")


class _Items(Generic[_T]):
    """An iterator over what a response reads."""

    __slots__ = ("_next",)

    def __init__(self, next_item: Callable[[], Awaitable[_T]]) -> None:
        self._next = next_item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        return await self._next()


class AsyncStreamResponse(StreamAnswer):
    """A streamed answer. Read it in one way, in one task at a time, inside its `async with` block.

    Iterations hand on what arrives at once; one that was left goes on where it stopped. All of them
    raise `ConnectorException` where the answer breaks off, behind what came of it.
    """

    def events(self, *, last_event_id: str = "") -> AsyncIterator[SSEEvent]:
        """The server-sent events, as they come.

        Args:
            last_event_id: the id that events have before the stream sets one.

        Raises (while iterating):
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        return self._iterate("events", last_event_id=last_event_id)

    def content_deltas(self) -> AsyncIterator[str]:
        """The pieces of text in an OpenAI-shaped stream of chat completions, up to its `[DONE]`.

        Raises (while iterating):
            SSELimitError: as `events`.
        """
        return self._iterate("content_deltas")

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces of at most 256 KiB."""
        return self._iterate("iter_bytes")

    def iter_text(self) -> AsyncIterator[str]:
        """The body as text by its charset, else UTF-8; U+FFFD stands for what cannot be decoded."""
        return self._iterate("iter_text")

    def iter_lines(self, *, max_characters: int = MAX_LINE_CHARACTERS) -> AsyncIterator[str]:
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

    async def _next(self) -> Any:
        """The next item of whatever the body is read as."""
        reading = self._reading
        self._check_open()
        while not reading.ready:
            if reading.is_done and not reading.has_ended:
                await self._live.linger()
                reading.stop()
            if reading.has_ended:
                raise StopAsyncIteration
            self._received(await self._live.take())
        return reading.ready.popleft()

    async def aread(self, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """The whole body, or what `iter_bytes` has left of it.

        Raises:
            ConnectorException: the answer breaks off, or is longer than `max_bytes` (PERMANENT).
        """
        parts: list[bytes] = []
        left_bytes = max_bytes
        async for part in self.iter_bytes():
            parts.append(part)
            left_bytes -= len(part)
            if left_bytes < 0:
                raise too_long(f"more than {max_bytes} bytes: iterate over it", self.request_id)
        return b"".join(parts)

    async def raise_for_status(self) -> Self:
        """This response, when its status is below 400.

        Raises:
            HTTPStatusError: the status is 400 or more; as `HTTPResponse.raise_for_status`.
                `error.response.body` has up to 64 KiB of the body, unless it was read before.
        """
        if self.ok:
            return self
        body = b""
        if not self._reading.has_begun:
            body = await self._live.take_some(MAX_ERROR_BODY_BYTES, MAX_ERROR_BODY_S)
        self._as_response(body).raise_for_status()
        raise AssertionError("it raises for an error status")

    async def aclose(self) -> None:
        """Leave the stream; the upstream stops. Harmless when it has ended."""
        await self._live.aclose()


class AsyncStream:
    """A streamed call that begins where its `async with` block does, once.

    Args:
        open_response: makes the call.
    """

    def __init__(self, open_response: Callable[[], Awaitable[AsyncStreamResponse]]) -> None:
        self._open_response = open_response
        self._has_begun = False
        self._response: AsyncStreamResponse | None = None

    async def __aenter__(self) -> AsyncStreamResponse:
        if self._has_begun:
            raise RuntimeError("a stream can be entered once: call stream() again")
        self._has_begun = True
        self._response = await self._open_response()
        return self._response

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()
