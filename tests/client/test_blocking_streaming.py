"""Streams in plain threads: the same answers, few trips to the loop."""

import gc
import io
import threading
import warnings

import pytest
import trio

from tests.support.client_blocking_streams import assert_nothing_is_left, serve, stream
from tests.support.client_threads import URL, in_thread, until
from vastar_client.blocking import RuntimeClient
from vastar_client.errors import (
    ConnectionClosed,
    ConnectorException,
    HTTPStatusError,
    WrongThreadError,
)
from vastar_client.request import GET
from vastar_client.testing import HOLD, FakeRuntime, respond_events


@pytest.fixture
def fake():
    with FakeRuntime(serve) as runtime:
        yield runtime


@pytest.fixture
def client(fake):
    with RuntimeClient(fake.config) as one:
        yield one


def test_the_head_and_the_end(client, fake):
    with stream(client, "lines") as response:
        assert (response.status_code, response.ok) == (200, True)
        assert list(response.iter_lines()) == ["a", "b", "longer"]
        assert response.trailers == {"sum": "5"}
        assert (response.attempts, response.total_bytes, response.received_bytes) == (1, 11, 11)
        assert repr(response).startswith("<StreamResponse 200 request_id=")
    assert fake.cancelled == []
    assert_nothing_is_left(client)


def test_every_way_of_reading(client):
    with stream(client, "events") as response:
        assert [(e.data, e.event, e.id) for e in response.events()] == [
            ("one", "message", ""), ("two", "n", "7"), ("three", "message", "7"),
        ]  # fmt: skip
        assert response.last_event_id == "7"
    with stream(client, "text") as response:
        assert list(response.iter_text()) == ["é"]
    with stream(client, "events") as response:
        assert b"".join(response.iter_bytes()).startswith(b"data: one\n\n")
    with stream(client, "events") as response:
        assert response.read().startswith(b"data: one\n\n")
    with (
        stream(client, "lines") as response,
        pytest.raises(ConnectorException, match="a line of more than 2 characters"),
    ):
        list(response.iter_lines(max_characters=2))
    with stream(client, "endless") as response:
        with pytest.raises(ConnectorException, match="more than 5000 bytes: iterate"):
            response.read(max_bytes=5000)
        with pytest.raises(RuntimeError, match="is being read by iter_bytes"):
            response.events()
    with stream(client, "events") as response:
        assert next(response.events(last_event_id="6")).id == "6"
    assert_nothing_is_left(client)


def test_deltas_end_at_done_though_the_stream_goes_on(client):
    with stream(client, "deltas") as response:
        assert list(response.content_deltas()) == ["Hel", "lo"]
        assert list(response.content_deltas()) == []
    assert_nothing_is_left(client)


def test_a_request_of_its_own(client, fake):
    request = GET("http://api.test/events").with_header("a", "b").with_tenant_id("t")
    with client.stream(request) as response:
        assert len(list(response.events())) == 3
    assert fake.requests[0].tenant_id == "t"
    assert fake.messages[0].deadline_at_ms == 0


def test_a_stream_can_be_iterated_over_by_itself(client, fake):
    assert [event.data for event in stream(client, "events")] == ["one", "two", "three"]
    with pytest.raises(HTTPStatusError) as caught:
        list(stream(client, "error"))
    assert caught.value.response.status_code == 503
    assert_nothing_is_left(client)


def test_leaving_a_loop_over_a_stream_closes_it(fake, client):
    replies = iter([respond_events(["1", "2", HOLD])])
    fake._handler = lambda _: next(replies)
    for event in client.stream("GET", URL):
        assert event.data == "1"
        break
    assert_nothing_is_left(client)
    assert len(fake.cancelled) == 1


def test_an_iteration_goes_on_where_it_stopped(client):
    with stream(client, "events") as response:
        seen = []
        for _ in range(3):
            for event in response.events():
                seen.append(event.data)
                break
        assert seen == ["one", "two", "three"]
        assert list(response.events()) == []


def test_events_that_are_there_cost_one_trip(client, fake, monkeypatch):
    with stream(client, "held") as response:
        until(lambda: fake.streams)
        fake.streams[0].push("".join(f"data: {n}\n\n" for n in range(1000)))
        fake.streams[0].end()
        until(lambda: response.has_ended)
        trips = []
        submit = response._loop.submit
        monkeypatch.setattr(response._loop, "submit", lambda f: trips.append(1) or submit(f))
        assert len(list(response.events())) == 999, "the first is part of a line that begins with x"
        assert len(trips) == 2, "the data, and the end"
        monkeypatch.undo()


def test_many_threads_stream_at_once_over_one_connection(client, fake):
    def work():
        for _ in range(10):
            with stream(client, "events") as response:
                assert [event.data for event in response.events()] == ["one", "two", "three"]

    threads = [in_thread(work) for _ in range(8)]
    for thread, _ in threads:
        thread.join()
    assert [caught for _, (caught,) in threads] == [None] * 8
    assert len(fake._peers) == 1
    assert_nothing_is_left(client)


def test_threads_that_share_a_response_take_turns(client, fake):
    fake._handler = lambda _: respond_events(map(str, range(2000)))
    seen = []
    with client.stream("GET", URL) as response:

        def work():
            for event in response.events():
                seen.append(event.data)  # noqa: PERF401  # several do

        threads = [in_thread(work) for _ in range(4)]
        for thread, _ in threads:
            thread.join()
    assert sorted(seen, key=int) == [str(n) for n in range(2000)]


def test_it_refuses_to_stop_a_trio_loop(client):
    with stream(client, "held") as response:

        async def main():
            with pytest.raises(WrongThreadError, match="use AsyncRuntimeClient"):
                response.read()

        trio.run(main)


def test_it_may_be_closed_in_a_trio_loop_and_in_the_loop_thread(client, fake):
    with stream(client, "held") as response:

        async def main():
            response.close()

        trio.run(main)
    other = stream(client, "held").__enter__()
    done = threading.Event()

    def close():
        other.close()
        done.set()

    other._loop.call_soon(close)
    assert done.wait(5)
    assert_nothing_is_left(client)


def test_what_is_left_when_the_loop_dies():
    with FakeRuntime(serve) as fake:
        client = RuntimeClient(fake.config)
        response = stream(client, "held").__enter__()
        loop = response._loop
        loop.call_soon(loop._nursery.cancel_scope.cancel)
        until(lambda: not loop.alive)
        with pytest.raises(ConnectionClosed):
            response.events().__next__()
        response.close()
        client.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del response
            gc.collect()


def pieces(count):
    for _ in range(count):
        yield b"x" * 10_000


@pytest.mark.parametrize("make", [lambda: pieces(20), lambda: io.BytesIO(b"x" * 200_000)])
def test_bodies_that_are_made_while_they_are_sent(client, make):
    assert client.put("http://api.test/echo", body=make()).body == b"x" * 200_000
    with client.stream("PUT", "http://api.test/echo", body=make()) as response:
        assert response.read() == b"x" * 200_000
    assert_nothing_is_left(client)


def test_one_stream_passes_into_another_call(client):
    """Its iterator makes blocking calls of its own, in a thread where it may."""
    with stream(client, "events") as response:
        echoed = client.put("http://api.test/echo", body=response.iter_bytes())
    assert echoed.body == b"data: one\n\nevent: n\nid: 7\ndata: two\n\ndata: three\n\n"
    assert_nothing_is_left(client)


def test_a_file_on_disk(client, tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"y" * 1_000_000)
    with path.open("rb") as file:
        for _ in range(2):
            assert len(client.put("http://api.test/echo", body=file).body) == 1_000_000


def test_what_the_body_raises_comes_out_as_it_is(client, fake):
    def broken():
        yield b"x"
        raise LookupError("no more of it")

    with pytest.raises(LookupError, match="no more of it"):
        client.put("http://api.test/echo", body=broken())
    assert_nothing_is_left(client)
