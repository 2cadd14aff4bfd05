"""One streamed answer as its reader sees it: the head, data in order, the end; on one event loop.

Shape: `LiveStream` stands between an entry of the session and whoever reads: the async response
in its own task, the blocking one through jobs in the loop thread. It does the waiting, which the
entry does not: each wait is bounded by the deadline of the call, where it has one, and by silence,
since a runtime that lives says so every 15 s.

Whoever drops it without closing it has it closed: its finalizer, which may run in any thread and in
the middle of anything, only leaves word in the event loop.
"""

import warnings
from contextlib import suppress
from typing import Final

import anyio

from vastar_client._call_soon import call_soon_function
from vastar_client._entries import StreamEntry
from vastar_client._session import Session
from vastar_client.errors import CallTimeout, ConnectionClosed, ConnectorException
from vastar_client.wire import StreamEnd, StreamStart
from vastar_client.wire.limits import KEEP_ALIVE_INTERVAL_S

__all__ = ["GRACE_S", "SILENCE_S", "LiveStream"]

GRACE_S: Final = 1.0
"""How much longer than a limit the client waits: scheduling, on a busy machine."""

SILENCE_S: Final = 4 * KEEP_ALIVE_INTERVAL_S
"""A stream without any frame, not even a KeepAlive, for so long has a runtime that is stuck."""

_LINGER_S: Final = 0.25


class LiveStream:
    """A stream under way. It holds a slot of the connection until its final frame.

    Args:
        session: the connection that it is on.
        entry: its place there.
        ends_at: when to give up at the latest, by the loop's clock; `math.inf` for never.

    Attributes:
        label: says what is streamed, in a warning about a stream that was not closed; empty for
            one that its owner has not got yet.
        closed: whether it was closed; nothing more of it can be read then.
    """

    def __init__(self, session: Session, entry: StreamEntry, ends_at: float) -> None:
        self.label = ""
        self.closed = False
        self._session = session
        self._entry = entry
        self._ends_at = ends_at
        self._guard = anyio.ResourceGuard("reading")
        self._call_soon = call_soon_function()

    @property
    def request_id(self) -> int:
        """The id of the call."""
        return self._entry.request_id

    @property
    def end(self) -> StreamEnd | None:
        """The final frame, once it has come."""
        return self._entry.end

    async def head(self) -> StreamStart:
        """The head of the answer, as soon as it is there.

        Raises:
            ConnectorException: there will be none.
            Exception: what the caller's own body raised.
        """
        with self._guard:
            while self._entry.head is None:
                if self._entry.error is not None:
                    raise self._entry.error
                await self._news()
        return self._entry.head

    async def take(self) -> bytes:
        """The next data, as soon as there is any; `b""` at the end.

        Raises:
            ConnectorException: the answer is not whole; what came of it has been taken.
            Exception: what the caller's own body raised.
        """
        entry = self._entry
        if not await self._there_is_data():
            return b""
        data = entry.chunks.popleft()
        self._session.consumed(entry, len(data))
        return data

    async def take_all(self) -> list[bytes]:
        """All data that is there, as soon as there is any, else as `take`; none at the end."""
        entry = self._entry
        if not await self._there_is_data():
            return []
        parts = list(entry.chunks)
        entry.chunks.clear()
        self._session.consumed(entry, sum(map(len, parts)))
        return parts

    async def _there_is_data(self) -> bool:
        """Whether there is any, as soon as that is known."""
        entry = self._entry
        with self._guard:
            while not entry.chunks:
                if entry.error is not None:
                    raise entry.error
                if entry.end is not None:
                    return False
                await self._news()
        return True

    async def take_some(self, max_bytes: int, timeout_s: float) -> bytes:
        """What comes in `timeout_s`, up to about `max_bytes` of it, whatever ends it."""
        parts: list[bytes] = []
        left_bytes = max_bytes
        with anyio.move_on_after(timeout_s), suppress(ConnectorException):
            while left_bytes > 0 and (data := await self.take()):
                parts.append(data)
                left_bytes -= len(data)
        return b"".join(parts)[:max_bytes]

    async def linger(self) -> None:
        """Give the end a moment to come, where nothing else is wanted.

        A stream that is closed before its end costs its upstream connection, which a few
        milliseconds of patience may save.
        """
        with anyio.move_on_after(_LINGER_S), suppress(ConnectorException):
            while await self.take_all():
                pass

    async def _news(self) -> None:
        """Wait for the next frame of it that says something.

        Raises:
            CallTimeout: the deadline has passed, or the runtime was silent, for longer than the
                runtime would let it.
        """
        entry = self._entry
        patience_s = SILENCE_S
        while True:
            heard = entry.heard
            silent_at = anyio.current_time() + patience_s
            with anyio.CancelScope(deadline=min(self._ends_at, silent_at)):
                await entry.wait()
                return
            if self._ends_at <= silent_at:
                raise self._timeout("not even that the deadline has passed")
            if entry.heard != heard:
                patience_s = SILENCE_S
            elif patience_s == SILENCE_S:
                patience_s = GRACE_S  # this process may have been stopped, with frames unread
            else:
                raise self._timeout(f"for {SILENCE_S:g} s, not even that the stream is alive")

    def _timeout(self, what: str) -> CallTimeout:
        return CallTimeout(
            f"no word from the runtime, {what}: it may be stuck",
            None,
            self.request_id,
            disposition=self._entry.disposition,
        )

    @property
    def is_finished(self) -> bool:
        """Whether its end has come and everything before it was taken."""
        return self._entry.is_over and not self._entry.chunks

    def closed_error(self) -> ConnectionClosed:
        """What reading it raises, once it was closed."""
        return ConnectionClosed(
            "the stream was closed before its end: read it inside its `with` block",
            None,
            self.request_id,
            disposition=self._entry.disposition,
        )

    def close(self) -> None:
        """Leave it: what still comes is discarded, and whoever waits for it is told."""
        self.closed = True
        if not self.is_finished:
            self._entry.chunks.clear()
            self._entry.fail(self.closed_error())
        self._session.withdraw(self._entry)

    async def aclose(self) -> None:
        """As `close`; and wait until nobody reads from the caller's own body any more."""
        self.close()
        upload = self._entry.upload
        if upload is not None:
            await upload.ended.wait()

    def __del__(self) -> None:
        """Only leave word: this runs in any thread, in the middle of anything."""
        entry = getattr(self, "_entry", None)
        if entry is None or entry.is_over:
            return
        session = self._session
        if self._call_soon(lambda: session.withdraw(entry)) and self.label and not self.closed:
            warning = f"{self.label} was not closed: use `with`"
            warnings.warn(warning, ResourceWarning, stacklevel=1, source=self)
