"""The real network: lookups in threads of their own under two caps, and connecting on loopback."""

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from vastar_runtime.transport.channel import SocketChannel
from vastar_runtime.transport.network import (
    Address,
    SystemNetwork,
    is_numeric,
    is_own_address,
)


class Resolver:
    """Stands in for getaddrinfo: lookups hang until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = self.most = self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        with self._lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(10)
        with self._lock:
            self.running -= 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.go.set()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it is set by threads
        await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
async def test_a_numeric_address_needs_no_lookup(
    resolver: Resolver, host: str, family: int
) -> None:
    found = await SystemNetwork().resolve(host, 80, tenant="t")
    assert found == [Address(family, (host, 80))]
    assert found[0].ip == host
    assert resolver.calls == 0


async def test_a_name_is_looked_up(resolver: Resolver) -> None:
    resolver.go.set()
    found = await SystemNetwork().resolve("api.test", 80, tenant="t")
    assert found == [Address(socket.AF_INET, ("192.0.2.1", 80))]


async def test_one_tenant_cannot_occupy_the_lookups_of_another(resolver: Resolver) -> None:
    network = SystemNetwork(lookup_threads=10, lookup_threads_per_tenant=2)
    async with trio.open_nursery() as nursery:

        async def resolve(tenant: str) -> None:
            await network.resolve("api.test", 80, tenant=tenant)

        for _ in range(6):
            nursery.start_soon(resolve, "greedy")
        await until(lambda: resolver.running == 2)
        nursery.start_soon(resolve, "other")
        await until(lambda: resolver.running == 3)
        resolver.go.set()
    assert resolver.calls == 7
    assert network._tenants == {}, "nothing is kept of tenants that look nothing up"


async def test_an_abandoned_lookup_keeps_its_places_until_its_thread_ends(
    resolver: Resolver,
) -> None:
    network = SystemNetwork(lookup_threads=1, lookup_threads_per_tenant=1)
    async with trio.open_nursery() as nursery:

        async def resolve() -> None:
            await network.resolve("api.test", 80, tenant="t")

        nursery.start_soon(resolve)
        await until(lambda: resolver.running == 1)
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught, "the caller does not wait for the resolver"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resolve)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert resolver.calls == 1
        resolver.go.set()
    assert resolver.calls == 2
    assert resolver.most == 1


async def test_a_lookup_cancelled_in_the_common_queue_gives_its_own_place_back(
    resolver: Resolver,
) -> None:
    network = SystemNetwork(lookup_threads=1, lookup_threads_per_tenant=1)
    async with trio.open_nursery() as nursery:

        async def resolve(tenant: str) -> None:
            await network.resolve("api.test", 80, tenant=tenant)

        nursery.start_soon(resolve, "first")
        await until(lambda: resolver.running == 1)
        with trio.move_on_after(0.02) as scope:
            await resolve("second")
        assert scope.cancelled_caught
        resolver.go.set()
        with trio.fail_after(5):
            await resolve("second")
    assert resolver.calls == 2


async def test_nothing_is_kept_of_a_tenant_whose_lookup_was_cancelled_before_it_began(
    resolver: Resolver,
) -> None:
    network = SystemNetwork(lookup_threads=1)
    async with trio.open_nursery() as nursery:

        async def resolve(tenant: str) -> None:
            await network.resolve("api.test", 80, tenant=tenant)

        nursery.start_soon(resolve, "first")
        await until(lambda: resolver.running == 1)
        for patience_s in (0, 0.02):  # at once, and in the common queue
            with trio.move_on_after(patience_s):
                await resolve(f"made up {patience_s}")
        assert [*network._tenants] == ["first"]
        resolver.go.set()


async def test_connecting_and_being_refused() -> None:
    network = SystemNetwork()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(socket.AF_INET, listener.getsockname())
        channel = await network.connect(address)
        assert isinstance(channel, SocketChannel)
        accepted, _ = listener.accept()
        with accepted:
            await channel.send_buffers([b"hello"])
            assert accepted.recv(5) == b"hello"
        channel.abort()
    with pytest.raises(ConnectionRefusedError):
        await network.connect(address)


async def test_cancelled_while_connecting_closes_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    async def never(sock: socket.socket) -> None:
        made.append(sock)
        await trio.sleep_forever()

    monkeypatch.setattr(trio.lowlevel, "wait_writable", never)
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EINPROGRESS)
    with trio.move_on_after(0.01) as scope:
        await SystemNetwork().connect(Address(socket.AF_INET, ("127.0.0.1", 1)))
    assert scope.cancelled_caught
    assert made[0].fileno() == -1


def test_what_only_proxies_need_is_imported_only_for_them() -> None:
    code = (
        "import sys, vastar_runtime.transport;"
        "print([n for n in ('httpcore', 'socksio', 'h11', 'trio.testing') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert shown.stdout == "[]\n"


def test_this_hosts_own_addresses() -> None:
    assert is_own_address("127.0.0.1")


def test_every_address_that_this_host_would_send_from_is_its_own() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return  # no way out of this host
        assert is_own_address(sock.getsockname()[0])


@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::1", "240.0.0.1", "nonsense", ""])
def test_those_of_others_and_what_is_none(ip: str) -> None:
    assert not is_own_address(ip)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("10.0.0.1", True), ("::1", True), ("api.test", False), ("127.1", False), ("", False)],
)
def test_hosts_that_are_addresses(host: str, expected: bool) -> None:
    assert is_numeric(host) is expected
