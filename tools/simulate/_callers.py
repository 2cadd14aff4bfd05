"""The callers: connections to the runtime on which calls are made, cancelled, and walked away from.

Each connection has a task that reads what comes and notes it; everything else a caller does is one
step of the simulation and happens in the driver's task.
"""

from collections.abc import Callable
from typing import Final

import attrs
import trio

from tools.simulate._event_log import EventLog
from tools.simulate._records import CallRecord, Records
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Cancel,
    Connection,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    Role,
)
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair

__all__ = ["Caller", "Callers"]

_CAPACITY_BYTES: Final = 4 * 1024 * 1024


@attrs.define(eq=False)
class Caller:
    """One connection.

    Attributes:
        number: counts connections.
        calls: under way, by request id.
        is_half: it has said that it will send no more.
        has_ended: the runtime ended it.
    """

    number: int
    channel: MemoryChannel
    wire: Connection
    calls: dict[int, CallRecord] = attrs.field(factory=dict)
    next_id: int = 1
    is_half: bool = False
    has_ended: bool = False

    async def send(self, message: ExecuteRequest | Cancel | HealthCheck) -> None:
        """Send one message whole."""
        await self.channel.send_buffers(self.wire.send(message))


class Callers:
    """All connections.

    Args:
        nursery: where their readers run.
        serve: starts the runtime's side of a connection.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        serve: Callable[[MemoryChannel], None],
        records: Records,
        log: EventLog,
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._records = records
        self._log = log
        self._count = 0
        self.open: list[Caller] = []
        self.surprises: list[str] = []

    def connect(self) -> Caller:
        """A new connection."""
        self._count += 1
        near, far = memory_channel_pair(_CAPACITY_BYTES)
        caller = Caller(
            self._count, near, Connection(Role.CLIENT, max_received_frame_bytes=1 << 26)
        )
        self._log.add("connect", connection=caller.number)
        self.open.append(caller)
        self._serve(far)
        self._nursery.start_soon(self._read, caller)
        return caller

    async def call(self, caller: Caller, call: CallRecord, request: ExecuteRequest) -> None:
        """Send a call."""
        self._records.call_begins(call)
        caller.calls[request.request_id] = call
        await caller.send(request)

    async def cancel(self, caller: Caller, call: CallRecord) -> None:
        """Take a call back."""
        self._log.add("cancel", call=call.number)
        if call.left_at_s is None:
            call.left_at_s = trio.current_time()
        await caller.send(Cancel(call.request_id))

    async def half_close(self, caller: Caller) -> None:
        """Say that nothing more will be sent; answers are still wanted."""
        self._log.add("half_close", connection=caller.number)
        caller.is_half = True
        await caller.channel.send_eof()

    def vanish(self, caller: Caller) -> None:
        """Close the connection, whatever is under way on it."""
        self._log.add("vanish", connection=caller.number)
        now_s = trio.current_time()
        for call in caller.calls.values():
            self._records.gone(call, now_s)
        caller.calls.clear()
        self.open.remove(caller)
        caller.channel.abort()

    async def _read(self, caller: Caller) -> None:
        while True:
            try:
                data = await caller.channel.receive_some()
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return
            caller.wire.receive_data(data)
            while (event := caller.wire.next_event()) is not NEED_DATA:
                if event is END_OF_STREAM:
                    self._ended(caller)
                    return
                self._heard(caller, event)

    def _heard(self, caller: Caller, event: object) -> None:
        if not isinstance(event, ExecuteResponse):
            self._log.add("heard", connection=caller.number, what=type(event).__name__)
            return
        call = caller.calls.pop(event.request_id, None)
        self._log.add(
            "answered",
            connection=caller.number,
            call=call.number if call else None,
            error_class=event.error_class.name,
            disposition=event.disposition.name,
            attempts=event.attempts,
            refused_by=event.refused_by,
            retry_after_ms=event.retry_after_ms or None,
            message=event.error_message,
        )
        if call is None:
            self.surprises.append(
                f"connection {caller.number} was answered request id {event.request_id}, which "
                f"was answered already or never asked: {event}"
            )
        else:
            self._records.answered(call, event, trio.current_time())

    def _ended(self, caller: Caller) -> None:
        """The runtime ended the connection: right only where the caller had half-closed it."""
        self._log.add("ended", connection=caller.number)
        caller.has_ended = True
        if not caller.is_half or caller.calls:
            self.surprises.append(
                f"the runtime ended connection {caller.number} with {len(caller.calls)} calls "
                "unanswered"
            )
        if caller in self.open:
            self.open.remove(caller)
        caller.channel.abort()
