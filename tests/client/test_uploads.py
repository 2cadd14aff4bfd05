"""A body on its way: chunks within both windows, and a source that is left alone afterwards."""

import itertools

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from vastar_client._bodies import BytesSource, source_of
from vastar_client._uploads import MAX_CHUNK_BYTES, Upload
from vastar_client.wire.windows import SendWindow

WINDOW = 65_536

settle = trio.testing.wait_all_tasks_blocked


class Fed:
    """An upload that is being fed, and what its feeding said."""

    def __init__(self, source, nursery):
        self.upload = Upload(source)
        self.connection = SendWindow(1_048_576)
        self.offers = 0
        self.errors = []
        nursery.start_soon(self.upload.feed, self.offer, self.errors.append)

    def offer(self):
        self.offers += 1

    async def chunks(self):
        """All chunks that can be cut now."""
        found = []
        while True:
            await settle()
            if not self.upload.has_chunk:
                return found
            chunk = self.upload.next_chunk(7, self.connection)
            if chunk is None:
                return found
            found.append(chunk)


@pytest.fixture
async def feed(nursery):
    return lambda source: Fed(source, nursery)


async def pieces(*given):
    for piece in given:
        yield piece


def shown(chunks):
    return [(c.sequence, bytes(c.data), c.last) for c in chunks]


async def test_pieces_become_chunks_as_they_come_and_the_end_is_marked(feed, autojump_clock):
    send, receive = trio.open_memory_channel(0)
    fed = feed(source_of(receive))
    await send.send(b"one")
    assert shown(await fed.chunks()) == [(0, b"one", False)]
    await send.send(b"two")
    assert shown(await fed.chunks()) == [(1, b"two", False)]
    await send.aclose()
    (last,) = await fed.chunks()
    assert (last.request_id, last.sequence, last.data, last.last) == (7, 2, b"", True)
    assert fed.upload.ended.is_set()
    assert fed.errors == []
    assert fed.offers == 3


async def test_small_pieces_that_are_there_travel_together(feed, autojump_clock):
    given = [b"%d" % n for n in range(1000)]
    assert shown(await feed(source_of(pieces(*given))).chunks()) == [(0, b"".join(given), True)]


async def test_a_large_piece_is_not_copied(feed, autojump_clock):
    piece = bytes(100_000)
    fed = feed(BytesSource(piece))
    chunks = await fed.chunks()
    fed.upload.window.grant(100_000)
    chunks += await fed.chunks()
    assert [len(c.data) for c in chunks] == [WINDOW, 100_000 - WINDOW]
    assert all(c.data.obj is piece for c in chunks)


@given(
    st.lists(st.binary(max_size=8), max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_whatever_the_windows_are_it_is_the_same_body(given_pieces, grants):
    async def main():
        upload = Upload(BytesSource(b""))
        for piece in filter(None, given_pieces):
            upload._put(piece)
        upload._is_last = True
        upload.window.take(WINDOW)
        connection = SendWindow(0)
        chunks = []
        for grant in itertools.chain(grants, itertools.repeat(5)):
            while upload.has_chunk and (chunk := upload.next_chunk(7, connection)):
                chunks.append(chunk)
            if chunks and chunks[-1].last:
                break
            upload.window.grant(grant)
            connection.grant(6 - grant % 6)
        assert not upload.has_chunk
        assert b"".join(bytes(c.data) for c in chunks) == b"".join(given_pieces)
        assert [c.sequence for c in chunks] == list(range(len(chunks)))
        assert [c.last for c in chunks] == [False] * (len(chunks) - 1) + [True]

    trio.run(main)


async def test_an_empty_body_is_one_empty_chunk(feed, autojump_clock):
    assert shown(await feed(source_of(pieces())).chunks()) == [(0, b"", True)]


async def test_a_source_is_read_no_more_than_a_chunk_ahead(feed, autojump_clock):
    fetched = []

    async def body():
        for number in range(200):
            fetched.append(number)
            yield bytes(1000)

    fed = feed(source_of(body()))
    await settle()
    assert len(fetched) == 66
    fed.upload.window.grant(10 * WINDOW)
    assert sum(len(c.data) for c in await fed.chunks()) == 200_000


async def test_chunks_keep_to_the_window_of_the_stream(feed, autojump_clock):
    fed = feed(BytesSource(bytes(200_000)))
    first = await fed.chunks()
    assert [len(c.data) for c in first] == [WINDOW]
    assert not fed.upload.has_chunk
    fed.upload.window.grant(10)
    assert [len(c.data) for c in await fed.chunks()] == [10]
    fed.upload.window.grant(10 * WINDOW)
    rest = await fed.chunks()
    assert [len(c.data) for c in rest] == [MAX_CHUNK_BYTES, MAX_CHUNK_BYTES, 3382]
    assert [c.sequence for c in rest] == [2, 3, 4]
    assert [c.last for c in rest] == [False, False, True]


async def test_chunks_keep_to_the_window_of_the_connection(feed, autojump_clock):
    fed = feed(BytesSource(b"abcdef"))
    fed.connection = SendWindow(4)
    assert shown(await fed.chunks()) == [(0, b"abcd", False)]
    assert fed.upload.next_chunk(7, fed.connection) is None
    assert fed.upload.window.available_bytes == WINDOW - 4, "nothing is spent on what is not sent"
    fed.connection.grant(100)
    assert shown(await fed.chunks()) == [(1, b"ef", True)]


async def test_the_end_needs_no_credit(feed, autojump_clock):
    fed = feed(BytesSource(bytes(WINDOW)))
    fed.connection = SendWindow(WINDOW)
    fed.upload.window.take(WINDOW)
    fed.upload.window.grant(WINDOW)
    chunks = await fed.chunks()
    assert [(len(c.data), c.last) for c in chunks] == [(WINDOW, False), (0, True)]
    assert fed.connection.available_bytes == fed.upload.window.available_bytes == 0


async def test_a_body_that_is_stopped_sends_nothing_more(feed, autojump_clock):
    ended = []

    async def body():
        try:
            yield b"one"
            yield b"two"
        finally:
            ended.append(True)

    fed = feed(source_of(body()))
    await settle()
    assert fed.upload.has_chunk
    fed.upload.stop()
    fed.upload.stop()
    assert not fed.upload.has_chunk
    await fed.upload.ended.wait()
    assert ended == [True]
    assert fed.errors == []


async def test_a_source_that_waits_is_cancelled(feed, autojump_clock):
    cancelled = []

    async def body():
        try:
            await trio.sleep_forever()
            yield b"x"
        except trio.Cancelled:
            cancelled.append(True)
            raise

    fed = feed(source_of(body()))
    await settle()
    fed.upload.stop()
    await fed.upload.ended.wait()
    assert cancelled == [True]


async def test_one_that_is_stopped_before_it_began_reads_nothing(nursery, autojump_clock):
    upload = Upload(source_of(pieces(b"x")))
    upload.stop()
    await upload.feed(lambda: None, lambda _: None)
    assert upload.ended.is_set()
    assert not upload.has_chunk


async def test_what_a_source_raises_is_handed_on(feed, autojump_clock):
    async def body():
        yield b"one"
        raise LookupError("no more")

    source = source_of(body())
    fed = feed(source)
    assert shown(await fed.chunks()) == [(0, b"one", False)]
    assert [type(error) for error in fed.errors] == [LookupError]
    assert source.error is fed.errors[0]
    assert fed.upload.ended.is_set()


async def test_so_is_what_its_ending_raises(feed, autojump_clock):
    async def body():
        try:
            yield b"one"
            yield b"two"
        finally:
            raise LookupError

    fed = feed(source_of(body()))
    await settle()
    fed.upload.stop()
    await fed.upload.ended.wait()
    assert [type(error) for error in fed.errors] == [LookupError]
