"""How a connection is opened: happy eyeballs, the address check, the time limit and its phase."""

import errno
from collections.abc import Callable

import pytest
import trio

from tests.runtime.transport.conftest import House
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    FaultKind,
    LocalFault,
    Origin,
    Phase,
    ProxySettings,
    Scope,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.fake import BlackHole, Refuse, Serve

Hosts = Callable[..., None]


async def failing_call(house: House, **more: object) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await house.fetch(host="other.test", **more)
    house.check_nothing_is_left()
    assert house.counts == (0, 0, 0)
    assert caught.value.disposition is Disposition.NOT_SENT
    return caught.value


async def test_an_unknown_name(house: House) -> None:
    error = await failing_call(house)
    assert str(error) == "name lookup failed for other.test:80: name not found"
    assert error.phase is Phase.DNS
    assert error.kind is FaultKind.LOOKUP


async def test_a_name_that_cannot_be_one_is_our_own_fault(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int, *, tenant: str) -> None:
        f"{host}.test".encode("idna")

    monkeypatch.setattr(house.network, "resolve", resolve)
    with pytest.raises(TransportError, match="not a valid host name") as caught:
        await house.fetch(host="a" * 64)
    assert caught.value.kind is FaultKind.LOCAL


@pytest.mark.parametrize(
    ("number", "cause", "kind"),
    [
        (errno.ECONNREFUSED, "connection refused", FaultKind.CONNECT),
        (errno.EHOSTUNREACH, "host unreachable", FaultKind.CONNECT),
        (errno.ENETUNREACH, "network unreachable", FaultKind.CONNECT),
        (errno.ETIMEDOUT, "connection timed out", FaultKind.CONNECT),
        (errno.EPROTO, "protocol error", FaultKind.CONNECT),
        (errno.EMFILE, "too many open files in the runtime", FaultKind.LOCAL),
        (errno.ENFILE, "too many open files on this host", FaultKind.LOCAL),
        (errno.EADDRNOTAVAIL, "no local address or port is left", FaultKind.LOCAL),
    ],
)
async def test_a_refused_connection(
    house: House, serve: Hosts, number: int, cause: str, kind: FaultKind
) -> None:
    serve(Refuse(number=number))
    error = await failing_call(house)
    assert (error.phase, error.cause, error.kind) == (Phase.CONNECT, cause, kind)


async def test_the_time_limit_names_the_phase_that_took_too_long(
    house: House, serve: Hosts
) -> None:
    for name, behaviour, lookup_s, phase in [
        ("slow-dns", Refuse(), 60.0, Phase.DNS),
        ("black-hole", BlackHole(), 4.0, Phase.CONNECT),
    ]:
        serve(behaviour, name=name, lookup_s=lookup_s)
        began_s = trio.current_time()
        with pytest.raises(TransportError) as caught:
            await house.fetch(host=name)
        assert (caught.value.phase, caught.value.timed_out) == (phase, True)
        assert caught.value.cause == "timed out after 5 s"
        assert caught.value.kind is FaultKind.CONNECT, "whatever took the time"
        assert trio.current_time() - began_s == pytest.approx(5)
        house.check_nothing_is_left()


async def test_the_time_limit_is_configurable_and_ends_with_the_handshake(
    house: House, serve: Hosts
) -> None:
    house.make(TransportSettings(connect_timeout_s=0.5))
    serve(BlackHole())
    assert (await failing_call(house)).cause == "timed out after 0.5 s"
    await house.fetch("/sleep?ms=10000")


async def test_the_callers_deadline_leaves_the_phase_behind(house: House, serve: Hosts) -> None:
    serve(BlackHole())
    with trio.move_on_after(1):
        await house.fetch(host="other.test")
    assert house.progress.phase is Phase.CONNECT
    assert house.progress.disposition is Disposition.NOT_SENT
    house.check_nothing_is_left()


async def test_happy_eyeballs_gives_each_address_a_head_start(house: House, serve: Hosts) -> None:
    good = Serve(house.upstream.handle)
    serve(BlackHole(), BlackHole(), good, BlackHole(), ipv6=[0, 1])
    await house.fetch(host="other.test")
    # IPv6, IPv4 (the good one): families take turns.
    assert trio.current_time() == pytest.approx(0.25)
    assert house.progress.connect_us == 250_000
    assert len(house.network.open_channels) == 1


async def test_a_refused_address_gives_way_at_once(house: House, serve: Hosts) -> None:
    serve(Refuse(), Refuse(after_s=0.1), Serve(house.upstream.handle))
    await house.fetch(host="other.test")
    assert trio.current_time() == pytest.approx(0.1)


async def test_a_slow_winner_is_kept_and_the_late_one_closed(house: House, serve: Hosts) -> None:
    serve(Serve(house.upstream.handle, after_s=0.3), Serve(house.upstream.handle, after_s=0.05))
    await house.fetch(host="other.test")
    assert trio.current_time() == pytest.approx(0.3)
    await trio.sleep(10)
    assert len(house.network.open_channels) == 1
    assert house.counts == (0, 1, 0)


async def test_when_all_fail_the_first_failure_is_told(house: House, serve: Hosts) -> None:
    serve(Refuse(number=errno.EHOSTUNREACH, after_s=1), Refuse(), Refuse())
    assert (await failing_call(house)).cause == "host unreachable"
    assert trio.current_time() == pytest.approx(1)


async def test_only_addresses_that_pass_the_check_are_connected_to(
    house: House, serve: Hosts
) -> None:
    asked: list[tuple[Scope, Origin, str]] = []
    allowed: set[str] = set()

    def check(scope: Scope, origin: Origin, ip: str) -> None:
        asked.append((scope, origin, ip))
        if ip not in allowed:
            raise LocalFault(f"not to {ip}")

    house.make(check_address=check)
    good = Serve(house.upstream.handle)
    ips = house.network.add_host("other.test", good, good)
    error = await failing_call(house)
    assert (error.cause, error.kind) == (f"not to {ips[1]}", FaultKind.LOCAL)
    assert house.progress.phase is Phase.DNS
    assert asked == [(("tenant", "workspace"), Origin("http", "other.test", 80), ip) for ip in ips]
    allowed.add(ips[1])
    await house.fetch(host="other.test")
    assert [address.ip for address in house.network.connected] == [ips[1]]
    assert len(house.network.lookups) == 2, "one lookup a connection: what was checked is used"
    with pytest.raises(TransportError):
        await house.fetch(host=ips[0])
    house.check_nothing_is_left()


async def test_whatever_an_address_check_raises_forbids(house: House, serve: Hosts) -> None:
    def check(scope: Scope, origin: Origin, ip: str) -> None:
        raise ZeroDivisionError("a secret")

    house.make(check_address=check)
    serve(Serve(house.upstream.handle))
    error = await failing_call(house)
    assert (error.cause, error.kind) == ("ZeroDivisionError", FaultKind.LOCAL)


class NoEntry(LocalFault):
    """A check's own."""


async def test_what_a_check_raises_is_the_cause_of_the_error(house: House, serve: Hosts) -> None:
    refusal = NoEntry("not there")

    def check(scope: Scope, origin: Origin, ip: str) -> None:
        raise refusal

    house.make(check_address=check)
    serve(Serve(house.upstream.handle))
    assert (await failing_call(house)).__cause__ is refusal


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_proxies_are_judged_by_a_check_of_their_own(
    house: House, serve: Hosts, scheme: str
) -> None:
    asked: list[tuple[Scope, str]] = []

    def check(scope: Scope, ip: str) -> None:
        asked.append((scope, ip))
        raise NoEntry("no such proxy")

    serve(Serve(house.upstream.handle))
    ips = house.network.add_host("proxy.test", Refuse(), Refuse())
    proxy = ProxySettings(all=f"{scheme}://proxy.test:3128")
    house.make(TransportSettings(proxy=proxy), check_proxy_address=check)
    error = await failing_call(house)
    assert (error.phase, error.kind) == (Phase.PROXY, FaultKind.LOCAL)
    assert error.cause == "proxy.test:3128: no such proxy"
    assert isinstance(error.__cause__, NoEntry)
    assert asked == [(("tenant", "workspace"), ip) for ip in ips]
    assert house.network.connected == []


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
async def test_an_address_that_a_proxy_is_asked_for_is_judged_here(
    house: House, scheme: str
) -> None:
    asked: list[str] = []

    def check(scope: Scope, origin: Origin, ip: str) -> None:
        asked.append(ip)
        raise NoEntry("not there")

    house.network.add_host("proxy.test", Refuse())
    proxy = ProxySettings(all=f"{scheme}://proxy.test:3128")
    house.make(TransportSettings(proxy=proxy), check_address=check)
    for host in ("10.0.0.1", "::1"):
        with pytest.raises(TransportError, match="not there"):
            await house.fetch(host=host)
    with pytest.raises(TransportError, match="connection refused"):
        await house.fetch(host="named.test")  # the proxy looks that up
    assert asked == ["10.0.0.1", "::1"]
    house.check_nothing_is_left()
