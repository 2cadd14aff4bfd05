"""Streams of the fake runtime, sans-IO: a scripted answer under credit, and a body that comes in.

Shape: a script is an iterable of steps, taken one at a time as credit allows, so it may be endless.
`FakeStream.advance` gives the bytes of all frames that can go now; it is called when the stream
begins, when credit came and when a pause is over, always as a frame of the peer.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from vastar_client.errors import ConnectorException
from vastar_client.request import HTTPRequest
from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteRequest,
    KeyValues,
    Message,
    RequestChunk,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.limits import INITIAL_STREAM_WINDOW_BYTES
from vastar_client.wire.sse import SSEEvent
from vastar_client.wire.windows import ReceiveWindow, SendWindow

__all__ = [
    "HOLD",
    "After",
    "FakeStream",
    "FakeUpload",
    "Hold",
    "Step",
    "StreamReply",
    "event_bytes",
]

_MAX_CHUNK_BYTES: Final = 65_536
_END: Final = object()


class Hold:
    """The type of `HOLD`."""


HOLD: Final = Hold()
"""A reply that is no reply: the call waits in `FakeRuntime.held`. In a stream: no more comes."""


@dataclass(frozen=True)
class After:
    """A reply, or a step of a stream, that comes `delay_s` seconds later."""

    delay_s: float
    reply: Any


Step: TypeAlias = bytes | str | SSEEvent | ConnectorException | After | Hold
"""Of a stream: data, an event, the failure that it ends with, one of these later, or silence."""


@dataclass(frozen=True)
class StreamReply:
    """A streamed answer for a script; `testing.respond_stream` makes it."""

    steps: Iterable[Any]
    status_code: int = 200
    headers: KeyValues = ()
    trailers: KeyValues = ()
    attempts: int = 1
    refused_by: str | None = None
    retry_after_ms: int = 0
    queued_us: int = 0
    backoff_us: int = 0


def event_bytes(event: SSEEvent) -> bytes:
    """`event` as it travels."""
    kind = "" if event.event == "message" else f"event: {event.event}\n"
    number = f"id: {event.id}\n" if event.id else ""
    data = "".join(f"data: {line}\n" for line in event.data.split("\n"))
    return f"{kind}{number}{data}\n".encode()


class FakeStream:
    """One streamed answer on its way.

    Attributes:
        request: what was asked.
        message: the same as it came over the wire.
        sent_bytes: data that has been sent so far.
        cancelled: whether its caller has left it before its end.
        ended: whether its final frame has been sent.
    """

    def __init__(
        self,
        request: HTTPRequest | ExecuteRequest,
        message: ExecuteRequest,
        reply: StreamReply,
        connection: SendWindow,
        kick: Callable[[], object],
    ) -> None:
        self.request = request
        self.message = message
        self.sent_bytes = 0
        self.cancelled = False
        self.ended = False
        self._reply = reply
        self._connection = connection
        self._kick = kick
        self._window = SendWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._steps: Iterator[Any] = iter(reply.steps)
        self._unsent = b""
        self._sequence = 0
        self._has_begun = False
        self._is_paused = False
        self._is_held = False

    @property
    def credit_bytes(self) -> int:
        """What the caller would take at once."""
        return self._window.available_bytes

    def grant(self, data_bytes: int) -> None:
        """The caller takes more."""
        self._window.grant(data_bytes)

    def push(self, *steps: Step) -> None:
        """Go on with `steps` where the script said `HOLD`.

        In memory call this and `end` from the client's event loop.
        """
        self._steps = itertools.chain(steps, (HOLD,))
        self._is_held = False
        self._kick()

    def end(self) -> None:
        """End it well, where the script said `HOLD`."""
        self._steps = iter(())
        self._is_held = False
        self._kick()

    def advance(self, later: Callable[[Callable[[], list[Message]], float], None]) -> list[Message]:
        """The frames that can go now.

        Args:
            later: has a function called that gives more frames, after so many seconds.
        """
        messages: list[Message] = []
        while not (self.ended or self._is_paused or self._is_held):
            if not self._unsent:
                self._next_step(messages, later)
                continue
            size_bytes = min(len(self._unsent), _MAX_CHUNK_BYTES, self.credit_bytes)
            size_bytes = self._connection.take(size_bytes)
            if not size_bytes:
                break
            self._window.take(size_bytes)
            data, self._unsent = self._unsent[:size_bytes], self._unsent[size_bytes:]
            messages.append(StreamChunk(self.message.request_id, self._sequence, data))
            self._sequence += 1
            self.sent_bytes += size_bytes
        return messages

    def _next_step(
        self,
        messages: list[Message],
        later: Callable[[Callable[[], list[Message]], float], None],
    ) -> None:
        step = next(self._steps, _END)
        if isinstance(step, After) and step.delay_s > 0:
            self._is_paused = True

            def go_on() -> list[Message]:
                self._is_paused = False
                frames: list[Message] = []
                self._take(step.reply, frames)
                return frames + self.advance(later)

            later(go_on, step.delay_s)
        else:
            self._take(step.reply if isinstance(step, After) else step, messages)

    def _take(self, step: object, messages: list[Message]) -> None:
        """Do as `step` says."""
        if self.ended:
            return
        if isinstance(step, ConnectorException):
            messages += self.finish(step)
            return
        self._begin(messages)
        if step is _END:
            messages += self.finish(None)
        elif isinstance(step, Hold):
            self._is_held = True
        elif isinstance(step, SSEEvent):
            self._unsent = event_bytes(step)
        elif isinstance(step, str):
            self._unsent = step.encode()
        elif isinstance(step, bytes):
            self._unsent = step
        else:
            why = f"a step of the stream is {type(step).__name__}, which is none"
            messages += self.finish(ConnectorException(why, ErrorClass.PERMANENT))

    def _begin(self, messages: list[Message]) -> None:
        """Send the head, once; a failure that is the first step comes without it."""
        if not self._has_begun:
            self._has_begun = True
            reply, request_id = self._reply, self.message.request_id
            messages.append(StreamStart(request_id, reply.status_code, reply.headers))

    def finish(self, error: ConnectorException | None) -> list[Message]:
        """The final frame, once."""
        if self.ended:
            return []
        self.ended = True
        reply = self._reply
        told = error or reply
        return [
            StreamEnd(
                self.message.request_id,
                error.error_class if error else ErrorClass.SUCCESS,
                error.message if error else None,
                retry_after_ms=told.retry_after_ms or reply.retry_after_ms,
                disposition=error.disposition if error else Disposition.COMPLETED,
                attempts=told.attempts or reply.attempts,
                trailers=reply.trailers or None,
                total_bytes=self.sent_bytes,
                refused_by=told.refused_by or reply.refused_by,
                queued_us=told.queued_us or reply.queued_us,
                backoff_us=told.backoff_us or reply.backoff_us,
            )
        ]


class FakeUpload:
    """A body that comes in pieces.

    Attributes:
        data: what came so far.
        ended: whether that is all of it.
    """

    def __init__(self, message: ExecuteRequest) -> None:
        self.message = message
        self.data = bytearray()
        self.ended = False
        self.window = ReceiveWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._sequence = 0

    def take(self, chunk: RequestChunk) -> None:
        """The next piece.

        Raises:
            RemoteProtocolError: it is more than the window allows.
            AssertionError: it is out of order, which the client must not do.
        """
        assert (chunk.sequence, self.ended) == (self._sequence, False), "chunks in their order"
        self._sequence += 1
        if chunk.data:
            self.window.received(len(chunk.data))
            self.data += chunk.data
        self.ended = chunk.last


def json_event(value: object) -> SSEEvent:
    """An event whose data is `value` as JSON."""
    return SSEEvent(msgspec.json.encode(value).decode())
