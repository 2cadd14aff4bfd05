"""Answers: the published dataclass, its helper, and what is new."""

import dataclasses

import pytest

from vastar_client._headers import Headers
from vastar_client.errors import HTTPStatusError
from vastar_client.response import HTTPResponse, retry_after_ms
from vastar_client.wire import Disposition, ErrorClass


def answer(status=200, body=b"", **headers):
    return HTTPResponse(1, status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


def test_the_published_fields_by_position():
    names = [f.name for f in dataclasses.fields(HTTPResponse)][:7]
    assert names == [
        "request_id",
        "status_code",
        "headers",
        "body",
        "duration_us",
        "error_class",
        "error_message",
    ]
    response = HTTPResponse(1, 200, {"A": "b"}, b"x", 5, ErrorClass.SUCCESS, None)
    assert response.body.decode() == "x"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", "é".encode(), "é"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; charset="UTF-16"', "é".encode("utf-16"), "é"),
        ("text/plain; charset=nonsense", "é".encode(), "é"),
        ("text/plain; charset=base64", b"aGk=", "aGk="),
        ("text/plain; charset=idna", b"\xff", "\ufffd"),
        ("text/plain; x=1 ; CHARSET = 'cp1252'", b"\x80", "€"),
        ("text/plain", b"\xff", "\ufffd"),
        ("", b"x", "x"),
    ],
)
def test_text_follows_the_charset_and_never_fails(content_type, body, text):
    assert answer(200, body, content_type=content_type).text == text


@pytest.mark.parametrize(
    ("body", "value"),
    [(b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}), (b"\xef\xbb\xbf1", 1), (b"[1e400]", None)],
)
def test_json(body, value):
    got = answer(200, body).json()
    assert got == (value if value is not None else [float("inf")])


def test_what_is_no_json_raises_as_published():
    import json  # noqa: PLC0415

    with pytest.raises(json.JSONDecodeError):
        answer(200, b"<html>").json()


@pytest.mark.parametrize(("status", "ok"), [(200, True), (304, True), (400, False), (503, False)])
def test_ok(status, ok):
    assert answer(status).ok is ok


def test_raise_for_status_passes_a_good_answer_on():
    response = answer(204)
    assert response.raise_for_status() is response


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, ErrorClass.PERMANENT),
        (408, ErrorClass.TIMEOUT),
        (429, ErrorClass.RATE_LIMITED),
        (500, ErrorClass.TRANSIENT),
        (501, ErrorClass.PERMANENT),
        (503, ErrorClass.TRANSIENT),
    ],
)
def test_raise_for_status_tells_the_class(status, error_class):
    response = answer(status, b"hunter2", retry_after="2")
    with pytest.raises(HTTPStatusError, match=f"answered with status {status}") as caught:
        response.raise_for_status()
    assert caught.value.error_class is error_class
    assert caught.value.retry_after_ms == 2000
    assert caught.value.disposition is Disposition.COMPLETED
    assert caught.value.response is response
    assert "hunter2" not in str(caught.value)


def test_an_answer_says_what_the_runtime_did_and_so_does_its_error():
    response = HTTPResponse(
        1,
        503,
        {},
        b"",
        attempts=2,
        disposition=Disposition.COMPLETED,
        queued_us=7,
        backoff_us=50_000,
        refused_by="circuit_breaker:origin",
        retry_after_ms=5000,
    )
    with pytest.raises(HTTPStatusError) as caught:
        response.raise_for_status()
    for name in ("attempts", "queued_us", "backoff_us", "refused_by", "retry_after_ms"):
        assert getattr(caught.value, name) == getattr(response, name), name
    assert "refused by circuit_breaker:origin; retry in 5 s" in str(caught.value)


@pytest.mark.parametrize(("told_ms", "expected_ms"), [(0, 2000), (1500, 2000), (2500, 2500)])
def test_the_error_waits_for_the_later_of_upstream_and_runtime(told_ms, expected_ms):
    response = answer(503, retry_after="2")
    response.retry_after_ms = told_ms
    with pytest.raises(HTTPStatusError) as caught:
        response.raise_for_status()
    assert caught.value.retry_after_ms == expected_ms


@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        ({}, 0),
        ({"Retry-After": "3"}, 3000),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:16:50 GMT"}, 10_000),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": "9", "Retry-After-Ms": "250.4"}, 250),
        ({"Retry-After-Ms": "nan", "Retry-After": "1"}, 1000),
        ({"Retry-After-Ms": "inf"}, 0),
        ({"Retry-After-Ms": "-1"}, 0),
    ],
)
def test_retry_after(headers, expected_ms):
    assert retry_after_ms(Headers(headers), now_s=1000.0) == expected_ms


def test_repr_shows_no_secrets():
    shown = repr(answer(200, b"hunter2", set_cookie="hunter2"))
    assert "hunter2" not in shown
    assert "hunter2" not in repr(answer(200, set_cookie="hunter2").headers)
    assert "200" in shown


@pytest.mark.parametrize(
    ("content_type", "is_sse"), [("text/Event-Stream;x", True), ("a/b", False)]
)
def test_is_sse(content_type, is_sse):
    assert answer(200, content_type=content_type).is_sse is is_sse
