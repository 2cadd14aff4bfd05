"""A body that comes in pieces: read once, and again while it is young."""

import itertools

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http_bodies import ScriptedBody
from vastar_runtime.transport import REPLAY_BYTES, BodyAborted, Buffer, StreamedBody


async def rest_of(body: StreamedBody) -> bytes:
    received = b""
    while piece := await body.read_some():
        received += piece
    return received


async def test_pieces_are_handed_on_as_they_come() -> None:
    pieces = [b"ab", bytearray(b"cd"), memoryview(b"ef"), b""]
    waiting = iter(pieces)

    async def receive() -> Buffer:
        return next(waiting)

    body = StreamedBody(receive, 6)
    assert (body.length_bytes, body.consumed_bytes) == (6, 0)
    for piece, consumed in zip(pieces, (2, 4, 6, 6), strict=True):
        assert await body.read_some() is piece
        assert body.consumed_bytes == consumed
    assert await body.read_some() == b"", "the maker is not asked again"


@given(
    st.lists(st.sampled_from([1, 7, 30_000, REPLAY_BYTES, REPLAY_BYTES + 1]), max_size=5),
    st.lists(st.integers(0, 6), max_size=5),
)
def test_it_begins_again_as_long_as_all_of_it_is_kept(sizes: list[int], reads: list[int]) -> None:
    """So many reads, then a rewind, and again; at last all of it."""
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]

    async def check() -> None:
        body = ScriptedBody(pieces)
        came = itertools.accumulate(sizes, initial=0)
        read = b""
        for count in reads:
            for _ in range(count):
                read += await body.read_some()
            assert body.consumed_bytes == len(read)
            can = body.made_bytes <= REPLAY_BYTES
            assert body.rewind() is can
            if can:
                assert body.consumed_bytes == 0
                read = b""
        assert read + await rest_of(body) == b"".join(pieces)
        assert body.made_bytes in came
        assert body.consumed_bytes == sum(sizes)

    trio.run(check)


async def test_at_the_bound_it_can_and_a_byte_later_it_cannot() -> None:
    body = ScriptedBody([bytes(REPLAY_BYTES), b"x"])
    await body.read_some()
    assert body.rewind()
    assert len(await body.read_some()) == REPLAY_BYTES
    assert await body.read_some() == b"x"
    assert not body.rewind()
    assert body.consumed_bytes == REPLAY_BYTES + 1, "unchanged"
    assert await body.read_some() == b""


async def test_a_cancelled_read_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    body = ScriptedBody([b"ab", 2.0, b"cd"])
    assert await body.read_some() == b"ab"
    with trio.move_on_after(1):
        await body.read_some()
    assert body.consumed_bytes == 2
    assert await rest_of(body) == b"cd"


async def test_who_gave_up_stays_so_behind_what_came_before() -> None:
    body = ScriptedBody([b"ab", BodyAborted("the caller left")])
    for _ in range(2):
        assert await body.read_some() == b"ab"
        for _ in range(2):
            with pytest.raises(BodyAborted, match="the caller left"):
                await body.read_some()
        assert body.rewind()
