"""Requests as messages: what goes inside, what goes behind, and what neither can."""

import io
import time

import pytest

from vastar_client._calls import CallMaker
from vastar_client.config import RuntimeConfig
from vastar_client.errors import ConnectorException
from vastar_client.request import GET, HTTPRequest
from vastar_client.wire import Disposition, ErrorClass, decode_http_request

URL = "http://api.test/x"
MIB = 1_048_576


@pytest.fixture
def calls():
    return CallMaker(RuntimeConfig(timeout_ms=7000))


def request_in(outgoing):
    return decode_http_request(b"".join(outgoing.message.payload))


def test_ids_differ_and_are_never_0(calls):
    ids = {calls.http(GET(URL)).message.request_id for _ in range(10)}
    assert len(ids) == 10
    assert min(ids) > 2**31
    assert CallMaker(RuntimeConfig()).http(GET(URL)).message.request_id not in ids


def test_a_call_has_the_clients_deadline_and_a_stream_has_none(calls):
    before_ms = time.time() * 1000
    call, stream = calls.http(GET(URL)), calls.http(GET(URL), stream=True)
    assert before_ms + 6999 <= call.message.deadline_at_ms <= time.time() * 1000 + 7000
    assert (call.timeout_s, call.message.stream) == (7.0, False)
    assert (stream.timeout_s, stream.message.stream) == (None, True)
    assert stream.message.deadline_at_ms == 0
    own = calls.http(GET(URL).with_timeout(50), stream=True)
    assert own.timeout_s == 0.05
    assert own.message.deadline_at_ms > before_ms


def test_a_body_in_pieces_has_at_least_ten_minutes_unless_its_caller_says_otherwise(calls):
    request = HTTPRequest("PUT", URL, body=iter([b"x"]))
    before_ms = time.time() * 1000
    outgoing = calls.http(request)
    assert outgoing.timeout_s == 600.0
    assert before_ms + 599_999 <= outgoing.message.deadline_at_ms <= time.time() * 1000 + 600_000
    assert calls.http(request.with_timeout(50)).timeout_s == 0.05
    assert calls.http(request, stream=True).timeout_s is None
    patient = CallMaker(RuntimeConfig(timeout_ms=3_600_000))
    assert patient.http(request).timeout_s == 3600.0


@pytest.mark.parametrize("body", [b"x" * 100, "é", bytearray(5), memoryview(b"abc")])
def test_a_body_that_fits_goes_inside(calls, body):
    outgoing = calls.http(HTTPRequest("PUT", URL, body=body))
    assert outgoing.source is None
    assert not outgoing.message.body_follows
    wanted = body.encode() if isinstance(body, str) else bytes(body)
    assert bytes(request_in(outgoing).body) == wanted
    assert list(request_in(outgoing).headers) == []


@pytest.mark.parametrize(
    ("body", "goes_behind"),
    [
        (memoryview(bytes(63 * MIB)), False),
        (memoryview(bytes(63 * MIB + 1)), True),
        (memoryview(bytes(64 * MIB)).cast("Q"), True),
        (bytes(63 * MIB + 1), True),
        (bytes(63 * MIB), False),
    ],
)
def test_a_body_that_is_too_long_for_a_frame_goes_behind(calls, body, goes_behind):
    outgoing = calls.http(HTTPRequest("PUT", URL, body=body))
    assert outgoing.message.body_follows is goes_behind
    assert (outgoing.source is not None) is goes_behind
    if goes_behind:
        length = memoryview(body).nbytes
        assert outgoing.source.length_bytes == length
        assert list(request_in(outgoing).headers) == [("content-length", str(length))]
        assert not request_in(outgoing).body


def test_files_and_iterators_go_behind(calls):
    for body, headers in (
        (io.BytesIO(b"abc"), [("a", "b"), ("content-length", "3")]),
        (iter([b"abc"]), [("a", "b")]),
    ):
        request = HTTPRequest("PUT", URL, {"a": "b"}, body)
        outgoing = calls.http(request)
        assert outgoing.message.body_follows
        assert list(request_in(outgoing).headers) == headers
        assert request.body is body
        assert request.header_pairs() == [("a", "b")], "the caller's own is as it was"


def test_a_length_that_the_caller_gave_stays(calls):
    request = HTTPRequest("PUT", URL, {"Content-Length": "5"}, io.BytesIO(b"abc"))
    assert list(request_in(calls.http(request)).headers) == [("Content-Length", "5")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("body", [None, iter([b""])])
def test_the_published_protocol_has_no_streams(stream, body):
    calls = CallMaker(RuntimeConfig(payload_format="json"))
    request = HTTPRequest("PUT", URL, body=body)
    if not stream and body is None:
        assert calls.http(request, stream=stream).message.stream is False
        return
    with pytest.raises(ConnectorException, match="need payload_format='native'") as caught:
        calls.http(request, stream=stream)
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST
    assert caught.value.disposition is Disposition.NOT_SENT


def test_what_is_no_request_is_named(calls):
    with pytest.raises(TypeError, match="execute_http takes an HTTPRequest, not str"):
        calls.http("http://api.test/")
    with pytest.raises(TypeError, match="tenant_id is int: it must be str"):
        calls.http(HTTPRequest("GET", URL, tenant_id=5))


def test_other_connectors(calls):
    outgoing = calls.call(
        "db",
        "query",
        b"{}",
        0,
        timeout_ms=50,
        tenant_id="t",
        workspace_id="w",
        trace_id="tr",
        idempotency_key="k",
    )
    message = outgoing.message
    assert (message.connector_name, message.operation, message.payload) == ("db", "query", b"{}")
    assert (message.tenant_id, message.workspace_id) == ("t", "w")
    assert (message.trace_id, message.idempotency_key) == ("tr", "k")
    assert outgoing.timeout_s == 0.05
