"""Connections that serve again: when they may, when they are replaced, and when they are closed."""

from collections.abc import Callable

import pytest
import trio

from tests.runtime.transport.conftest import House
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import PoolStatus, TransportError
from vastar_runtime.transport.fake import Close, Request, Reset, Script, Send, Serve, Wait
from vastar_runtime.transport.memory import MemoryChannel

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Hosts = Callable[..., None]


async def test_connections_are_reused_but_never_across_scopes_or_origins(house: House) -> None:
    house.network.add_host("b.test", Serve(house.upstream.handle))
    for scope, host, port in [
        (("t", "w"), "api.test", 80),
        (("t", "w"), "api.test", 81),
        (("t", "w"), "b.test", 80),
        (("t", "other"), "api.test", 80),
        (("other", "w"), "api.test", 80),
    ]:
        before = len(house.network.connected)
        await house.fetch(scope=scope, host=host, port=port)
        assert not house.progress.reused
        await house.fetch(scope=scope, host=host, port=port)
        assert house.progress.reused
        assert len(house.network.connected) == before + 1
    assert PoolStatus("t", "other", "http://api.test", 0, 1, 0) in house.transport.stats()


async def test_idle_connections_are_swept_in_virtual_time(house: House) -> None:
    house.nursery.start_soon(house.transport.run)
    await house.fetch()
    await trio.sleep(29)
    assert house.counts == (0, 1, 0)
    await house.fetch()
    assert house.progress.reused
    await trio.sleep(29)
    assert house.counts == (0, 1, 0)
    await trio.sleep(1.001)
    assert house.counts == (0, 0, 0)
    house.check_nothing_is_left()
    await trio.sleep(10_000)
    await house.fetch()
    await trio.sleep(31)
    assert house.counts == (0, 0, 0)


async def test_without_the_sweeper_old_connections_are_found_when_taken(house: House) -> None:
    await house.fetch()
    await trio.sleep(30.001)
    await house.fetch()
    assert not house.progress.reused
    assert len(house.network.open_channels) == 1


async def test_a_connection_of_ten_minutes_takes_no_further_request(house: House) -> None:
    for _ in range(40):
        await house.fetch()
        await trio.sleep(20)
    assert len(house.network.connected) == 2
    async with await house.ask("/drip?n=10&gap=100000") as response:
        await response.read_all()  # it grows old meanwhile
    assert house.counts == (0, 0, 0)


async def test_an_idle_connection_that_the_upstream_closed_is_not_used(
    house: House, serve: Hosts
) -> None:
    serve(Script([Request(), Send(OK), Wait(1), Close()]))
    await house.fetch(host="other.test", method=b"POST")
    await trio.sleep(2)
    assert await house.fetch(host="other.test", method=b"POST") == (200, b"ok")
    assert (house.progress.reused, house.progress.resent) == (False, False)


async def test_an_idle_connection_with_stray_bytes_is_not_used(house: House, serve: Hosts) -> None:
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    serve(Script([Request(), Send(OK), Wait(1), Send(stray), Wait()]))
    await house.fetch(host="other.test")
    await trio.sleep(2)
    assert await house.fetch(host="other.test") == (200, b"ok")
    assert not house.progress.reused


async def test_bytes_behind_a_response_end_the_connection(house: House, serve: Hosts) -> None:
    serve(Script([Request(), Send(OK + b"HTTP/1.1 200 OK\r\n"), Wait()]))
    assert await house.fetch(host="other.test") == (200, b"ok")
    assert house.counts == (0, 0, 0)


DEAD_WHEN_REUSED = {
    "closed": [Request(), Send(OK), Request(), Close()],
    "reset": [Request(), Send(OK), Request(), Reset()],
}


@pytest.mark.parametrize("how", DEAD_WHEN_REUSED)
@pytest.mark.parametrize(
    ("method", "replayable", "again"),
    [
        (b"GET", False, True),
        (b"HEAD", False, True),
        (b"OPTIONS", False, True),
        (b"TRACE", False, True),
        (b"PUT", False, True),
        (b"DELETE", False, True),
        (b"POST", False, False),
        (b"PATCH", False, False),
        (b"get", False, False),
        (b"POST", True, True),
    ],
)
async def test_a_dead_idle_connection_is_replaced_once_where_that_is_safe(
    house: House, serve: Hosts, how: str, *, method: bytes, replayable: bool, again: bool
) -> None:
    serve(Script(DEAD_WHEN_REUSED[how]))
    await house.fetch(host="other.test")
    if again:
        status, _ = await house.fetch(host="other.test", method=method, replayable=replayable)
        assert status == 200
        assert house.progress.resent
        assert house.progress.disposition is Disposition.COMPLETED
    else:
        with pytest.raises(TransportError) as caught:
            await house.fetch(host="other.test", method=method, replayable=replayable)
        assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
        assert not house.progress.resent
    assert len(house.network.connected) == 1 + again
    house.check_nothing_is_left()


async def test_the_second_sending_is_the_last(house: House, serve: Hosts) -> None:
    answers = iter([[Request(), Send(OK), Request(), Close()], [Request(), Close()]])

    async def behave(channel: MemoryChannel) -> None:
        await Script(next(answers))(channel)

    serve(Serve(behave))
    await house.fetch(host="other.test")
    with pytest.raises(TransportError, match="closed before the response"):
        await house.fetch(host="other.test")
    assert len(house.network.connected) == 2
    assert house.progress.resent
    house.check_nothing_is_left()


async def test_a_fresh_connection_that_dies_is_not_tried_again(house: House) -> None:
    with pytest.raises(TransportError):
        await house.fetch("/closenow")
    assert len(house.network.connected) == 1


async def test_nothing_is_sent_again_once_a_byte_came_back(house: House, serve: Hosts) -> None:
    serve(Script([Request(), Send(OK), Request(), Send(b"H"), Close()]))
    await house.fetch(host="other.test")
    with pytest.raises(TransportError, match="closed inside the response head"):
        await house.fetch(host="other.test")
    assert len(house.network.connected) == 1
    assert house.progress.disposition is Disposition.RESPONSE_STARTED


async def test_after_a_renewal_only_new_connections_are_used(house: House) -> None:
    await house.fetch()
    response = await house.ask("/big?n=300000")  # takes the kept one, and is under way
    house.transport.renew()
    async with response:
        while await response.read_some():
            pass
    assert house.counts == (0, 0, 0), "it is not kept"
    await trio.sleep(1)
    await house.fetch()
    assert not house.progress.reused
    await house.fetch()
    assert house.progress.reused
    house.transport.renew()
    await trio.sleep(1)
    await house.fetch()
    assert not house.progress.reused


async def test_a_connection_that_was_begun_before_a_renewal_is_old(house: House) -> None:
    house.network.add_host("slow.test", Serve(house.upstream.handle, after_s=2))
    async with trio.open_nursery() as nursery:

        async def renew_meanwhile() -> None:
            await trio.sleep(1)
            house.transport.renew()

        nursery.start_soon(renew_meanwhile)
        await house.fetch(host="slow.test")
    assert house.counts == (0, 0, 0)
