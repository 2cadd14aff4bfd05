"""When an event stream is connected to again, where and after how long."""

import io

import pytest

from vastar_client._reconnecting import EventPlan, Reconnect, event_plan, event_request
from vastar_client.errors import CallTimeout, ConnectorException
from vastar_client.request import GET, HTTPRequest
from vastar_client.wire import ErrorClass

URL = "http://api.test/events"


class Answer:
    """As much of a response as the plan looks at."""

    request_id = 7

    def __init__(self, status_code=200, content_type="text/event-stream"):
        self.status_code = status_code
        self.headers = {"content-type": content_type} if content_type else {}
        self.is_sse = content_type == "text/event-stream"
        self.last_event_id = ""
        self.retry_ms = None


def plan(reconnect=None, last_event_id="", rand=0.0):
    return EventPlan(GET(URL), reconnect or Reconnect(), last_event_id, lambda: rand)


def failure(error_class=ErrorClass.TRANSIENT, **fields):
    return ConnectorException("failed", error_class, **fields)


# Requests


def test_a_url_becomes_a_get_that_asks_for_events():
    made = event_request(URL, {"params": {"q": 1}, "headers": {"a": "b"}})
    assert (made.method, made.url) == ("GET", URL + "?q=1")
    assert made.header_pairs() == [
        ("a", "b"),
        ("accept", "text/event-stream"),
        ("cache-control", "no-store"),
    ]


def test_a_request_stays_what_it_is():
    request = HTTPRequest("POST", URL, {"Accept": "x/y", "Cache-Control": "no-cache"}, b"body")
    assert event_request(request, {}) is request


def test_what_is_neither_is_named():
    with pytest.raises(TypeError, match="an HTTPRequest alone, or a URL"):
        event_request(5, {})
    with pytest.raises(TypeError, match="an HTTPRequest alone, or a URL"):
        event_request(GET(URL), {"timeout_s": 5})
    with pytest.raises(ValueError, match="needs a body of bytes"):
        event_request(HTTPRequest("POST", URL, body=io.BytesIO()), {})


def test_the_last_event_is_told():
    one = plan(last_event_id="")
    assert one.request().get_header("last-event-id") is None
    one.received("7")
    assert one.request().get_header("last-event-id") == "7"
    assert plan(last_event_id="6").request().get_header("Last-Event-ID") == "6"


@pytest.mark.parametrize("event_id", ["\x01x", "a\x1f", "\x7f"])
def test_an_id_that_no_header_can_hold_is_not_told(event_id):
    assert plan(last_event_id=event_id).request().get_header("last-event-id") is None
    assert plan(last_event_id="a\tö").request().get_header("last-event-id") == "a\tö"


def test_what_reconnect_stands_for():
    assert event_plan(GET(URL), True, "")._reconnect == Reconnect()
    assert event_plan(GET(URL), False, "")._reconnect is None
    own = Reconnect(max_attempts=2)
    assert event_plan(GET(URL), own, "5")._reconnect is own


@pytest.mark.parametrize(
    "numbers",
    [
        {"max_attempts": 0},
        {"initial_backoff_ms": -1},
        {"max_backoff_ms": 1.5},
        {"max_attempts": True},
    ],
)
def test_numbers_that_are_none_are_named(numbers):
    (name,) = numbers
    with pytest.raises(ValueError, match=rf"Reconnect\.{name} is .*: it must be \d or more"):
        Reconnect(**numbers)


# Answers


def test_204_stops_and_nothing_else_without_events_is_taken():
    one = plan()
    assert one.accepts(Answer())
    assert not one.accepts(Answer(204, None))
    for wrong in (Answer(201), Answer(304), Answer(200, "text/html"), Answer(200, None)):
        with pytest.raises(ConnectorException, match="no event stream: the upstream") as caught:
            one.accepts(wrong)
        assert caught.value.error_class is ErrorClass.PERMANENT
        assert not caught.value.is_retryable()


# Waits


def test_a_stream_that_brought_events_is_taken_up_after_the_first_wait():
    one = plan(Reconnect(initial_backoff_ms=1000))
    for _ in range(100):
        one.received("")
        assert one.wait_s(None) == 0.5


def test_waits_double_while_none_come_up_to_the_cap_and_some_of_it_is_random():
    reconnect = Reconnect(max_attempts=40, initial_backoff_ms=1000, max_backoff_ms=10_000)
    low, high = plan(reconnect, rand=0.0), plan(reconnect, rand=1.0)
    assert [low.wait_s(None) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert [high.wait_s(None) for _ in range(39)] == [1, 2, 4, 8, *[10] * 35]
    high.received("")
    assert high.wait_s(failure()) == 1


def test_the_stream_itself_says_how_long_to_wait():
    one, answer = plan(rand=1.0), Answer()
    answer.retry_ms, answer.last_event_id = 4000, "7"
    one.received("6")
    one.ended(answer)
    assert (one.retry_ms, one.last_event_id) == (4000, "7")
    assert one.wait_s(None) == 5, "at least that, and up to a quarter more"
    assert one.wait_s(None) == 5
    assert one.wait_s(None) == 8
    answer.retry_ms = None
    one.ended(answer)
    assert one.retry_ms == 4000, "it holds until another one is set"


def test_a_long_retry_is_longer_than_the_cap():
    one, answer = plan(Reconnect(max_backoff_ms=1000)), Answer()
    answer.retry_ms = 60_000
    one.ended(answer)
    assert one.wait_s(None) == 60


def test_a_retry_of_ages_is_an_hour():
    one, answer = plan(), Answer()
    answer.retry_ms = 99_999_999_999_999
    one.ended(answer)
    assert one.wait_s(None) == 3600


def test_a_refusal_says_how_long_to_wait():
    assert plan().wait_s(failure(retry_after_ms=7000)) == 7
    with pytest.raises(ConnectorException, match="failed"):
        plan().wait_s(failure(retry_after_ms=120_001))


@pytest.mark.parametrize("error_class", [c for c in ErrorClass if c])
def test_what_a_repeat_cannot_mend_is_raised(error_class):
    error = failure(error_class)
    if error.is_retryable():
        assert plan().wait_s(error) is not None
    else:
        with pytest.raises(ConnectorException) as caught:
            plan().wait_s(error)
        assert caught.value is error


def test_attempts_without_an_event_are_bounded():
    one = plan(Reconnect(max_attempts=3))
    last = CallTimeout("the third")
    for error in (failure(), None):
        assert one.wait_s(error) is not None
    with pytest.raises(CallTimeout, match="the third"):
        one.wait_s(last)
    other = plan(Reconnect(max_attempts=1))
    other.received("")
    assert other.wait_s(failure()) is not None, "this one brought events"
    with pytest.raises(ConnectorException, match="1 connections in a row ended without an event"):
        other.wait_s(None)


def test_without_reconnecting_an_end_is_the_end():
    one = event_plan(GET(URL), False, "")
    assert one.wait_s(None) is None
    with pytest.raises(ConnectorException, match="failed"):
        one.wait_s(failure())


def test_waits_do_not_overflow():
    one = plan(Reconnect(max_attempts=10_000))
    waits = [one.wait_s(None) for _ in range(9_999)]
    assert max(waits) == 15
