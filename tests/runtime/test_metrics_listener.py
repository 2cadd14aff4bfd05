"""Scrapers get the metrics over HTTP, and whatever they do instead harms nobody else."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from vastar_runtime.config import TcpAddress
from vastar_runtime.metrics import CONTENT_TYPE
from vastar_runtime.metrics_listener import (
    IDLE_S,
    MAX_CONNECTIONS,
    REQUEST_S,
    _Guests,
    open_metrics_listener,
    serve_metrics,
)
from vastar_runtime.runtime_files import RuntimeFileError

TEXT = b"vastar_draining 0.0\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


async def render() -> bytes:
    await trio.lowlevel.checkpoint()
    return TEXT


@attrs.define(eq=False)
class World:
    """The listener without its socket; `connect` gives the client's end."""

    guests: _Guests
    nursery: trio.Nursery

    def connect(self) -> Stream:
        near, far = memory_stream_pair()
        self.nursery.start_soon(self.guests.serve, far)
        return near


@asynccontextmanager
async def listening(render: Callable[[], Awaitable[bytes]] = render) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(_Guests(render), nursery)
        nursery.cancel_scope.cancel()


async def read_to_end(client: Stream) -> bytes:
    return b"".join([chunk async for chunk in client])


async def read_answer(client: Stream) -> bytes:
    """One answer with a body, and nothing behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await client.receive_some()
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if b"t-length:" in line)
    while len(body) < length:
        body += await client.receive_some()
    assert len(body) == length
    return head + b"\r\n\r\n" + body


async def ask(client: Stream, request: bytes) -> bytes:
    await client.send_all(request)
    return await read_answer(client)


async def test_a_scraper_gets_the_text() -> None:
    async with listening() as world:
        answer = await ask(world.connect(), GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-type: {CONTENT_TYPE}".encode() in head.lower()
    assert body == TEXT


async def test_one_connection_serves_many_also_byte_by_byte_and_at_once() -> None:
    async with listening() as world:
        client = world.connect()
        assert await ask(client, GET) == await ask(client, GET)
        for byte in GET[:-1]:
            await client.send_all(bytes([byte]))
        whole = await ask(client, GET[-1:])
        await client.send_all(GET * 3)
        await client.send_eof()
        assert await read_to_end(client) == whole * 3


async def test_a_query_is_ignored() -> None:
    async with listening() as world:
        assert TEXT in await ask(world.connect(), GET.replace(b"metrics ", b"metrics?a=b "))


async def test_head_is_get_without_the_body() -> None:
    async with listening() as world:
        client = world.connect()
        await client.send_all(GET.replace(b"GET", b"HEAD"))
        await client.send_eof()
        head = await read_to_end(client)
        get = await ask(world.connect(), GET)
    assert head == get.removesuffix(TEXT)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST /other HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
    ],
)
async def test_another_request_is_told_and_the_connection_goes_on(
    request_: bytes, status: bytes
) -> None:
    async with listening() as world:
        client = world.connect()
        answer = await ask(client, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"allow: get, head" in answer.lower()) is (status == b"405")
        assert TEXT in await ask(client, GET)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00 a TLS hello\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000, b"431"),
        (b"GET /metrics HTTP/1.1\r\nHost", b"400"),
    ],
    ids=["TLS", "no host", "body", "half a body", "chunks", "bad chunks", "long head", "half"],
)
async def test_a_bad_request_is_told_and_the_connection_ends(
    request_: bytes, status: bytes
) -> None:
    async with listening() as world:
        client = world.connect()
        await client.send_all(request_)
        await client.send_eof()
        answer = await read_to_end(client)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer.lower()
        assert TEXT not in answer
        await wait_all_tasks_blocked()
        assert world.guests.count == 0


@pytest.mark.parametrize(
    "request_",
    [b"GET /metrics HTTP/1.0\r\n\r\n", GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")],
)
async def test_who_wants_one_answer_gets_one(request_: bytes) -> None:
    async with listening() as world:
        client = world.connect()
        await client.send_all(request_)
        answer = await read_to_end(client)
        assert b" 200 " in answer
        assert answer.endswith(TEXT)


async def test_a_bug_in_the_metrics_is_told_and_ends_nothing() -> None:
    broken = True

    async def render_or_not() -> bytes:
        await trio.lowlevel.checkpoint()
        if broken:
            raise RuntimeError("secret")
        return TEXT

    async with listening(render_or_not) as world:
        client = world.connect()
        answer = await ask(client, GET)
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer
        broken = False
        assert TEXT in await ask(client, GET)


async def ended_after_s(client: Stream) -> float:
    await read_to_end(client)
    return trio.current_time()


async def test_a_request_has_its_time_however_it_is_spent(autojump_clock: MockClock) -> None:
    async with listening() as world:
        silent = world.connect()
        assert await ended_after_s(silent) == REQUEST_S

        trickling = world.connect()

        async def trickle() -> None:
            try:
                for byte in GET:
                    await trickling.send_all(bytes([byte]))
                    await trio.sleep(1)
            except trio.BrokenResourceError:
                pass

        world.nursery.start_soon(trickle)
        assert await ended_after_s(trickling) == 2 * REQUEST_S
        await wait_all_tasks_blocked()
        assert world.guests.count == 0


async def test_a_render_without_end_is_given_up(autojump_clock: MockClock) -> None:
    async with listening(trio.sleep_forever) as world:
        client = world.connect()
        await client.send_all(GET)
        assert await ended_after_s(client) == REQUEST_S


async def test_between_requests_there_is_more_time(autojump_clock: MockClock) -> None:
    async with listening() as world:
        client = world.connect()
        await ask(client, GET)
        await trio.sleep(IDLE_S - 1)
        assert TEXT in await ask(client, GET)
        begun_s = trio.current_time()
        assert await ended_after_s(client) == begun_s + IDLE_S
        idle_then_slow = world.connect()
        await ask(idle_then_slow, GET)
        await idle_then_slow.send_all(GET[:5])
        begun_s = trio.current_time()
        assert await ended_after_s(idle_then_slow) == begun_s + REQUEST_S


async def test_the_time_of_a_request_that_came_with_another_one_has_begun(
    autojump_clock: MockClock,
) -> None:
    async with listening() as world:
        client = world.connect()
        await ask(client, GET + GET[:5])
        await trio.sleep(REQUEST_S - 1)
        await client.send_all(GET[5:9])
        assert await ended_after_s(client) == REQUEST_S


async def test_who_does_not_read_is_left(autojump_clock: MockClock) -> None:
    async with listening() as world:
        near, far = memory_stream_pair()

        async def never() -> None:
            await trio.sleep_forever()

        far.send_stream.send_all_hook = never
        world.nursery.start_soon(world.guests.serve, far)
        await near.send_all(GET)
        await trio.sleep(REQUEST_S + 1)
        assert world.guests.count == 0


async def test_who_sends_on_after_a_refusal_is_left(autojump_clock: MockClock) -> None:
    async with listening() as world:
        client = world.connect()
        await client.send_all(b"nonsense\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(1000):
                await client.send_all(b"x" * 10_000)
                await wait_all_tasks_blocked()
        assert trio.current_time() < REQUEST_S
        assert world.guests.count == 0


async def test_a_newcomer_takes_the_place_of_who_waits_longest() -> None:
    async with listening() as world:
        idle = world.connect()
        await ask(idle, GET)
        others = []
        for _ in range(MAX_CONNECTIONS - 1):
            others.append(world.connect())
            await wait_all_tasks_blocked()
        await others[0].send_all(GET[:9])
        await ask(idle, GET)  # now the first of the others has been waiting longest
        newcomer = world.connect()
        assert TEXT in await ask(newcomer, GET)
        await wait_all_tasks_blocked()
        assert world.guests.count == MAX_CONNECTIONS
        assert await read_to_end(others[0]) == b""
        assert TEXT in await ask(idle, GET)
        for client in others[1:]:
            assert TEXT in await ask(client, GET)


async def test_nobody_is_sent_away_while_the_text_is_made() -> None:
    go_on = trio.Event()

    async def wait() -> bytes:
        await go_on.wait()
        return TEXT

    async with listening(wait) as world:
        clients = [world.connect() for _ in range(MAX_CONNECTIONS)]
        for client in clients:
            await client.send_all(GET)
        await wait_all_tasks_blocked()
        assert await read_to_end(world.connect()) == b""
        go_on.set()
        for client in clients:
            assert TEXT in await read_answer(client)


async def test_a_flood_leaves_nothing_behind() -> None:
    async with listening() as world:
        clients = [world.connect() for _ in range(100)]
        await wait_all_tasks_blocked()
        assert world.guests.count == len(world.guests.waiting) == MAX_CONNECTIONS
        for client in clients:
            await client.aclose()
        await wait_all_tasks_blocked()
        assert world.guests.count == len(world.guests.waiting) == 0


async def test_who_goes_without_the_answer_leaves_nothing_behind() -> None:
    async with listening() as world:
        client = world.connect()
        await client.send_all(GET)
        await client.aclose()
        await wait_all_tasks_blocked()
        assert world.guests.count == len(world.guests.waiting) == 0
        assert TEXT in await ask(world.connect(), GET)


async def test_on_a_real_socket() -> None:
    listener = open_metrics_listener(TcpAddress("127.0.0.1", 0))
    assert isinstance(listener.address, TcpAddress)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_metrics, listener.socket, render)
        for _ in range(2):
            client = await trio.open_tcp_stream("127.0.0.1", listener.address.port)
            async with client:
                await client.send_all(GET)
                assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
                await client.send_all(b"nonsense\r\n\r\n" * 2000)
                await client.send_eof()
                rest = b"".join([chunk async for chunk in client])
                assert b"HTTP/1.1 400 " in rest
        nursery.cancel_scope.cancel()
    listener.close()
    with pytest.raises(OSError, match="all attempts"):  # nobody listens any more
        await trio.open_tcp_stream("127.0.0.1", listener.address.port)


def test_an_address_in_use_is_named_with_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeFileError) as raised:
            open_metrics_listener(TcpAddress("127.0.0.1", port))
    assert str(raised.value) == f"metrics.listen: tcp:127.0.0.1:{port}: address already in use"
