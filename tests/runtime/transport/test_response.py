"""A response as its reader sees it: pieces, ends, leaving early, and bounds."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.runtime.transport.conftest import House
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    BodyTooLarge,
    TransportError,
)
from vastar_runtime.transport.fake import Serve
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
