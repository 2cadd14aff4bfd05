"""One connection to a runtime: one reader task, one writer task, a table of waiting calls.

Shape: a call never touches the socket. It leaves its message in `submit` and waits for the
entry it got back; only the writer encodes and sends, so a cancelled caller cannot cut a frame in
half (a cancelled send leaves bytes at the peer that nobody counts). Frames that are ready together
leave in one write. Whatever ends the connection ends it for every entry at once, each with the
disposition that its own frame had reached.

Everything here runs in one event loop; what is not `async` has no checkpoint and needs no lock.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import ByteStream

from vastar_client.errors import ConnectionClosed, ConnectorException
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Buffer,
    Cancel,
    Connection,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Role,
)

__all__ = ["Entry", "Session"]

_READ_BYTES: Final = 65_536
_BATCH_BYTES: Final = 65_536
"""Frames are gathered into one write up to about this size; a longer buffer goes out uncopied."""

_LAST_WORDS_S: Final = 1.0
"""How long the reader may go on after a failed write."""


class Entry:
    """A message on its way and the place where its answer is put."""

    __slots__ = ("answer", "done", "error", "message", "written")

    def __init__(self, message: ExecuteRequest | HealthCheck) -> None:
        self.message = message
        self.done = anyio.Event()
        self.answer: ExecuteResponse | HealthResponse | None = None
        self.error: ConnectorException | None = None
        self.written = False
        """Whether any of its bytes may have left."""

    @property
    def disposition(self) -> Disposition:
        """How far it got, as far as this end can know."""
        return Disposition.SENT_NO_RESPONSE if self.written else Disposition.NOT_SENT

    def finish(
        self,
        answer: ExecuteResponse | HealthResponse | None = None,
        error: ConnectorException | None = None,
    ) -> None:
        """Wake the caller with an answer or an error."""
        self.answer = answer
        self.error = error
        self.done.set()


class Session:
    """A connection from its first byte to its last.

    Args:
        stream: the connected byte stream; the session closes it.
        sends_cancel: whether the peer understands Cancel frames.
        on_late_answer: called when a withdrawn call's final frame arrives at last, or never can.
    """

    def __init__(
        self, stream: ByteStream, *, sends_cancel: bool, on_late_answer: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._connection = Connection(Role.CLIENT)
        self._sends_cancel = sends_cancel
        self._on_late_answer = on_late_answer
        self._pending: dict[int, Entry] = {}
        self._late: set[int] = set()
        self._health: deque[Entry] = deque()
        self._outgoing: deque[Entry | Cancel] = deque()
        self._wake = anyio.Event()
        self._complaint: str | None = None
        self._reason = "the client was closed"
        self.closed = False

    def submit(self, message: ExecuteRequest | HealthCheck) -> Entry:
        """Hand `message` to the writer; wait on the entry's `done`, then `withdraw` it."""
        assert not self.closed, "the link hands out open sessions only"
        entry = Entry(message)
        if isinstance(message, ExecuteRequest):
            self._pending[message.request_id] = entry
        else:
            self._health.append(entry)
        self._send_soon(entry)
        return entry

    def withdraw(self, entry: Entry) -> bool:
        """The caller of `entry` goes, with its answer or without one.

        Returns:
            Whether the runtime may still be busy with it: `on_late_answer` tells its end.
        """
        if not entry.written:
            with suppress(ValueError):  # refused, or the connection has ended
                self._outgoing.remove(entry)
                self._health.remove(entry)
        if not isinstance(entry.message, ExecuteRequest):
            return False  # once written, its place in the queue of health answers must stay
        request_id = entry.message.request_id
        if self._pending.pop(request_id, None) is None or not entry.written:
            return False
        self._late.add(request_id)
        if self._sends_cancel:
            self._send_soon(Cancel(request_id))
        return True

    def _send_soon(self, item: Entry | Cancel) -> None:
        self._outgoing.append(item)
        self._wake.set()

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
        for entry in (*self._pending.values(), *self._health):
            request_id = getattr(entry.message, "request_id", 0)
            entry.finish(
                error=ConnectionClosed(reason, None, request_id, disposition=entry.disposition)
            )
        self._pending.clear()
        self._health.clear()
        self._outgoing.clear()
        for _ in range(len(self._late)):
            self._on_late_answer()
        self._late.clear()

    async def _read_all(self) -> str:
        """Read and hand out until the connection ends; why it ended."""
        while True:
            try:
                data = await self._stream.receive(_READ_BYTES)
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
        if isinstance(event, ExecuteResponse):
            entry = self._pending.pop(event.request_id, None)
            if entry is not None:
                entry.finish(event)
            else:
                self._stray(event)
        elif isinstance(event, HealthResponse) and self._health:
            self._health.popleft().finish(event)
        # Anything else belongs to streams and credits, which this client does not ask for yet.

    def _stray(self, answer: ExecuteResponse) -> None:
        """An answer that no call waits for: a late one, or a complaint about no call at all."""
        if answer.request_id in self._late:
            self._late.discard(answer.request_id)
            self._on_late_answer()
        elif answer.request_id == 0 and answer.error_class is not ErrorClass.SUCCESS:
            self._complaint = answer.error_message
            if self._health:  # a runtime that knows no health checks answers like this
                error = ConnectorException(
                    f"the runtime does not answer health checks: {answer.error_message}",
                    answer.error_class,
                )
                self._health.popleft().finish(error=error)

    async def _write_all(self, session_scope: anyio.CancelScope) -> None:
        """Send what is submitted, until a write fails."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._outgoing:
                try:
                    for buffer in self._gather():
                        await self._stream.send(buffer)  # type: ignore[arg-type]  # bytes-like
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                    self._connection.send_failed()
                    # What the runtime sent before it closed may still be there to be read:
                    # answers, and its reason. The reader meets the end behind it.
                    self._reason = f"the connection to the runtime broke{_cause(error)}"
                    session_scope.deadline = anyio.current_time() + _LAST_WORDS_S
                    return

    def _gather(self) -> list[Buffer]:
        """The next frames, up to about `_BATCH_BYTES`, in as few buffers as need no big copy."""
        buffers: list[Buffer] = []
        small: list[Buffer] = []
        gathered_bytes = 0
        while self._outgoing and gathered_bytes < _BATCH_BYTES:
            for buffer in self._encode(self._outgoing.popleft()):
                gathered_bytes += len(buffer)
                if len(buffer) < _BATCH_BYTES:
                    small.append(buffer)
                    continue
                if small:
                    buffers.append(b"".join(small))
                    small = []
                buffers.append(buffer)
        if small:
            buffers.append(b"".join(small))
        return buffers

    def _encode(self, item: Entry | Cancel) -> list[Buffer]:
        """The frame of `item`; nothing when it cannot be written."""
        if not isinstance(item, Entry):
            return self._connection.send(item)
        message: Message = item.message
        try:
            buffers = self._connection.send(message)
        except LocalProtocolError as error:
            self._refuse(item, error)
            return []
        item.written = True
        return buffers

    def _refuse(self, entry: Entry, cause: LocalProtocolError) -> None:
        request_id = getattr(entry.message, "request_id", 0)
        self._pending.pop(request_id, None)
        error = ConnectorException(
            f"the request cannot be sent: {cause}",
            ErrorClass.INVALID_REQUEST,
            request_id,
            disposition=Disposition.NOT_SENT,
        )
        entry.finish(error=error)


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = getattr(cause, "strerror", None) or str(cause)
    return f": {text}" if text else ""
