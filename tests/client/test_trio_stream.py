"""A socket on Trio without the layers between: reads that wait first, writes that can be tried."""

import socket
import struct

import anyio
import pytest
import trio
import trio.testing
from anyio.abc import ByteStream, SocketAttribute

from vastar_client._trio_stream import TrioStream


class Owner(ByteStream):
    """What has opened the socket."""

    def __init__(self, raw):
        self.raw = raw

    async def receive(self, max_bytes=65_536):
        raise AssertionError("it is read past this")

    async def send(self, item):
        raise AssertionError("it is written past this")

    async def send_eof(self):
        self.raw.shutdown(socket.SHUT_WR)

    async def aclose(self):
        trio.lowlevel.notify_closing(self.raw)
        self.raw.close()

    @property
    def extra_attributes(self):
        return {SocketAttribute.raw_socket: lambda: self.raw}


@pytest.fixture
def ends():
    """The stream, and the socket of its peer."""
    raw, peer = socket.socketpair()
    raw.setblocking(False)
    with raw, peer:
        yield TrioStream(Owner(raw), raw), peer


async def test_it_reads_what_has_come_and_waits_for_more(ends):
    stream, peer = ends
    got = []

    async def read():
        while True:
            try:
                got.append(await stream.receive())
            except anyio.EndOfStream:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for part in (b"one", b"two"):
            await trio.testing.wait_all_tasks_blocked(0.001)
            peer.sendall(part)
            while b"".join(got)[-3:] != part:
                await trio.lowlevel.checkpoint()
        peer.shutdown(socket.SHUT_WR)
    assert got == [b"one", b"two"]


async def test_behind_a_long_read_it_tries_and_then_waits(ends):
    stream, peer = ends
    peer.sendall(bytes(40_000))
    assert len(await stream.receive(65_536)) == 40_000
    async with trio.open_nursery() as nursery:
        got = []

        async def read():
            got.append(await stream.receive())

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert not got
        peer.sendall(b"x")
    assert got == [b"x"]


async def test_a_wait_that_was_for_nothing_goes_on(ends, monkeypatch):
    stream, peer = ends
    waits = []
    real = trio.lowlevel.wait_readable

    async def wait_readable(sock):
        waits.append(1)
        if len(waits) > 1:
            peer.sendall(b"x")
            await real(sock)
        else:
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr("trio.lowlevel.wait_readable", wait_readable)
    assert await stream.receive() == b"x"
    assert len(waits) == 2


async def test_more_than_the_socket_takes_is_sent_bit_by_bit(ends):
    stream, peer = ends
    data = bytes(range(256)) * 8192
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send, data)
        got = b""
        while len(got) < len(data):
            await trio.lowlevel.checkpoint()
            try:
                got += peer.recv(1_000_000, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
    assert got == data


def test_a_try_takes_what_there_is_room_for(ends):
    stream, peer = ends
    assert stream.try_send(b"abc") == 3
    assert 0 < stream.try_send(bytes(10_000_000)) < 10_000_000
    while stream.try_send(b"x"):
        pass
    peer.close()
    with pytest.raises(OSError, match=r"pipe|reset"):
        stream.try_send(b"x")


async def test_a_peer_that_has_gone_is_a_broken_connection(ends):
    stream, peer = ends
    await stream.send(b"never read")
    peer.close()
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(b"x")
    with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
        await stream.receive()


async def test_a_reset_is_a_broken_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with raw:
        raw.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(anyio.BrokenResourceError):
            await TrioStream(Owner(raw), raw).receive()


async def test_closing_ends_whoever_waits_and_what_is_tried_later(ends):
    stream, peer = ends
    async with trio.open_nursery() as nursery:

        async def read():
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.001)
        await stream.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.send(b"x")
    assert peer.recv(1) == b""


async def test_it_ends_its_half_and_tells_its_socket(ends):
    stream, peer = ends
    await stream.send_eof()
    assert peer.recv(1) == b""
    assert stream.extra(SocketAttribute.raw_socket).fileno() >= 0
