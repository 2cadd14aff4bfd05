"""After each of 10,000 random and mutated frames the runtime serves the next good request.

On the same connection where the rules say that it goes on, on a new one where they say that it
closes or where the frame left the rest of the stream inside itself.
"""

from contextlib import suppress

import pytest
import trio

from tests.support.frame_noise import Rules, noise
from tests.support.http_calls import ORIGIN, json_of
from tests.support.running import Running, http_request, running
from tests.support.sessions import CallerEnd
from vastar_client.wire import ErrorClass, ExecuteResponse, Message, MessageType
from vastar_client.wire.codec import decode_message
from vastar_client.wire.framing import FrameDecoder
from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES

GOOD_IDS_FROM = 1 << 60
FRAMES_PER_CONNECTION = 60
"""So few calls of spoiled requests are under way that none is refused for want of room."""


class Tormented:
    """A caller that sends noise and good requests in turn."""

    def __init__(self, runtime: Running) -> None:
        self._runtime = runtime
        self._next_id = GOOD_IDS_FROM
        self.faults = 0
        self.closed = 0
        self._connect()

    def _connect(self) -> None:
        self._caller: CallerEnd = self._runtime.caller()
        self._rules = Rules()
        self._frames = FrameDecoder(MAX_ANSWER_FRAME_BYTES)
        self._sent = 0

    async def send(self, frame: bytes) -> None:
        """Send it, and see that a good request behind it is served."""
        await self._caller.send_bytes(frame)
        self._sent += 1
        if self._rules.goes_on_after(frame):
            await self._good_call()
            if self._sent < FRAMES_PER_CONNECTION:
                return
        else:
            self.closed += 1
            await self._runtime_closes()
        await self._caller.close()
        self._connect()
        await self._good_call()

    async def _good_call(self) -> None:
        self._next_id += 1
        message = http_request(self._next_id, {"url": f"{ORIGIN}/small"})
        await self._caller.send_bytes(b"".join(self._caller.wire.send(message)))
        while True:
            answer = await self._receive()
            assert answer is not None, "the connection was closed"
            if isinstance(answer, ExecuteResponse):
                if answer.request_id == self._next_id:
                    assert json_of(answer)["status_code"] == 200
                    return
                self._check(answer)

    async def _receive(self) -> Message | None:
        """The next message, whatever a caller's own rules say of it; None at the end."""
        while (frame := self._frames.next_frame()) is None:
            data = b""
            with suppress(trio.BrokenResourceError):
                data = await self._caller.stream.receive_some(65536)
            if not data:
                return None
            self._frames.receive_data(data)
        kind, flatbuffer = frame
        return decode_message(MessageType(kind), flatbuffer)

    async def _runtime_closes(self) -> None:
        """Once our half is over the runtime says what was wrong, if it was, and ends its own."""
        await self._caller.half_close()
        with trio.fail_after(100):
            while (answer := await self._receive()) is not None:
                if isinstance(answer, ExecuteResponse):
                    self._check(answer)

    def _check(self, answer: ExecuteResponse) -> None:
        assert answer.error_message != "internal error"
        if answer.error_class is ErrorClass.SUCCESS:
            assert answer.payload
        else:
            self.faults += 1
            assert answer.error_message
            assert answer.payload is None
            assert 1 <= answer.error_class <= 5


async def torment(seed: int, count: int) -> Tormented:
    async with running() as runtime:
        caller = Tormented(runtime)
        for frame in noise(seed, count):
            await caller.send(frame)
        await caller._caller.close()
    return caller


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_next_good_request_is_served(seed, autojump_clock):
    caller = await torment(seed, 250)
    assert caller.faults > 100
    assert caller.closed > 5


@pytest.mark.slow
@pytest.mark.cap_s(120)
@pytest.mark.parametrize("seed", range(100, 110))
async def test_the_next_good_request_is_served_10_000_times(seed, autojump_clock):
    caller = await torment(seed, 1000)
    assert caller.faults > 400
    assert caller.closed > 20
