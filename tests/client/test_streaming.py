"""Streamed answers on Trio, in memory, under virtual time."""

import itertools

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import (
    ConnectorException,
    HTTPStatusError,
)
from vastar_client.request import GET
from vastar_client.testing import HOLD, After, FakeRuntime, respond, respond_events, respond_stream
from vastar_client.wire import Disposition, ErrorClass
from vastar_client.wire.sse import SSEEvent, SSELimitError
from vastar_client.wire.windows import GROWN_STREAM_WINDOW_BYTES

settle = trio.testing.wait_all_tasks_blocked


async def test_the_head_and_the_end(autojump_clock):
    headers = [("Content-Type", "text/plain; charset=latin-1"), ("X", "1"), ("X", "2")]
    fake = FakeRuntime(
        [respond_stream([b"\xe9", "a"], headers=headers, trailers={"Sum": "5"}, attempts=2)]
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL, params={"q": 1}) as response:
            assert (response.status_code, response.ok, response.is_sse) == (200, True, False)
            assert response.headers["content-TYPE"] == "text/plain; charset=latin-1"
            assert response.headers["x"] == "1, 2"
            assert response.headers_list == headers
            assert response.request_id == fake.messages[0].request_id
            assert "".join([text async for text in response.iter_text()]) == "éa"
            assert response.has_ended
            assert response.trailers == {"sum": "5"}
            assert (response.total_bytes, response.received_bytes) == (2, 2)
            assert (response.attempts, response.duration_us) == (2, 0)
            assert response.disposition is Disposition.COMPLETED
            assert repr(response) == f"<AsyncStreamResponse 200 request_id={response.request_id}>"
        assert_nothing_is_left(client)
    assert fake.cancelled == []
    assert fake.requests[0].url == URL + "?q=1"
    assert fake.messages[0].stream


async def test_what_the_end_tells_is_empty_before_it(autojump_clock):
    fake = FakeRuntime([respond_stream(["x", HOLD])])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        assert await anext(response.iter_bytes()) == b"x"
        assert not response.has_ended
        assert response.trailers == {}
        assert (response.total_bytes, response.attempts, response.duration_us) == (0, 0, 0)
        assert response.received_bytes == 1
        assert response.disposition is Disposition.RESPONSE_STARTED
        assert (response.last_event_id, response.retry_ms) == ("", None)


async def test_events_arrive_when_they_are_sent(autojump_clock):
    third = SSEEvent("3", "n", "7")
    fake = FakeRuntime([respond_events(["one", After(1, "two"), After(2, third)])])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream(GET(URL)) as response,
    ):
        assert response.is_sse
        begin = trio.current_time()
        seen = [(round(trio.current_time() - begin), event) async for event in response.events()]
        assert seen == [(0, SSEEvent("one")), (1, SSEEvent("two")), (3, third)]
        assert response.last_event_id == "7"


async def test_an_iteration_that_was_left_goes_on_where_it_stopped(autojump_clock):
    """Also within one chunk, and in another iterator."""
    fake = FakeRuntime([respond_events([b"data: 1\n\ndata: 2\n\ndata: 3\n\n", "4"])])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        seen = []
        for _ in range(4):
            async for event in response.events():
                seen.append(event.data)
                break
        assert seen == ["1", "2", "3", "4"]
        assert [event async for event in response.events()] == []
        with pytest.raises(RuntimeError, match=r"is being read by events\(\)"):
            response.iter_bytes()


async def test_lines(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(["a\r", "\nb\nlong", "er"]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as response:
            assert [line async for line in response.iter_lines()] == ["a", "b", "longer"]
        async with client.stream("GET", URL) as response:
            lines = response.iter_lines(max_characters=5)
            assert await anext(lines) == "a"
            with pytest.raises(ConnectorException, match="a line of more than 5 characters"):
                [line async for line in lines]
        await settle()
        assert_nothing_is_left(client)


async def test_a_line_of_an_event_stream_is_bounded(autojump_clock):
    fake = FakeRuntime([respond_stream(itertools.repeat("x" * 10_000))])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as response:
            with pytest.raises(SSELimitError):
                await anext(response.events())
        await settle()
        assert_nothing_is_left(client)
    assert fake.streams[0].sent_bytes < 1_048_576 + 2 * GROWN_STREAM_WINDOW_BYTES


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


async def test_content_deltas(autojump_clock):
    role = {"choices": [{"delta": {"role": "assistant"}}]}
    steps = [role, delta("Hel"), After(1, delta("lo")), "[DONE]", After(0.1, b": end\n\n")]
    fake = FakeRuntime([respond_events(steps)])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("POST", URL, json={"stream": True}) as response:
            assert [text async for text in response.content_deltas()] == ["Hel", "lo"]
            assert response.has_ended, "the end behind it was waited for"
        assert fake.cancelled == []


@pytest.mark.parametrize("last", [HOLD, After(60, "x"), ConnectorException("cut", 1)])
async def test_done_ends_the_deltas_though_the_stream_goes_on(autojump_clock, last):
    fake = FakeRuntime([respond_events([delta("a"), "[DONE]", last])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        async with client.stream("POST", URL) as response:
            assert [text async for text in response.content_deltas()] == ["a"]
            assert [text async for text in response.content_deltas()] == []
        assert trio.current_time() - begin < 1
        await settle()
        assert_nothing_is_left(client)


async def test_the_whole_body_within_bounds(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream([b"x" * 1000] * 100))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as response:
            assert len(await response.aread()) == 100_000
        async with client.stream("GET", URL) as response:
            assert len(await anext(response.iter_bytes())) == 1000
            assert len(await response.aread(max_bytes=99_000)) == 99_000
            assert await response.aread() == b""
        async with client.stream("GET", URL) as response:
            with pytest.raises(ConnectorException, match="more than 5000 bytes: iterate") as caught:
                await response.aread(max_bytes=5000)
            assert caught.value.error_class is ErrorClass.PERMANENT


async def test_an_answer_that_is_no_stream_by_itself_can_be_read_as_one(autojump_clock):
    fake = FakeRuntime([respond(201, json={"a": 1}, attempts=3), respond(), b"raw"])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as response:
            assert response.headers["content-type"] == "application/json"
            assert await response.aread() == b'{"a":1}'
            assert (response.status_code, response.attempts) == (201, 3)
        async with client.stream("GET", URL) as response:
            assert await response.aread() == b""
        async with client.stream("GET", URL) as response:
            assert await response.aread() == b"raw"


# Status


async def test_raise_for_status_shows_the_body(autojump_clock):
    limited = respond_stream(
        ['{"error": ', After(1, '"slow"}')],
        status_code=429,
        headers={"Retry-After": "2", "content-type": "application/json"},
        attempts=2,
    )
    fake = FakeRuntime([limited, respond(204)])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(HTTPStatusError, match="status 429") as caught:
            async with client.stream("GET", URL) as response:
                await response.raise_for_status()
        error = caught.value
        assert error.response.json() == {"error": "slow"}
        assert (error.error_class, error.retry_after_ms) == (ErrorClass.RATE_LIMITED, 2000)
        assert (error.attempts, error.request_id) == (2, fake.messages[0].request_id)
        async with client.stream("GET", URL) as response:
            assert await response.raise_for_status() is response


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        (itertools.repeat(b"x" * 1000), b"x" * 65_536),
        ([b"some", HOLD], b"some"),
        ([b"some", ConnectorException("cut", ErrorClass.TRANSIENT)], b"some"),
        ([], b""),
    ],
)
async def test_the_body_of_an_error_is_bounded_in_length_and_time(autojump_clock, steps, body):
    fake = FakeRuntime([respond_stream(steps, status_code=500)])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        with pytest.raises(HTTPStatusError) as caught:
            async with client.stream("GET", URL) as response:
                await response.raise_for_status()
        assert caught.value.response.body == body
        assert trio.current_time() - begin <= 5
        await settle()
        assert_nothing_is_left(client)


async def test_a_body_that_was_read_before_is_not_in_the_error(autojump_clock):
    fake = FakeRuntime([respond_stream([b"some", b"more"], status_code=404)])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        await anext(response.iter_bytes())
        with pytest.raises(HTTPStatusError) as caught:
            await response.raise_for_status()
        assert caught.value.response.body == b""


# A slow reader


async def test_a_slow_reader_slows_only_its_own_upstream(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(itertools.repeat(b"x" * 1000)))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as slow, client.stream("GET", URL) as fast:
            async for _ in fast.iter_bytes():
                if fast.received_bytes > 10_000_000:
                    break
            assert fake.streams[0].sent_bytes == 65_536, "one window, and no more"
            async for _ in slow.iter_bytes():
                if slow.received_bytes > 10_000_000:
                    break
        await settle()
        assert_nothing_is_left(client)


async def test_twenty_readers_that_stand_still_do_not_stop_others(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(itertools.repeat(b"x" * 65_536)))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        streams = [client.stream("GET", URL) for _ in range(20)]
        for stream in streams:
            await stream.__aenter__()
        await settle()
        async with client.stream("GET", URL) as response:
            async for _ in response.iter_bytes():
                if response.received_bytes > 1_000_000:
                    break
        assert (await client.health()).healthy
        for stream in streams:
            await stream.__aexit__(None, None, None)
