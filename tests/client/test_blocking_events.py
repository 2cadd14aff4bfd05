"""Event streams that are taken up again, in plain threads."""

import threading
import time

import pytest

from tests.support.client_blocking_streams import assert_nothing_is_left
from tests.support.client_threads import URL, in_thread, until
from vastar_client._reconnecting import Reconnect
from vastar_client.blocking import RuntimeClient
from vastar_client.errors import ConnectorException, HTTPStatusError
from vastar_client.testing import HOLD, FakeRuntime, respond, respond_events
from vastar_client.wire import ErrorClass
from vastar_client.wire.sse import SSEEvent

CUT = ConnectorException("cut", ErrorClass.TRANSIENT)
AT_ONCE = Reconnect(max_attempts=3, initial_backoff_ms=0)


@pytest.fixture
def start():
    """A client of a fake runtime that gives some replies."""
    clients = []

    def start(*replies):
        fake = FakeRuntime(list(replies)).__enter__()
        clients.append((fake, RuntimeClient(fake.config)))
        return clients[-1]

    yield start
    for fake, client in clients:
        client.close()
        fake.__exit__(None, None, None)


def test_it_goes_on_behind_the_last_event(start):
    fake, client = start(
        respond_events([SSEEvent("1", id="a"), SSEEvent("2"), b"id: c\ndata: cut", CUT]),
        respond(503),
        respond_events([SSEEvent("3", id="b")]),
        respond(204),
    )
    with client.events(URL, reconnect=AT_ONCE, params={"q": 1}) as events:
        seen = [(event.data, event.id, events.last_event_id) for event in events]
        assert list(events) == []
    assert seen == [("1", "a", "a"), ("2", "a", "a"), ("3", "b", "b")]
    told = [request.get_header("last-event-id") for request in fake.requests]
    assert told == [None, "a", "a", "b"]
    assert_nothing_is_left(client)


def test_it_waits_as_long_as_the_stream_says(start):
    _, client = start(respond_events([b"retry: 100\ndata: 1\n\n"]), respond(204))
    begin = time.monotonic()
    with client.events(URL, reconnect=AT_ONCE) as events:
        assert [event.data for event in events] == ["1"]
        assert events.retry_ms == 100
    assert time.monotonic() - begin >= 0.1


def test_what_a_repeat_cannot_mend_is_raised(start):
    fake, client = start(respond(404), respond(201), CUT, CUT, CUT)
    for kind, message in (
        (HTTPStatusError, "status 404"),
        (ConnectorException, "no event stream"),
        (ConnectorException, "cut"),
    ):
        with client.events(URL, reconnect=AT_ONCE) as events:
            with pytest.raises(kind, match=message):
                next(events)
            assert list(events) == []
    assert len(fake.requests) == 5
    assert_nothing_is_left(client)


def test_without_reconnecting_the_first_end_is_the_end(start):
    _, client = start(respond_events(["1"]))
    assert [event.data for event in client.events(URL, reconnect=False)] == ["1"]


@pytest.mark.parametrize(
    ("replies", "is_there"),
    [
        ([respond_events(["1", HOLD])], lambda fake, events: events._events is not None),
        ([HOLD], lambda fake, events: fake.held),
        ([respond_events([b"retry: 60000\n\n"])], lambda fake, events: events._connect_at),
    ],
    ids=["reading", "connecting", "waiting"],
)
def test_any_thread_may_close_it_whatever_it_waits_for(start, replies, is_there):
    fake, client = start(*replies)
    events = client.events(URL)
    seen = []
    thread, caught = in_thread(lambda: seen.extend(event.data for event in events))
    until(lambda: is_there(fake, events))
    events.close()
    thread.join(10)
    assert caught == [None]
    assert seen in ([], ["1"])
    assert list(events) == []
    assert_nothing_is_left(client)


def test_one_that_is_closed_while_it_connects_does_not_stay(start):
    _, client = start()
    events = client.events(URL)
    entered = threading.Event()

    class Stream:
        """Closed just before it is entered."""

        def close(self):
            entered.set()

    def open_stream(request):
        events.close()
        return Stream()

    events._open_stream = open_stream
    assert list(events) == []
    assert not entered.is_set()


def test_leaving_the_block_cancels(start):
    fake, client = start(respond_events(["1", HOLD]))
    with client.events(URL) as events:
        for event in events:
            assert event.data == "1"
            break
    assert_nothing_is_left(client)
    assert len(fake.cancelled) == 1
