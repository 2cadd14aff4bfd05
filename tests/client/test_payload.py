"""Payloads: JSON ones as the published SDK writes them and the published runtime answers them."""

import json

import msgspec
import pytest

from vastar_client._payload import error_of, http_request_payload, http_response, payload_bytes
from vastar_client.errors import CallTimeout, ConnectorException
from vastar_client.request import HTTPRequest
from vastar_client.wire import (
    NEED_DATA,
    Connection,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    PayloadFormat,
    Role,
    StreamEnd,
)


def test_json_requests_say_what_the_published_python_sdk_says(golden_frames):
    compared = 0
    for frame in golden_frames:
        if frame.sdk == "python" and frame.is_request:
            published = json.loads(frame.payload)
            payload, payload_format = http_request_payload(HTTPRequest(**published), "json")
            assert payload_format is PayloadFormat.JSON
            assert json.loads(payload) == published, frame.name
            compared += 1
    assert compared > 10


def test_answers_of_the_published_runtime_are_understood(golden_frames):
    compared = 0
    for frame in golden_frames:
        if frame.is_request or frame.message_type != 1:
            continue
        connection = Connection(Role.CLIENT)
        connection.receive_data(frame.frame)
        answer = connection.next_event()
        assert answer is not NEED_DATA
        error = error_of(answer)
        if error is not None:
            assert (error.error_class, error.message) == (
                frame.fields["error_class"],
                frame.fields["error_message"],
            )
        else:
            response, said = http_response(answer), json.loads(frame.payload)
            assert response.status_code == said["status_code"]
            assert response.headers == said["headers"]
            assert response.text == said["body"]
            assert response.duration_us == frame.fields["duration_us"]
        compared += 1
    assert compared > 10


def test_json_requests_tell_only_what_differs_from_the_default():
    request = HTTPRequest(
        "GET",
        "http://a/",
        [("A", "1"), ("A", "2")],
        b"\xff",
        follow_redirects=False,
        decode_content=False,
    )
    payload, _ = http_request_payload(request, "json")
    assert msgspec.json.decode(payload) == {
        "method": "GET",
        "url": "http://a/",
        "headers": {"A": "1, 2"},
        "body_base64": "/w==",
        "follow_redirects": False,
        "decode_content": False,
    }


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"[]", b'{"status_code":"x"}', b'{"status_code":200,"body_base64":"!"}', b"\xff"),
        *(b'{"status_code":200,"body":"\xff"}', b'{"x":' + b"[" * 100_000),
    ],
)
def test_an_unreadable_json_answer_is_one_error(payload):
    answer = ExecuteResponse(7, payload=payload)
    with pytest.raises(ConnectorException, match="the runtime's answer cannot be read") as caught:
        http_response(answer)
    assert caught.value.request_id == 7


def test_a_json_answer_keeps_its_list_of_headers_where_there_is_one():
    pairs = [["set-cookie", "a"], ["set-cookie", "b"]]
    payload = {"status_code": 200, "headers": {"set-cookie": "a\nb"}, "headers_list": pairs}
    response = http_response(ExecuteResponse(1, payload=msgspec.json.encode(payload)))
    assert response.headers_list == [("set-cookie", "a"), ("set-cookie", "b")]


TOLD = {
    "attempts": 2,
    "queued_us": 3,
    "backoff_us": 4,
    "refused_by": "retry_quota:tenant",
    "retry_after_ms": 5,
    "disposition": Disposition.COMPLETED,
}


def test_what_the_runtime_did_is_told_of_answers_and_of_failures():
    response = http_response(ExecuteResponse(1, payload=b'{"status_code": 503}', **TOLD))
    error = error_of(ExecuteResponse(1, ErrorClass.TRANSIENT, "why", **TOLD))
    end = error_of(StreamEnd(1, ErrorClass.TRANSIENT, "why", **TOLD))
    for name, value in TOLD.items():
        told = [getattr(one, name) for one in (response, error, end)]
        assert told == [value] * 3, name


@pytest.mark.parametrize(
    ("value", "payload"),
    [(b"x", b"x"), ("é", "é".encode()), ({"a": [1]}, b'{"a":[1]}'), (5, b"5")],
)
def test_what_execute_sends(value, payload):
    assert payload_bytes(value) == payload


def test_what_cannot_be_json_is_refused():
    with pytest.raises(TypeError):
        payload_bytes(object())


def test_an_error_without_a_message_still_says_something():
    error = error_of(ExecuteResponse(1, ErrorClass.TIMEOUT, disposition=Disposition.NOT_SENT))
    assert isinstance(error, CallTimeout)
    assert "gave no reason" in str(error)
