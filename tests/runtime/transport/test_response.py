"""A response as its reader sees it: pieces, ends, leaving early, and bounds."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.runtime.transport.conftest import House
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    BodyTooLarge,
    FaultKind,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.fake import Close, Request, Reset, Script, Send, Serve, Wait
from vastar_runtime.transport.memory import MemoryChannel

Hosts = Callable[..., None]


async def test_trailers_are_there_once_the_body_has_ended(house: House) -> None:
    async with await house.ask("/chunked") as response:
        assert response.trailers == []
        await response.read_all()
        assert response.trailers == [(b"x-t", b"end")]


async def test_a_body_cut_short_is_delivered_first(house: House) -> None:
    async with await house.ask("/short") as response:
        assert await response.read_some() == b"only this"
        for _ in range(2):
            with pytest.raises(TransportError, match="9 of 100"):
                await response.read_some()


async def test_a_response_that_is_left_early_closes_its_connection(house: House) -> None:
    async with await house.ask("/drip?n=50") as response:
        await response.read_some()
        assert house.counts == (1, 0, 0)
    await house.upstream.wait_for("client_closed_while_busy")
    house.check_nothing_is_left()
    assert house.counts == (0, 0, 0)
    assert house.progress.disposition is Disposition.RESPONSE_STARTED
    assert await response.read_some() == b""


async def test_a_cancelled_read_loses_nothing(house: House) -> None:
    async with await house.ask("/drip?n=5&gap=1000") as response:
        received = b""
        while len(received) < 5:
            with trio.move_on_after(0.4):
                received += await response.read_some()
        assert received == b"....."
        assert await response.read_some() == b""
    assert house.counts == (0, 1, 0)


async def test_read_all_refuses_what_is_too_long(house: House) -> None:
    response = await house.ask("/big?n=100000")
    with pytest.raises(BodyTooLarge, match="longer than 99999 bytes") as caught:
        await response.read_all(99_999)
    assert caught.value.max_bytes == 99_999
    response = await house.ask("/sse?n=100&gap=0")
    with pytest.raises(BodyTooLarge):
        await response.read_all(1000)
    house.check_nothing_is_left()
    assert house.counts == (0, 0, 0)
    assert len(await (await house.ask("/big?n=100000")).read_all(100_000)) == 100_000


async def test_a_slow_reader_slows_its_upstream(house: House, serve: Hosts) -> None:
    sent = 0

    async def pour(channel: MemoryChannel) -> None:
        nonlocal sent
        await channel.receive_some()
        await channel.send_buffers([b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"])
        while True:
            await channel.send_buffers([bytes(1000)])
            sent += 1000

    serve(Serve(pour, capacity_bytes=10_000))
    async with await house.ask(host="other.test") as response:
        await trio.sleep(1000)
        assert sent <= 20_000
        received = len(await response.read_some())
        await trio.sleep(1000)
        assert received < sent <= received + 20_000


@pytest.mark.parametrize("framing", ["Content-Length: 10000000", "Transfer-Encoding: chunked"])
async def test_nothing_is_received_ahead_of_the_reader(
    house: House, serve: Hosts, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    """So at most one receive buffer is held here, and the rest waits at the upstream."""
    receives = 0
    receive_some = MemoryChannel.receive_some

    async def counted(channel: MemoryChannel, max_bytes: int = 65536) -> bytes:
        nonlocal receives
        receives += 1
        data = await receive_some(channel, max_bytes)
        assert len(data) <= 65536
        return data

    async def pour(channel: MemoryChannel) -> None:
        await receive_some(channel)
        await channel.send_buffers([f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode()])
        while True:
            await channel.send_buffers([b"3e8\r\n" + bytes(1000) + b"\r\n"])

    monkeypatch.setattr(MemoryChannel, "receive_some", counted)
    serve(Serve(pour, capacity_bytes=1_000_000))
    async with await house.ask(host="other.test") as response:
        await response.read_some()  # it may have come with the head
        receives = 0
        for count in range(1, 6):
            await trio.sleep(1000)
            assert receives == count - 1
            assert await response.read_some()
            assert receives == count


# Kept for later.


@pytest.mark.parametrize("max_bytes", [5, 1000])
async def test_a_kept_answer_frees_its_connection_for_the_next_attempt(
    house: House, max_bytes: int
) -> None:
    house.make(TransportSettings(connections_per_key=1))
    async with await house.ask("/drip?n=5&gap=1000") as first:
        assert not first.is_kept
        assert await first.keep(max_bytes)
        assert first.ended
        assert house.counts == (0, 1, 0)
        assert (await house.fetch("/dup"))[1] == b"dup"
        assert house.progress.reused
        assert first.is_kept
        assert await first.keep(5), "again, it has nothing to do"
        assert await first.read_some() == b"....."
        assert await first.read_some() == b""
    assert not first.is_kept
    house.check_nothing_is_left()


async def test_what_was_read_before_is_not_kept_again(house: House) -> None:
    async with await house.ask("/drip?n=5&gap=1000") as response:
        received = await response.read_some()
        assert await response.keep(5 - len(received))
        assert await response.read_all() == b"." * (5 - len(received))


@pytest.mark.parametrize(
    "target",
    [
        "/big?n=100000",  # says so
        "/sse?n=100&gap=0",
        "/sse?n=100&gap=1000",
        "/small",  # is here with its head
    ],
)
async def test_an_answer_too_long_to_keep_is_left(house: House, target: str) -> None:
    async with await house.ask(target) as response:
        assert not await response.keep(33)
        assert response.ended
        assert not response.is_kept
        assert await response.read_some() == b""
    house.check_nothing_is_left()


async def test_a_length_that_is_told_is_not_waited_for(house: House, serve: Hosts) -> None:
    serve(Script([Request(), Send(b"HTTP/1.1 503 X\r\nContent-Length: 7\r\n\r\n"), Wait()]))
    async with await house.ask(host="other.test") as response:
        assert not await response.keep(6)
    assert trio.current_time() == 0
    house.check_nothing_is_left()


@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_a_kept_answer_that_was_cut_short_says_so_when_read(
    house: House, serve: Hosts, end: object
) -> None:
    head = b"HTTP/1.1 503 X\r\nContent-Length: 7\r\n\r\n"
    serve(Script([Request(), Send(head), Wait(1), Send(b"abc"), Wait(1), end]))
    async with await house.ask(host="other.test") as response:
        assert await response.keep(7)
        assert response.is_kept
        assert house.counts == (0, 0, 0)
        house.check_nothing_is_left()
        assert await response.read_some() == b"abc"
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await response.read_some()
            assert caught.value.kind is FaultKind.RESET


async def test_a_cancelled_keep_can_go_on_or_be_left(house: House) -> None:
    for goes_on in (True, False):
        async with await house.ask("/drip?n=5&gap=1000") as response:
            with trio.move_on_after(2.5) as patience:
                await response.keep(5)
            assert patience.cancelled_caught
            assert not response.is_kept
            assert house.counts == (1, 0, 0)
            if goes_on:
                assert (await response.read_some()).startswith(b"..")
                assert await response.keep(5)
                assert response.is_kept
        house.check_nothing_is_left()


async def test_an_answer_without_a_body_is_kept(house: House) -> None:
    async with await house.ask(method=b"HEAD") as response:
        assert await response.keep(0)
        assert await response.read_some() == b""
    async with await house.ask("/nolen") as response:
        assert await response.keep(100)
        assert await response.read_all() == b"until close"
