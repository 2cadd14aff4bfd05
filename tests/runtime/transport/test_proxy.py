"""Which proxy an origin gets (settings, environment, NO_PROXY), and the way through each kind."""

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
    HttpTransport,
    Origin,
    Phase,
    ProxySettings,
    TlsSettings,
    TransportError,
    TransportSettings,
)
from vastar_runtime.transport.channel import Channel, ChannelStream, StreamChannel
from vastar_runtime.transport.fake import BlackHole, Refuse, Reset, Script, Send, Serve, Wait
from vastar_runtime.transport.proxy import Proxy, ProxyTable

HTTP = Origin("http", "api.test", 80)
HTTPS = Origin("https", "api.test", 443)


def found(environ: dict[str, str], origin: Origin, **settings: Any) -> str | None:
    proxy = ProxyTable(ProxySettings(**settings), environ).find(origin)
    return None if proxy is None else f"{proxy.scheme}://{proxy.address}"


@pytest.mark.parametrize(
    ("environ", "origin", "expected"),
    [
        ({}, HTTP, None),
        ({"HTTP_PROXY": "http://p:1"}, HTTP, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, HTTPS, None),
        ({"HTTPS_PROXY": "http://p:1"}, HTTPS, "http://p:1"),
        ({"ALL_PROXY": "socks5h://p"}, HTTPS, "socks5h://p:1080"),
        ({"ALL_PROXY": "socks5://p", "HTTP_PROXY": "p:2"}, HTTP, "http://p:2"),
        ({"http_proxy": "p:1", "HTTP_PROXY": "p:2"}, HTTP, "http://p:1"),
        ({"http_proxy": "", "HTTP_PROXY": "p:2"}, HTTP, None),
        ({"HTTP_PROXY": "https://[::1]:3"}, HTTP, "https://[::1]:3"),
        # A CGI server lets its callers set HTTP_PROXY through the header Proxy.
        ({"HTTP_PROXY": "p:2", "REQUEST_METHOD": "GET"}, HTTP, None),
        ({"http_proxy": "p:1", "REQUEST_METHOD": "GET"}, HTTP, "http://p:1"),
        ({"HTTPS_PROXY": "p:2", "REQUEST_METHOD": "GET"}, HTTPS, "http://p:2"),
        # Loopback goes directly.
        ({"ALL_PROXY": "p:1"}, Origin("http", "localhost", 80), None),
        ({"ALL_PROXY": "p:1"}, Origin("http", "x.localhost", 80), None),
        ({"ALL_PROXY": "p:1"}, Origin("http", "127.9.9.9", 80), None),
        ({"ALL_PROXY": "p:1"}, Origin("http", "::1", 80), None),
    ],
)
def test_the_environment(environ: dict[str, str], origin: Origin, expected: str | None) -> None:
    assert found(environ, origin) == expected


def test_the_settings_win_over_the_environment() -> None:
    environ = {"HTTP_PROXY": "env:1", "HTTPS_PROXY": "env:1", "NO_PROXY": "*"}
    assert found(environ, HTTP, http="own:2", no_proxy=()) == "http://own:2"
    assert found(environ, HTTP, http="", no_proxy=()) is None
    assert found(environ, HTTP, http="", all="own:2", no_proxy=()) is None
    assert found(environ, HTTPS, http="own:2", no_proxy=()) == "http://env:1"
    assert found(environ, HTTP) is None
    assert found(environ, HTTP, environment=False) is None
    assert found({}, Origin("http", "127.0.0.1", 80), all="own:2") == "http://own:2"


@pytest.mark.parametrize(
    ("entries", "host", "port", "direct"),
    [
        ("*", "any.test", 80, True),
        ("api.test", "api.test", 80, True),
        ("API.test", "api.test", 80, True),
        ("api.test", "x.api.test", 80, True),
        ("api.test", "xapi.test", 80, False),
        (".api.test", "x.api.test", 80, True),
        (".api.test", "api.test", 80, True),
        ("*.api.test", "x.api.test", 80, True),
        ("other, api.test ,more", "api.test", 80, True),
        ("api.test", "api.test.", 80, True),
        ("api.test:81", "api.test", 80, False),
        ("api.test:80", "api.test", 80, True),
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1", "10.0.0.11", 80, False),
        ("10.0.0.0/8", "10.200.0.1", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/8", "api.test", 80, False),
        ("10.0.0.0/99", "10.0.0.1", 80, False),
        ("10.0.0.1:80", "10.0.0.1", 80, True),
        ("10.0.0.1:81", "10.0.0.1", 80, False),
        ("2001:db8::1", "2001:db8::1", 80, True),
        ("[2001:db8::1]", "2001:db8::1", 80, True),
        ("[2001:db8::1]:80", "2001:db8::1", 80, True),
        ("[2001:db8::1]:81", "2001:db8::1", 80, False),
        ("2001:db8::/32", "2001:db8::1", 80, True),
        ("0.1", "10.0.0.1", 80, False),
        (" , ,", "api.test", 80, False),
        (".", "api.test", 80, False),
    ],
)
def test_no_proxy(entries: str, host: str, port: int, direct: bool) -> None:
    environ = {"ALL_PROXY": "p:1", "NO_PROXY": entries}
    assert (found(environ, Origin("http", host, port)) is None) is direct


@pytest.mark.parametrize("url", ["ftp://p", "http://", "http://p:x", "http://[p", "socks4://p"])
def test_a_bad_proxy_url_is_named_by_its_source_and_never_shown(url: str) -> None:
    secret = url.replace("://", "://name:hunter2@")
    for settings, environ, source in [
        (ProxySettings(https=secret), {}, r"proxy\.https"),
        (ProxySettings(), {"HTTPS_PROXY": secret}, "HTTPS_PROXY"),
    ]:
        with pytest.raises(ValueError, match=f"{source} is no proxy URL: it must be") as caught:
            HttpTransport(TransportSettings(proxy=settings), environ=environ)
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(settings)


def test_credentials_are_decoded_and_not_shown() -> None:
    proxy = Proxy.parse("http://us%40er:p%3Aw@host", "x")
    assert (proxy.username, proxy.password) == (b"us@er", b"p:w")
    assert proxy.headers == [(b"proxy-authorization", b"Basic dXNAZXI6cDp3")]
    assert "p:w" not in repr(proxy)
    assert Proxy.parse("http://host", "x").headers == []


# Through them.

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
