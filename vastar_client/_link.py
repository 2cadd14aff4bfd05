"""The connection of a client over its whole life: dialled, lost, dialled again; and one exchange.

Shape: one task keeps the connection; exchanges wait in a `Session` and never touch the socket.
After a loss the task dials again, with full jitter, as long as an exchange waits for it: an idle
program whose runtime is down costs nothing.

Time. A call carries its deadline as an absolute time, and the runtime answers in time: that answer
says how far the call got. The client's own timer runs `GRACE_S` longer, so that it only speaks when
the runtime is stuck. Waiting for a connection is bounded by the deadline itself.

A call holds a slot from its start until its final frame, so at most 256 are in flight: the runtime
refuses more. A cancelled call leaves at once, but its slot stays taken until the runtime has
answered the Cancel, which is when the runtime's own count goes down.
"""

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

import anyio
from anyio.abc import ByteStream

from vastar_client._session import Session
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

__all__ = ["GRACE_S", "Dial", "Link"]

GRACE_S: Final = 1.0
"""How much longer than the deadline the client waits: scheduling, on a busy machine."""

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
        tasks = await self._exit.enter_async_context(anyio.create_task_group())
        self._exit.callback(tasks.cancel_scope.cancel)
        self._is_open = True
        tasks.start_soon(self._keep_connected, stream)

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
                on_late_answer=self._slots.release,
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

    async def exchange(
        self, message: ExecuteRequest | HealthCheck, timeout_s: float
    ) -> ExecuteResponse | HealthResponse:
        """The answer to `message`, whatever it says.

        Raises:
            RuntimeUnavailable: no connection within `timeout_s`.
            CallTimeout: no answer within `timeout_s` and the grace.
            ConnectionClosed: the connection ended first.
        """
        if not self._is_open:
            raise _closed()
        entry = None
        holds_slot = False
        with anyio.move_on_after(timeout_s) as scope:
            try:
                if isinstance(message, ExecuteRequest):
                    await self._slots.acquire()
                    holds_slot = True
                session = await self._connected()
                entry = session.submit(message)
                scope.deadline += GRACE_S
                await entry.done.wait()
            finally:
                still_busy = entry is not None and session.withdraw(entry)
                if holds_slot and not still_busy:
                    self._slots.release()
        if entry is None:
            raise self._never_began(message, timeout_s)
        if entry.error is not None:
            raise entry.error
        if entry.answer is not None:
            return entry.answer
        raise CallTimeout(
            f"no answer from the runtime within {timeout_s + GRACE_S:g} s, not even that the "
            "deadline has passed: it may be stuck",
            None,
            _id_of(message),
            disposition=entry.disposition,
        )

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


def _closed() -> ConnectionClosed:
    return ConnectionClosed(
        "the client is closed: make calls inside its `with` block", disposition=Disposition.NOT_SENT
    )


def _id_of(message: ExecuteRequest | HealthCheck) -> int:
    return message.request_id if isinstance(message, ExecuteRequest) else 0
