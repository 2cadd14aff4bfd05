"""URLs by WHATWG's rules: where a text leads, and why it leads nowhere."""

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.target import parse_target, resolve_location, with_query


def refusal(url: str) -> str:
    with pytest.raises(InvalidCall) as caught:
        parse_target(url)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "origin", "path_and_query"),
    [
        ("http://h", "http://h", "/"),
        ("http://h?q", "http://h", "/?q"),
        ("http://h#f", "http://h", "/"),
        ("http://h/p#f?x", "http://h", "/p"),
        ("http://h/?#", "http://h", "/"),
        ("HTTP://EXAMPLE.Com/A", "http://example.com", "/A"),
        ("  http://h/p\t\n", "http://h", "/p"),
        ("ht\ttp://h/\tp\tq", "http://h", "/pq"),
        ("http://h/a b?c d", "http://h", "/a%20b?c%20d"),
        ("http://h/é?ü=ö", "http://h", "/%C3%A9?%C3%BC=%C3%B6"),
        ("http://h/\N{GRINNING FACE}", "http://h", "/%F0%9F%98%80"),
        ("http://h/%41%zz%", "http://h", "/%41%zz%"),
        ('http://h/"<>`{}', "http://h", "/%22%3C%3E%60%7B%7D"),
        ("http://h/?'\"<>", "http://h", "/?%27%22%3C%3E"),
        ("http://h/a\0b", "http://h", "/a%00b"),
        ("http://h/a/../b/./c", "http://h", "/b/c"),
        ("http://h/../..//x", "http://h", "//x"),
        ("http://h/%2e%2E/x", "http://h", "/x"),
        ("http:\\\\h\\p\\q", "http://h", "/p/q"),
        ("http:/h/p", "http://h", "/p"),
        ("http:h/p", "http://h", "/p"),
        ("http:////h/p", "http://h", "/p"),
        # ports
        ("http://h:80/", "http://h", "/"),
        ("https://h:443/", "https://h", "/"),
        ("http://h:443/", "http://h:443", "/"),
        ("https://h:80/", "https://h:80", "/"),
        ("http://h:/", "http://h", "/"),
        ("http://h:00080/", "http://h", "/"),
        ("http://h:65535/", "http://h:65535", "/"),
        # hosts
        ("http://bücher.example/", "http://xn--bcher-kva.example", "/"),
        ("http://faß.de/", "http://xn--fa-hia.de", "/"),
        ("http://☃.net/", "http://xn--n3h.net", "/"),
        ("http://h%41/", "http://ha", "/"),
        ("http://h./", "http://h.", "/"),
        ("http://a_b/", "http://a_b", "/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1", "/"),
        ("http://127.1/", "http://127.0.0.1", "/"),
        ("http://0x7f.1/", "http://127.0.0.1", "/"),
        ("http://2130706433/", "http://127.0.0.1", "/"),
        ("http://017700000001/", "http://127.0.0.1", "/"),
        ("http://127.0.0.1./", "http://127.0.0.1", "/"),
        ("http://0/", "http://0.0.0.0", "/"),
        ("http://[::1]:8080/x", "http://[::1]:8080", "/x"),
        ("http://[2001:DB8:0:0::1]/", "http://[2001:db8::1]", "/"),
        ("http://[::FFFF:1.2.3.4]/", "http://[::ffff:102:304]", "/"),
    ],
)
def test_where_a_url_leads(url, origin, path_and_query):
    target = parse_target(url)
    assert str(target.origin) == origin
    assert target.path_and_query == path_and_query.encode()
    assert target.authorization is None
    assert target.href == origin + path_and_query


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///", "http://:80/", "http://?q", "//h/p", "h/p", "/p", "?q", "   "),
        *("http://h:99999/", "http://h:65536/", "http://h:-1/", "http://h:abc/", "http://h:8 0/"),
        *("http://a b/", "http://a%20b/", "http://h\0/", "http://h%00/", "http://a<b/", "http://%/"),
        *("http://256.1.1.1/", "http://1.2.3.4.5/", "http://0x100000000/", "http://a.1/"),
        *("http://[::1/", "http://[::1]x/", "http://[fe80::1%25eth0]/", "http://[1::2::3]/"),
        *("http://\xad/", "http://\ud800/", "http://h\ufffd/"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_shown_and_refused(url):
    said = refusal(url)
    assert said.startswith("Invalid URL: cannot parse '"), said
    assert said.endswith("'; expected http://host[:port]/path")
    assert said.isprintable()
    assert said.isascii()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "Invalid URL: it is empty; expected http://host/... or https://host/..."),
        ("http://h:0/", "Invalid URL: port 0 cannot be connected to; expected 1 to 65535"),
        ("http://h/" + "x" * 65_536, "Invalid URL: 65545 characters, more than 65536"),
        (
            "http://h/" + "é" * 30_000,
            "Invalid URL: 180001 bytes when encoded, more than 65536",
        ),
        *(
            (
                f"{scheme}:{rest}",
                f"Invalid URL: scheme '{scheme}' is not supported; expected http or https",
            )
            for scheme, rest in [
                *(("ftp", "//h/"), ("file", "///etc/passwd"), ("ws", "//h/"), ("wss", "//h/")),
                *(("data", ",x"), ("javascript", "alert(1)"), ("unix", "/run/x.sock")),
                *(("blob", "http://h/x"), ("localhost", "8080/x")),
            ]
        ),
    ],
)
def test_what_is_refused_with_words_of_its_own(url, message):
    assert refusal(url) == message


@pytest.mark.parametrize("size", [100, 1024, 1025, 60_000])
def test_a_long_url_is_taken(size):
    url = "http://h/".ljust(size, "x")
    assert parse_target(url).href == url


def test_the_cache_of_urls_holds_no_long_ones():
    assert parse_target("http://h/short") is parse_target("http://h/short")
    long = "http://h/" + "x" * 5000
    assert parse_target(long) is not parse_target(long)


# --- userinfo -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [
        ("u:p", b"u:p"),
        ("u", b"u:"),
        ("u:", b"u:"),
        (":p", b":p"),
        ("u%40x:p%3Aw%2F%25", b"u@x:p:w/%"),
        ("u:p%ff%00", b"u:p\xff\0"),
        ("ü:é", "ü:é".encode()),
        ("u:p@q", b"u:p@q"),
        ("u:p:q", b"u:p:q"),
    ],
)
def test_userinfo_becomes_basic_credentials_and_is_nowhere_else(userinfo, pair):
    target = parse_target(f"http://{userinfo}@h.test/p?q")
    scheme, _, value = (target.authorization or b"").partition(b" ")
    assert (scheme, b64decode(value, validate=True)) == (b"Basic", pair)
    assert target.href == "http://h.test/p?q"
    assert (target.origin.host, target.path_and_query) == ("h.test", b"/p?q")


def test_an_empty_userinfo_is_none():
    assert parse_target("http://@h/").authorization is None
    assert parse_target("http://:@h/").authorization is None


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@/",
        "http://user:hunter2@h:99999/?api_key=hunter2",
        "http://h:99999/?token=hunter2&x=1",
        "http:\\\\user:hunter2@h:99999",
        "ftp://user:hunter2@h/?key=hunter2",
        "user:hunter2@host",
        "http://user:hunter2@h:0/",
        "//user:hunter2@h/",
        "http://user:hunter2@[::1/",
        "http://user:hun\tter2@h:99999/",
        "1user:hunter2@h/p",
        "/user:hunter2@h/p?x",
        "http//user:hunter2@h/p",
    ],
)
def test_errors_hide_secrets(url):
    said = refusal(url)
    assert "hunter" not in said
    assert "hun" not in said.replace("http", "")


def test_a_target_does_not_show_its_secrets():
    shown = repr(parse_target("http://u:hunter2@h.test/?key=hunter3"))
    assert "dTpo" not in shown  # the same in base64
    assert "hunter" not in shown


# --- locations ----------------------------------------------------------------------------------

BASE = parse_target("https://u:p@h.test:8443/a/b?c")


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        (b"x", "https://h.test:8443/a/x"),
        (b"./x/../y", "https://h.test:8443/a/y"),
        (b"/x", "https://h.test:8443/x"),
        (b"?q", "https://h.test:8443/a/b?q"),
        (b"#f", "https://h.test:8443/a/b?c"),
        (b"//o.test/x", "https://o.test/x"),
        (b"\\\\o.test\\x", "https://o.test/x"),
        (b"http://o.test", "http://o.test/"),
        (b" http://o.test/x ", "http://o.test/x"),
        (b"HTTPS://H.TEST:443/", "https://h.test/"),
        (b"/\xc3\xa9", "https://h.test:8443/%C3%A9"),
        (b"/\xe9", "https://h.test:8443/%C3%A9"),
        (b"/a b", "https://h.test:8443/a%20b"),
        (b"http://b\xc3\xbccher.example/", "http://xn--bcher-kva.example/"),
    ],
)
def test_where_a_location_leads(location, leads_to):
    target = resolve_location(BASE, location)
    assert target is not None
    assert target.href == leads_to


@pytest.mark.parametrize(
    "location",
    [
        *(b"", b"  ", b"\t", b"http://", b"//", b"http://[", b"http://h:99999/", b"http://h:0/"),
        *(b"ftp://o.test/", b"javascript:1", b"mailto:a@b", b"h.test:8443/x", b"http://a b/"),
        b"/" + b"x" * 70_000,
    ],
)
def test_a_location_that_leads_nowhere_is_none(location):
    assert resolve_location(BASE, location) is None


@given(st.binary(max_size=60))
def test_no_location_raises(location):
    target = resolve_location(BASE, location)
    assert target is None or target.origin.scheme in {"http", "https"}


@given(st.text(max_size=60))
def test_any_text_leads_somewhere_valid_or_is_refused(text):
    for url in (text, "http://" + text, "http://h/" + text):
        try:
            target = parse_target(url)
        except InvalidCall as error:
            assert str(error).startswith("Invalid URL: ")  # noqa: PT017 - either outcome is right
            continue
        assert target.path_and_query.startswith(b"/")
        assert not set(target.path_and_query) & {*range(33), *range(127, 256)}
        assert target.origin.host
        assert 1 <= target.origin.port <= 65535
        assert parse_target(target.href).href == target.href


def test_nothing_is_appended_where_there_is_no_query():
    assert with_query("http://h/#f", "") == "http://h/#f"


@pytest.mark.parametrize(
    "url",
    ["http://h/a\r\nHost: b", "http://h\n/", "ht\rtp://h/", "http://h/?a\nb", "http://h/#\rx"],
)
def test_a_line_end_inside_is_refused(url: str) -> None:
    assert "line end (CR or LF) inside" in refusal(url)
    assert parse_target(f"\r\n {url.replace(chr(10), '').replace(chr(13), '')} \n")
