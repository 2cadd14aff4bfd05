"""Which proxy an origin gets (settings, environment, NO_PROXY), and the way through each kind."""

from typing import Any

import pytest

from vastar_runtime.transport import (
    HttpTransport,
    Origin,
    ProxySettings,
    TransportSettings,
)
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
