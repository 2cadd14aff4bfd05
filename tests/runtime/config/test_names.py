"""One spelling of each origin, the one that calls are known by; and what is no name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.config import BadName, canonical_origin
from vastar_runtime.config._names import any_name, shown_name
from vastar_runtime.connectors.http.target import parse_target


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("HTTPS://API.Example.COM:443", "https://api.example.com"),
        ("http://api.example.com:80", "http://api.example.com"),
        ("https://api.example.com:80", "https://api.example.com:80"),
        ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
        ("http://[::ffff:1.2.3.4]", "http://[::ffff:102:304]"),
        ("http://127.1", "http://127.0.0.1"),
        ("https://bücher.test", "https://xn--bcher-kva.test"),
    ],
)
def test_spellings_of_an_origin(name: str, origin: str) -> None:
    assert canonical_origin(name) == origin
    assert canonical_origin(origin) == origin
    assert str(parse_target(f"{name}/path?q").origin) == origin, "what calls are known by"


_LABELS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}[A-Za-z0-9]", fullmatch=True)
_HOSTS = (
    st.lists(_LABELS, min_size=1, max_size=3).map(".".join)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map("[{}]".format)
)


@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "Https"]),
    host=_HOSTS,
    port=st.none() | st.integers(1, 65_535) | st.sampled_from([80, 443]),
)
def test_any_origin_is_named_as_its_calls_are(scheme: str, host: str, port: int | None) -> None:
    """Whatever the parser makes of a URL, settings are looked up by the same text."""
    name = f"{scheme}://{host}" + ("" if port is None else f":{port}")
    try:
        origin = canonical_origin(name)
    except BadName:  # such as a label that IDNA refuses
        with pytest.raises(ValueError, match="Invalid URL"):
            parse_target(name)
    else:
        assert str(parse_target(name).origin) == origin


_EXAMPLE = 'write scheme://host or scheme://host:port, such as "https://api.example.com"'


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("", "it has no scheme", _EXAMPLE),
        ("api.test", "it has no scheme", 'write "https://api.test"'),
        ("API.test:8443/v1", "it has no scheme", 'write "https://api.test:8443"'),
        ("ftp://h", "the scheme ftp is not supported", _EXAMPLE),
        ("https://user:hunter2@h", "it has a user part", f"leave that out: {_EXAMPLE}"),
        ("https://h/", "it has more than scheme, host and port", 'write "https://h"'),
        ("http://H:80/v1?key=hunter2", "it has more than", 'write "http://h"'),
        ("http://h?", "it has more than scheme, host and port", 'write "http://h"'),
        ("http://h#x", "it has more than scheme, host and port", 'write "http://h"'),
        (" http://h", "it has characters that do not belong there", _EXAMPLE),
        ("http:\\\\h", "it has characters that do not belong there", _EXAMPLE),
        ("http://h\n", "it has characters that do not belong there", _EXAMPLE),
        ("http://", "it is no origin", _EXAMPLE),
        ("http://h:99999", "it is no origin", _EXAMPLE),
        ("http://a|b", "it is no origin", _EXAMPLE),
        ("http://h:0", "port 0 cannot be connected to", "give a port from 1 to 65535, or none"),
    ],
)
def test_what_is_no_origin_and_what_would_be(name: str, wrong: str, right: str) -> None:
    with pytest.raises(BadName) as caught:
        canonical_origin(name)
    assert caught.value.wrong.startswith(wrong)
    assert caught.value.right == right
    assert str(caught.value) == f"{caught.value.wrong}; {right}"
    assert "hunter2" not in str(caught.value)


def test_tenants_and_workspaces_may_have_any_name_that_callers_may_send() -> None:
    for name in ("", "a.b", "\0", "x" * 1024):
        assert any_name(name) == name
    with pytest.raises(BadName, match=r"the name has 1025 characters; give one of at most 1024"):
        any_name("x" * 1025)


def test_bad_names_are_shown_short_and_without_secrets() -> None:
    assert shown_name("https://u:p@h") == "[redacted]"
    assert "hunter2" not in shown_name("http://h/?api_key=hunter2")
    assert len(shown_name("x" * 5000)) < 120
