"""Bodies that are made while they are sent: every kind of file and iterator, and sending twice."""

import bz2
import gzip
import io
import tempfile
import threading

import anyio
import pytest
import trio
import trio.testing

from vastar_client._bodies import BytesSource, source_of


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


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


async def test_a_file_is_read_in_blocks_and_its_length_is_known(file):
    with file.open("rb") as opened:
        source = source_of(opened)
        assert source.length_bytes == 1_048_576
        pieces = await pieces_of(source)
        assert b"".join(pieces) == file.read_bytes()
        assert max(map(len, pieces)) <= 262_144
        assert await source.read() == b"", "the end stays the end"


@pytest.mark.parametrize("buffering", [0, -1])
async def test_a_file_is_read_from_where_it_stands_and_put_back_there(file, buffering):
    """Else the second attempt of a retry would send nothing."""
    with file.open("rb", buffering) as opened:
        opened.seek(1_048_000)
        for _ in range(2):
            source = source_of(opened)
            assert source.length_bytes == 576
            assert len(b"".join(await pieces_of(source))) == 576
            await source.aclose()
            assert opened.tell() == 1_048_000


async def test_a_file_that_grows_is_sent_as_long_as_it_was(file):
    with file.open("rb") as opened:
        source = source_of(opened)
        with file.open("ab") as log:
            log.write(b"more")
        assert len(b"".join(await pieces_of(source))) == 1_048_576


async def test_a_file_that_is_closed_meanwhile_is_left_alone(file):
    with file.open("rb") as opened:
        source = source_of(opened)
    await source.aclose()
    with pytest.raises(ValueError, match="closed file"):
        source_of(opened)


@pytest.mark.parametrize("content", [b"", b"abc"])
async def test_files_in_memory(content):
    source = source_of(io.BytesIO(content))
    assert source.length_bytes == len(content)
    assert b"".join(await pieces_of(source)) == content


async def test_an_empty_file_has_a_length_and_one_that_only_seems_empty_has_none(tmp_path):
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as opened:
        source = source_of(opened)
        assert source.length_bytes == 0
        assert await pieces_of(source) == []

    class Proc(io.BytesIO):
        """As files in /proc are: of no length, and with something in them."""

        def seek(self, offset, whence=0):
            return 0 if whence == io.SEEK_END else super().seek(offset, whence)

    source = source_of(Proc(b"what is in it"))
    assert source.length_bytes is None
    assert b"".join(await pieces_of(source)) == b"what is in it"


async def test_text_travels_as_utf8(tmp_path):
    (tmp_path / "text").write_text("é\n" * 3, encoding="latin-1")
    with (tmp_path / "text").open(encoding="latin-1", newline="") as opened:
        source = source_of(opened)
        assert source.length_bytes is None, "characters are not bytes"
        assert b"".join(await pieces_of(source)) == ("é\n" * 3).encode()
        await source.aclose()
        assert opened.tell() == 0
    assert await whole(io.StringIO("ü")) == "ü".encode()


@pytest.mark.parametrize("module", [gzip, bz2])
@pytest.mark.parametrize("wrap", [lambda f: f, io.BufferedReader])
async def test_packed_files_are_not_unpacked_to_know_their_length(tmp_path, module, wrap):
    with module.open(tmp_path / "packed", "wb") as packing:
        packing.write(b"unpacked")
    with wrap(module.open(tmp_path / "packed")) as opened:
        for _ in range(2):
            source = source_of(opened)
            assert source.length_bytes is None
            assert b"".join(await pieces_of(source)) == b"unpacked"
            await source.aclose()


async def test_temporary_files():
    with tempfile.TemporaryFile() as opened, tempfile.SpooledTemporaryFile() as spooled:
        for one in (opened, spooled):
            one.write(b"abc")
            one.seek(1)
            source = source_of(one)
            assert source.length_bytes == 2
            assert await pieces_of(source) == [b"bc"]


async def test_what_can_only_be_read_has_no_length():
    class Reader:
        def __init__(self):
            self.left = [b"ab", b"c", b""]

        def read(self, size=-1):
            return self.left.pop(0)

    source = source_of(Reader())
    assert source.length_bytes is None
    assert b"".join(await pieces_of(source)) == b"abc"
    await source.aclose()


async def test_a_file_that_is_wrong_about_seeking():
    class Wrong(io.RawIOBase):
        def seekable(self):
            return True

        def read(self, size=-1):
            return b""

    source = source_of(Wrong())
    assert source.length_bytes is None
    await source.aclose()


async def test_what_is_there_of_a_pipe_is_sent_at_once():
    class Pipe:
        def read1(self, size=-1):
            return given.pop(0)

        def read(self, size=-1):
            raise AssertionError("it would wait for all of it")

    given = [b"first", b""]
    assert await pieces_of(source_of(Pipe())) == [b"first"]


async def test_async_files(file):
    async with await trio.open_file(file, "rb") as opened:
        assert await whole(opened) == file.read_bytes()
    async with await anyio.open_file(file, "rb") as opened:
        assert await whole(opened) == file.read_bytes()

    class Reader:
        """As asyncio's: it can be read, and be iterated over by lines."""

        def __init__(self):
            self.left = [b"a\nb", "é", b""]

        async def read(self, size=-1):
            return self.left.pop(0)

    assert await pieces_of(source_of(Reader())) == [b"a\nb", "é".encode()]


async def test_iterators_of_any_pieces_without_the_empty_ones():
    given = ["é", b"", bytearray(b"b"), "", memoryview(b"abcd")[1:3], memoryview(b"wide").cast("H")]
    wanted = ["é".encode(), b"b", b"bc", b"wide"]

    async def generator():
        for piece in given:
            yield piece

    class Iterable:
        def __iter__(self):
            return iter(given)

    for body in (iter(given), (piece for piece in given), Iterable(), generator()):
        assert await whole(body) == b"".join(wanted)
    assert await pieces_of(source_of(generator())) == wanted


async def test_a_buffer_that_its_maker_uses_again_is_copied():
    buffer = bytearray(b"one")

    async def generator():
        yield buffer
        buffer[:] = b"two"
        yield buffer

    source = source_of(generator())
    first = await source.read()
    assert (await source.read(), first) == (b"two", b"one")
    await source.aclose()


@pytest.mark.parametrize("piece", [5, None, ["x"], {}])
async def test_a_piece_that_is_none_is_named(piece):
    async def generator():
        yield piece

    for body in (iter([piece]), generator()):
        with pytest.raises(TypeError, match=r"a piece of the body is \w+: it must be bytes or str"):
            await whole(body)


async def test_blocking_iterators_run_in_threads():
    names = []

    def generator():
        names.append(threading.current_thread())
        yield b"x"

    assert await whole(generator()) == b"x"
    assert names != [threading.current_thread()]


async def test_a_generator_that_was_used_up_is_refused():
    """It would send an empty body."""

    def generator():
        yield b"x"

    async def async_generator():
        yield b"x"

    for make, kind in ((generator, "generator"), (async_generator, "async generator")):
        body = make()
        await whole(body)
        with pytest.raises(ValueError, match=f"the body is a {kind} that was used up"):
            source_of(body)


async def test_a_generator_that_was_left_halfway_cannot_go_on():
    """It would send the second half."""
    ended = []

    def generator():
        try:
            yield b"x"
            yield b"y"
        finally:
            ended.append("plain")

    async def async_generator():
        try:
            yield b"x"
            yield b"y"
        finally:
            ended.append("async")

    for make in (generator, async_generator):
        body = make()
        source = source_of(body)
        await source.read()
        await source.aclose()
        if make is generator:  # where its thread was in the middle of it, that has closed it
            await trio.to_thread.run_sync(source._thread.join)
        with pytest.raises(ValueError, match="used up"):
            source_of(body)
    assert ended == ["plain", "async"]


async def test_iterators_that_are_no_generators_are_left_as_they_are():
    class Pieces:
        def __init__(self):
            self.closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            return b"x"

        async def aclose(self):
            self.closed = True

    body = Pieces()
    source = source_of(body)
    await source.read()
    await source.aclose()
    assert not body.closed
    await source_of(iter([b""])).aclose()


async def test_bytes_are_one_piece():
    body = bytes(100)
    source = BytesSource(body)
    assert source.length_bytes == 100
    assert await source.read() is body
    assert await source.read() == b""
    await source.aclose()
