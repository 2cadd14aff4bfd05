"""The answer of one call in pieces: cut by credit, in order, and cancelled anywhere."""

import pytest
import trio
import trio.testing

from tests.support.http_cancel import cancelled_at
from vastar_client.wire import (
    Message,
    RemoteProtocolError,
    StreamChunk,
    StreamStart,
)
from vastar_client.wire.limits import MAX_WINDOW_BYTES
from vastar_runtime.streams import MAX_CHUNK_BYTES, AnswerStream, ConnectionCredit

WINDOW = 65_536
SHARED = 1_048_576


class Frames:
    """What was sent, and a gate that stands for a caller that does not read."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gate: trio.Event | None = None

    async def put(self, message: Message) -> None:
        while self.gate is not None:
            await self.gate.wait()
        self.sent.append(message)

    def shut(self) -> None:
        self.gate = trio.Event()

    def open(self) -> None:
        gate, self.gate = self.gate, None
        assert gate is not None
        gate.set()

    @property
    def chunks(self) -> list[bytes]:
        return [bytes(m.data or b"") for m in self.sent if isinstance(m, StreamChunk)]

    def check(self) -> bytes:
        """The data, whose chunks are in order and no longer than a chunk may be."""
        numbers = [m.sequence for m in self.sent if isinstance(m, StreamChunk)]
        assert numbers == list(range(len(numbers)))
        assert all(0 < len(data) <= MAX_CHUNK_BYTES for data in self.chunks)
        return b"".join(self.chunks)


def stream(frames: Frames, shared: ConnectionCredit | None = None, request_id: int = 1):
    return AnswerStream(request_id, shared or ConnectionCredit(), frames.put)


# --- answers ------------------------------------------------------------------------------------


async def test_a_head_and_data_in_order(autojump_clock):
    frames = Frames()
    answer = stream(frames)
    assert (answer.has_started, answer.total_bytes) == (False, 0)
    await trio.sleep(3)
    await answer.start(200, [("a", "b")], is_sse=True)
    assert (answer.has_started, answer.last_sent_at_s) == (True, 3)
    await trio.sleep(4)
    await answer.send(b"one")
    await answer.send(memoryview(b"two"))
    await answer.send(b"")
    assert frames.sent == [
        StreamStart(1, 200, [("a", "b")], True),
        StreamChunk(1, 0, b"one"),
        StreamChunk(1, 1, b"two"),
    ]
    assert (answer.total_bytes, answer.last_sent_at_s) == (6, 7)


async def test_only_what_is_granted_is_sent_and_all_of_that(autojump_clock):
    frames, data = Frames(), bytes(range(256)) * 1024
    answer = stream(frames)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer.send, data)
        await trio.testing.wait_all_tasks_blocked()
        assert frames.chunks == [data[:WINDOW]]
        for grant in (1, 10, 100_000):
            answer.grant(grant)
            await trio.testing.wait_all_tasks_blocked()
        assert frames.check() == data[: WINDOW + 100_011]
        assert answer.total_bytes == WINDOW + 100_011
        answer.grant(1_000_000)
    assert frames.check() == data


async def test_credit_that_came_early_is_not_forgotten(autojump_clock):
    frames = Frames()
    answer = stream(frames)
    answer.grant(WINDOW)
    await answer.send(bytes(2 * WINDOW))
    assert sum(map(len, frames.chunks)) == 2 * WINDOW


async def test_what_the_connection_may_send_is_shared(autojump_clock):
    frames, shared = Frames(), ConnectionCredit()
    streams = [stream(frames, shared, number) for number in range(1, 21)]
    async with trio.open_nursery() as nursery:
        for answer in streams:
            answer.grant(WINDOW)
            nursery.start_soon(answer.send, bytes(2 * WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(map(len, frames.chunks)) == SHARED
        assert shared.window.available_bytes == 0
        shared.grant(7)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(map(len, frames.chunks)) == SHARED + 7
        shared.grant(40 * WINDOW)
    assert sum(map(len, frames.chunks)) == 40 * WINDOW
    assert [answer.total_bytes for answer in streams] == [2 * WINDOW] * 20


async def test_one_without_credit_of_its_own_takes_none_from_the_others(autojump_clock):
    frames, shared = Frames(), ConnectionCredit()
    stalled, other = stream(frames, shared, 1), stream(frames, shared, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stalled.send, bytes(SHARED))
        await trio.testing.wait_all_tasks_blocked()
        assert shared.window.available_bytes == SHARED - WINDOW
        for _ in range(15):
            await other.send(bytes(WINDOW))
            other.grant(WINDOW)
        assert shared.window.available_bytes == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("gone", ["stream", "connection", "room"])
async def test_a_stream_that_is_cancelled_takes_no_credit_with_it(gone, autojump_clock):
    """Wherever it waited: what was not put is not on its way."""
    frames, shared = Frames(), ConnectionCredit()
    answer = stream(frames, shared)
    if gone == "connection":
        shared.window.take(SHARED - 100)
    elif gone == "room":
        frames.shut()
    before = shared.window.available_bytes
    with trio.move_on_after(1) as scope:
        await answer.send(bytes(2 * WINDOW))
    assert scope.cancelled_caught
    sent = sum(map(len, frames.chunks))
    assert sent == {"stream": WINDOW, "connection": 100, "room": 0}[gone]
    assert shared.window.available_bytes == before - sent
    assert answer.total_bytes == sent


async def test_credit_beyond_all_bounds_is_the_callers_fault():
    answer, shared = stream(Frames()), ConnectionCredit()
    answer.grant(MAX_WINDOW_BYTES - WINDOW)
    shared.grant(MAX_WINDOW_BYTES - SHARED)
    for grant in (answer.grant, shared.grant):
        with pytest.raises(RemoteProtocolError) as refused:
            grant(1)
        assert refused.value.closes


async def test_cancelled_at_any_step_it_agrees_with_what_was_sent(autojump_clock):
    """Both windows, the count and the frames, whichever await it was."""
    for step in range(1, 100):
        frames, shared = Frames(), ConnectionCredit()
        answer = stream(frames, shared)

        async def grants(answer: AnswerStream = answer, frames: Frames = frames) -> None:
            for number in range(6):
                await trio.sleep(1)
                if number % 2:
                    frames.shut()
                answer.grant(WINDOW // 2)
                await trio.sleep(1)
                if number % 2:
                    frames.open()

        async def send(answer: AnswerStream = answer) -> None:
            await answer.start(200, [], is_sse=False)
            await answer.send(bytes(4 * WINDOW))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(grants)
            was_cancelled = await cancelled_at(step, send())
            nursery.cancel_scope.cancel()
        sent = len(frames.check())
        assert answer.total_bytes == sent
        assert shared.window.available_bytes == SHARED - sent
        if not was_cancelled:
            assert step > 5
            return
    pytest.fail("it never ran to its end")
