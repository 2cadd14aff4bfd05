"""What every channel promises, on sockets, in memory and over Trio streams; then each one's own."""

import errno
import socket
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from vastar_runtime.transport import channel as channel_module
from vastar_runtime.transport.channel import (
    Channel,
    ChannelStream,
    SocketChannel,
    StreamChannel,
    drop_sent,
)
from vastar_runtime.transport.errors import ChannelStalled
from vastar_runtime.transport.memory import memory_channel_pair

Pair = tuple[Channel, Channel]


def unix_pair() -> tuple[SocketChannel, SocketChannel]:
    one, other = socket.socketpair()
    return SocketChannel(one), SocketChannel(other)


def tcp_pair() -> tuple[SocketChannel, SocketChannel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return SocketChannel(one), SocketChannel(other)


def stream_pair() -> tuple[StreamChannel, StreamChannel]:
    one, other = trio.testing.memory_stream_pair()
    return StreamChannel(one), StreamChannel(other)


def nested_pair() -> tuple[StreamChannel, StreamChannel]:
    one, other = memory_channel_pair()
    return StreamChannel(ChannelStream(one)), StreamChannel(ChannelStream(other))


@pytest.fixture(params=[unix_pair, tcp_pair, memory_channel_pair, stream_pair, nested_pair])
def pair(request: pytest.FixtureRequest) -> Iterator[Callable[[], Pair]]:
    made: list[Channel] = []

    def make() -> Pair:
        made.extend(request.param())
        return made[0], made[1]

    yield make
    for channel in made:
        assert channel.is_readable(), "the test left a channel open"


async def read_to_end(channel: Channel) -> bytes:
    received = b""
    while piece := await channel.receive_some():
        received += piece
    return received


async def test_bytes_arrive_in_order_whatever_their_sizes(pair: Callable[[], Pair]) -> None:
    one, other = pair()
    big = bytes(range(256)) * 4096
    buffers = [b"head", b"", bytearray(b"-"), memoryview(big), *[b"x"] * 3000, memoryview(b"end")]
    received = b""

    async def send() -> None:
        await one.send_buffers(buffers)
        await one.send_buffers([b"small", b"er"])
        await one.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = await read_to_end(other)
    assert received == b"".join(buffers) + b"smaller"
    assert await other.receive_some() == b""
    other.abort()


async def test_receive_takes_at_most_what_is_asked(pair: Callable[[], Pair]) -> None:
    one, other = pair()
    await one.send_buffers([b"abcdef"])
    assert await other.receive_some(2) == b"ab"
    assert await other.receive_some() == b"cdef"
    one.abort()
    other.abort()


async def test_half_closed_the_other_direction_goes_on(pair: Callable[[], Pair]) -> None:
    one, other = pair()
    await one.send_eof()
    assert await other.receive_some() == b""
    await other.send_buffers([b"late"])
    assert await one.receive_some() == b"late"
    one.abort()
    other.abort()


async def test_a_closed_channel_says_so_and_closing_twice_is_nothing(
    pair: Callable[[], Pair],
) -> None:
    one, other = pair()
    one.abort()
    one.abort()
    await one.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_buffers([b"x"])
    other.abort()


async def test_after_a_short_read_the_end_a_close_and_a_cancellation_are_still_seen(
    pair: Callable[[], Pair],
) -> None:
    """A short read makes the next one wait first: it must miss nothing for that."""
    one, other = pair()
    await other.send_buffers([b"short"])
    assert await one.receive_some() == b"short"
    with trio.move_on_after(0.01) as nothing_came:
        await one.receive_some()
    assert nothing_came.cancelled_caught
    await other.send_buffers([b"er"])
    assert await one.receive_some() == b"er"
    await other.aclose()
    assert await one.receive_some() == b""
    assert await one.receive_some() == b""
    one.abort()
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()


async def test_sending_to_a_peer_that_is_gone_breaks(pair: Callable[[], Pair]) -> None:
    one, other = pair()
    other.abort()
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(100):
            await one.send_buffers([b"x" * 1000])
            await trio.lowlevel.checkpoint()
    one.abort()


@pytest.mark.parametrize("make", [unix_pair, tcp_pair, memory_channel_pair])
async def test_a_look_does_not_read(make: Callable[[], Pair]) -> None:
    one, other = make()
    assert not other.is_readable()
    await one.send_buffers([b"x"])
    with trio.fail_after(5):
        while not other.is_readable():
            await trio.lowlevel.checkpoint()
    assert await other.receive_some() == b"x"
    assert not other.is_readable()
    one.abort()
    with trio.fail_after(5):
        while not other.is_readable():
            await trio.lowlevel.checkpoint()
    assert await other.receive_some() == b""
    other.abort()


@pytest.mark.parametrize("make", [unix_pair, tcp_pair, memory_channel_pair])
async def test_abort_wakes_the_tasks_that_wait(make: Callable[[], Pair]) -> None:
    one, other = make()
    ended: list[str] = []

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
        ended.append("receive")

    async def hangup() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.wait_hangup()
        ended.append("hangup")

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.send_buffers([bytes(16_000_000)])
        ended.append("send")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(hangup)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        one.abort()
    assert sorted(ended) == ["hangup", "receive", "send"]
    other.abort()


@pytest.mark.parametrize("make", [unix_pair, memory_channel_pair])
async def test_hangup_is_silent_through_a_half_close(make: Callable[[], Pair]) -> None:
    one, other = make()
    seen = trio.Event()

    async def watch() -> None:
        await one.wait_hangup()
        seen.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await other.send_eof()
        assert await one.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not seen.is_set()
        other.abort()
        await seen.wait()
    one.abort()


async def test_hangup_on_tcp_is_a_reset() -> None:
    one, other = tcp_pair()
    linger = b"\1\0\0\0\0\0\0\0"
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.wait_hangup)
        await trio.testing.wait_all_tasks_blocked()
        other.abort()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await one.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    one.abort()


async def test_hangup_of_a_stream_is_the_event_it_was_given(
    autojump_clock: trio.testing.MockClock,
) -> None:
    event = trio.Event()
    stream, _ = trio.testing.memory_stream_pair()
    with trio.move_on_after(1000) as scope:
        await StreamChannel(stream).wait_hangup()
    assert scope.cancelled_caught
    event.set()
    await StreamChannel(stream, hangup=event).wait_hangup()


async def test_a_peer_that_takes_no_byte_is_a_stall_and_one_that_does_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, other = memory_channel_pair(capacity_bytes=10)

    async def read_slowly() -> None:
        for _ in range(12):
            await trio.sleep(9)
            await other.receive_some(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await one.send_buffers([b"x" * 100], stall_timeout_s=10)
        began_s = trio.current_time()
        with pytest.raises(ChannelStalled):
            await one.send_buffers([b"x" * 100], stall_timeout_s=10)
        assert trio.current_time() - began_s == pytest.approx(10 + 2 * 9, abs=9)


async def test_a_socket_that_takes_nothing_stalls() -> None:
    one, other = unix_pair()
    with pytest.raises(ChannelStalled):
        await one.send_buffers([bytes(4_000_000)], stall_timeout_s=0.02)
    one.abort()
    other.abort()


async def test_a_stream_that_takes_nothing_stalls(autojump_clock: trio.testing.MockClock) -> None:
    stream, _ = trio.testing.lockstep_stream_pair()
    with pytest.raises(ChannelStalled):
        await StreamChannel(stream).send_buffers([bytes(100_000)], stall_timeout_s=10)


async def test_a_socket_that_is_always_ready_still_lets_others_run() -> None:
    one, other = unix_pair()
    await one.send_buffers([b"x" * 1000])
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(1000):
            assert await other.receive_some(1) == b"x"
        assert turns >= 1000 // channel_module._EAGER_LIMIT - 1
        turns = 0
        for _ in range(100):
            await other.send_buffers([b"y"])
        assert turns >= 100 // channel_module._EAGER_LIMIT - 1
        nursery.cancel_scope.cancel()
    one.abort()
    other.abort()


async def test_try_send_sends_what_goes_and_returns_the_rest_uncopied() -> None:
    one, other = unix_pair()
    big = bytes(16_000_000)
    rest = one.try_send([b"head", big])
    assert rest
    assert isinstance(rest[0], memoryview)
    assert rest[0].obj is big
    received = 0
    while received < 4 + len(big) - len(rest[0]):
        received += len(await other.receive_some())
    assert received == 4 + len(big) - len(rest[0])
    assert one.try_send([]) == ()
    other.abort()
    with pytest.raises(trio.BrokenResourceError):
        one.try_send([b"x"])
    one.abort()


async def test_tcp_sends_small_writes_at_once() -> None:
    one, other = tcp_pair()
    assert one.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    one.abort()
    other.abort()


async def test_a_system_without_large_buffers_is_served_all_the_same() -> None:
    class Small(socket.socket):
        def setsockopt(self, *_: object) -> None:
            raise OSError(errno.ENOBUFS, "no buffer space available")

    ours, theirs = socket.socketpair()
    with theirs:
        channel = SocketChannel(Small(fileno=ours.detach()))
        await channel.send_buffers([b"there"])
        assert theirs.recv(10) == b"there"
        channel.abort()


def test_drop_sent_cuts_at_any_place() -> None:
    buffers = [b"abc", b"", b"de", b"f"]
    for sent in range(7):
        assert b"".join(drop_sent(buffers, sent)) == b"abcdef"[sent:]


async def test_a_stream_without_a_synchronous_close_wants_one() -> None:
    class Strange(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...
        async def wait_send_all_might_not_block(self) -> None: ...
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None: ...

    with pytest.raises(TypeError, match="Strange needs StreamChannel"):
        StreamChannel(Strange()).abort()
    closed: list[bool] = []
    StreamChannel(Strange(), abort=lambda: closed.append(True)).abort()
    assert closed


async def test_a_socket_stream_of_trio_can_be_aborted() -> None:
    one, other = socket.socketpair()
    channel = StreamChannel(trio.SocketStream(trio.socket.from_stdlib_socket(one)))
    channel.abort()
    other.setblocking(False)
    assert other.recv(1) == b""
    other.close()
