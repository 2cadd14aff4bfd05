"""The streams of one call: cut by credit, in order, cancelled anywhere, bounded in memory."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http_cancel import cancelled_at
from vastar_client.wire import (
    CreditUpdate,
    Message,
    RemoteProtocolError,
    RequestChunk,
    StreamChunk,
    StreamStart,
)
from vastar_client.wire.limits import MAX_WINDOW_BYTES
from vastar_runtime.streams import AnswerStream, ConnectionCredit, Upload
from vastar_runtime.transport import BodyAborted

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
        assert all(0 < len(data) <= WINDOW for data in self.chunks)
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
    assert [len(data) for data in frames.chunks] == [WINDOW, WINDOW]


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


# --- bodies of requests -------------------------------------------------------------------------


class Body:
    """An upload, and the credit that it granted."""

    def __init__(self) -> None:
        self.grants: list[CreditUpdate] = []
        self.upload = Upload(9, self.grants.append)
        self._sequence = 0

    def put(self, data: bytes, *, last: bool = False) -> None:
        self.upload.put(RequestChunk(9, self._sequence, data, last))
        self._sequence += 1

    @property
    def granted_bytes(self) -> int:
        assert all(grant.request_id == 9 for grant in self.grants)
        return sum(grant.credit_delta for grant in self.grants)

    async def read(self) -> bytes:
        pieces = []
        while piece := await self.upload.receive():
            pieces.append(bytes(piece))
        return b"".join(pieces)


async def test_what_came_is_what_is_received():
    body = Body()
    body.put(b"a" * 5000)
    body.put(b"b")
    body.put(b"c", last=True)
    assert (body.upload.received_bytes, body.upload.has_ended) == (5002, True)
    assert await body.read() == b"a" * 5000 + b"bc"
    assert await body.upload.receive() == b""
    assert body.upload.fault is None


async def test_receiving_waits_for_what_comes(autojump_clock):
    body = Body()

    async def send() -> None:
        for _ in range(3):
            await trio.sleep(1)
            body.put(b"x")
        await trio.sleep(1)
        body.put(b"", last=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for at_s in (1, 2, 3):
            assert bytes(await body.upload.receive()) == b"x"
            assert trio.current_time() == at_s
        assert await body.upload.receive() == b""
        assert trio.current_time() == 4


async def test_credit_comes_back_for_what_was_consumed_at_half_of_the_window():
    body = Body()
    for _ in range(16):
        body.put(bytes(4096))
    assert body.grants == []
    granted = []
    for _ in range(16):
        await body.upload.receive()
        granted.append(body.granted_bytes)
    assert granted == [0] * 7 + [WINDOW // 2] * 8 + [WINDOW]


async def test_a_body_that_has_ended_is_granted_nothing_more():
    body = Body()
    body.put(bytes(WINDOW), last=True)
    assert len(await body.upload.receive()) == WINDOW
    assert body.grants == []


async def test_data_beyond_the_window_costs_the_connection():
    body = Body()
    body.put(bytes(WINDOW))
    body.put(b"")
    with pytest.raises(RemoteProtocolError, match="1 bytes of stream data came where 0 were") as e:
        body.put(b"x")
    assert e.value.closes


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([(1, False)], "chunk 1 of the request body came where 0 was due"),
        ([(0, False), (0, False)], "chunk 0 of the request body came where 1 was due"),
        ([(0, False), (2, True)], "chunk 2 of the request body came where 1 was due"),
        ([(0, True), (1, False)], "a chunk of the request body came behind the last one"),
        ([(0, True), (0, True)], "a chunk of the request body came behind the last one"),
    ],
)
async def test_a_body_out_of_order_is_given_up(chunks, why):
    body = Body()
    for sequence, last in chunks:
        body.upload.put(RequestChunk(9, sequence, b"x", last))
    assert body.upload.fault == why
    with pytest.raises(BodyAborted, match=why):
        await body.read()
    body.upload.put(RequestChunk(9, 7, b"later"))
    body.upload.abort("something else")
    with pytest.raises(BodyAborted, match=why):
        await body.upload.receive()


async def test_who_waits_is_told_that_it_is_given_up(autojump_clock):
    body = Body()
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await trio.sleep(2)
            body.upload.abort("gone")

        nursery.start_soon(give_up)
        with pytest.raises(BodyAborted, match="gone"):
            await body.upload.receive()
        assert trio.current_time() == 2


def bytes_held(upload: Upload) -> int:
    """By what the pieces are views of, which stays in memory with them."""
    owners = {
        id(owner): len(owner)
        for piece in upload._pieces
        for owner in [piece.obj if isinstance(piece, memoryview) else piece]
    }
    return sum(owners.values())


def frames_of(size: int, received_bytes: int) -> Iterator[memoryview]:
    """Data of `size`, each received together with other things."""
    while True:
        yield memoryview(bytes(received_bytes))[100 : 100 + size]


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 10_000, 32_768])
async def test_what_is_held_is_about_what_came_whatever_it_came_with(size, autojump_clock):
    """A receive of 64 KiB may hold one chunk, and frames that are nobody's."""
    body = Body()
    received = frames_of(size, 65_536)
    for _ in range(WINDOW // size):
        body.put(next(received))  # type: ignore[arg-type]
    assert bytes_held(body.upload) <= 2 * WINDOW
    assert len(body.upload._pieces) <= 1 + WINDOW // 4096


async def test_cancelling_a_receive_loses_nothing(autojump_clock):
    for step in range(1, 20):
        body = Body()
        got: list[bytes] = []

        async def read(body: Body = body, got: list[bytes] = got) -> None:
            while piece := await body.upload.receive():
                got.append(bytes(piece))

        async def send(body: Body = body) -> None:
            for number in range(4):
                await trio.sleep(1)
                body.put(bytes([number]) * 5000, last=number == 3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            was_cancelled = await cancelled_at(step, read())
        await read()
        assert b"".join(got) == b"".join(bytes([number]) * 5000 for number in range(4))
        if not was_cancelled:
            assert step > 4
            return
    pytest.fail("it never ran to its end")


async def test_patience_begins_anew_with_each_piece_and_not_while_the_caller_is_waited_for(
    autojump_clock,
):
    body = Body()
    ended: list[float] = []

    async def take() -> None:
        with trio.move_on_after(10) as patience:
            body.upload.restarts(patience, 10)
            while await body.upload.receive():  # noqa: ASYNC110 - it is slow, and no poll
                await trio.sleep(9)
            await trio.sleep(11)
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        for _ in range(3):
            await trio.sleep(100)
            body.put(b"x")
        await trio.sleep(100)
        body.put(b"", last=True)
        await trio.sleep(50)
    assert ended == [410]


@given(st.lists(st.integers(1, 9000), max_size=60), st.data())
def test_any_body_in_any_chunks_is_the_same_and_both_ends_agree(sizes, data):
    """However reads and chunks follow each other, the caller's credit covers all that it sends."""
    body = Body()
    sent, got = bytearray(), bytearray()
    left = WINDOW

    async def run() -> None:
        nonlocal left
        for number, size in enumerate(sizes):
            while left < size or data.draw(st.booleans()):
                if not body.upload._pieces:
                    break
                before = body.granted_bytes
                got.extend(await body.upload.receive())
                left += body.granted_bytes - before
            assert left >= size, "the credit of what was consumed came back"
            left -= size
            piece = bytes([number % 256]) * size
            sent.extend(piece)
            body.put(piece)
        body.put(b"", last=True)
        got.extend(await body.read())

    trio.run(run)
    assert got == sent
    assert body.upload.received_bytes == len(sent)
