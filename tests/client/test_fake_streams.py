"""Scripted streams and bodies: what a connector's author can make a fake runtime do."""

import itertools
import threading
import time

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from tests.support.client_threads import until
from vastar_client._fake_streams import FakeUpload, event_bytes
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.blocking import RuntimeClient
from vastar_client.errors import CallTimeout, ConnectorException
from vastar_client.request import GET
from vastar_client.testing import HOLD, After, FakeRuntime, respond, respond_events, respond_stream
from vastar_client.wire import ErrorClass, ExecuteRequest, RequestChunk
from vastar_client.wire.sse import SSEDecoder, SSEEvent
from vastar_client.wire.windows import GROWN_STREAM_WINDOW_BYTES

settle = trio.testing.wait_all_tasks_blocked


@pytest.mark.parametrize(
    "event", [SSEEvent("a"), SSEEvent("a\n\nb\n"), SSEEvent("é", "kind"), SSEEvent("", "k", "7")]
)
def test_events_are_written_as_they_are_read(event):
    assert SSEDecoder().feed(event_bytes(event)) == [event]


async def read(client, **options):
    async with client.stream("GET", URL, **options) as response:
        return response, await response.aread()


async def test_every_kind_of_step(autojump_clock):
    steps = [b"a", "b", SSEEvent("c"), After(0, b"d"), After(2, "e"), b""]
    fake = FakeRuntime([respond_stream(steps, status_code=201, headers={"a": "b"})])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        response, body = await read(client)
        assert trio.current_time() - begin == 2
    assert (response.status_code, response.headers) == (201, {"a": "b"})
    assert body == b"abdata: c\n\nde"
    (stream,) = fake.streams
    assert (stream.sent_bytes, stream.cancelled, stream.ended) == (len(body), False, True)
    assert stream.request is fake.requests[0]


async def test_events_of_any_kind(autojump_clock):
    given = ["text", {"a": 1}, [1], None, SSEEvent("x", "n"), b"data: raw\n\n", After(1, {"b": 2})]
    fake = FakeRuntime([respond_events(given, headers={"a": "b"})])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        assert response.headers == {"content-type": "text/event-stream", "a": "b"}
        seen = [event.data async for event in response.events()]
        assert seen == ["text", '{"a":1}', "[1]", "null", "x", "raw", '{"b":2}']


async def test_a_reply_can_be_given_again(autojump_clock):
    reply = respond_events(["1", "2"])
    fake = FakeRuntime(lambda _: reply)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await read(client))[1] == (await read(client))[1] != b""


async def test_the_head_can_come_late_and_a_failure_can_come_first(autojump_clock):
    cut = ConnectorException("cut", ErrorClass.TRANSIENT)
    fake = FakeRuntime(
        [
            After(3, respond_stream(["x"])),
            respond_stream([After(1, cut)]),
            respond_stream([cut]),
            cut,
        ]
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        async with client.stream("GET", URL):
            assert trio.current_time() - begin == 3
        for _ in range(3):
            with pytest.raises(ConnectorException, match="cut"):
                await read(client)


async def test_a_wrong_step_shows_in_the_stream(autojump_clock):
    fake = FakeRuntime([respond_stream(["x", 5])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(ConnectorException, match="a step of the stream is int"):
            await read(client)


async def test_a_stream_is_no_answer_to_a_call(autojump_clock):
    fake = FakeRuntime([respond_stream(["x"])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(ConnectorException, match="a stream is no answer to a call without"):
            await client.get(URL)


async def test_an_endless_script_is_taken_as_far_as_the_caller_reads(autojump_clock):
    taken = itertools.count()
    fake = FakeRuntime([respond_stream(b"x" * 1000 for _ in taken)])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        await settle()
        assert next(taken) < 70
        assert fake.streams[0].credit_bytes == 0
        async for _ in response.iter_bytes():
            if response.received_bytes > 500_000:
                break
        assert 500 < next(taken) < 600 + GROWN_STREAM_WINDOW_BYTES // 1000


async def test_a_held_stream_goes_on_when_it_is_told_to(autojump_clock):
    fake = FakeRuntime([respond_stream(["a", HOLD])])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        parts = response.iter_bytes()
        assert await anext(parts) == b"a"
        (stream,) = fake.streams
        stream.push("b", After(1, "c"))
        assert (await anext(parts), await anext(parts)) == (b"b", b"c")
        assert not stream.ended
        stream.end()
        assert await anext(parts, None) is None
        assert stream.ended


async def test_a_call_that_is_held_can_be_answered_by_a_stream(autojump_clock):
    fake = FakeRuntime([HOLD])
    async with AsyncRuntimeClient(dial=fake.dial) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call():
            assert (await read(client))[1] == b"late"

        await settle()
        (held,) = fake.held
        held.reply(respond_stream(["late"]))
        held.reply(respond_stream(["twice"]))


async def test_deadlines_end_streams_too(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(["x", After(60, "y")]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(CallTimeout, match="while the FakeRuntime held"):
            await read(client, timeout_s=5)
        await trio.sleep(100)
        assert [stream.ended for stream in fake.streams] == [True]
        assert_nothing_is_left(client)


async def test_a_cancelled_stream_says_so(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(["x", After(60, "y")]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL):
            pass
        await settle()
        (stream,) = fake.streams
        assert (stream.cancelled, stream.ended) == (True, True)
        assert fake.cancelled == [stream.message.request_id]
        await trio.sleep(100)


# Bodies


async def pieces():
    for number in range(3):
        yield b"%d" % number
        await trio.sleep(1)


async def test_a_body_is_there_when_the_function_is_asked(autojump_clock):
    fake = FakeRuntime(lambda request: respond(body=request.body))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await client.put(URL, body=pieces())).text == "012"
    (upload,) = fake.uploads
    assert (bytes(upload.data), upload.ended) == (b"012", True)
    assert upload.message is fake.messages[0]


async def test_or_it_is_answered_before(autojump_clock):
    seen = []
    fake = FakeRuntime(lambda request: seen.append(request.body) or After(1.5, respond(413)))
    fake.waits_for_bodies = False
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await client.put(URL, body=pieces())).status_code == 413
        await settle()
    assert seen == [None]
    assert (bytes(fake.uploads[0].data), fake.uploads[0].ended) == (b"01", False)


async def test_a_body_that_never_ends_ends_at_the_deadline(autojump_clock):
    async def endless():
        yield b"x"
        await trio.sleep_forever()

    fake = FakeRuntime()
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(CallTimeout, match="while the FakeRuntime held"):
            await client.put(URL, body=endless(), timeout_s=5)
        await settle()
        assert_nothing_is_left(client)
    assert fake.requests == []


def test_pieces_out_of_order_are_a_bug():
    upload = FakeUpload(ExecuteRequest(7, "t", "http", "request"))
    upload.take(RequestChunk(7, 0, b"a"))
    with pytest.raises(AssertionError, match="in their order"):
        upload.take(RequestChunk(7, 2, b"b"))
    upload.take(RequestChunk(7, 1, None, last=True))
    assert bytes(upload.data) == b"a"


# Over the socket


def test_pauses_and_pushes_of_other_threads_over_the_socket():
    with (
        FakeRuntime([respond_events(["1", After(0.02, "2"), HOLD])]) as fake,
        RuntimeClient(fake.config) as client,
        client.stream("GET", URL) as response,
    ):
        events = response.events()
        assert [next(events).data, next(events).data] == ["1", "2"]
        (stream,) = fake.streams
        until(lambda: stream._is_held)
        stream.push(SSEEvent("3"), After(0.02, SSEEvent("4")))
        assert [next(events).data, next(events).data] == ["3", "4"]
        until(lambda: stream._is_held)
        stream.end()
        assert list(events) == []


def test_a_held_call_is_answered_from_another_thread_with_a_pause():
    with FakeRuntime([HOLD]) as fake, RuntimeClient(fake.config) as client:

        def reply():
            until(lambda: fake.held)
            fake.held[0].reply(respond_stream([After(0.02, "late")]))

        thread = threading.Thread(target=reply)
        thread.start()
        begin = time.monotonic()
        with client.stream("GET", URL) as response:
            assert response.read() == b"late"
        thread.join()
        assert time.monotonic() - begin < 5


def test_many_pauses_at_once_over_the_socket():
    """The thread of a connection wakes itself; a byte that is not read yet will do."""
    replies = lambda _: After(0.01, respond())  # noqa: E731
    with FakeRuntime(replies) as fake, RuntimeClient(fake.config) as client:
        requests = [GET(f"{URL}/{n}") for n in range(500)]
        assert all(answer.ok for answer in client.execute_many(requests))
