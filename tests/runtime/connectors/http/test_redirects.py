"""The request that follows a redirect, for each status, method and origin."""

import msgspec
import pytest

from tests.support.http_bodies import ScriptedBody
from vastar_runtime.connectors.http.redirects import REDIRECTS, redirected
from vastar_runtime.connectors.http.target import parse_target
from vastar_runtime.transport import REPLAY_BYTES
from vastar_runtime.transport.messages import UpstreamRequest

HEADERS = [
    (b"authorization", b"Bearer a"),
    (b"cookie", b"b=c"),
    (b"content-type", b"text/plain"),
    (b"content-encoding", b"gzip"),
    (b"content-language", b"en"),
    (b"x-api", b"kept"),
    (b"accept", b"*/*"),
    (b"host", b"as-the-caller-says"),
]
OF_THE_BODY = {b"content-type", b"content-encoding", b"content-language"}
OF_ONE_ORIGIN = {b"authorization", b"cookie", b"host"}


def request(method: bytes, url: str = "http://h.test/a", **fields: object) -> UpstreamRequest:
    target = parse_target(url)
    return UpstreamRequest(
        **{
            "method": method,
            "origin": target.origin,
            "target": target.path_and_query,
            "headers": HEADERS,
            "body": b"body" if method in {b"POST", b"PUT", b"PATCH"} else None,
            **fields,
        }  # type: ignore[arg-type]
    )


def test_the_statuses_that_are_followed():
    assert {301, 302, 303, 307, 308} == REDIRECTS


@pytest.mark.parametrize("status", sorted(REDIRECTS))
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"])
def test_method_and_body(status, method):
    old = request(method)
    new = redirected(old, status, parse_target("http://h.test/b?q"))
    keeps = status in {307, 308} or method == b"HEAD"
    assert new.method == (method if keeps else b"GET")
    assert new.body == (old.body if keeps else None)
    assert new.target == b"/b?q"
    gone = set() if keeps else OF_THE_BODY
    assert new.headers == [pair for pair in HEADERS if pair[0] not in gone]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http://h.test/", "http://other.test/"),
        ("http://h.test/", "http://sub.h.test/"),
        ("http://h.test/", "http://h.test:8080/"),
        ("http://h.test/", "https://h.test/"),
        ("https://h.test/", "http://h.test/"),
        ("http://h.test:443/", "https://h.test/"),
        ("https://h.test/", "https://h.test./"),
    ],
)
@pytest.mark.parametrize("status", [302, 307])
def test_what_identifies_the_caller_stays_with_its_origin(old, new, status):
    target = parse_target(new)
    made = redirected(request(b"GET", old), status, target)
    names = [name for name, _ in made.headers]
    assert not {b"authorization", b"cookie"} & set(names)
    assert made.headers[-1] == (b"host", target.origin.authority.encode())
    assert names.count(b"host") == 1
    assert (b"x-api", b"kept") in made.headers


@pytest.mark.parametrize("name", [b"x-api-key", b"api-key", b"x-goog-api-key", b"private-token"])
def test_a_key_under_its_usual_name_stays_with_its_origin(name):
    old = request(b"GET", "http://h.test/")
    old = msgspec.structs.replace(old, headers=[(name, b"k"), *old.headers])
    for new, is_kept in (("http://h.test/b", True), ("http://evil.test/", False)):
        made = redirected(old, 302, parse_target(new))
        assert ((name, b"k") in made.headers) is is_kept


@pytest.mark.parametrize("new", ["http://H.test/x", "http://h.test:80/x", "http://u@h.test/../x"])
def test_within_an_origin_they_stay(new):
    made = redirected(request(b"POST", "http://h.test/a"), 307, parse_target(new))
    kept = {name for name, _ in made.headers}
    assert kept >= OF_ONE_ORIGIN


def test_userinfo_of_the_location_takes_the_place_of_older_credentials():
    for url in ("http://u:p@h.test/", "http://u:p@other.test/"):
        made = redirected(request(b"GET"), 302, parse_target(url))
        found = [value for name, value in made.headers if name == b"authorization"]
        assert found == [b"Basic dTpw"]


def test_what_may_be_sent_twice_may_still_be():
    assert redirected(request(b"POST", replayable=True), 307, parse_target("http://i/")).replayable
    assert not redirected(request(b"POST"), 307, parse_target("http://i/")).replayable


def test_the_old_request_is_left_as_it_was():
    old = request(b"POST")
    redirected(old, 303, parse_target("http://u:p@i/"))
    assert old.headers == HEADERS
    assert old.body == b"body"


@pytest.mark.parametrize("length", [0, 1, REPLAY_BYTES, REPLAY_BYTES + 1])
@pytest.mark.parametrize("status", sorted(REDIRECTS))
async def test_a_body_in_pieces_follows_from_its_start_or_not_at_all(status, length):
    body = ScriptedBody([b"x" * length] if length else [], length)
    old = request(b"POST", body=body)
    await body.read_some()
    made = redirected(old, status, parse_target("http://h.test/b"))
    if status not in {307, 308}:
        assert made.body is None
        assert body.consumed_bytes == length, "left as it is"
    elif length <= REPLAY_BYTES:
        assert made.body is body
        assert body.consumed_bytes == 0
        assert len(await body.read_some()) == length
    else:
        assert made is None


async def test_a_body_in_pieces_of_which_nothing_was_read_follows():
    body = ScriptedBody([b"abc"])
    assert redirected(request(b"POST", body=body), 308, parse_target("http://i/")).body is body
