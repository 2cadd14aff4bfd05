"""The body of one request in pieces: in order, bounded, granted as consumed, given up for good."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http_cancel import cancelled_at
from vastar_client.wire import CreditUpdate, RemoteProtocolError, RequestChunk
from vastar_runtime.streams import Upload
from vastar_runtime.transport import BodyAborted

WINDOW = 65_536


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
