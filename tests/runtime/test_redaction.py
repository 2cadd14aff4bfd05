"""No planted secret survives redaction, and what is harmless stays readable."""

import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.redaction import (
    REDACTED,
    is_secret_header,
    is_secret_parameter,
    may_hold_secret,
    redact_headers,
    redact_text,
    redact_url,
    shorten,
)

# Letters that occur in none of the harmless texts around it, so that a find is a leak.
_SECRETS = st.text(alphabet="XYZQJ", min_size=6, max_size=40)
_PASSWORD_CHARS = st.text(alphabet="XYZQJ%:;&=!$*+,/\\?# \t@", max_size=12)
_WORD = re.compile(r"\S+")
_SECRET_PARAMETERS = st.sampled_from(
    _WORD.findall(
        "key api_key apiKey API-KEY access_token token sig signature secret code auth password "
        "X-Amz-Signature X-Amz-Credential x-amz-security-token client_secret %6Bey idToken "
        "subscription-key sas jwt session_id"
    )
)
_SECRET_HEADERS = st.sampled_from(
    _WORD.findall(
        "Authorization Proxy-Authorization Cookie Set-Cookie X-Api-Key api-key X-Auth Ocp-Key "
        "x-goog-api-key X-Amz-Security-Token X-Client-Secret"
    )
)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://api.test/v1/chat?model=m&n=2", "https://api.test/v1/chat?model=m&n=2"),
        ("https://u:p@api.test/x", "https://api.test/x"),
        ("https://u@api.test:8443/x", "https://api.test:8443/x"),
        ("https://a@b:c@api.test/", "https://api.test/"),
        ("HTTP:\\\\u:p@api.test\\x", "HTTP:\\\\api.test\\x"),
        ("http:u:p@api.test/", "http:api.test/"),
        ("ht\ntp://u:\tp@api.test/", "http://api.test/"),
        ("https://api.test/@user/posts", "https://api.test/@user/posts"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("https://u:pa/ss@api.test/", f"https://{REDACTED}"),
        ("https://u:pa?ss@api.test/", f"https://{REDACTED}"),
        ("https://u:pa#ss@api.test/", f"https://{REDACTED}"),
        ("https://api.test/?key=K&page=2", f"https://api.test/?key={REDACTED}&page=2"),
        ("https://api.test/?page=2;token=T", f"https://api.test/?page=2;token={REDACTED}"),
        ("https://api.test/#access_token=T", "https://api.test/"),
        ("https://api.test/?q=sk-abcdefgh12345", f"https://api.test/?q={REDACTED}"),
        ("api.test:80/x?monkey=banana&tokyo=1", "api.test:80/x?monkey=banana&tokyo=1"),
        ("", ""),
    ],
)
def test_redact_url_table(url: str, clean: str) -> None:
    assert redact_url(url) == clean


@given(secret=_SECRETS, noise=_PASSWORD_CHARS, scheme=st.sampled_from(["http", "https", "socks5"]))
def test_a_password_in_a_url_never_shows(secret: str, noise: str, scheme: str) -> None:
    """Whatever unescaped characters stand in the password, also those that break the URL."""
    assert secret not in redact_url(f"{scheme}://user:{secret}{noise}@host.test/path")


@given(secret=_SECRETS, name=_SECRET_PARAMETERS, other=st.sampled_from(["", "a=1&", "a=b=c;"]))
def test_a_secret_parameter_never_shows(secret: str, name: str, other: str) -> None:
    clean = redact_url(f"https://host.test/path?{other}{name}={secret}&page=2")
    assert secret not in clean
    assert clean.startswith(f"https://host.test/path?{other}")
    assert clean.endswith("&page=2")


@given(st.text())
def test_any_text_is_taken_and_bounded(text: str) -> None:
    assert len(redact_url(text * 50)) < 512 + 60
    redact_text(text)


@given(pairs=st.lists(st.tuples(_SECRET_HEADERS, _SECRETS), max_size=6))
def test_secret_headers_never_show_and_order_stays(pairs: list[tuple[str, str]]) -> None:
    mixed = [pair for secret in pairs for pair in (secret, ("Accept", "text/html"))]
    clean = redact_headers(mixed)
    assert [name for name, _ in clean] == [name for name, _ in mixed]
    assert all(value in {REDACTED, "text/html"} for _, value in clean)


@pytest.mark.parametrize("name", ["accept", "content-type", "host", "user-agent", "retry-after"])
def test_harmless_headers_stay(name: str) -> None:
    assert not is_secret_header(name)


@pytest.mark.parametrize("name", ["page", "model", "monkey", "q", "limit", "design", "author"])
def test_harmless_parameters_stay(name: str) -> None:
    assert not is_secret_parameter(name)


@given(
    secret=_SECRETS,
    frame=st.sampled_from(
        [
            "Authorization: Bearer {}",
            "authorization: Basic {}, x",
            "{{'Authorization': 'Bearer {}'}}",
            '{{"api_key": "{}", "a": 1}}',
            '{{"client_secret":"a\\"{}"}}',
            "password={} host=db",
            "cannot connect to http://user:{}@proxy.test:3128: refused",
            "GET https://api.test/v1?api_key={} failed",
            "Set-Cookie: {}",
            "bearer {}",
            "key sk-{}ab",
            "x eyJ{}.abcdef.sig",
        ]
    ),
)
def test_free_text_hides_what_looks_secret(secret: str, frame: str) -> None:
    assert secret not in redact_text(frame.format(secret))


@pytest.mark.parametrize(
    "text",
    [
        "connect to 127.0.0.1:80 refused",
        "read 12 bytes, token bucket empty",
        "File 'a.py', line 3, in f",
        "GET https://api.test/v1?page=2 failed",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert redact_text(text) == text


def test_shorten_says_how_much_is_missing() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten(string.ascii_lowercase, 3) == "abc... (23 more characters)"


@given(st.text(st.sampled_from("a:/\\@=?&;.-_ \"'tokensecrtkyJbi")))
def test_the_quick_look_never_misses(text: str) -> None:
    """Where it sees nothing, the thorough look would change nothing."""
    assert may_hold_secret(text) or redact_text(text) == text


@pytest.mark.parametrize(
    "text", ["a", "token", 'token="', "://", "a:", "x://@", "eyJ", "bearer ", "a?token&", "sk-"]
)
def test_the_time_is_linear_in_the_text(text: str) -> None:
    """100,000 hostile characters take milliseconds; a quadratic pattern would take minutes."""
    start_s = time.process_time()
    redact_text(text * (100_000 // len(text)))
    redact_url(text * (100_000 // len(text)))
    assert time.process_time() - start_s < 2
