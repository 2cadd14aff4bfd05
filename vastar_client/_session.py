"""One connection to a runtime: one reader task, one writer task, a table of calls under way.

Shape: a call never touches the socket. It leaves its message in `submit` and waits for the
entry it got back; only the writer encodes and sends, so a cancelled caller cannot cut a frame in
half (a cancelled send leaves bytes at the peer that nobody counts). Frames that are ready together
leave in one write. Calls of threads come many at once and are written by `push`, which sends what
the socket takes and leaves the rest to the writer: a step of the writer's task is saved for each
batch. The two never write at the same time. Whatever ends the connection ends it for every entry at
once, each with the disposition that its own frame had reached.

The reader never waits for a caller: a stream holds at most one window of data, and a caller that
does not read it gets no more, while the others go on. Credit of the connection is given back as
data arrives, that of a stream as its caller takes it (`consumed`).

Everything here runs in one event loop; what is not `async` has no checkpoint and needs no lock.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import ByteStream

from vastar_client._entries import Entry, StreamEntry, UnaryEntry
from vastar_client._outgoing import AnyEntry, Outgoing
from vastar_client._uploads import Upload
from vastar_client.errors import ConnectorException
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Buffer,
    Cancel,
    Connection,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
    KeepAlive,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.limits import INITIAL_CONNECTION_WINDOW_BYTES
from vastar_client.wire.windows import ReceiveWindow

__all__ = ["Session"]

_READ_BYTES: Final = 65_536
_READ_MANY_BYTES: Final = 262_144
"""Asked for where so much comes that the smaller size was filled. A long body takes a third less
CPU in larger reads; a small answer would take 14 us more, for the buffer alone (measured)."""

_LAST_WORDS_S: Final = 1.0
"""How long the reader may go on after a failed write."""


_C = TypeVar("_C", Entry, UnaryEntry, StreamEntry)


class Session:
    """A connection from its first byte to its last.

    Args:
        stream: the connected byte stream; the session closes it.
        sends_cancel: whether the peer understands Cancel frames.
        on_call_over: called once for each ExecuteRequest that was submitted: when its final frame
            has come or never can, or when it was withdrawn before any of it was sent.
    """

    def __init__(
        self, stream: ByteStream, *, sends_cancel: bool, on_call_over: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._connection = Connection(Role.CLIENT)
        self._sends_cancel = sends_cancel
        self._on_call_over = on_call_over
        self._pending: dict[int, AnyEntry] = {}
        self._late: set[int] = set()
        self._health: deque[UnaryEntry] = deque()
        self._outgoing = Outgoing(self._connection, self._refuse)
        self._try_send: Callable[[Buffer], int] | None = getattr(stream, "try_send", None)
        self._is_writing = False
        self._unsent: list[Buffer] = []
        self._window = ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._complaint: str | None = None
        self._reason = "the client was closed"
        self.closed = False

    def submit(self, message: ExecuteRequest | HealthCheck, upload: Upload | None = None) -> Entry:
        """Hand `message` to the writer; wait on the entry's `done`, then `withdraw` it."""
        return self._submit(Entry(message, upload))

    def submit_stream(self, message: ExecuteRequest, upload: Upload | None = None) -> StreamEntry:
        """As `submit`, for a call with `stream`: `wait` on the entry, then `withdraw` it."""
        return self._submit(StreamEntry(message, upload))

    def _submit(self, entry: _C) -> _C:
        self._note(entry)
        self._outgoing.put(entry)
        return entry

    def line_up(self, entry: UnaryEntry) -> None:
        """As `submit`, for an entry that was made; it is sent by the next `push`."""
        self._note(entry)
        self._outgoing.line_up(entry)

    def _note(self, entry: AnyEntry) -> None:
        """Expect the answer to `entry`."""
        assert not self.closed, "the link hands out open sessions only"
        if entry.request_id:
            self._pending[entry.request_id] = entry
        else:
            assert isinstance(entry, UnaryEntry), "only a health check has no id"
            self._health.append(entry)

    def push(self) -> None:
        """Send what is lined up, as far as that takes no waiting; the writer sends the rest."""
        if self._try_send is None or self._is_writing or self._unsent:
            self._outgoing.wake()
            return
        while buffers := self._outgoing.gather():
            for index, buffer in enumerate(buffers):
                try:
                    sent_bytes = self._try_send(buffer)
                except OSError:
                    sent_bytes = 0  # the writer meets it again, and knows what to do
                if sent_bytes < len(buffer):
                    self._unsent = [memoryview(buffer)[sent_bytes:], *buffers[index + 1 :]]
                    self._outgoing.wake()
                    return

    def withdraw(self, entry: AnyEntry) -> None:
        """The caller of `entry` goes, with its answer or without one."""
        if entry.upload is not None:
            entry.upload.stop()
        if not entry.written:
            self._outgoing.remove(entry)
            # Once written, a health check keeps its place in the queue of answers.
            if isinstance(entry, UnaryEntry) and entry in self._health:
                self._health.remove(entry)
        if self._pending.pop(entry.request_id, None) is None:
            return
        if not entry.written:
            self._on_call_over()
            return
        self._late.add(entry.request_id)
        if self._sends_cancel:
            self._outgoing.put_first(Cancel(entry.request_id))

    def consumed(self, entry: StreamEntry, data_bytes: int) -> None:
        """The caller of `entry` has taken so much of its data: the runtime may send more."""
        grant_bytes = entry.window.consumed(data_bytes)
        if grant_bytes and not entry.is_over and not self.closed:
            self._outgoing.put_first(CreditUpdate(grant_bytes, request_id=entry.request_id))

    def offer(self, entry: AnyEntry) -> None:
        """There may be a chunk of the body of `entry` to send."""
        self._outgoing.offer(entry)

    async def run(self) -> None:
        """Serve the connection until it ends; then fail what still waits, and close the stream."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write_all, tasks.cancel_scope)
                self._reason = await self._read_all()
                tasks.cancel_scope.cancel()
        finally:
            self._end()
            await anyio.aclose_forcefully(self._stream)

    def _end(self) -> None:
        """Nothing will arrive any more: tell every entry."""
        self.closed = True
        reason = self._reason
        if self._complaint:
            reason += f"; it had said: {self._complaint}"
        over = len(self._pending) + len(self._late)
        for entry in (*self._pending.values(), *self._health):
            if entry.upload is not None:
                entry.upload.stop()
            entry.lose(reason)
        for table in (self._pending, self._late, self._health, self._outgoing):
            table.clear()
        for _ in range(over):
            self._on_call_over()

    async def _read_all(self) -> str:
        """Read and hand out until the connection ends; why it ended."""
        data = b""
        while True:
            try:
                many = len(data) >= _READ_BYTES // 2
                data = await self._stream.receive(_READ_MANY_BYTES if many else _READ_BYTES)
            except anyio.EndOfStream:
                data = b""
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                return f"the connection to the runtime broke{_cause(error)}"
            try:
                self._connection.receive_data(data)
                while (event := self._connection.next_event()) is not NEED_DATA:
                    if event is END_OF_STREAM:
                        return "the runtime closed the connection"
                    self._hand_out(event)
            except RemoteProtocolError as error:
                return f"the runtime broke the protocol, so its connection was closed: {error}"

    def _hand_out(self, event: object) -> None:
        """Give a frame to whom it belongs.

        Raises:
            RemoteProtocolError: it belongs to nobody, or is out of order.
        """
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _on_answer(self, answer: ExecuteResponse) -> None:
        entry = self._pending.get(answer.request_id)
        if entry is None:
            self._stray(answer)
        else:
            entry.finish(answer)
            self._free(entry)

    def _free(self, entry: AnyEntry) -> None:
        """The final frame of `entry` came."""
        self._pending.pop(entry.request_id, None)
        if entry.upload is not None:
            entry.upload.stop()
        self._on_call_over()

    def _stray(self, answer: ExecuteResponse) -> None:
        """An answer that no call waits for: a late one, or a complaint about no call at all."""
        if self._is_late(answer.request_id, is_final=True):
            return
        if answer.request_id == 0 and answer.error_class is not ErrorClass.SUCCESS:
            self._complaint = answer.error_message
            if self._health:  # a runtime that knows no health checks answers like this
                error = ConnectorException(
                    f"the runtime does not answer health checks: {answer.error_message}",
                    answer.error_class,
                )
                self._health.popleft().fail(error)

    def _is_late(self, request_id: int, *, is_final: bool = False) -> bool:
        """Whether a frame belongs to a call that its caller has left."""
        if request_id not in self._late:
            return False
        if is_final:
            self._late.remove(request_id)
            self._on_call_over()
        return True

    def _on_health(self, answer: HealthResponse) -> None:
        if self._health:
            self._health.popleft().finish(answer)

    def _stream_of(self, frame: StreamStart | StreamChunk | StreamEnd) -> StreamEntry | None:
        """The stream that `frame` belongs to; None when its caller has left it.

        Raises:
            RemoteProtocolError: there is no such stream.
        """
        request_id = frame.request_id
        entry = self._pending.get(request_id)
        if isinstance(entry, StreamEntry):
            entry.heard += 1
            return entry
        if entry is None and self._is_late(request_id, is_final=isinstance(frame, StreamEnd)):
            return None
        what = "that has ended, or never was one" if entry is None else "which is no stream"
        raise RemoteProtocolError(
            f"a {type(frame).__name__} came for request {request_id}, {what}",
            request_id=request_id,
            closes=True,
        )

    def _on_start(self, start: StreamStart) -> None:
        entry = self._stream_of(start)
        if entry is not None:
            entry.start(start)

    def _on_chunk(self, chunk: StreamChunk) -> None:
        data_bytes = len(chunk.data) if chunk.data else 0
        self._window.received(data_bytes)
        grant_bytes = self._window.consumed(data_bytes)
        if grant_bytes:
            self._outgoing.put_first(CreditUpdate(connection_bytes=grant_bytes))
        entry = self._stream_of(chunk)
        if entry is not None:
            entry.take_chunk(chunk)

    def _on_end(self, end: StreamEnd) -> None:
        entry = self._stream_of(end)
        if entry is not None:
            entry.finish(end)
            self._free(entry)

    def _on_keep_alive(self, frame: KeepAlive) -> None:
        entry = self._pending.get(frame.request_id)
        if isinstance(entry, StreamEntry):
            entry.heard += 1

    def _on_credit(self, credit: CreditUpdate) -> None:
        """More of bodies may be sent. Requests are counted by the link, whatever is granted."""
        if credit.connection_bytes:
            self._outgoing.grant(credit.connection_bytes)
        entry = self._pending.get(credit.request_id)
        if entry is not None and entry.upload is not None:
            entry.upload.window.grant(credit.credit_delta)
            self._outgoing.offer(entry)

    def _on_goaway(self, goaway: Goaway) -> None:
        self._complaint = f"it is leaving: {goaway.reason}" if goaway.reason else "it is leaving"

    async def _write_all(self, session_scope: anyio.CancelScope) -> None:
        """Send what is submitted, until a write fails."""
        while True:
            await self._outgoing.wait()
            self._is_writing = True  # until all is sent; a writer that ends leaves it so
            while buffers := self._unsent or self._outgoing.gather():
                self._unsent = []
                try:
                    for buffer in buffers:
                        await self._stream.send(buffer)  # type: ignore[arg-type]  # bytes-like
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                    self._connection.send_failed()
                    # What the runtime sent before it closed may still be there to be read:
                    # answers, and its reason. The reader meets the end behind it.
                    self._reason = f"the connection to the runtime broke{_cause(error)}"
                    session_scope.deadline = anyio.current_time() + _LAST_WORDS_S
                    return
            self._is_writing = False

    def _refuse(self, entry: AnyEntry, cause: LocalProtocolError) -> None:
        entry.fail(
            ConnectorException(
                f"the request cannot be sent: {cause}",
                ErrorClass.INVALID_REQUEST,
                entry.request_id,
                disposition=Disposition.NOT_SENT,
            )
        )
        self._free(entry)


_HANDLERS: Final[dict[type, Callable[[Session, Any], None]]] = {
    ExecuteResponse: Session._on_answer,  # noqa: SLF001 - the class itself is the one who asks
    StreamChunk: Session._on_chunk,  # noqa: SLF001
    StreamStart: Session._on_start,  # noqa: SLF001
    StreamEnd: Session._on_end,  # noqa: SLF001
    HealthResponse: Session._on_health,  # noqa: SLF001
    KeepAlive: Session._on_keep_alive,  # noqa: SLF001
    CreditUpdate: Session._on_credit,  # noqa: SLF001
    Goaway: Session._on_goaway,  # noqa: SLF001
}
"""All that a runtime may send."""


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = getattr(cause, "strerror", None) or str(cause)
    return f": {text}" if text else ""
