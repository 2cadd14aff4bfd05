"""Requests: the published dataclass, its conveniences, and the builders."""

import dataclasses
import io

import pytest

from vastar_client import request as request_module
from vastar_client.request import GET, POST, HTTPRequest, build_request, request_of


def test_the_published_fields_by_position():
    request = HTTPRequest("POST", "http://a/", {"A": "b"}, b"x", 5, "t", "w", "tr")
    names = [f.name for f in dataclasses.fields(HTTPRequest)][:8]
    assert names == [
        "method",
        "url",
        "headers",
        "body",
        "timeout_ms",
        "tenant_id",
        "workspace_id",
        "trace_id",
    ]
    assert [getattr(request, name) for name in names] == [
        "POST", "http://a/", {"A": "b"}, b"x", 5, "t", "w", "tr",
    ]  # fmt: skip


def test_it_can_be_changed_after_it_was_made():
    request = HTTPRequest("GET", "http://a/", headers={})
    request.headers["X"] = "1"
    request.body = "é"
    assert request.header_pairs() == [("X", "1")]
    assert request.body_bytes() == "é".encode()


@pytest.mark.parametrize("body", [None, b"", "", memoryview(b"")])
def test_an_empty_body_is_none(body):
    assert HTTPRequest("GET", "http://a/", body=body).body_bytes() is None


def test_a_body_is_not_copied():
    body = memoryview(bytes(100))
    assert HTTPRequest("PUT", "http://a/", body=body).body_bytes() is body


@pytest.mark.parametrize(
    ("url", "params", "whole"),
    [
        ("http://a/", {"q": "x y"}, "http://a/?q=x+y"),
        ("http://a/?b=1", {"q": 2}, "http://a/?b=1&q=2"),
        ("http://a/?", {"q": 2}, "http://a/?q=2"),
        ("http://a/?b&", {"q": 2}, "http://a/?b&q=2"),
        ("http://a/#f?g", {"q": 2}, "http://a/?q=2#f?g"),
        ("http://a/", {"q": [1, 2], "n": None}, "http://a/?q=1&q=2"),
        ("http://a/", [("q", True), ("q", "ü&=")], "http://a/?q=true&q=%C3%BC%26%3D"),
        ("http://a/", {"n": None}, "http://a/"),
        ("http://a/", {}, "http://a/"),
    ],
)
def test_params_join_the_query(url, params, whole):
    assert HTTPRequest("GET", url, params=params).url == whole
    assert GET(url).with_query(params).url == whole


def test_json_sets_body_and_content_type():
    request = HTTPRequest("POST", "http://a/", json={"é": [1, None]})
    assert request.body == '{"é":[1,null]}'.encode()
    assert request.get_header("content-type") == "application/json"


@pytest.mark.parametrize("headers", [{"content-TYPE": "x/y"}, [("content-TYPE", "x/y")]])
def test_a_content_type_that_is_set_stays(headers):
    request = HTTPRequest("POST", "http://a/", headers=headers, json={})
    assert request.header_pairs() == [("content-TYPE", "x/y")]


def test_json_leaves_the_headers_of_the_caller_alone():
    headers = {"A": "b"}
    HTTPRequest("POST", "http://a/", headers=headers, json={})
    assert headers == {"A": "b"}


@pytest.mark.parametrize(
    ("data", "body", "content_type"),
    [
        ({"a": "x y", "b": [1, 2]}, b"a=x+y&b=1&b=2", "application/x-www-form-urlencoded"),
        ([("a", 1)], b"a=1", "application/x-www-form-urlencoded"),
        (b"raw", b"raw", None),
        ("räw", "räw".encode(), None),
    ],
)
def test_data_is_a_form_or_a_body(data, body, content_type):
    request = HTTPRequest("POST", "http://a/", data=data)
    assert request.body_bytes() == body
    assert request.get_header("Content-Type") == content_type


@pytest.mark.parametrize("bodies", [{"body": b"", "json": 1}, {"data": "", "json": 1}])
def test_two_bodies_are_refused(bodies):
    with pytest.raises(ValueError, match="one body: give one of body, json and data"):
        HTTPRequest("POST", "http://a/", **bodies)


@pytest.mark.parametrize("timeout_ms", [0, -5, 1.5, "1"])
def test_a_bad_timeout_is_refused(timeout_ms):
    with pytest.raises(ValueError, match="whole number of milliseconds above 0"):
        HTTPRequest("GET", "http://a/", timeout_ms=timeout_ms)
    with pytest.raises(ValueError, match="timeout_ms"):
        GET("http://a/").with_timeout(timeout_ms)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_bad_timeout_in_seconds_is_refused(timeout_s):
    with pytest.raises(ValueError, match="it must be a number of seconds above 0"):
        build_request("GET", "http://a/", timeout_s=timeout_s)


@pytest.mark.parametrize(("timeout_s", "timeout_ms"), [(1.5, 1500), (2, 2000), (1e-9, 1)])
def test_seconds_become_milliseconds(timeout_s, timeout_ms):
    assert build_request("GET", "http://a/", timeout_s=timeout_s).timeout_ms == timeout_ms


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"A": 1}, "the value of header 'A' is int: it must be str"),
        ({1: "a"}, "header name 1 is int: it must be str"),
        ({"A": None}, "the value of header 'A' is NoneType"),
    ],
)
def test_headers_are_text(headers, message):
    with pytest.raises(TypeError, match=message):
        HTTPRequest("GET", "http://a/", headers=headers).header_pairs()


def test_builders_make_copies():
    base = GET("http://a/").with_header("A", "1")
    one = base.with_header("a", "2").with_header("B", "3")
    assert base.header_pairs() == [("A", "1")]
    assert one.header_pairs() == [("a", "2"), ("B", "3")]


def test_a_builder_chain_of_the_go_sdk():
    request = (
        POST("http://a/v1")
        .with_header("Accept", "x")
        .with_headers([("X", "1"), ("X", "2"), ("accept", "y")])
        .with_query({"k": "v"})
        .with_json({"a": 1})
        .with_timeout(1500)
        .with_tenant_id("t")
        .with_workspace_id("w")
        .with_trace_id("tr")
        .with_idempotency_key("i")
    )
    assert request == HTTPRequest(
        "POST",
        "http://a/v1?k=v",
        [("X", "1"), ("X", "2"), ("accept", "y"), ("Content-Type", "application/json")],
        b'{"a":1}',
        1500,
        "t",
        "w",
        "tr",
        idempotency_key="i",
    )


def test_bodies_of_builders_replace_each_other():
    request = POST("http://a/").with_json(None)
    assert request.body == b"null"
    assert request.with_body("x").body == "x"
    assert request.with_form({"a": "b"}).body == b"a=b"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_there_is_a_builder_for_each_method(method):
    assert getattr(request_module, method)("http://a/") == HTTPRequest(method, "http://a/")


@pytest.mark.parametrize("url", ["http://u:hunter2@a/p?key=hunter2#hunter2", "http://[hunter2/p"])
def test_repr_shows_no_secrets(url):
    request = HTTPRequest("GET", url, {"Authorization": "hunter2"}, body=b"hunter2")
    assert "hunter2" not in repr(request)
    assert "Authorization" in repr(request)
    assert "body=7 bytes" in repr(request)


@pytest.mark.parametrize("value", [5, b"x", "x", ["ab"], [("A",)], [("a", "b", "c")], [1]])
@pytest.mark.parametrize("name", ["headers", "params", "data"])
def test_fields_that_are_no_pairs_are_named(name, value):
    if name == "data" and isinstance(value, str | bytes):
        return  # a body as it is
    with pytest.raises(TypeError, match=rf"{name} is \w+: it must be a (mapping|pair)"):
        HTTPRequest("GET", "http://a.test/", **{name: value}).header_pairs()


def test_headers_that_can_be_read_once_are_refused():
    """The second sending of the same request would be without them."""
    with pytest.raises(TypeError, match="headers is generator"):
        HTTPRequest("GET", "http://a.test/", headers=(pair for pair in [("A", "b")])).header_pairs()
    assert HTTPRequest("GET", "http://a.test/", headers={"A": "b"}.items()).header_pairs() == [
        ("A", "b")
    ]


@pytest.mark.parametrize("body", [5, [], [1], {}, object()])
def test_a_body_that_is_none_is_named(body):
    with pytest.raises(TypeError, match=r"HTTPRequest\.body is \w+: it must be bytes or str"):
        HTTPRequest("POST", "http://a.test/", body=body).body_bytes()


class Pieces:
    """Can be iterated over again and again."""

    def __iter__(self):
        return iter([b"x"])


class AsyncPieces:
    def __aiter__(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    "body", [io.BytesIO(), io.StringIO(), iter([]), (x for x in "a"), Pieces(), AsyncPieces()]
)
def test_what_makes_a_body_while_it_is_sent(body):
    request = HTTPRequest("PUT", "http://a/", body=body)
    assert request.streamed_body() is body
    assert request.with_header("A", "b").with_body(body).streamed_body() is body
    assert repr(request) == "<HTTPRequest PUT http://a/ headers=[] body=streamed>"
    with pytest.raises(TypeError, match="or a file or iterator of them that is sent as it is read"):
        request.body_bytes()
    with pytest.raises(ValueError, match="one body"):
        HTTPRequest("PUT", "http://a/", body=body, json=1)


@pytest.mark.parametrize(
    "body", [None, b"x", "x", bytearray(1), memoryview(b"x"), [b"x"], (b"x",), {}, {b"x"}, 5]
)
def test_what_does_not(body):
    assert HTTPRequest("PUT", "http://a/", body=body).streamed_body() is None


def test_a_request_or_a_method_and_a_url():
    request = GET("http://a/")
    assert request_of(request, None) is request
    assert request_of("POST", "http://a/", timeout_s=2, json=1) == HTTPRequest(
        "POST", "http://a/", json=1, timeout_ms=2000
    )
    for first, second, options in (
        (request, "http://a/", {}),
        (request, None, {"timeout_s": 5}),
        ("GET", None, {}),
        (5, "http://a/", {}),
    ):
        with pytest.raises(TypeError, match="give an HTTPRequest"):
            request_of(first, second, **options)


def test_a_url_that_is_no_text_is_named_with_params_too():
    with pytest.raises(TypeError, match=r"HTTPRequest\.url is NoneType: it must be str"):
        HTTPRequest("GET", None, params={"a": 1})


@pytest.mark.parametrize("field", ["url", "headers", "body"])
def test_a_broken_request_can_be_shown(field):
    fields = {"url": "http://a.test/", field: 5}
    assert repr(HTTPRequest("GET", **fields)) == "<HTTPRequest GET that cannot be sent>"
