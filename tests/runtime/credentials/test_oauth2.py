"""The client credentials grant: what is asked, and what answers mean (RFC 6749, 4.4, 5)."""

from base64 import b64decode
from urllib.parse import parse_qs

import msgspec
import pytest

from vastar_runtime.config import OAuth2Config
from vastar_runtime.credentials.oauth2 import (
    DEFAULT_LIFETIME_S,
    Denied,
    Granted,
    _Answer,
    read_answer,
    token_request,
)
from vastar_runtime.outcomes import FailureKind
from vastar_runtime.transport.messages import Origin, UpstreamRequest

ORIGIN = Origin("https", "auth.test", 443)
PERMANENT = "UPSTREAM_PERMANENT"


def asked(**keys: object) -> UpstreamRequest:
    settings = OAuth2Config("https://auth.test/t", "me:you", "${env:S}", **keys)  # type: ignore[arg-type]
    return token_request(settings, ORIGIN, b"/t?x=1", "plan+ted /:\u00e9")


def test_the_secret_goes_into_the_header_or_into_the_body():
    request = asked(scope="a b", audience="https://api.test")
    headers = dict(request.headers)
    assert (request.method, request.target, request.origin) == (b"POST", b"/t?x=1", ORIGIN)
    assert headers[b"host"] == b"auth.test"
    assert headers[b"content-type"] == b"application/x-www-form-urlencoded"
    scheme, _, pair = headers[b"authorization"].partition(b" ")
    assert (scheme, b64decode(pair)) == (b"Basic", b"me%3Ayou:plan%2Bted+%2F%3A%C3%A9")
    assert parse_qs(request.body.decode(), strict_parsing=True) == {  # type: ignore[union-attr]
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "audience": ["https://api.test"],
    }
    request = asked(client_auth="body")
    assert b"authorization" not in dict(request.headers)
    assert parse_qs(request.body.decode(), strict_parsing=True) == {  # type: ignore[union-attr]
        "grant_type": ["client_credentials"],
        "client_id": ["me:you"],
        "client_secret": ["plan+ted /:\u00e9"],
    }


def answer(**fields: object) -> Granted | Denied:
    told = {"access_token": "planted", "token_type": "Bearer", "expires_in": 60, **fields}
    return read_answer(200, msgspec.json.encode(told))


@pytest.mark.parametrize(
    ("said", "lifetime_s"),
    [
        (60, 60),
        (1.5, 1.5),
        ("90", 90),
        (None, DEFAULT_LIFETIME_S),
        ("soon", DEFAULT_LIFETIME_S),
        (10**15, 10 * 366 * 24 * 3600),
    ],
)
def test_a_token_lives_as_long_as_it_says(said, lifetime_s):
    assert answer(expires_in=said, token_type="bEARER") == Granted("planted", lifetime_s)


def test_a_token_that_says_nothing_of_its_life():
    body = b'{"access_token":"planted","token_type":"bearer","more":{"x":1}}'
    assert read_answer(200, body) == Granted("planted", DEFAULT_LIFETIME_S)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"expires_in": 0}, "expired already"),
        ({"expires_in": -1}, "expired already"),
        ({"expires_in": "nan"}, "expired already"),
        ({"access_token": ""}, "empty, too long"),
        ({"access_token": "planted\r\nx: y"}, "empty, too long"),
        ({"access_token": "planted\u00e9"}, "empty, too long"),
        ({"access_token": "planted" * 3000}, "empty, too long"),
        ({"access_token": "planted planted"}, "has blanks"),
        ({"access_token": None}, "holds no token"),
        ({"access_token": 5}, "holds no token"),
        ({"token_type": None}, "holds no token"),
    ],
)
def test_what_is_no_token_may_be_one_the_next_time(fields, words):
    denied = answer(**fields)
    assert isinstance(denied, Denied)
    assert denied.kind is FailureKind.UPSTREAM
    assert words in denied.words
    assert "planted" not in denied.words


def test_another_type_of_token_is_not_sent_as_bearer():
    denied = answer(token_type="mac-planted")
    assert isinstance(denied, Denied)
    assert denied.kind is FailureKind.UPSTREAM_PERMANENT
    assert "planted" not in denied.words


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, b'{"error":"invalid_scope"}', PERMANENT, "it answered 400 (invalid_scope)"),
        (401, b'{"error":"invalid_client"}', PERMANENT, "it answered 401 (invalid_client)"),
        (401, b'{"error":"planted"}', PERMANENT, "it answered 401"),
        (403, b"planted", PERMANENT, "it answered 403"),
        (404, b"\xff", PERMANENT, "it answered 404"),
        (302, b"", PERMANENT, "it answered 302; redirects are not followed"),
        (408, b"", "UPSTREAM", "it answered 408"),
        (429, b"{}", "RATE_LIMITED", "it answered 429"),
        (500, b'{"error":"server_error"}', "UPSTREAM", "it answered 500 (server_error)"),
        (503, b"", "UPSTREAM", "it answered 503"),
    ],
)  # fmt: skip
def test_refusals_are_told_by_cause_and_repeat_nothing_unknown(status, body, kind, words):
    assert read_answer(status, body, 7.0) == Denied(FailureKind[kind], words, 7.0)


@pytest.mark.parametrize("body", [b"", b"planted", b"[]", b"{}", b"\xff", b'{"access_token":"x"}'])
def test_bodies_that_hold_none(body):
    assert read_answer(200, body) == Denied(FailureKind.UPSTREAM, "its answer holds no token")


def test_nothing_shows_a_token():
    shown = repr(Granted("planted", 1)) + repr(_Answer("planted", "planted")) + repr(asked())
    assert "plan" not in shown
