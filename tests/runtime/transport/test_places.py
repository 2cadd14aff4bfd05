"""A place in the pool, acquired by itself: waited for, given back unused, used once."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.runtime.transport.conftest import SCOPE, House, make_request
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    FaultKind,
    Origin,
    Phase,
    Place,
    Progress,
    RouteSettings,
    TlsSettings,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.fake import Close, Refuse, Request, Script, Send, Wait

Hosts = Callable[..., None]
API = Origin("http", "api.test", 80)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def acquire(house: House, origin: Origin = API) -> Place:
    house.progress = Progress()
    return await house.transport.acquire(SCOPE, origin, house.progress)


async def exchange(house: House, place: Place, target: str = "/small") -> int:
    """Make the exchange and read it to its end; its status."""
    request = make_request(target, host=place.origin.host)
    async with await house.transport.exchange(place, request, house.progress) as response:
        await response.read_all()
        return response.status


async def test_a_place_is_had_without_connecting_and_then_used(house: House) -> None:
    place = await acquire(house)
    assert (place.scope, place.origin, place.route) == (SCOPE, API, None)
    assert house.counts == (1, 0, 0)
    assert not house.network.lookups
    assert await exchange(house, place) == 200
    assert house.counts == (0, 1, 0)
    house.check_nothing_is_left()


async def test_waiting_for_a_place_is_told_apart_from_the_exchange(house: House) -> None:
    house.make(TransportSettings(connections_per_key=1))
    held = await acquire(house)
    held_progress = house.progress

    async def second() -> None:
        place = await acquire(house)
        assert (house.progress.phase, house.progress.queued_us) == (Phase.POOL, 3_000_000)
        assert house.progress.disposition is Disposition.NOT_SENT
        with trio.fail_after(1):
            assert await exchange(house, place) == 200

    async with trio.open_nursery() as nursery:
        nursery.start_soon(second)
        await trio.sleep(3)
        assert house.counts == (1, 0, 1)
        house.transport.release(held)
    assert held_progress.queued_us is None
    house.check_nothing_is_left()


async def test_a_wait_that_was_cut_off_is_told_too(house: House) -> None:
    house.make(TransportSettings(connections_per_key=1))
    held = await acquire(house)
    with trio.move_on_after(2):
        await acquire(house)
    assert (house.progress.phase, house.progress.queued_us) == (Phase.POOL, 2_000_000)
    house.transport.release(held)
    house.check_nothing_is_left()


async def test_a_place_given_back_without_a_connection_leaves_nothing(house: House) -> None:
    place = await acquire(house)
    for _ in range(3):
        house.transport.release(place)
        assert house.counts == (0, 0, 0)
    house.check_nothing_is_left()


async def test_an_idle_connection_survives_a_place_that_was_not_used(house: House) -> None:
    await house.fetch()
    for _ in range(3):
        place = await acquire(house)
        assert house.counts == (1, 0, 0)
        house.transport.release(place)
        assert house.counts == (0, 1, 0)
    await house.fetch()
    assert house.progress.reused
    assert len(house.network.connected) == 1
    house.check_nothing_is_left()


async def test_a_waiter_gets_the_connection_of_a_place_that_was_not_used(house: House) -> None:
    house.make(TransportSettings(connections_per_key=1))
    await house.fetch()
    place = await acquire(house)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.fetch)
        await trio.testing.wait_all_tasks_blocked()
        house.transport.release(place)
    assert house.progress.reused
    house.check_nothing_is_left()


async def test_a_connection_grows_old_although_its_place_is_taken_in_vain(house: House) -> None:
    house.nursery.start_soon(house.transport.run)
    await house.fetch()
    for _ in range(2):
        await trio.sleep(14)
        house.transport.release(await acquire(house))
    await trio.sleep(2.001)
    assert house.counts == (0, 0, 0)
    house.check_nothing_is_left()


@pytest.mark.parametrize("idle_s", [2, 31])
async def test_a_connection_that_died_meanwhile_is_not_given_back(
    house: House, serve: Hosts, idle_s: int
) -> None:
    """The upstream closes it after 1 s; and at 30 s it has been idle too long."""
    end = [Wait(1), Close()] if idle_s == 2 else [Wait()]
    serve(Script([Request(), Send(OK), *end]))
    await house.fetch(host="other.test")
    place = await acquire(house, Origin("http", "other.test", 80))
    await trio.sleep(idle_s)
    house.transport.release(place)
    assert house.counts == (0, 0, 0)
    house.check_nothing_is_left()


async def test_a_connection_that_died_while_its_place_was_held_is_not_used(
    house: House, serve: Hosts
) -> None:
    serve(Script([Request(), Send(OK), Wait(1), Close()]))
    await house.fetch(host="other.test")
    place = await acquire(house, Origin("http", "other.test", 80))
    await trio.sleep(2)
    assert await exchange(house, place) == 200
    assert (house.progress.reused, house.progress.resent) == (False, False)


async def test_giving_back_does_nothing_once_the_place_was_used(house: House) -> None:
    house.make(TransportSettings(connections_per_key=1))
    place = await acquire(house)
    request = make_request("/drip?n=3")
    async with await house.transport.exchange(place, request, house.progress) as response:
        house.transport.release(place)
        assert house.counts == (1, 0, 0)
        assert await response.read_all() == b"..."
    other = await acquire(house)  # the same connection, of somebody else
    house.transport.release(place)
    assert house.counts == (1, 0, 0)
    house.transport.release(other)
    house.check_nothing_is_left()


async def test_giving_back_does_nothing_after_a_failed_exchange(house: House, serve: Hosts) -> None:
    serve(Refuse())
    place = await acquire(house, Origin("http", "other.test", 80))
    with pytest.raises(TransportError) as caught:
        await exchange(house, place)
    assert caught.value.kind is FaultKind.CONNECT
    assert house.counts == (0, 0, 0)
    house.transport.release(place)
    house.check_nothing_is_left()


async def test_an_exchange_that_runs_out_of_time_gives_its_place_back(house: House) -> None:
    place = await acquire(house)
    with trio.move_on_after(1):
        await exchange(house, place, "/hang?s=1000")
    house.check_nothing_is_left()
    assert house.counts == (0, 0, 0)


async def test_a_place_serves_once_and_its_own_origin(house: House) -> None:
    place = await acquire(house)
    with pytest.raises(AssertionError, match="its own origin"):
        await house.transport.exchange(place, make_request(port=81), house.progress)
    with pytest.raises(AssertionError, match="one exchange"):
        await exchange(house, place)
    house.check_nothing_is_left()


async def test_a_place_keeps_its_route(house: House) -> None:
    route = RouteSettings(tls=TlsSettings(min_version="1.3"))
    for reused in (False, True):
        progress = Progress()
        place = await house.transport.acquire(SCOPE, API, progress, route=route)
        assert place.route is route
        async with await house.transport.exchange(place, make_request(), progress) as response:
            await response.read_all()
        assert progress.reused is reused
    assert await exchange(house, await acquire(house)) == 200
    assert not house.progress.reused, "another route, another connection"


@pytest.mark.parametrize("warm", [False, True])
async def test_closing_the_transport_under_a_place(house: House, *, warm: bool) -> None:
    if warm:
        await house.fetch()
        await house.fetch(port=81)
    used, unused = await acquire(house), await acquire(house, Origin("http", "api.test", 81))
    await house.transport.aclose()
    house.network.lookups.clear()
    with pytest.raises(TransportError, match="was closed") as caught:
        await exchange(house, used)
    assert caught.value.kind is FaultKind.LOCAL
    assert not house.network.lookups, "nothing is begun any more"
    house.transport.release(unused)
    assert house.counts == (0, 0, 0)
    house.check_nothing_is_left()
    with pytest.raises(TransportError, match="was closed") as caught:
        await acquire(house)
    assert caught.value.kind is FaultKind.LOCAL
