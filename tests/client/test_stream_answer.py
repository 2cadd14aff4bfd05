"""What a streamed answer tells, whoever waits for it."""

import pytest

from vastar_client._stream_answer import StreamAnswer
from vastar_client.errors import ConnectionClosed
from vastar_client.wire import Disposition, StreamEnd, StreamStart

WAITS = {
    "queued_us": 3,
    "backoff_us": 4,
    "refused_by": "retry_quota:tenant",
    "retry_after_ms": 5,
}


class Live:
    """As much of a live stream as an answer looks at."""

    request_id = 7
    label = ""
    closed = False
    end = None

    def closed_error(self):
        return ConnectionClosed("closed")


@pytest.fixture
def live():
    return Live()


def answer(live, status_code=200, *pairs):
    return StreamAnswer(live, StreamStart(7, status_code, list(pairs) or None), "GET x")


def test_the_head(live):
    one = answer(live, 404, ("A", "1"), ("a", "2"))
    assert (one.status_code, one.ok, one.request_id) == (404, False, 7)
    assert one.headers["A"] == "1, 2"
    assert one.headers_list == [("A", "1"), ("a", "2")]
    assert live.label == "the stream of GET x"
    assert repr(one) == "<StreamAnswer 404 request_id=7>"
    assert answer(live).headers_list == []


@pytest.mark.parametrize(
    ("content_type", "is_sse"),
    [("text/event-stream", True), ("Text/Event-Stream;charset=utf-8", True), ("text/plain", False)],
)
def test_whether_it_is_an_event_stream(live, content_type, is_sse):
    assert answer(live, 200, ("Content-Type", content_type)).is_sse is is_sse


def test_the_end(live):
    one = answer(live)
    assert (one.has_ended, one.trailers, one.total_bytes) == (False, {}, 0)
    assert (one.duration_us, one.attempts) == (0, 0)
    assert (one.queued_us, one.backoff_us, one.refused_by, one.retry_after_ms) == (0, 0, None, 0)
    assert one.disposition is Disposition.RESPONSE_STARTED
    live.end = StreamEnd(
        7,
        trailers=[("Sum", "5")],
        total_bytes=9,
        duration_us=8,
        attempts=2,
        disposition=Disposition.COMPLETED,
        **WAITS,
    )
    assert (one.has_ended, one.trailers, one.total_bytes) == (True, {"sum": "5"}, 9)
    assert (one.duration_us, one.attempts) == (8, 2)
    assert {name: getattr(one, name) for name in WAITS} == WAITS
    assert one.disposition is Disposition.COMPLETED
    live.end = StreamEnd(7)
    assert one.trailers == {}


def test_every_way_of_reading_has_its_decoder(live):
    read = {
        "iter_bytes": [b"data: a\n\n"],
        "iter_text": ["data: a\n\n"],
        "iter_lines": ["data: a", ""],
        "events": ["a"],
        "content_deltas": [],
    }
    for what, wanted in read.items():
        one = answer(live)
        one._begin(what)
        one._received(b"data: a\n\n")
        assert [getattr(item, "data", item) for item in one._reading.ready] == wanted
        assert one.received_bytes == 9


def test_where_to_go_on_is_known_of_events_alone(live):
    one = answer(live)
    assert (one.last_event_id, one.retry_ms) == ("", None)
    one._begin("events", last_event_id="6")
    assert one.last_event_id == "6"
    one._received(b"id: 7\nretry: 50\ndata: a\n\nid: 8\n")
    assert (one.last_event_id, one.retry_ms) == ("7", 50)


def test_an_error_shows_what_is_known(live):
    one = answer(live, 503, ("Retry-After", "3"))
    live.end = StreamEnd(7, duration_us=8, attempts=2, **WAITS)
    response = one._as_response(b"why")
    assert (response.status_code, response.body, response.request_id) == (503, b"why", 7)
    assert (response.duration_us, response.attempts) == (8, 2)
    assert {name: getattr(response, name) for name in WAITS} == WAITS
    assert response.headers is one.headers


def test_one_that_was_closed_is_read_no_more_unless_all_was(live):
    one = answer(live)
    one._begin("iter_lines")
    one._received(b"a\nb")
    one._check_open()
    live.closed = True
    with pytest.raises(ConnectionClosed):
        one._check_open()
    one._received(b"")
    with pytest.raises(ConnectionClosed):
        one._check_open()
    one._reading.ready.clear()
    one._check_open()
