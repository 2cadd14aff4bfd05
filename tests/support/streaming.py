"""A caller that streams, and holds the runtime to the protocol while it does.

Every frame that comes is checked: a stream is [StreamStart StreamChunk*] StreamEnd, sequences have
no gap, no byte comes beyond the credit given, and nothing behind the final frame. Frames are kept
with the instant at which they came; time is Trio's, so that a test says exactly when.

```python
async with running() as runtime:
    caller = await streaming(runtime)
    stream = await caller.begin(1, {"url": URL})
    await stream.ended()
    assert stream.body == b"..."
```
"""

from collections.abc import Callable
from contextlib import suppress

import attrs
import trio

from tests.support.running import Running, http_request
from tests.support.sessions import CallerEnd
from vastar_client.wire import (
    END_OF_STREAM,
    Cancel,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    KeepAlive,
    Message,
    RequestChunk,
    Signal,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.limits import INITIAL_CONNECTION_WINDOW_BYTES, INITIAL_STREAM_WINDOW_BYTES
from vastar_client.wire.windows import ReceiveWindow, SendWindow
from vastar_runtime.streams import MAX_CHUNK_BYTES

__all__ = ["Stream", "StreamCaller", "http_stream", "streaming"]


def http_stream(request_id: int, payload: object, **fields: object) -> ExecuteRequest:
    """A streamed HTTP call."""
    return http_request(request_id, payload, **{"stream": True, **fields})


@attrs.define(eq=False)
class Stream:
    """One streamed call as its caller sees it.

    Attributes:
        reads: whether its data is consumed, and credit granted, as it comes.
        keeps: whether its data is kept, or only counted.
        head, end: the frames, and `head_at_s`, `end_at_s` when they came.
        chunks: (when, data) in order.
        keep_alives: when they came.
    """

    request_id: int
    caller: "StreamCaller"
    reads: bool = True
    keeps: bool = True
    head: StreamStart | None = None
    head_at_s: float = -1.0
    end: StreamEnd | None = None
    end_at_s: float = -1.0
    chunks: list[tuple[float, bytes]] = attrs.field(factory=list)
    keep_alives: list[float] = attrs.field(factory=list)
    window: ReceiveWindow = attrs.field(factory=lambda: ReceiveWindow(INITIAL_STREAM_WINDOW_BYTES))
    unread_bytes: int = 0
    total_bytes: int = 0
    chunk_count: int = 0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.chunks)

    @property
    def ok(self) -> StreamEnd:
        """The end, which must be a success."""
        assert self.end is not None
        assert self.end.error_class is ErrorClass.SUCCESS, self.end.error_message
        assert self.end.error_message is None
        assert self.end.disposition is Disposition.COMPLETED
        return self.end

    def failed(self, error_class: ErrorClass) -> str:
        """The words of the end, which must be a failure of that class."""
        assert self.end is not None
        assert self.end.error_class is error_class, self.end
        assert self.end.error_message
        return self.end.error_message

    async def started(self) -> StreamStart:
        await self.caller.until(lambda: self.head is not None)
        assert self.head is not None
        return self.head

    async def ended(self) -> StreamEnd:
        await self.caller.until(lambda: self.end is not None)
        assert self.end is not None
        return self.end

    async def has(self, count_bytes: int) -> None:
        """Wait until so much has come."""
        await self.caller.until(lambda: self.total_bytes >= count_bytes)

    async def cancel(self) -> None:
        await self.caller.send(Cancel(self.request_id))

    async def read(self) -> None:
        """Consume what has come, and from now on all that comes."""
        self.reads = True
        await self.consume()

    async def consume(self) -> None:
        """Consume what has come, and grant as much again."""
        grant_bytes = self.window.consumed(self.unread_bytes)
        self.unread_bytes = 0
        if grant_bytes and self.end is None:
            await self.caller.credit(
                CreditUpdate(credit_delta=grant_bytes, request_id=self.request_id)
            )

    async def take(self, frame: Message, now_s: float) -> None:
        """Check and keep a frame of the stream."""
        assert self.end is None, f"{frame!r} behind the end of {self.request_id}"
        match frame:
            case StreamStart():
                assert self.head is None, "a second head"
                self.head, self.head_at_s = frame, now_s
            case StreamChunk():
                assert self.head is not None, "a chunk before the head"
                assert frame.sequence == self.chunk_count, "a gap"
                self.chunk_count += 1
                data = bytes(frame.data or b"")
                assert 0 < len(data) <= MAX_CHUNK_BYTES
                self.window.received(len(data))
                self.total_bytes += len(data)
                if self.keeps:
                    self.chunks.append((now_s, data))
                self.unread_bytes += len(data)
                if self.reads:
                    await self.consume()
            case KeepAlive():
                self.keep_alives.append(now_s)
            case StreamEnd():
                if frame.error_class is ErrorClass.SUCCESS:
                    assert self.head is not None, "a success without a head"
                assert frame.total_bytes == self.total_bytes
                self.end, self.end_at_s = frame, now_s


@attrs.define(eq=False)
class StreamCaller:
    """One connection and its streams. `run` has to run beside it.

    Attributes:
        wire_end: what is sent and received through.
        answers: those of calls that are no streams, in order.
        others: all other frames, in order.
        sent_bytes: of request bodies, by id.
    """

    wire_end: CallerEnd
    streams: dict[int, Stream] = attrs.field(factory=dict)
    answers: list[ExecuteResponse] = attrs.field(factory=list)
    others: list[Message] = attrs.field(factory=list)
    window: ReceiveWindow = attrs.field(
        factory=lambda: ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES)
    )
    returns_credit: bool = True
    send_window: SendWindow = attrs.field(
        factory=lambda: SendWindow(INITIAL_CONNECTION_WINDOW_BYTES)
    )
    send_windows: dict[int, SendWindow] = attrs.field(factory=dict)
    sent_bytes: dict[int, int] = attrs.field(factory=dict)
    is_over: bool = False
    _sequences: dict[int, int] = attrs.field(factory=dict)
    _lock: trio.Lock = attrs.field(factory=trio.Lock)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    # --- receiving ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Take what comes, to the end."""
        while (event := await self._receive()) is not END_OF_STREAM:
            await self._take(event)
            self._changed.unpark_all()
        self.is_over = True
        self._changed.unpark_all()

    async def _receive(self) -> Message | Signal:
        try:
            return await self.wire_end.receive()
        except trio.ClosedResourceError:
            return END_OF_STREAM

    async def _take(self, event: Message | Signal) -> None:
        match event:
            case StreamStart() | StreamChunk() | StreamEnd() | KeepAlive():
                if isinstance(event, StreamChunk):
                    await self._received(len(event.data or b""))
                await self.streams[event.request_id].take(event, trio.current_time())
            case ExecuteResponse():
                self.answers.append(event)
            case CreditUpdate() if event.request_id:
                self.send_window.grant(event.connection_bytes)
                window = self.send_windows.get(event.request_id)
                if window is not None:
                    window.grant(event.credit_delta)
            case _:
                assert not isinstance(event, Signal)
                self.others.append(event)

    async def _received(self, data_bytes: int) -> None:
        self.window.received(data_bytes)
        if self.returns_credit:
            grant_bytes = self.window.consumed(data_bytes)
            if grant_bytes:
                await self.credit(CreditUpdate(connection_bytes=grant_bytes))

    async def credit_all(self) -> None:
        """Return what is owed of the connection's credit, half of the window or not."""
        owed_bytes, self.window = (
            INITIAL_CONNECTION_WINDOW_BYTES - self.window.left_bytes,
            ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES),
        )
        if owed_bytes:
            await self.credit(CreditUpdate(connection_bytes=owed_bytes))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that came makes `condition` true."""
        while not condition():
            assert not self.is_over, "the runtime ended the connection"
            await self._changed.park()

    async def over(self) -> None:
        """Wait until the runtime has ended the connection."""
        while not self.is_over:
            await self._changed.park()

    async def answer(self, request_id: int) -> ExecuteResponse:
        """The answer to a call that is no stream."""
        await self.until(lambda: any(a.request_id == request_id for a in self.answers))
        (found,) = [a for a in self.answers if a.request_id == request_id]
        return found

    # --- sending ------------------------------------------------------------------------------

    async def send(self, *messages: Message) -> None:
        """Send frames."""
        async with self._lock:
            await self.wire_end.send(*messages)

    async def credit(self, update: CreditUpdate) -> None:
        """Grant more, if there is still somebody to grant it to."""
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            await self.send(update)

    async def begin(
        self, request_id: int, payload: object, *, reads: bool = True, **fields: object
    ) -> Stream:
        """Begin a streamed HTTP call."""
        return await self.begin_with(http_stream(request_id, payload, **fields), reads=reads)

    async def begin_with(self, request: ExecuteRequest, *, reads: bool = True) -> Stream:
        """Begin a streamed call."""
        stream = Stream(request.request_id, self, reads)
        self.streams[request.request_id] = stream
        if request.body_follows:
            self.opens_upload(request.request_id)
        await self.send(request)
        return stream

    def opens_upload(self, request_id: int) -> None:
        """A body will follow that call."""
        self.send_windows[request_id] = SendWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._sequences[request_id] = 0
        self.sent_bytes[request_id] = 0

    async def chunk(self, request_id: int, data: bytes, *, last: bool = False) -> None:
        """Send one chunk of a body, in order, whatever the credit."""
        sequence = self._sequences.get(request_id, 0)
        self._sequences[request_id] = sequence + 1
        self.sent_bytes[request_id] = self.sent_bytes.get(request_id, 0) + len(data)
        await self.send(RequestChunk(request_id, sequence, data, last))

    async def upload(
        self, request_id: int, data: bytes, *, piece_bytes: int = 65_536, last: bool = True
    ) -> None:
        """Send a body, or a part of it, as the credit allows; stops when the call has ended."""
        rest = memoryview(data)
        window = self.send_windows[request_id]
        while rest:
            size = min(len(rest), piece_bytes, self.send_window.available_bytes)
            size = window.take(size)
            if size:
                self.send_window.take(size)
                piece, rest = rest[:size], rest[size:]
                await self.chunk(request_id, bytes(piece), last=last and not rest)
            elif self._has_ended(request_id):
                return
            else:
                await self._changed.park()
        if last and not data:
            await self.chunk(request_id, b"", last=True)

    def _has_ended(self, request_id: int) -> bool:
        stream = self.streams.get(request_id)
        if stream is not None:
            return self.is_over or stream.end is not None
        return self.is_over or any(a.request_id == request_id for a in self.answers)

    async def close(self) -> None:
        """Leave altogether."""
        await self.wire_end.close()


async def streaming(runtime: Running, *, end: CallerEnd | None = None) -> StreamCaller:
    """A caller on a connection of its own, receiving."""
    caller = StreamCaller(end or runtime.caller())
    runtime.start(caller.run)
    return caller
