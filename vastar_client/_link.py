"""The connection of a client over its whole life: dialled, lost, dialled again; how a call begins.

Shape: one task keeps the connection; calls wait in a `Session` and never touch the socket.
After a loss the task dials again, with full jitter, as long as a call waits for it: an idle
program whose runtime is down costs nothing. A body that is sent in pieces is fed by a task beside.

Time. A call carries its deadline as an absolute time, and the runtime answers in time: that answer
says how far the call got. The client's own timer runs `GRACE_S` longer, so that it only speaks when
the runtime is stuck. Waiting for a connection is bounded by the deadline itself.

A call holds a slot from its start until its final frame, so at most 256 are in flight: the runtime
refuses more. A cancelled call leaves at once, but its slot stays taken until the runtime has
answered the Cancel, which is when the runtime's own count goes down. From its submission on it is
the session that gives the slot back.
"""

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

import anyio
from anyio.abc import ByteStream

from vastar_client._bodies import Source
from vastar_client._entries import UnaryEntry
from vastar_client._outgoing import AnyEntry
from vastar_client._session import Session
from vastar_client._streams import GRACE_S, LiveStream
from vastar_client._uploads import Upload
from vastar_client.errors import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    RuntimeUnavailable,
    VastarError,
)
from vastar_client.wire import (
    Disposition,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
)
from vastar_client.wire.limits import MAX_IN_FLIGHT_REQUESTS

__all__ = ["Dial", "Link", "stuck"]

_BACKOFF_BASE_S: Final = 0.05
_BACKOFF_CAP_S: Final = 2.0
_MAX_DOUBLINGS: Final = 16

Dial: TypeAlias = Callable[[], Awaitable[ByteStream]]


class Link:
    """The way to one runtime.

    Args:
        dial: opens a byte stream, or raises RuntimeUnavailable.
        sends_cancel: whether the runtime understands Cancel frames.
    """

    def __init__(self, dial: Dial, *, sends_cancel: bool) -> None:
        self._dial = dial
        self._sends_cancel = sends_cancel
        self._session: Session | None = None
        self._exit = AsyncExitStack()
        self._is_open = False
        self._waiting = 0
        self._last_error: Exception | None = None

    async def open(self) -> None:
        """Connect, and keep connected until `close`, which the same task must call.

        Raises:
            RuntimeUnavailable: the first attempt failed.
        """
        stream = await self._dial()
        self._slots = anyio.Semaphore(MAX_IN_FLIGHT_REQUESTS, fast_acquire=True)
        self._wanted = anyio.Event()
        self._changed = anyio.Event()
        self._tasks = await self._exit.enter_async_context(anyio.create_task_group())
        self._exit.callback(self._tasks.cancel_scope.cancel)
        self._is_open = True
        self._tasks.start_soon(self._keep_connected, stream)

    async def close(self) -> None:
        """Fail what is in flight and close the connection."""
        self._is_open = False
        self._announce()
        await self._exit.aclose()

    async def _keep_connected(self, stream: ByteStream) -> None:
        """Serve one connection after the other."""
        while True:
            session = Session(
                stream,
                sends_cancel=self._sends_cancel,
                on_call_over=self._slots.release,
            )
            self._session = session
            self._announce()
            try:
                await session.run()
            finally:
                self._session = None
            stream = await self._dial_again()

    async def _dial_again(self) -> ByteStream:
        """A new stream, as soon as a call wants one and the runtime is there."""
        failures = 0
        while True:
            while not self._waiting:
                failures = 0
                self._wanted = anyio.Event()
                await self._wanted.wait()
            try:
                return await self._dial()
            except (VastarError, OSError, ValueError) as error:
                self._last_error = error
            ceiling_s = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2.0**failures)
            failures = min(failures + 1, _MAX_DOUBLINGS)
            await anyio.sleep(random.random() * ceiling_s)  # noqa: S311  # jitter is no secret

    def _announce(self) -> None:
        """Wake whoever waits for a connection."""
        self._changed.set()
        self._changed = anyio.Event()

    async def _connected(self) -> Session:
        """The connection, as soon as there is one."""
        while self._is_open:
            if self._session is not None and not self._session.closed:
                return self._session
            self._waiting += 1
            self._wanted.set()
            try:
                await self._changed.wait()
            finally:
                self._waiting -= 1
        raise _closed()

    async def _place(self) -> Session:
        """A connection, and one of its slots."""
        await self._slots.acquire()
        try:
            return await self._connected()
        except BaseException:
            self._slots.release()
            raise

    def _feed(self, session: Session, entry: AnyEntry) -> None:
        """Have the body of `entry` sent, where it is not in the message."""
        upload = entry.upload
        if upload is not None:
            self._tasks.start_soon(upload.feed, lambda: session.offer(entry), entry.fail)

    def begin(self, entry: UnaryEntry) -> Session | None:
        """Line `entry`, a call, up on the connection, where that takes no waiting.

        Returns:
            The connection, whose `push` sends it; None where there is none, or no slot.
        """
        session = self._session
        if session is None or session.closed or not self._is_open:
            return None
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            return None
        session.line_up(entry)
        return session

    async def exchange(
        self,
        message: ExecuteRequest | HealthCheck,
        timeout_s: float,
        source: Source | None = None,
    ) -> ExecuteResponse | HealthResponse:
        """The answer to `message`, whatever it says.

        Args:
            message: what is asked.
            timeout_s: until its deadline.
            source: brings the body of a message with `body_follows`.

        Raises:
            RuntimeUnavailable: no connection within `timeout_s`.
            CallTimeout: no answer within `timeout_s` and the grace.
            ConnectionClosed: the connection ended first.
            Exception: what `source` raised.
        """
        if not self._is_open:
            raise _closed()
        entry = None
        with anyio.move_on_after(timeout_s) as scope:
            is_call = isinstance(message, ExecuteRequest)
            session = await (self._place() if is_call else self._connected())
            entry = session.submit(message, Upload(source) if source is not None else None)
            scope.deadline += GRACE_S
            try:
                self._feed(session, entry)
                await entry.done.wait()
            finally:
                session.withdraw(entry)
        if entry is None:
            raise self._never_began(message, timeout_s)
        if entry.upload is not None:
            await entry.upload.ended.wait()
        if entry.error is not None:
            raise entry.error
        if entry.answer is not None:
            return entry.answer
        raise stuck(entry, timeout_s)

    async def open_stream(
        self,
        message: ExecuteRequest,
        timeout_s: float | None,
        source: Source | None = None,
        *,
        patience_s: float,
    ) -> LiveStream:
        """A call with `stream`, submitted. Its head is still to come; whoever gets it closes it.

        Args:
            message: what is asked.
            timeout_s: until its deadline, which bounds all of it; None where it has none.
            source: brings the body of a message with `body_follows`.
            patience_s: how long to wait for a connection, where there is no deadline.

        Raises:
            RuntimeUnavailable: no connection in time.
            CallTimeout: no slot in time.
        """
        if not self._is_open:
            raise _closed()
        ends_at = math.inf if timeout_s is None else anyio.current_time() + timeout_s + GRACE_S
        wait_s = patience_s if timeout_s is None else timeout_s
        with anyio.move_on_after(wait_s):
            session = await self._place()
            entry = session.submit_stream(message, Upload(source) if source is not None else None)
            self._feed(session, entry)
            return LiveStream(session, entry, ends_at)
        raise self._never_began(message, wait_s)

    def _never_began(
        self, message: ExecuteRequest | HealthCheck, timeout_s: float
    ) -> ConnectorException:
        """Why a call's time ran out before it was handed to a connection."""
        if self._session is not None:
            return CallTimeout(
                f"{MAX_IN_FLIGHT_REQUESTS} calls were in flight for {timeout_s:g} s, so this one "
                "never began",
                None,
                _id_of(message),
                disposition=Disposition.NOT_SENT,
            )
        last = self._last_error
        why = (
            last.message if isinstance(last, ConnectorException) else str(last or "none was tried")
        )
        return RuntimeUnavailable(
            f"no connection to the runtime within {timeout_s:g} s; the last attempt: {why}",
            None,
            _id_of(message),
            disposition=Disposition.NOT_SENT,
        )


def stuck(entry: UnaryEntry, timeout_s: float) -> CallTimeout:
    """The error for a call that the runtime has not answered within `timeout_s` and the grace."""
    return CallTimeout(
        f"no answer from the runtime within {timeout_s + GRACE_S:g} s, not even that the "
        "deadline has passed: it may be stuck",
        None,
        entry.request_id,
        disposition=entry.disposition,
    )


def _closed() -> ConnectionClosed:
    return ConnectionClosed(
        "the client is closed: make calls inside its `with` block", disposition=Disposition.NOT_SENT
    )


def _id_of(message: ExecuteRequest | HealthCheck) -> int:
    return message.request_id if isinstance(message, ExecuteRequest) else 0
