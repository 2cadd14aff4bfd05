"""Event streams that are taken up again after their end, on an event loop.

Shape: `_reconnecting.EventPlan` decides; this opens one stream after the other, hands on its events
and waits in between. It is an iterator, not a generator, for the reason that `streaming` gives.
"""

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import anyio

from vastar_client._reconnecting import EventPlan
from vastar_client.errors import ConnectorException
from vastar_client.request import HTTPRequest
from vastar_client.streaming import AsyncStream, AsyncStreamResponse
from vastar_client.wire.sse import SSEEvent

__all__ = ["AsyncEventSource", "SourceState"]


class SourceState:
    """What the source on an event loop and that of plain threads tell and decide alike."""

    def __init__(self, plan: EventPlan) -> None:
        self._plan = plan
        self._connect_at = 0.0
        self._is_over = False

    @property
    def last_event_id(self) -> str:
        """Where to go on: the id of the last event that was given."""
        return self._plan.last_event_id

    @property
    def retry_ms(self) -> int | None:
        """How long the stream last asked to wait before coming back; None where it never did."""
        return self._plan.retry_ms

    def _ended(self, error: ConnectorException | None, now_s: float) -> None:
        """The connection ended: set when the next one is due, if there is one.

        Raises:
            ConnectorException: `error` is the end of all.
        """
        is_stopped, self._is_over = self._is_over, True
        wait_s = None if is_stopped else self._plan.wait_s(error)
        if wait_s is not None:
            # A point in time: an iteration that is cancelled while it waits, and goes on, waits
            # for the rest.
            self._connect_at = now_s + wait_s
            self._is_over = False


class AsyncEventSource(SourceState):
    """The events of a stream, over as many connections as it takes.

    Use it as `async with client.events(url) as events:` and iterate over it. It connects with the
    first event that is asked for. A wait that is cancelled loses nothing: the iteration may go on.

    Args:
        plan: says where to connect, and when again.
        open_stream: `AsyncRuntimeClient.stream`.
    """

    def __init__(self, plan: EventPlan, open_stream: Callable[[HTTPRequest], AsyncStream]) -> None:
        super().__init__(plan)
        self._open_stream = open_stream
        self._response: AsyncStreamResponse | None = None
        self._events: AsyncIterator[SSEEvent] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SSEEvent:
        while not self._is_over:
            event, error = None, None
            try:
                event = await self._next()
            except ConnectorException as raised:
                error = raised
            if event is not None:
                self._plan.received(event.id)
                return event
            await self._leave()
            self._ended(error, anyio.current_time())
        raise StopAsyncIteration

    async def _next(self) -> SSEEvent | None:
        """The next event of the connection, or of a new one; None at its end."""
        if self._events is None:
            await self._leave()  # one that was given up before it was known to be a stream
            await anyio.sleep_until(self._connect_at)
            self._response = await self._open_stream(self._plan.request()).__aenter__()
            await self._response.raise_for_status()
            if not self._plan.accepts(self._response):
                self._is_over = True
                return None
            self._events = self._response.events(last_event_id=self._plan.last_event_id)
        return await anext(self._events, None)

    async def _leave(self) -> None:
        """Close the connection, if there is one."""
        response, self._response = self._response, None
        events, self._events = self._events, None
        if response is not None:
            if events is not None:
                self._plan.ended(response)
            await response.aclose()

    async def aclose(self) -> None:
        """End it, and the upstream's stream."""
        self._is_over = True
        await self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
