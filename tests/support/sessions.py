"""A session of the runtime with a caller at its other end, joined in memory.

The connectors are scripted, the clock is Trio's (a test that uses `autojump_clock` gets virtual
time), and the wall clock starts at `WALL_START_MS` and runs with Trio's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import trio
import trio.testing

from vastar_client.wire import (
    NEED_DATA,
    Connection,
    ExecuteRequest,
    ExecuteResponse,
    Message,
    Role,
    Signal,
)
from vastar_runtime.calls import Call, Caller
from vastar_runtime.dispatch import Dispatcher
from vastar_runtime.identity import Guest, Visa
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Outcome, Reply
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.session import Session, SessionLimits
from vastar_runtime.transport import StreamChannel

WALL_START_MS = 1_800_000_000_000

Script = Callable[[Call], Awaitable[Outcome]]


def limits(
    *,
    max_in_flight: int = 256,
    max_request_frame_bytes: int = 1 << 20,
    max_answer_frame_bytes: int = 1 << 20,
    unfinished_frame_timeout_s: float = 30.0,
    stalled_caller_timeout_s: float = 30.0,
    max_queued_answer_bytes: int = 32 << 20,
) -> SessionLimits:
    return SessionLimits(
        max_in_flight=max_in_flight,
        max_request_frame_bytes=max_request_frame_bytes,
        max_answer_frame_bytes=max_answer_frame_bytes,
        unfinished_frame_timeout_s=unfinished_frame_timeout_s,
        stalled_caller_timeout_s=stalled_caller_timeout_s,
        max_queued_answer_bytes=max_queued_answer_bytes,
    )


class Scripted:
    """A connector that does what a function says."""

    def __init__(self, script: Script, *, can_stream: bool = True) -> None:
        self._script = script
        self.can_stream = can_stream

    async def execute(self, call: Call) -> Outcome:
        return await self._script(call)


async def echo(call: Call) -> Outcome:
    """Answer the operation's name; an operation that is a number is first slept through."""
    operation = call.request.operation
    if operation.replace(".", "").isdigit():
        await trio.sleep(float(operation))
    else:
        await trio.lowlevel.checkpoint()
    return Reply(operation.encode())


class CallerEnd:
    """What a client does, one step at a time."""

    def __init__(self, stream: trio.abc.Stream, hangup: trio.Event) -> None:
        self.stream = stream
        self.wire = Connection(Role.CLIENT, max_received_frame_bytes=64 << 20)
        self._hangup = hangup

    async def send(self, *messages: Message) -> None:
        for message in messages:
            await self.send_bytes(b"".join(self.wire.send(message)))

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def call(self, request_id: int, operation: str = "echo", **fields: object) -> None:
        await self.send(request(request_id, operation, **fields))

    async def receive(self) -> Message | Signal:
        """The next message, or END_OF_STREAM."""
        while (event := self.wire.next_event()) is NEED_DATA:
            data = b""
            with suppress(trio.BrokenResourceError):
                data = await self.stream.receive_some(65536)
            self.wire.receive_data(data)
        return event

    async def receive_many(self, count: int) -> list[Message | Signal]:
        return [await self.receive() for _ in range(count)]

    async def half_close(self) -> None:
        await self.stream.send_stream.aclose()  # type: ignore[attr-defined]

    async def close(self) -> None:
        await self.stream.aclose()
        self._hangup.set()


def answer(message: Message | Signal) -> ExecuteResponse:
    """`message`, which must be the answer to a call."""
    assert isinstance(message, ExecuteResponse), message
    return message


def request(request_id: int, operation: str = "echo", **fields: object) -> ExecuteRequest:
    return ExecuteRequest(
        request_id=request_id,
        **{"tenant_id": "acme", "connector_name": "test", "operation": operation, **fields},  # type: ignore[arg-type]
    )


@asynccontextmanager
async def session_with(
    connectors: Mapping[str, Script] | None = None,
    session_limits: SessionLimits | None = None,
    *,
    streams: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = (
        trio.testing.memory_stream_pair
    ),
    state: RuntimeState | None = None,
    default_timeout_s: float = 30.0,
    visa: Visa | None = None,
    guest: Guest | None = None,
) -> AsyncIterator[tuple[CallerEnd, RuntimeState]]:
    """A running session; leaving the block closes the caller's end and waits for it to end.

    A connector named `unary` does not stream.
    """
    started_at_s = trio.current_time()
    state = state or RuntimeState(started_at_s)
    scripts = connectors or {"test": echo}
    session_limits = session_limits or limits()
    dispatcher = Dispatcher(
        pipeline=Pipeline(
            {name: Scripted(script, can_stream=name != "unary") for name, script in scripts.items()}
        ),
        meters=Meters(("test",)),
        wall_clock_ms=lambda: WALL_START_MS + (trio.current_time() - started_at_s) * 1000,
        default_timeout_s=default_timeout_s,
        stream_timeout_s=600.0,
        max_answer_bytes=session_limits.max_answer_frame_bytes,
    )
    ours, theirs = streams()
    hangup = trio.Event()
    session = Session(
        StreamChannel(ours, hangup=hangup),
        Caller(1),
        dispatcher,
        session_limits,
        state,
        visa,
        guest,
    )
    caller = CallerEnd(theirs, hangup)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        try:
            yield caller, state
        finally:
            with trio.CancelScope(shield=True):
                await caller.close()
    assert state.calls_in_flight == 0
    assert state.connections == 0
