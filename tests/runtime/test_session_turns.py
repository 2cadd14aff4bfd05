"""One caller that sends much at a time leaves turns to everybody else."""

import pytest
import trio
import trio.testing

from tests.support.sessions import Scripted, echo, limits, request
from vastar_client.wire import Connection, Role
from vastar_runtime.calls import Caller
from vastar_runtime.dispatch import Dispatcher
from vastar_runtime.metrics import Meters
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.session import Session

RECEIVED_BYTES = 65_536
CALLS = 130


class Ready:
    """A channel like a socket that always has more: it gives what it has without a wait."""

    def __init__(self, data: bytes) -> None:
        starts = range(0, len(data), RECEIVED_BYTES)
        self.pieces = [data[at : at + RECEIVED_BYTES] for at in starts]

    async def receive_some(self, max_bytes: int = RECEIVED_BYTES) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def send_buffers(self, buffers: object, *, stall_timeout_s: float | None = None) -> None:
        await trio.lowlevel.checkpoint()

    def try_send(self, buffers: object) -> None:
        """As a stream, which cannot be tried."""

    def is_readable(self) -> bool:
        return True

    async def wait_hangup(self) -> None:
        await trio.sleep_forever()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """There is nothing to close."""


class Steps(trio.abc.Instrument):
    """The most calls that began in one step of a task."""

    def __init__(self, state: RuntimeState) -> None:
        self.state, self.before, self.most = state, 0, 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.before = self.state.calls_accepted

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, self.state.calls_accepted - self.before)


def frame(number: int, frame_bytes: int) -> bytes:
    wire = Connection(Role.CLIENT)
    spare = len(b"".join(wire.send(request(number, payload=bytes(256))))) - 256
    made = b"".join(wire.send(request(number, payload=bytes(frame_bytes - spare))))
    assert len(made) == frame_bytes
    return made


@pytest.mark.parametrize("frame_bytes", [500, RECEIVED_BYTES - 1000, RECEIVED_BYTES])
async def test_few_calls_begin_before_others_have_their_turn(
    frame_bytes: int, autojump_clock: trio.testing.MockClock
) -> None:
    state = RuntimeState(trio.current_time())
    dispatcher = Dispatcher(
        pipeline=Pipeline({"test": Scripted(echo)}),
        meters=Meters(("test",)),
        wall_clock_ms=lambda: 0.0,
        default_timeout_s=30.0,
        stream_timeout_s=600.0,
        max_answer_bytes=1 << 20,
    )
    sent = b"".join(frame(number, frame_bytes) for number in range(1, CALLS + 1))
    session = Session(Ready(sent), Caller(1), dispatcher, limits(), state)
    steps = Steps(state)
    trio.lowlevel.add_instrument(steps)
    await session.run()
    trio.lowlevel.remove_instrument(steps)
    assert state.calls_accepted == CALLS
    assert steps.most <= 4
