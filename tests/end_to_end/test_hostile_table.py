"""Hostile URLs, addresses and requests through the whole runtime: each refused, by which rule.

The runtime stands for one that strangers share: only addresses of the Internet are reached. Behind
every other one a server would answer, so a row that is not refused is one that got through. Nothing
may be sent, and of what is refused not even a connection may be opened.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.hostile_world import GOOD, PUBLIC, config, world
from tests.support.http_calls import json_of
from vastar_client.wire import Disposition, ErrorClass

# --- by name and by address -----------------------------------------------------------------------

LITERALS = [
    # IPv4, in all its spellings
    ("http://127.0.0.1/", "loopback"),
    ("http://127.255.255.254/", "loopback"),
    ("http://2130706433/", "loopback"),
    ("http://0x7f000001/", "loopback"),
    ("http://0x7f.0x0.0x0.0x1/", "loopback"),
    ("http://0177.0.0.1/", "loopback"),
    ("http://017700000001/", "loopback"),
    ("http://127.1/", "loopback"),
    ("http://127.0.1/", "loopback"),
    ("http://127.000.000.001/", "loopback"),
    ("HTTP://0X7F.1/", "loopback"),
    ("http://127.0.0.1./", "loopback"),
    ("http://%31%32%37.0.0.1/", "loopback"),
    ("http://①②⑦.0.0.1/", "loopback"),
    ("http://127。0。0。1/", "loopback"),
    ("http:127.0.0.1/", "loopback"),
    ("http:\\\\127.0.0.1/", "loopback"),
    ("http:///127.0.0.1/", "loopback"),
    ("http://\t127.0.0.1/", "loopback"),
    ("http://0/", "unspecified"),
    ("http://0.0.0.0/", "unspecified"),
    ("http://10.0.0.1/", "private"),
    ("http://172.16.0.1/", "private"),
    ("http://172.31.255.255:8080/", "private"),
    ("http://192.168.0.1/", "private"),
    ("http://3232235521/", "private"),
    ("http://100.64.0.1/", "cgnat"),
    ("http://169.254.1.1/", "link_local"),
    ("http://192.0.0.8/", "reserved"),
    ("http://192.0.2.1/", "documentation"),
    ("http://192.88.99.1/", "6to4"),
    ("http://198.18.0.1/", "benchmarking"),
    ("http://224.0.0.1/", "multicast"),
    ("http://240.0.0.1/", "reserved"),
    ("http://255.255.255.255/", "broadcast"),
    ("http://93.184.217.1/", "deny_ranges"),
    # IPv6, and IPv4 inside of it
    ("http://[::1]/", "loopback"),
    ("http://[0:0:0:0:0:0:0:1]/", "loopback"),
    ("http://[::]/", "unspecified"),
    ("http://[::ffff:127.0.0.1]/", "loopback"),
    ("http://[::ffff:7f00:1]/", "loopback"),
    ("http://[0:0:0:0:0:ffff:10.0.0.1]/", "private"),
    ("http://[::127.0.0.1]/", "embedded:loopback"),
    ("http://[::ffff:0:127.0.0.1]/", "embedded:loopback"),
    ("http://[64:ff9b::127.0.0.1]/", "nat64:loopback"),
    ("http://[64:ff9b::a00:1]/", "nat64:private"),
    ("http://[64:ff9b:1::a00:1]/", "nat64:unspecified"),
    ("http://[2002:7f00:1::]/", "6to4:loopback"),
    ("http://[2002:a00:1::1]/", "6to4:private"),
    ("http://[2002:5db8:d822::1]/", "6to4"),
    ("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "teredo:loopback"),
    ("http://[2001:0:4136:e378:8000:63bf:f5ff:fffe]/", "teredo:private"),
    ("http://[2606:4700::5efe:10.0.0.1]/", "isatap:private"),
    ("http://[fe80::1]/", "link_local"),
    ("http://[fc00::1]/", "private"),
    ("http://[fec0::1]/", "private"),
    ("http://[ff02::1]/", "multicast"),
    ("http://[2001:db8::1]/", "documentation"),
    ("http://[4000::1]/", "reserved"),
    # userinfo and what looks like it
    ("http://good.test@127.0.0.1/", "loopback"),
    ("http://good.test:80@127.0.0.1/", "loopback"),
    ("http://good.test%2f@127.0.0.1/", "loopback"),
    ("http://127.0.0.1#@good.test/", "loopback"),
    ("http://127.0.0.1\\@good.test/", "loopback"),
    ("http://127.0.0.1?@good.test/", "loopback"),
]

METADATA_URLS = [
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254./",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://user@169.254.169.254/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1:a9:fe:a9fe::]/",
    "http://[64:ff9b:1:0:a9:fea9:fe00:0]/",
    "http://[64:ff9b:1:0:a9fe:a9fe::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::a9fe:a9fe]/",
    "http://169.254.170.2/v2/credentials",
    "http://168.63.129.16/machine",
    "http://100.100.100.200/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata/computeMetadata/v1/",
    "http://instance-data/latest/meta-data/",
    "http://METADATA.google.internal./",
]

NAMED = [
    ("http://evil.test/", "deny_hosts"),
    ("http://EVIL.test/", "deny_hosts"),
    ("http://evil.test./", "deny_hosts"),
    ("http://ev%69l.test/", "deny_hosts"),
    ("http://ⓔvil.test/", "deny_hosts"),
    ("http://a.b.corp.test/", "deny_hosts"),
    ("http://good.test@evil.test/", "deny_hosts"),
    ("http://bücher.test/", "deny_hosts"),
    ("http://BÜCHER.test/", "deny_hosts"),
    ("http://xn--bcher-kva.test/", "deny_hosts"),
    ("http://good.test:22/", "allow_ports"),
    ("http://good.test:6379/", "allow_ports"),
    ("https://good.test:8443/", "allow_ports"),
]

LOOKED_UP = [
    ("http://localhost/", "loopback"),
    ("http://LOCALHOST./", "loopback"),
    ("http://ⓛocalhost/", "loopback"),
    ("http://localhost6/", "loopback"),
    ("http://127.0.0.1.nip.test/", "loopback"),
    ("http://0127.0.0.1.nip.test/", "loopback"),
    ("http://intra.test/", "private"),
    ("https://intra.test/", "private"),
    ("http://intra6.test/", "private"),
    ("http://linklocal.test/", "link_local"),
    ("http://mapped.test/", "private"),
    ("http://nat64.test/", "nat64:private"),
    ("http://several.test/", "private"),
    ("http://münchen.test/", "private"),
    ("http://own.test/", "own"),
    ("http://host.docker.internal/", "private"),
    ("http://kubernetes.default.svc/", "private"),
]


@pytest.mark.parametrize(("url", "rule"), [*LITERALS, *NAMED])
async def test_what_the_name_tells_is_refused_before_anything_else(
    url: str, rule: str, autojump_clock: object
) -> None:
    async with world() as runtime:
        answer = await runtime.http({"url": url, "method": "POST", "body": "x"})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert f"rule {rule}:" in str(answer.error_message)
        assert str(answer.error_message).startswith("refused by the tenant's egress guard (http")
        assert (answer.refused_by, answer.attempts) == ("egress_guard:tenant", 0)
        assert answer.disposition is Disposition.NOT_SENT
        assert runtime.network.lookups == runtime.network.connected == []


@pytest.mark.parametrize("url", METADATA_URLS)
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"mode": "off"},
        {"mode": "observe"},
        {"allow_ranges": ("0.0.0.0/0", "::/0"), "allow_hosts": ("*",), "addresses": "any"},
    ],
)
async def test_metadata_is_never_reached_whatever_is_allowed(
    url: str, rules: Mapping[str, Any], autojump_clock: object
) -> None:
    async with world(config(rules)) as runtime:
        answer = await runtime.http({"url": url})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert "rule metadata:" in str(answer.error_message)
        assert answer.refused_by == "egress_guard:runtime"
        assert runtime.network.lookups == runtime.network.connected == []


@pytest.mark.parametrize(("url", "rule"), [*LOOKED_UP, ("http://metadata.test/", "metadata")])
async def test_what_a_name_is_looked_up_to_is_refused_before_it_is_connected_to(
    url: str, rule: str, autojump_clock: object
) -> None:
    async with world() as runtime:
        answer = await runtime.http({"url": url})
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert f"rule {rule}:" in str(answer.error_message)
        assert answer.disposition is Disposition.NOT_SENT
        assert len(runtime.network.lookups) == 1, "it is not tried again"
        assert runtime.network.connected == []
        for address, *_ in runtime.network.names[runtime.network.lookups[0]]:
            if address not in url:
                assert address not in str(answer.error_message), "inside names are not told"


async def test_what_is_not_hostile_gets_through(autojump_clock: object) -> None:
    async with world() as runtime:
        for url in (
            "http://good.test/small",
            "http://GOOD.test:8080/small",
            f"http://{PUBLIC}/small",
        ):
            assert json_of(await runtime.http({"url": url}))["status_code"] == 200
        assert set(runtime.network.connected) == {PUBLIC}


# --- what is no URL, no method, no header ---------------------------------------------------------

REQUESTS: list[tuple[dict[str, Any], str]] = [
    # URLs
    *(
        ({"url": url}, words)
        for url, words in (
            ("https://good.test:80443/", "Invalid URL"),
            ("http://[fe80::1%25eth0]/", "Invalid URL"),
            ("http://[fe80::1%eth0]/", "Invalid URL"),
            ("http://[::1", "Invalid URL"),
            ("http://[v1.fe80::a]/", "Invalid URL"),
            ("http://256.256.256.256/", "Invalid URL"),
            ("http://1.2.3.4.5/", "Invalid URL"),
            ("http://4294967296/", "Invalid URL"),
            ("http://127.0.0.1%00.good.test/", "Invalid URL"),
            ("http://good.test\0.evil.test/", "Invalid URL"),
            ("http://good.test|evil/", "Invalid URL"),
            ("http://good.test:80:80/", "Invalid URL"),
            ("http://good.test:0/", "port 0"),
            ("http://good.test:-1/", "Invalid URL"),
            ("http://", "Invalid URL"),
            ("//good.test/", "Invalid URL"),
            ("file:///etc/passwd", "scheme 'file'"),
            ("gopher://127.0.0.1:6379/_INFO", "scheme 'gopher'"),
            ("ftp://good.test/", "scheme 'ftp'"),
            ("unix:///run/docker.sock", "scheme 'unix'"),
            ("data:text/plain,x", "scheme 'data'"),
            ("javascript:alert(1)", "scheme 'javascript'"),
            ("jar:http://good.test!/", "scheme 'jar'"),
            (f"http://good.test/{'a' * 70_000}", "characters, more than"),
            # smuggling in the path
            ("http://good.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /x", "line end"),
            ("http://good.test\r\nHost: evil.test/", "line end"),
            ("http://good.test/a\nb", "line end"),
            ("http://good.test/?q=\r\nX-Evil: 1", "line end"),
        )
    ),
    # methods
    *(
        ({"url": GOOD, "method": method}, "Unsupported HTTP method")
        for method in (
            "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\nGET",
            "GET\r\nX: y",
            "GET ",
            "CONNECT",
            "G\0ET",
            "PRI * HTTP/2.0",
            "A" * 10_000,
        )
    ),
    # headers
    *(
        ({"url": GOOD, "headers": {name: value}}, words)
        for name, value, words in (
            ("X-A", "b\r\nX-Evil: 1", "Invalid value of header"),
            ("X-A", "b\nX-Evil: 1", "Invalid value of header"),
            ("X-A", "b\rX-Evil: 1", "Invalid value of header"),
            ("X-A", "b\0c", "Invalid value of header"),
            ("X-A", "b\r\n\r\nGET /admin HTTP/1.1", "Invalid value of header"),
            ("X-A: b\r\nX-Evil", "1", "Invalid header name"),
            ("X-A\n", "1", "Invalid header name"),
            ("X A", "1", "Invalid header name"),
            ("X-A:", "1", "Invalid header name"),
            ("", "1", "Invalid header name"),
            (":authority", "evil.test", "Invalid header name"),
            ("X-Ünicode", "1", "Invalid header name"),
            ("A" * 300, "1", "Invalid header name"),
            ("Transfer-Encoding", "chunked", "Invalid header"),
            ("Transfer-Encoding", "identity, chunked", "Invalid header"),
            ("transfer_encoding ", "chunked", "Invalid header"),
            ("Upgrade", "h2c", "Invalid header"),
            ("Content-Length", "5", "Invalid header"),
            ("Content-Length", "-1", "Invalid header"),
            ("Host", "good.test\r\nX: y", "Invalid value of header"),
            ("X-A", "b" * 66_000, "Invalid headers: more than"),
            ("Cookie", "a=b; " * 20_000, "Invalid headers: more than"),
        )
    ),
    ({"url": GOOD, "headers": {f"X-{n}": "" for n in range(257)}}, "Invalid headers: more than"),
    ({"url": GOOD, "headers": {f"X-{n}": "b" * 400 for n in range(200)}}, "Invalid headers"),
]


@pytest.mark.parametrize(
    ("payload", "words"), REQUESTS, ids=[f"{number}" for number in range(len(REQUESTS))]
)
async def test_what_cannot_be_sent_is_refused_with_its_part(
    payload: dict[str, Any], words: str, autojump_clock: object
) -> None:
    async with world() as runtime:
        answer = await runtime.http(payload)
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        assert words in str(answer.error_message)
        assert not set("\r\n\0") & set(str(answer.error_message))
        assert answer.disposition is Disposition.NOT_SENT
        assert runtime.network.lookups == runtime.network.connected == []


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/a%0d%0aX-Evil:%201", "/a%0d%0aX-Evil:%201"),
        ("/a b", "/a%20b"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/%2e%2e/%2e%2e/etc", "/etc"),
        ("/a\\..\\b", "/b"),
        ("//evil.test/x", "//evil.test/x"),
        ("/http://evil.test/", "/http://evil.test/"),
        ("/\N{LATIN CAPITAL LETTER C WITH CARON}", "/%C4%8C"),
        ("/čĊ", "/%C4%8D%C4%8A"),  # whose low bytes are CR and LF
    ],
)
async def test_a_path_that_looks_like_more_is_a_path(
    path: str, sent: str, autojump_clock: object
) -> None:
    async with world() as runtime:
        json_of(await runtime.http({"url": f"http://good.test{path}"}))
        (event,) = runtime.upstream.seen("req")
        assert (event["target"], dict(event["headers"])["host"]) == (sent, "good.test")
        assert runtime.network.connected == [PUBLIC]
