"""A credential goes into a copy of the request, and only where nothing leads it elsewhere."""

import pytest

from vastar_runtime.credentials.injecting import refusal_of, with_headers
from vastar_runtime.transport.messages import Headers, Origin, UpstreamRequest

ORIGIN = Origin("https", "api.test", 443)


def request(headers: Headers, method: bytes = b"POST", origin: Origin = ORIGIN) -> UpstreamRequest:
    return UpstreamRequest(
        method=method, origin=origin, target=b"/a", headers=headers, body=b"b", replayable=True
    )


def test_it_replaces_what_is_there_and_changes_nothing_in_place():
    headers = [(b"authorization", b"mine"), (b"x", b"1"), (b"authorization", b"other")]
    before = request(list(headers))
    made = with_headers(before, frozenset({b"authorization", b"y"}), [(b"authorization", b"k")])
    assert made.headers == [(b"x", b"1"), (b"authorization", b"k")]
    assert before.headers == headers
    assert (made.method, made.origin, made.target) == (b"POST", ORIGIN, b"/a")
    assert (made.body, made.replayable) == (b"b", True)


@pytest.mark.parametrize("host", [b"api.test", b"API.test", b"api.test:443", None])
def test_it_goes_to_its_own_site(host):
    headers = [] if host is None else [(b"host", host)]
    assert refusal_of(request(headers)) is None


@pytest.mark.parametrize(
    "host", [b"evil.test", b"api.test:444", b"api.test.evil.test", b"", b"api.test,x"]
)
def test_and_to_no_other_behind_the_same_front(host):
    words = refusal_of(request([(b"x", b"1"), (b"host", host)]))
    assert words is not None
    assert "names another site than https://api.test" in words
    assert "evil" not in words


def test_a_port_of_its_own_belongs_to_the_site():
    origin = Origin("http", "::1", 8080)
    assert refusal_of(request([(b"host", b"[::1]:8080")], origin=origin)) is None
    assert refusal_of(request([(b"host", b"[::1]")], origin=origin)) is not None


@pytest.mark.parametrize("method", [b"TRACE", b"TRACK"])
def test_no_method_may_have_it_repeated(method):
    words = refusal_of(request([], method))
    assert words is not None
    assert words.startswith(method.decode())
