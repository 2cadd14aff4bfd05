"""The threads that read bodies: a little ahead, and gone with the call."""

import contextvars
import io
import threading

import pytest
import sniffio
import trio
import trio.testing

from vastar_client._bodies import source_of


async def pieces_of(source):
    pieces = []
    while piece := await source.read():
        pieces.append(bytes(piece))
    return pieces


async def whole(body):
    source = source_of(body)
    try:
        return b"".join(await pieces_of(source))
    finally:
        await source.aclose()


async def test_a_thread_is_a_little_ahead_and_no_more():
    made = []

    def generator():
        for number in range(1000):
            made.append(number)
            yield bytes(1000)

    source = source_of(generator())
    first = await source.read()
    await blocked(source)
    assert len(made) * 1000 <= len(first) + 65_536 + 1000
    assert len(await source.read()) == 66_000, "what it had ready, at once"
    rest = await pieces_of(source)
    assert len(first) + 66_000 + sum(map(len, rest)) == 1_000_000
    await source.aclose()


async def blocked(source):
    """Wait until the thread of `source` waits for room."""
    while True:
        with source._changed:
            # One that was told of room, and has not yet woken, says that it waits too.
            if source._is_waiting and source._ready_bytes >= 65_536:
                return
        await trio.sleep(0.001)


async def test_a_piece_that_comes_alone_is_handed_on_at_once():
    go_on = threading.Semaphore(0)

    def generator():
        for number in range(3):
            yield b"%d" % number
            go_on.acquire(timeout=10)

    source = source_of(generator())
    for number in range(3):
        assert await source.read() == b"%d" % number
        go_on.release()
    assert await source.read() == b""


async def test_ten_thousand_small_pieces_take_few_trips():
    pieces = await pieces_of(source_of(b"x" * 10 for _ in range(10_000)))
    assert sum(map(len, pieces)) == 100_000
    assert len(pieces) < 1000


async def test_a_thread_that_waits_for_room_is_let_go():
    ended = threading.Event()

    def generator():
        try:
            while True:
                yield bytes(1000)
        finally:
            ended.set()

    source = source_of(generator())
    await source.read()
    await blocked(source)
    await source.aclose()
    assert ended.is_set(), "by whoever closes it"
    await trio.to_thread.run_sync(source._thread.join)


async def test_a_thread_that_does_not_return_is_abandoned_and_lets_go_itself():
    entered, release, ended = threading.Event(), threading.Event(), threading.Event()

    def generator():
        try:
            entered.set()
            release.wait(10)
            yield b"x"
            yield b"y"
        finally:
            ended.set()

    body = generator()
    source = source_of(body)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.read)
        await trio.to_thread.run_sync(entered.wait)
        nursery.cancel_scope.cancel()
    await source.aclose()
    assert not ended.is_set()
    release.set()
    await trio.to_thread.run_sync(source._thread.join)
    assert ended.is_set()
    with pytest.raises(ValueError, match="used up"):
        source_of(body)


async def test_a_file_is_put_back_though_a_block_of_it_is_being_read():
    entered, release = threading.Event(), threading.Event()

    class Slow(io.RawIOBase):
        """Can be read and sought; reading takes its time."""

        position = 0

        def seekable(self):
            return True

        def tell(self):
            return self.position

        def seek(self, offset, whence=0):
            self.position = 100 if whence == io.SEEK_END else offset
            return self.position

        def read(self, size=-1):
            entered.set()
            release.wait(0.1)
            self.position += 10
            return b"x" * 10

    file = Slow()
    source = source_of(file)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.read)
        await trio.to_thread.run_sync(entered.wait)
        nursery.cancel_scope.cancel()
    await source.aclose()
    await trio.to_thread.run_sync(source._thread.join)
    assert file.position == 0


async def test_what_a_thread_raises_comes_behind_what_it_brought():
    def generator():
        yield b"x"
        raise LookupError("no more")

    source = source_of(generator())
    assert await source.read() == b"x"
    for _ in range(2):
        with pytest.raises(LookupError, match="no more"):
            await source.read()
    await source.aclose()


async def test_a_thread_that_is_ended_is_no_end_of_the_body():
    def generator():
        yield b"x"
        raise SystemExit

    source = source_of(generator())
    assert await source.read() == b"x"
    with pytest.raises(RuntimeError, match="the thread that reads the body was ended") as caught:
        await source.read()
    assert isinstance(caught.value.__cause__, SystemExit)


async def test_the_thread_has_the_context_of_the_call():
    variable = contextvars.ContextVar("variable")
    variable.set("here")

    def generator():
        yield variable.get()
        yield str(sniffio.current_async_library_cvar.get())

    assert await whole(generator()) == b"hereNone"
