"""A call cancelled at any of its await points leaves no socket, slot, waiter or task behind.

Each scenario is run once for every await point that it has, in a house of its own.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.runtime.transport.conftest import SCOPE, House, make_request
from tests.support.http_bodies import ScriptedBody
from tests.support.http_cancel import cancelled_at
from tests.support.http_proxies import HttpProxy, SocksProxy
from tests.support.http_tls import Authority
from tests.support.upstream import Upstream
from vastar_runtime.transport import (
    Progress,
    ProxySettings,
    TlsSettings,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.fake import (
    Close,
    FakeNetwork,
    Refuse,
    Request,
    Script,
    Send,
    Serve,
    Wait,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Setup = Callable[[House, Path], Awaitable[Callable[[], Awaitable[object]]]]


async def fresh(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    slow = Serve(house.upstream.handle, after_s=0.1)
    house.network.add_host("other.test", Refuse(after_s=0.1), slow, slow, lookup_s=0.1)
    return lambda: house.fetch("/chunked", host="other.test")


async def reused(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    await house.fetch()
    return lambda: house.fetch("/drip?n=3")


async def resent(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    house.network.add_host("other.test", Script([Request(), Send(OK), Request(), Close()]))
    await house.fetch(host="other.test")
    return lambda: house.fetch(host="other.test")


async def waiting(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    house.make(TransportSettings(connections_per_key=1))
    house.nursery.start_soon(house.fetch, "/sleep?ms=1000")
    await trio.sleep(0.5)
    return lambda: house.fetch("/small")


async def making_room(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    house.make(TransportSettings(connections_total=1))
    house.nursery.start_soon(house.fetch, "/sleep?ms=1000")
    await trio.sleep(0.5)
    return lambda: house.fetch("/small", port=81)


async def big_upload(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    return lambda: house.fetch("/echo", method=b"POST", body=bytes(300_000))


async def refused_upload(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    refusal = b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n"
    house.network.add_host("other.test", Script([Wait(1), Send(refusal), Wait(1), Close()]))
    return lambda: house.fetch(host="other.test", method=b"POST", body=bytes(300_000))


async def streamed_upload(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    steps = [1.0, bytes(200_000), 1.0, b"end"]
    return lambda: house.fetch("/echo", method=b"POST", body=ScriptedBody(steps))


async def refused_stream(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    refusal = b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n"
    house.network.add_host("other.test", Script([Wait(1), Send(refusal), Wait(1), Close()]))
    body = [bytes(50_000), 0.5, bytes(50_000)]
    return lambda: house.fetch(host="other.test", method=b"POST", body=ScriptedBody(body))


async def resent_stream(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    house.network.add_host("other.test", Script([Request(), Send(OK), Request(), Close()]))
    await house.fetch(host="other.test")
    steps = [b"a", 1.0, b"b"]
    return lambda: house.fetch(host="other.test", method=b"PUT", body=ScriptedBody(steps, 2))


async def failing_stream(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    async def call() -> None:
        with pytest.raises(TransportError):
            await house.fetch("/echo", method=b"POST", body=ScriptedBody([b"a", 1.0], 2))

    return call


async def placed(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    """A place waited for, with something to wait for before it is used or given back."""
    house.make(TransportSettings(connections_per_key=1))
    house.nursery.start_soon(house.fetch, "/sleep?ms=1000")
    await trio.sleep(0.5)

    async def call() -> None:
        for use in (False, True):
            request, progress = make_request("/drip?n=3"), Progress()
            place = await house.transport.acquire(SCOPE, request.origin, progress)
            try:
                await trio.sleep(1)
                if use:
                    async with await house.transport.exchange(place, request, progress) as answer:
                        await answer.read_all()
            finally:
                house.transport.release(place)

    return call


async def kept(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    house.make(TransportSettings(connections_per_key=1))

    async def call() -> None:
        async with await house.ask("/drip?n=3&gap=1000") as response:
            assert await response.keep(3)
            await house.fetch()
            assert await response.read_all() == b"..."

    return call


def tls_house(house: House, folder: Path, proxy: ProxySettings | None = None) -> None:
    authority = Authority.make(folder)
    context = authority.server("secure.test")

    async def handle(channel: object) -> None:
        await house.upstream.handle_tls(channel, context)  # type: ignore[arg-type]

    house.network.add_host("secure.test", Serve(handle))
    tls = TlsSettings(ca_file=authority.ca_file)
    house.make(TransportSettings(tls=tls, proxy=proxy or ProxySettings()))


async def secure(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    tls_house(house, folder)
    return lambda: house.fetch("/chunked", scheme="https", host="secure.test", port=443)


async def secure_upload(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    tls_house(house, folder)
    return lambda: house.fetch(
        "/echo",
        scheme="https",
        host="secure.test",
        port=443,
        method=b"POST",
        body=bytes(200_000),
    )


async def secure_stream(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    tls_house(house, folder)
    address = {"scheme": "https", "host": "secure.test", "port": 443}
    steps = [bytes(100_000), 1.0, bytes(100_000)]
    return lambda: house.fetch("/echo", method=b"POST", body=ScriptedBody(steps), **address)


async def connect_proxy(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    tls_house(house, folder, ProxySettings(all="http://proxy.test:3128"))
    house.network.add_host("proxy.test", Serve(HttpProxy(house.network).handle))
    return lambda: house.fetch(scheme="https", host="secure.test", port=443)


async def socks_proxy(house: House, folder: Path) -> Callable[[], Awaitable[object]]:
    house.make(TransportSettings(proxy=ProxySettings(all="socks5h://u:p@proxy.test")))
    server = SocksProxy(house.network, credentials="u:p", piece_bytes=1)
    house.network.add_host("proxy.test", Serve(server.handle))
    return house.fetch


SCENARIOS: list[Setup] = [
    fresh,
    reused,
    resent,
    waiting,
    making_room,
    placed,
    kept,
    big_upload,
    refused_upload,
    streamed_upload,
    refused_stream,
    resent_stream,
    failing_stream,
    secure,
    secure_stream,
    secure_upload,
    connect_proxy,
    socks_proxy,
]


async def run_once(setup: Setup, folder: Path, step: int) -> bool:
    """Cancel the scenario's call at `step`; whether it has so many. The house is checked after."""
    async with trio.open_nursery() as nursery:
        upstream = Upstream()
        network = FakeNetwork(nursery)
        network.add_host("api.test", Serve(upstream.handle))
        house = House(network, upstream, nursery)
        house.make()
        call = await setup(house, folder)

        async def as_coroutine() -> None:
            await call()

        cancelled = await cancelled_at(step, as_coroutine())
        await trio.sleep(100)  # whoever else called has ended
        house.transport._pool.check()
        busy, idle, waiters = house.counts
        assert (busy, waiters) == (0, 0)
        assert not house.transport._busy
        transport_ends = {slot.connection for b in house.transport._pool for slot in b.idle}
        assert len(transport_ends) == idle
        # A proxy's own connections are beside those of the transport.
        await house.transport.aclose()
        await trio.sleep(1)
        assert not house.network.open_channels
        assert not upstream.seen("conn_open") or len(upstream.seen("conn_close")) == len(
            upstream.seen("conn_open")
        )
        house.make()
        await house.fetch()
        await house.transport.aclose()
        nursery.cancel_scope.cancel()
    return cancelled


@pytest.mark.parametrize("setup", SCENARIOS, ids=lambda setup: setup.__name__)
async def test_cancelled_at_every_await_point(
    setup: Setup, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    step = 1
    while await run_once(setup, tmp_path, step):
        step += 1
    assert step > 2, "the scenario never waited"
