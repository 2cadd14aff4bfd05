"""Uploads and early answers (RFC 9112, 9.3): the answer counts, not the broken pipe."""

import json
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio

from tests.runtime.transport.conftest import SCOPE, House, make_request
from tests.support.upstream import serve_upstream
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import HttpTransport, Phase, Progress, TransportError
from vastar_runtime.transport.channel import SocketChannel
from vastar_runtime.transport.fake import Close, Request, Reset, Script, Send, Serve, Wait
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.memory import MemoryChannel
from vastar_runtime.transport.messages import Origin

BIG = bytes(300_000)
REFUSAL = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Hosts = Callable[..., None]


async def test_a_big_body_arrives_whole_and_the_connection_is_kept(house: House) -> None:
    body = [bytes([n % 256]) * 1000 for n in range(3000)]
    _, text = await house.fetch("/echo", method=b"POST", body=body)
    assert json.loads(text)["len"] == 3_000_000
    assert house.progress.request_sent
    await house.fetch("/small")
    assert house.progress.reused


@pytest.mark.parametrize("end", [Close(), Reset(), Wait()])
async def test_an_early_refusal_is_read_and_the_rest_is_not_sent(
    house: House, serve: Hosts, end: object
) -> None:
    serve(Script([Wait(1), Send(REFUSAL), Wait(1), end]))
    async with await house.ask(host="other.test", method=b"POST", body=BIG) as response:
        assert response.status == 413
        assert trio.current_time() == 1
        assert await response.read_all() == b"no!"
    assert not house.progress.request_sent
    assert house.progress.disposition is Disposition.COMPLETED
    assert house.counts == (0, 0, 0), "the connection has half a request on it"
    house.check_nothing_is_left()


async def test_an_early_success_waits_for_the_request_to_be_sent(
    house: House, serve: Hosts
) -> None:
    async def answer_then_read(channel: MemoryChannel) -> None:
        await channel.send_buffers([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"])
        await trio.sleep(5)
        await Script([Request(), Send(b"cd"), Wait()])(channel)

    serve(Serve(answer_then_read))
    async with await house.ask(host="other.test", method=b"POST", body=BIG) as response:
        assert trio.current_time() == 5
        assert house.progress.request_sent
        assert await response.read_all() == b"abcd"
    assert house.counts == (0, 1, 0)


async def test_an_upstream_that_answers_while_it_reads_does_not_lock_up(
    house: House, serve: Hosts
) -> None:
    """It takes the next piece only when its answer to the last was taken."""

    async def echo(channel: MemoryChannel) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await channel.receive_some()
        count = len(received.partition(b"\r\n\r\n")[2])
        await channel.send_buffers([b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"])
        await channel.send_buffers([bytes(count)])
        while count < len(BIG):
            piece = await channel.receive_some(1000)
            count += len(piece)
            await channel.send_buffers([piece])
        await trio.sleep(1)

    serve(Serve(echo, capacity_bytes=2000))
    assert await house.fetch(host="other.test", method=b"POST", body=BIG) == (200, BIG)


async def test_an_early_answer_does_not_fill_the_memory(house: House, serve: Hosts) -> None:
    sent = 0

    async def pour(channel: MemoryChannel) -> None:
        nonlocal sent
        await channel.send_buffers([b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"])
        while True:
            await channel.send_buffers([bytes(10_000)])
            sent += 10_000

    serve(Serve(pour))
    with trio.move_on_after(100) as scope:
        await house.ask(host="other.test", method=b"POST", body=BIG)
    assert scope.cancelled_caught
    assert 1_000_000 < sent < 1_400_000
    house.check_nothing_is_left()


@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_an_upstream_that_leaves_without_an_answer(
    house: House, serve: Hosts, end: object
) -> None:
    serve(Script([Wait(1), end]))
    with pytest.raises(TransportError) as caught:
        await house.fetch(host="other.test", method=b"POST", body=BIG)
    assert caught.value.phase is Phase.SEND
    assert caught.value.cause in {"connection reset", "closed before the response"}
    assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
    house.check_nothing_is_left()


async def test_garbage_while_sending_is_an_error_at_once(house: House, serve: Hosts) -> None:
    serve(Script([Wait(1), Send(b"this is not http\r\n"), Wait()]))
    with pytest.raises(TransportError, match=r"no HTTP/1\.x status line"):
        await house.fetch(host="other.test", method=b"POST", body=BIG)
    assert trio.current_time() == 1


async def test_nothing_sent_on_a_dead_connection_is_safe_to_send_again(
    house: House, serve: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look missed it, and the first write told: a POST may go again."""
    serve(Script([Request(), Send(OK), Close()]))
    await house.fetch(host="other.test")
    await trio.sleep(1)
    monkeypatch.setattr(MemoryChannel, "is_readable", lambda self: False)
    assert (await house.fetch(host="other.test", method=b"POST"))[0] == 200
    assert house.progress.resent
    assert len(house.network.connected) == 2


async def test_a_timed_out_request_on_a_reused_connection_is_not_blamed_on_it(
    house: House, serve: Hosts
) -> None:
    serve(Script([Request(), Send(OK), Request(), Wait(3), Close()]))
    await house.fetch(host="other.test")
    with pytest.raises(TransportError, match="closed before the response"):
        await house.fetch(host="other.test", method=b"POST")
    assert len(house.network.connected) == 1


# The same on real sockets.


async def test_real_upload_and_download_of_many_megabytes() -> None:
    transport = HttpTransport(environ={})
    body = bytes(range(256)) * 32768
    async with serve_upstream() as upstream:
        progress = Progress()
        request = make_request(
            "/echo", host="127.0.0.1", port=upstream.port, method=b"POST", body=memoryview(body)
        )
        async with await transport.request(SCOPE, request, progress) as response:
            answer = json.loads(await response.read_all())
        assert answer["len"] == len(body)
        assert progress.disposition is Disposition.COMPLETED
        request = make_request("/big?n=20000000", host="127.0.0.1", port=upstream.port)
        async with await transport.request(SCOPE, request, progress := Progress()) as response:
            assert len(await response.read_all()) == 20_000_000
        assert progress.reused
        assert len(upstream.seen("conn_open")) == 1
        await transport.aclose()


async def test_real_early_refusal_of_an_upload() -> None:
    """The upstream answers, stops reading and closes: a reset chases the answer."""

    async def refuse(listener: trio.SocketListener) -> None:
        stream = await listener.accept()
        channel = SocketChannel(stream.socket._sock)
        await channel.receive_some(1000)
        await channel.send_buffers([REFUSAL])
        await channel.send_eof()
        await trio.sleep(0.05)
        channel.abort()

    transport = HttpTransport(environ={})
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(refuse, listener)
        port = listener.socket.getsockname()[1]
        request = make_request(host="127.0.0.1", port=port, method=b"POST", body=bytes(50_000_000))
        async with await transport.request(SCOPE, request, Progress()) as response:
            assert response.status == 413
            assert await response.read_all() == b"no!"
    await transport.aclose()


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("/reset", "connection reset"),
        ("/closenow", "closed before the response"),
        ("/short", "response cut short: 9 of 100 bytes"),
        ("/garbage", "invalid HTTP: no HTTP/1.x status line"),
    ],
)
async def test_real_faults_have_the_same_words(target: str, cause: str) -> None:
    transport = HttpTransport(environ={})
    async with serve_upstream() as upstream:
        request = make_request(target, host="127.0.0.1", port=upstream.port)
        with pytest.raises(TransportError) as caught:
            async with await transport.request(SCOPE, request, Progress()) as response:
                await response.read_all()
        assert caught.value.cause == cause
    await transport.aclose()


async def test_real_cancellation_reaches_the_upstream_at_once() -> None:
    transport = HttpTransport(environ={})
    async with serve_upstream() as upstream, trio.open_nursery() as nursery:
        request = make_request("/hang", host="127.0.0.1", port=upstream.port)
        nursery.start_soon(transport.request, SCOPE, request, Progress())
        await upstream.wait_for("hang_start")
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(15):
            await upstream.wait_for("client_closed_while_busy")
    assert transport.stats() == []


async def test_a_real_idle_connection_that_the_upstream_closes_is_not_used() -> None:
    transport = HttpTransport(environ={})
    async with serve_upstream() as upstream:
        for _ in range(3):
            request = make_request(
                "/gone_keepalive", host="127.0.0.1", port=upstream.port, method=b"POST"
            )
            async with await transport.request(SCOPE, request, progress := Progress()) as response:
                assert response.status == 200
            assert not progress.reused
            await upstream.wait_for("conn_close", count=len(upstream.seen("conn_open")))
        await transport.aclose()


class Endless:
    """A channel that always has as much as is asked for, of the same over and over; never waits."""

    def __init__(self, head: bytes, unit: bytes) -> None:
        self._first, self._unit = head, unit
        self.asked_bytes: list[int] = []

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        self.asked_bytes.append(max_bytes)
        first, self._first = self._first, b""
        return first or self._unit * (max_bytes // len(self._unit))


@pytest.mark.parametrize(
    ("unit", "most_bytes", "turns"),
    [
        (b"1\r\n:\r\n", 65536, 35),
        (b"3a\r\n%b\r\n" % (b"x" * 0x3A), 262_144, 15),
        (b"ff9\r\n%b\r\n" % (b"x" * 0xFF9), 262_144, 0),
    ],
    ids=["chunks of a byte", "small chunks", "usual chunks"],
)
async def test_parsing_many_chunks_takes_turns(unit: bytes, most_bytes: int, turns: int) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    channel = Endless(head, unit)
    connection = Http1Connection(
        cast("Any", channel), Origin("http", "h.test", 80), head_limit_bytes=65536, now_s=0.0
    )
    taken = 0

    async def other() -> None:
        nonlocal taken
        while True:
            await trio.lowlevel.checkpoint()
            taken += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        begun = taken
        for _ in range(41):
            await connection.read_more()
            connection.parser.body.clear()
        assert taken - begun >= turns
        assert taken - begun <= 41
        if not turns:
            assert taken == begun
        nursery.cancel_scope.cancel()
    assert max(channel.asked_bytes[-10:]) <= most_bytes
