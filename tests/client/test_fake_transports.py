"""How a fake runtime is reached: bytes in order, in any split, and nothing left behind."""

import threading

import anyio
import pytest

from vastar_client.blocking import RuntimeClient
from vastar_client.testing import FakeRuntime, respond
from vastar_client.wire import Connection, HealthCheck, Role

URL = "http://api.test/x"


def health_check():
    return b"".join(Connection(Role.CLIENT).send(HealthCheck()))


async def test_a_reader_of_single_bytes_gets_every_byte_in_order(autojump_clock):
    fake = FakeRuntime()
    stream = await fake.dial()
    await stream.send(health_check() * 2)
    whole = b"".join([await stream.receive(1) for _ in range(10)])
    stream.peer.hang_up()
    rest = b""
    with pytest.raises(anyio.EndOfStream):
        while True:
            rest += await stream.receive(7)
    frame, half = whole + rest, len(whole + rest) // 2
    assert frame[:half] == frame[half:]


async def test_a_closed_stream_says_so(autojump_clock):
    stream = await FakeRuntime().dial()
    await stream.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.send(b"x")


async def test_a_stream_that_was_hung_up_breaks_the_sender(autojump_clock):
    fake = FakeRuntime()
    stream = await fake.dial()
    fake.disconnect()
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(b"x")
    await stream.send_eof()


def test_leaving_the_block_ends_connections_threads_and_the_socket():
    before = set(threading.enumerate())
    with FakeRuntime(lambda _: respond()) as fake:
        path = fake._listener.path
        clients = [RuntimeClient(fake.config) for _ in range(3)]
        for client in clients:
            assert client.get(URL).ok
        assert path.exists()
    assert not path.parent.exists()
    left = {t.name for t in set(threading.enumerate()) - before}
    assert left <= {"vastar-client"}
    for client in clients:
        client.close()
