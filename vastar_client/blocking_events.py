"""Event streams that are taken up again after their end, for plain threads.

Shape: as `event_source`, with waits that another thread can end.
"""

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from vastar_client._reconnecting import EventPlan
from vastar_client.blocking_streaming import Stream, StreamResponse
from vastar_client.errors import ConnectorException
from vastar_client.event_source import SourceState
from vastar_client.request import HTTPRequest
from vastar_client.wire.sse import SSEEvent

__all__ = ["EventSource"]


class EventSource(SourceState):
    """The events of a stream, over as many connections as it takes.

    Use it as `with client.events(url) as events:` and iterate over it. One thread iterates; any
    thread may close it, which ends the iteration, whatever that waits for.

    Args:
        plan: says where to connect, and when again.
        open_stream: `RuntimeClient.stream`.
    """

    def __init__(self, plan: EventPlan, open_stream: Callable[[HTTPRequest], Stream]) -> None:
        super().__init__(plan)
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._response: StreamResponse | None = None
        self._events: Iterator[SSEEvent] | None = None
        self._closed = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SSEEvent:
        while not (self._is_over or self._closed.is_set()):
            event, error = None, None
            try:
                event = self._next()
            except ConnectorException as raised:
                error = raised
            if self._closed.is_set():
                break
            if event is not None:
                self._plan.received(event.id)
                return event
            self._leave()
            self._ended(error, time.monotonic())
        self._leave()
        raise StopIteration

    def _next(self) -> SSEEvent | None:
        """The next event of the connection, or of a new one; None at its end."""
        if self._events is None:
            self._leave()
            if self._closed.wait(max(0.0, self._connect_at - time.monotonic())):
                return None
            self._stream = self._open_stream(self._plan.request())
            if self._closed.is_set():  # too late for `close` to see it
                return None
            self._response = self._stream.__enter__()
            self._response.raise_for_status()
            if not self._plan.accepts(self._response):
                self._is_over = True
                return None
            self._events = self._response.events(last_event_id=self._plan.last_event_id)
        return next(self._events, None)

    def _leave(self) -> None:
        """Close the connection, if there is one."""
        response, self._response = self._response, None
        events, self._events = self._events, None
        if response is not None:
            if events is not None:
                self._plan.ended(response)
            response.close()

    def close(self) -> None:
        """End it, in any thread, and the upstream's stream."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
