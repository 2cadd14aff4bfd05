"""The way through each kind of proxy, and what can go wrong on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runtime.transport.conftest import House
from tests.support.http_proxies import HttpProxy, SocksProxy
from tests.support.http_tls import Authority
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    FaultKind,
    Phase,
    ProxySettings,
    TlsSettings,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.channel import Channel, ChannelStream, StreamChannel
from vastar_runtime.transport.fake import BlackHole, Refuse, Reset, Script, Send, Serve, Wait

Prepare = Callable[..., Any]


@pytest.fixture
def prepare(house: House, tmp_path: Path) -> Prepare:
    """Put a proxy before everything, and a TLS upstream at `secure.test`."""
    authority = Authority.make(tmp_path)
    context = authority.server("secure.test", "proxy.test")

    async def secure(channel: Channel) -> None:
        await house.upstream.handle_tls(channel, context)

    house.network.add_host("secure.test", Serve(secure))

    def put(url: str, server: Any) -> None:
        behaviour = server if not hasattr(server, "handle") else Serve(server.handle)
        house.network.add_host("proxy.test", behaviour)
        house.make(
            TransportSettings(
                tls=TlsSettings(ca_file=authority.ca_file), proxy=ProxySettings(all=url)
            )
        )

    put.context = context  # type: ignore[attr-defined]
    return put


async def fetch_secure(house: House, target: str = "/small") -> tuple[int, bytes]:
    return await house.fetch(target, scheme="https", host="secure.test", port=443)


async def test_plain_http_goes_in_absolute_form(house: House, prepare: Prepare) -> None:
    proxy = HttpProxy(house.network, credentials="me:hunter2")
    prepare("http://me:hunter2@proxy.test:3128", proxy)
    assert (await house.fetch("/echo?a=b", port=8080))[0] == 200
    assert proxy.heads[0].startswith(b"GET http://api.test:8080/echo?a=b HTTP/1.1\r\nhost: api.te")
    assert proxy.asked == [("api.test", 8080)]
    await house.fetch("/small", port=8080)
    assert house.progress.reused
    assert len(house.upstream.seen("conn_open")) == 1


async def test_https_goes_through_a_tunnel(house: House, prepare: Prepare) -> None:
    proxy = HttpProxy(house.network, credentials="me:hunter2")
    prepare("http://me:hunter2@proxy.test", proxy)
    assert (await fetch_secure(house))[0] == 200
    assert proxy.heads[0].startswith(b"CONNECT secure.test:443 HTTP/1.1\r\n")
    assert proxy.asked == [("secure.test", 443)]
    (seen,) = house.upstream.seen("req")
    assert "hunter2" not in str(seen)
    assert "authorization" not in str(seen).lower(), "the credentials are the proxy's alone"
    assert house.progress.tls_us is not None
    assert "secure.test" not in house.network.lookups[:1], "the proxy looks the name up"


async def test_a_proxy_that_speaks_tls_itself(house: House, prepare: Prepare) -> None:
    proxy = HttpProxy(house.network)

    async def handle(raw: Channel) -> None:
        stream = trio.SSLStream(
            ChannelStream(raw),
            prepare.context,  # type: ignore[attr-defined]
            server_side=True,
            https_compatible=True,
        )
        await stream.do_handshake()
        await proxy.handle(StreamChannel(stream, abort=raw.abort))

    prepare("https://proxy.test", Serve(handle))
    assert (await house.fetch())[0] == 200
    assert (await fetch_secure(house, "/big?n=100000"))[1] == b"y" * 100_000
    assert proxy.asked == [("api.test", 80), ("secure.test", 443)]


@pytest.mark.parametrize("piece_bytes", [1, 100])
@pytest.mark.parametrize("credentials", [None, "us er:p:w"])
async def test_socks5_with_lookup_there_and_here(
    house: House, prepare: Prepare, piece_bytes: int, credentials: str | None
) -> None:
    proxy = SocksProxy(house.network, credentials=credentials, piece_bytes=piece_bytes)
    user = "us%20er:p%3Aw@" if credentials else ""
    prepare(f"socks5h://{user}proxy.test", proxy)
    assert (await house.fetch())[0] == 200
    assert (await fetch_secure(house))[0] == 200
    assert proxy.asked == [("api.test", 80), ("secure.test", 443)]
    proxy.asked.clear()
    prepare(f"socks5://{user}proxy.test", proxy)
    assert (await house.fetch())[0] == 200
    assert proxy.asked == [("192.0.2.1", 80)]


async def test_socks5_to_an_ipv6_address(house: House, prepare: Prepare) -> None:
    (ip,) = house.network.add_host("six.test", Serve(house.upstream.handle), ipv6=[0])
    proxy = SocksProxy(house.network)
    prepare("socks5h://proxy.test", proxy)
    assert (await house.fetch(host=ip))[0] == 200
    assert proxy.asked == [(ip, 80)]


PROXY_REFUSALS = {
    "the proxy wants authentication (407)",
    "the proxy forbids CONNECT (403)",
    "the proxy wants authentication",
    "the proxy refused the name and password",
    "name or password is longer than the 255 bytes that SOCKS5 can carry",
    "the proxy could not connect: connection not allowed by ruleset",
}
"""They come of our settings and say nothing of the upstream."""


@pytest.mark.parametrize(
    ("url", "server", "cause"),
    [
        ("http://proxy.test", Refuse(), "connection refused"),
        ("http://proxy.test", BlackHole(), "timed out after 5 s"),
        (
            "http://proxy.test",
            Script([Wait(1)]),
            "the proxy's answer to CONNECT is no HTTP response",
        ),
        (
            "http://proxy.test",
            Script([Send(b"hello\r\n\r\n"), Wait()]),
            "the proxy's answer to CONNECT is no HTTP response",
        ),
        ("http://proxy.test", {"credentials": "a:b"}, "the proxy wants authentication (407)"),
        (
            "http://proxy.test",
            {"answer": b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"},
            "the proxy forbids CONNECT (403)",
        ),
        ("http://proxy.test", Script([Wait(1), Reset()]), "the connection to the proxy broke"),
        ("https://proxy.test", Script([Wait(1)]), "connection closed during TLS"),
        ("socks5h://proxy.test", Script([Wait(1)]), "the proxy closed the connection"),
        ("socks5h://proxy.test", Script([Send(b"xx"), Wait()]), "the proxy's answer is no SOCKS5"),
        (
            "socks5h://proxy.test",
            Script([Send(b"\5\0\5\0\0\x09......"), Wait()]),
            "the proxy's answer is no SOCKS5",
        ),
        ("socks5h://proxy.test", {"credentials": "a:b"}, "the proxy wants authentication"),
        (
            "socks5h://a:wrong@proxy.test",
            {"credentials": "a:b"},
            "the proxy refused the name and password",
        ),
        (
            f"socks5h://a:{'x' * 256}@proxy.test",
            {"credentials": "a:b"},
            "name or password is longer than the 255 bytes that SOCKS5 can carry",
        ),
        (
            "socks5h://proxy.test",
            {"reply": 2},
            "the proxy could not connect: connection not allowed by ruleset",
        ),
        ("socks5h://proxy.test", {"reply": 99}, "the proxy's answer is no SOCKS5"),
    ],
)
async def test_what_can_go_wrong_at_a_proxy(
    house: House, prepare: Prepare, url: str, server: Any, cause: str
) -> None:
    if isinstance(server, dict):
        kind = SocksProxy if url.startswith("socks") else HttpProxy
        server = kind(house.network, **server)
    prepare(url, server)
    with pytest.raises(TransportError) as caught:
        await fetch_secure(house)
    error = caught.value
    assert error.phase is Phase.PROXY
    assert error.cause.startswith("proxy.test:")
    assert error.cause.partition(": ")[2] == cause
    assert error.origin == "secure.test:443"
    assert error.disposition is Disposition.NOT_SENT
    assert "wrong" not in str(error)
    is_refusal = cause in PROXY_REFUSALS
    assert error.kind is (FaultKind.LOCAL if is_refusal else FaultKind.CONNECT)
    house.check_nothing_is_left()


async def test_an_upstream_that_the_proxy_cannot_reach(house: House, prepare: Prepare) -> None:
    house.network.add_host("dead.test", Refuse())
    for url, kind, cause in [
        ("http://proxy.test", HttpProxy, "the proxy refused CONNECT with status 502"),
        ("socks5h://proxy.test", SocksProxy, "the proxy could not connect: connection refused"),
    ]:
        prepare(url, kind(house.network))
        with pytest.raises(TransportError) as caught:
            await house.fetch(scheme="https", host="dead.test", port=443)
        assert caught.value.cause.endswith(cause)
        assert caught.value.kind is FaultKind.CONNECT


async def test_the_upstreams_certificate_is_checked_inside_the_tunnel(
    house: House, prepare: Prepare
) -> None:
    prepare("http://proxy.test", HttpProxy(house.network))

    async def wrong(channel: Channel) -> None:
        await house.upstream.handle_tls(channel, prepare.context)  # type: ignore[attr-defined]

    house.network.add_host("wrong.test", Serve(wrong))
    with pytest.raises(TransportError, match="Hostname mismatch") as caught:
        await house.fetch(scheme="https", host="wrong.test", port=443)
    assert caught.value.phase is Phase.TLS


async def test_a_host_name_too_long_for_socks5(house: House, prepare: Prepare) -> None:
    prepare("socks5h://proxy.test", SocksProxy(house.network))
    with pytest.raises(TransportError, match="host name is longer than the 255 bytes"):
        await house.fetch(host="a" * 256)
