"""TLS as a channel: two directions that do not need each other, and ends of all kinds."""

import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http_tls import Authority
from vastar_runtime.transport.channel import ChannelStream, StreamChannel
from vastar_runtime.transport.errors import ChannelStalled
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair
from vastar_runtime.transport.messages import Buffer
from vastar_runtime.transport.tls_channel import TlsChannel


@attrs.define
class Pair:
    """A channel, Trio's own server at its other end, and the ends of the pipe below them."""

    ours: TlsChannel
    theirs: trio.SSLStream[ChannelStream]
    our_pipe: MemoryChannel
    their_pipe: MemoryChannel


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority.make(tmp_path_factory.mktemp("tls"))
    client = ssl.create_default_context(cafile=authority.ca_file)
    return client, authority.server("secure.test")


async def join(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], capacity_bytes: int = 65536
) -> Pair:
    one, other = memory_channel_pair(capacity_bytes)
    ours = TlsChannel(one, contexts[0], "secure.test")
    theirs = trio.SSLStream(
        ChannelStream(other), contexts[1], server_side=True, https_compatible=True
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.do_handshake)
        await ours.handshake()
    return Pair(ours, theirs, one, other)


@pytest.fixture
async def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Pair]:
    made = await join(contexts)
    yield made
    made.our_pipe.abort()
    made.their_pipe.abort()


@given(
    there=st.lists(st.sampled_from([0, 1, 20_000, 150_000]), max_size=4),
    back=st.lists(st.sampled_from([1, 16_384, 100_000]), max_size=4),
    limits=st.tuples(
        st.sampled_from([1000, 65536]),  # of the pipe
        st.sampled_from([7, 1000, 65536]),  # of one receive from it
        st.sampled_from([100, 16_384, 65536]),  # of one receive from TLS
    ),
)
@settings(max_examples=30, deadline=None)
def test_whatever_is_sent_arrives_in_both_directions_at_once(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    there: Sequence[int],
    back: Sequence[int],
    limits: tuple[int, int, int],
) -> None:
    arrived = b""
    to_send = [bytes([65 + number]) * size for number, size in enumerate(there)]
    to_answer = [bytes([97 + number]) * size for number, size in enumerate(back)]

    async def receive(pair: Pair) -> None:
        nonlocal arrived
        while len(arrived) < sum(there):
            arrived += await pair.theirs.receive_some()

    async def answer(pair: Pair) -> None:
        for piece in to_answer:
            await pair.theirs.send_all(piece)

    async def check() -> None:
        pair = await join(contexts, limits[0])
        pair.our_pipe.receive_limit_bytes = limits[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, pair)
            nursery.start_soon(answer, pair)
            nursery.start_soon(pair.ours.send_buffers, to_send)
            received = b""
            while len(received) < sum(back):
                piece = await pair.ours.receive_some(limits[2])
                assert 0 < len(piece) <= limits[2]
                received += piece
            assert received == b"".join(to_answer)
        assert arrived == b"".join(to_send)

    trio.run(check)


async def test_several_records_are_read_at_once(pair: Pair) -> None:
    for piece in (b"a", b"b" * 100, b"c"):
        await pair.theirs.send_all(piece)
    assert await pair.ours.receive_some() == b"a" + b"b" * 100 + b"c"
    assert not pair.ours.is_readable()


async def test_small_buffers_leave_together(pair: Pair) -> None:
    buffers: list[Buffer] = [b"ab", bytearray(b"cd"), memoryview(b"ef"), b""]
    await pair.ours.send_buffers(buffers)
    assert await pair.theirs.receive_some() == b"abcdef"


async def test_what_waits_can_be_seen(pair: Pair) -> None:
    assert not pair.ours.is_readable()
    await pair.theirs.send_all(b"abc")
    assert pair.ours.is_readable()
    assert await pair.ours.receive_some(1) == b"a"
    assert pair.ours.is_readable(), "opened, and not yet taken"
    assert await pair.ours.receive_some() == b"bc"
    assert not pair.ours.is_readable()
    pair.their_pipe.abort()
    assert pair.ours.is_readable()


async def test_it_cannot_be_tried_or_half_closed(pair: Pair) -> None:
    assert pair.ours.try_send([b"x"]) is None
    await pair.ours.send_eof()
    await pair.ours.send_buffers([b"still"])
    assert await pair.theirs.receive_some() == b"still"


async def test_a_send_that_was_cut_off_leaves_reading_as_it_was(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(1):
        await pair.ours.send_buffers([bytes(1_000_000)])
    for _ in range(3):
        await pair.theirs.send_all(b"no!")
        assert await pair.ours.receive_some() == b"no!"
    with pytest.raises(trio.BrokenResourceError, match="cut off"):
        await pair.ours.send_buffers([b"more"])


async def test_a_peer_that_takes_no_byte_is_a_stall(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(ChannelStalled, match="for 5 s"):
        await pair.ours.send_buffers([bytes(1_000_000)], stall_timeout_s=5)
    assert trio.current_time() == 5
    await pair.theirs.send_all(b"no!")
    assert await pair.ours.receive_some() == b"no!"


async def test_a_peer_that_reads_no_more_can_still_be_heard(pair: Pair) -> None:
    await pair.theirs.send_all(b"no!")
    pair.their_pipe.abort()
    with pytest.raises(trio.BrokenResourceError):
        await pair.ours.send_buffers([b"more"])
    assert await pair.ours.receive_some() == b"no!"
    for _ in range(3):
        assert await pair.ours.receive_some() == b""


@pytest.mark.parametrize("is_polite", [True, False])
async def test_the_end_stays_the_end_with_a_goodbye_and_without(
    pair: Pair, *, is_polite: bool
) -> None:
    await pair.theirs.send_all(b"last")
    if is_polite:
        ended = pair.theirs._ssl_object
        with pytest.raises(ssl.SSLWantReadError):
            ended.unwrap()
        await pair.their_pipe.send_buffers([pair.theirs._outgoing.read()])
    else:
        await pair.their_pipe.send_eof()
    assert await pair.ours.receive_some() == b"last"
    for _ in range(3):
        assert await pair.ours.receive_some() == b"", "though the pipe may still be open"


async def test_nothing_is_sent_behind_an_end_without_a_goodbye(pair: Pair) -> None:
    """OpenSSL takes it for a fault of the whole connection."""
    await pair.their_pipe.send_eof()
    assert await pair.ours.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError) as caught:
        await pair.ours.send_buffers([b"more"])
    assert isinstance(caught.value.__cause__, ssl.SSLEOFError)


@pytest.mark.parametrize("before", [b"", b"good"])
async def test_what_is_no_tls_record_is_told_behind_what_came_and_to_the_peer(
    pair: Pair, before: bytes
) -> None:
    if before:
        await pair.theirs.send_all(before)
    await pair.their_pipe.send_buffers([b"\x17\x03\x03\x00\x20" + bytes(32)])
    if before:
        assert await pair.ours.receive_some() == before
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await pair.ours.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
    with pytest.raises(trio.BrokenResourceError) as told:
        await pair.theirs.receive_some()
    assert "ALERT_BAD_RECORD_MAC" in str(told.value.__cause__)


@pytest.mark.parametrize("how", ["no room", "peer left", "own send under way"])
async def test_words_of_its_own_never_wait_and_never_fail(
    pair: Pair, autojump_clock: trio.testing.MockClock, how: str
) -> None:
    """Here an alert. There is no room for it, nobody to hear it, or half a record before it."""
    await pair.their_pipe.send_buffers([b"\x17\x03\x03\x00\x20" + bytes(32)])
    if how == "no room":
        while not pair.our_pipe.try_send([bytes(1000)]):
            pass
    elif how == "peer left":
        pair.their_pipe.abort()
    else:
        with trio.move_on_after(1):
            await pair.ours.send_buffers([bytes(1_000_000)])
    held = bytes(pair.our_pipe._out.data)
    with pytest.raises(trio.BrokenResourceError) as caught:
        await pair.ours.receive_some()
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert bytes(pair.our_pipe._out.data) == held


async def test_a_reset_is_told_as_one(pair: Pair) -> None:
    pair.their_pipe.reset()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await pair.ours.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_refused_certificate_is_told_to_the_peer(tmp_path: Path) -> None:
    context = Authority.make(tmp_path).server("secure.test")
    one, other = memory_channel_pair()
    ours = TlsChannel(one, ssl.create_default_context(), "secure.test")
    theirs = trio.SSLStream(ChannelStream(other), context, server_side=True)

    async def serve() -> None:
        with pytest.raises(trio.BrokenResourceError) as told:
            await theirs.do_handshake()
            await theirs.receive_some()
        assert "UNKNOWN_CA" in str(told.value.__cause__)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await ours.handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_tls_inside_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """As through a proxy that is spoken to in TLS itself."""
    outer = await join(contexts)
    inner = TlsChannel(outer.ours, contexts[0], "secure.test")
    theirs = trio.SSLStream(
        ChannelStream(StreamChannel(outer.theirs)), contexts[1], server_side=True
    )

    async def echo() -> None:
        await theirs.do_handshake()
        received = b""
        while len(received) < 100_000:
            received += await theirs.receive_some()
        await theirs.send_all(received)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        await inner.handshake()
        await inner.send_buffers([b"x" * 100_000])
        received = b""
        while len(received) < 100_000:
            received += await inner.receive_some()
    assert received == b"x" * 100_000


async def test_closing_and_the_peers_hanging_up_are_those_of_the_channel_below(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    pair = await join(contexts)
    pair.their_pipe.abort()
    await pair.ours.wait_hangup()
    pair.ours.abort()
    assert pair.our_pipe.closed
    with pytest.raises(trio.ClosedResourceError):
        await pair.ours.receive_some()
    again = await join(contexts)
    await again.ours.aclose()
    assert again.our_pipe.closed
    with pytest.raises(trio.ClosedResourceError):
        await again.ours.send_buffers([b"x"])
