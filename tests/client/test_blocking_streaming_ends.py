"""How streams in plain threads end: failures, leaving, closing from anywhere."""

import gc
import time
from contextlib import suppress

import pytest
import trio

from tests.support.client_blocking_streams import assert_nothing_is_left, serve, stream
from tests.support.client_threads import URL, in_thread, until
from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    HTTPStatusError,
    RuntimeUnavailable,
)
from vastar_client.testing import FakeRuntime, respond_stream
from vastar_client.wire import Disposition


@pytest.fixture
def fake():
    with FakeRuntime(serve) as runtime:
        yield runtime


@pytest.fixture
def client(fake):
    with RuntimeClient(fake.config) as one:
        yield one


def test_failures_come_behind_what_came(client):
    got = []
    with stream(client, "cut") as response:
        with pytest.raises(ConnectorException, match="cut") as caught:
            for data in response.iter_bytes():
                got.append(data)  # noqa: PERF402  # it breaks off
        with pytest.raises(ConnectorException, match="cut"):
            response.read()
    assert got == [b"x"]
    assert caught.value.disposition is Disposition.RESPONSE_STARTED


def test_raise_for_status(client):
    with stream(client, "events") as response:
        assert response.raise_for_status() is response
    with stream(client, "error") as response:
        next(response.iter_bytes())
        with pytest.raises(HTTPStatusError) as caught:
            response.raise_for_status()
    assert caught.value.response.body == b""


def test_the_body_of_an_error_is_in_it():
    fake = FakeRuntime([respond_stream([b"x" * 50_000] * 3, status_code=400)])
    with RuntimeClient(dial=fake.dial) as client:
        with pytest.raises(HTTPStatusError) as caught, client.stream("GET", URL) as response:
            response.raise_for_status()
        assert caught.value.response.body == b"x" * 65_536
        assert_nothing_is_left(client)


def test_a_timeout_is_the_total(client):
    with stream(client, "held", timeout_s=1) as response, pytest.raises(CallTimeout):
        response.read()
    with pytest.raises(CallTimeout):
        stream(client, "silent", timeout_s=0.05).__enter__()
    assert_nothing_is_left(client)


def test_the_time_that_the_first_connection_took_is_the_streams():
    fake = FakeRuntime([respond_stream()])

    async def slow():
        await trio.sleep(0.2)
        return await fake.dial()

    client = RuntimeClient(dial=slow)
    with client.stream("GET", URL, timeout_s=5):
        left_ms = fake.messages[0].deadline_at_ms - time.time() * 1000
        assert left_ms < 4801
    client.close()


def test_no_runtime(tmp_path):
    config = RuntimeConfig(socket_path=str(tmp_path / "none"), use_environment=False)
    with pytest.raises(RuntimeUnavailable, match="there is no such socket"):
        RuntimeClient(config).stream("GET", URL).__enter__()


# Leaving and closing


def test_leaving_the_block_cancels(client, fake):
    with stream(client, "endless") as response:
        for _ in response.iter_bytes():
            break
    assert_nothing_is_left(client)
    assert fake.cancelled == [response.request_id]
    with pytest.raises(ConnectionClosed, match="was closed before its end: read it inside its"):
        response.read()
    response.close()
    with pytest.raises(RuntimeError, match="can be entered once"):
        held = stream(client, "events")
        with held:
            pass
        held.__enter__()


def test_closing_in_another_thread_ends_the_iteration(client, fake):
    with stream(client, "held") as response:
        thread, caught = in_thread(lambda: list(response.events()))
        until(response._turn.locked)
        response.close()
        thread.join()
        assert isinstance(caught[0], ConnectionClosed)
        with pytest.raises(ConnectionClosed):
            next(response.events())
    assert_nothing_is_left(client)


def test_closing_in_another_thread_ends_what_was_read_ahead(client):
    with stream(client, "events") as response:
        assert next(response.events()).data == "one"
        thread, caught = in_thread(response.close)
        thread.join()
        assert caught == [None]
        with pytest.raises(ConnectionClosed):
            next(response.events())


def test_a_stream_that_is_still_beginning_can_be_closed(client, fake):
    held = stream(client, "silent")
    thread, caught = in_thread(held.__enter__)
    until(lambda: fake.held)
    held.close()
    thread.join()
    assert isinstance(caught[0], ConnectionClosed)
    assert_nothing_is_left(client)


def test_one_that_was_closed_before_it_began_does_not_stay(client):
    held = stream(client, "held")
    held.close()
    with suppress(ConnectionClosed):
        held.__enter__()
    assert_nothing_is_left(client)


def test_closing_the_client_ends_its_streams(fake):
    client = RuntimeClient(fake.config)
    with stream(client, "held") as response:
        thread, caught = in_thread(response.read)
        until(response._turn.locked)
        client.close()
        thread.join()
        assert isinstance(caught[0], ConnectionClosed)
    assert client.get("http://api.test/echo").ok
    client.close()


def test_a_client_that_is_forgotten_lives_as_long_as_its_stream(fake):
    response = stream(RuntimeClient(fake.config), "events").__enter__()
    gc.collect()
    assert len(list(response.events())) == 3
    connected = response._owner._connected
    response.close()
    del response
    gc.collect()
    until(lambda: connected.ended)


def test_one_that_is_forgotten_is_cancelled_and_warned_about(client, fake):
    def forget():
        stream(client, "held").__enter__()
        gc.collect()

    with pytest.warns(ResourceWarning, match="the stream of <HTTPRequest GET .* was not closed"):
        forget()
    assert_nothing_is_left(client)


def test_a_generator_that_is_closed_closes_its_stream(client, fake):
    def generate():
        with stream(client, "held") as response:
            yield from response.iter_bytes()

    generator = generate()
    assert next(generator) == b"x"
    generator.close()
    assert_nothing_is_left(client)
    assert len(fake.cancelled) == 1


def test_an_interrupted_wait_loses_nothing(client, fake):
    """A signal handler may raise anything while a thread waits."""
    with stream(client, "held") as response:
        parts = response.iter_bytes()
        assert next(parts) == b"x"
        real = response._loop.submit

        def interrupted(function):
            job = real(function)
            fake.streams[0].push("y")
            until(lambda: not job._finished.locked())

            class Interrupted:
                def wait(self):
                    raise LookupError

            return Interrupted()

        response._loop.submit = interrupted
        try:
            with pytest.raises(LookupError):
                next(parts)
        finally:
            del response._loop.submit
        assert next(parts) == b"y"
