"""Event streams that are taken up again, on Trio under virtual time."""

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from vastar_client._reconnecting import Reconnect
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import ConnectionClosed, ConnectorException, HTTPStatusError
from vastar_client.testing import HOLD, After, FakeRuntime, respond, respond_events, respond_stream
from vastar_client.wire import ErrorClass
from vastar_client.wire.sse import SSEEvent, SSELimitError

settle = trio.testing.wait_all_tasks_blocked
CUT = ConnectorException("cut", ErrorClass.TRANSIENT)


def ids_told(fake):
    return [request.get_header("last-event-id") for request in fake.requests]


async def test_it_goes_on_behind_the_last_event(autojump_clock):
    fake = FakeRuntime(
        [
            respond_events(
                [SSEEvent("1", id="a"), SSEEvent("2", id="b"), b"id: c\ndata: cut", CUT]
            ),
            ConnectorException("no runtime has it", ErrorClass.TRANSIENT),
            respond_events([SSEEvent("3"), b"id: d\n\n"]),
            respond_events([SSEEvent("4")]),
            respond(204),
        ]
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.events(URL, params={"q": 1}) as events:
            seen = [(event.data, event.id, events.last_event_id) async for event in events]
            assert [event async for event in events] == [], "204 was the end"
        await settle()
        assert_nothing_is_left(client)
    assert seen == [("1", "a", "a"), ("2", "b", "b"), ("3", "b", "b"), ("4", "d", "d")]
    assert ids_told(fake) == [None, "b", "b", "d", "d"]
    assert {request.url for request in fake.requests} == {URL + "?q=1"}
    assert fake.requests[0].get_header("accept") == "text/event-stream"
    assert fake.cancelled == []


async def test_it_begins_where_it_is_told_to_and_waits_as_the_stream_says(autojump_clock):
    fake = FakeRuntime([respond_events([b"retry: 40000\ndata: 1\n\n"]), respond(204)])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        async with client.events(URL, last_event_id="7") as events:
            assert events.last_event_id == "7"
            assert [(event.data, event.id) async for event in events] == [("1", "7")]
            assert events.retry_ms == 40_000
        assert 40 <= trio.current_time() - begin <= 50
    assert ids_told(fake) == ["7", "7"]


async def test_an_event_is_there_when_it_is_sent(autojump_clock):
    fake = FakeRuntime([respond_events([After(3, "1"), After(4, "2"), HOLD])])
    async with AsyncRuntimeClient(dial=fake.dial) as client, client.events(URL) as events:
        begin = trio.current_time()
        for data, at in (("1", 3), ("2", 7)):
            assert (await anext(events)).data == data
            assert trio.current_time() - begin == pytest.approx(at)


async def test_statuses_that_pass_are_waited_for(autojump_clock):
    fake = FakeRuntime(
        [
            respond(503, headers={"Retry-After": "20"}),
            respond(429),
            respond_events(["1"]),
            respond(204),
        ]
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        async with client.events(URL) as events:
            assert [event.data async for event in events] == ["1"]
        assert trio.current_time() - begin >= 20


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (respond(404), HTTPStatusError, "status 404"),
        (respond(501), HTTPStatusError, "status 501"),
        (respond(200, body="hello"), ConnectorException, "no event stream: .* status 200"),
        (respond(201), ConnectorException, "no event stream: .* status 201"),
        (ConnectorException("bad URL", ErrorClass.INVALID_REQUEST), ConnectorException, "bad URL"),
        (respond_stream(["x" * 2_000_000], headers={"content-type": "text/event-stream"}),
         SSELimitError, "exceeds the limit"),
    ],
)  # fmt: skip
async def test_what_a_repeat_cannot_mend_is_raised_at_once(autojump_clock, reply, kind, message):
    fake = FakeRuntime([reply])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.events(URL) as events:
            with pytest.raises(kind, match=message):
                await anext(events)
        await settle()
        assert_nothing_is_left(client)
    assert len(fake.requests) == 1


async def test_attempts_are_bounded(autojump_clock):
    fake = FakeRuntime(lambda _: CUT)
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.events(URL, reconnect=Reconnect(max_attempts=4)) as events,
    ):
        with pytest.raises(ConnectorException, match="cut"):
            await anext(events)
        assert [event async for event in events] == [], "that was the end"
    assert len(fake.requests) == 4


async def test_without_reconnecting_the_first_end_is_the_end(autojump_clock):
    fake = FakeRuntime([respond_events(["1"]), respond_events(["1", CUT])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.events(URL, reconnect=False) as events:
            assert [event.data async for event in events] == ["1"]
        async with client.events(URL, reconnect=False) as events:
            assert (await anext(events)).data == "1"
            with pytest.raises(ConnectorException, match="cut"):
                await anext(events)


async def test_leaving_it_cancels_the_stream(autojump_clock):
    fake = FakeRuntime([respond_events(["1", HOLD])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.events(URL) as events:
            async for _ in events:
                break
        await settle()
        assert len(fake.cancelled) == 1
        assert_nothing_is_left(client)
        assert [event async for event in events] == []


async def test_a_wait_that_is_cancelled_goes_on_and_is_not_shortened(autojump_clock):
    fake = FakeRuntime(
        [respond_events([b"retry: 30000\ndata: 1\n\n"]), respond_events(["2", HOLD])]
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client, client.events(URL) as events:
        begin, seen = trio.current_time(), []
        while len(seen) < 2:
            with trio.move_on_after(1):
                seen.append((await anext(events)).data)
        assert seen == ["1", "2"]
        assert trio.current_time() - begin >= 30


async def test_one_that_is_cancelled_while_it_connects_connects_again(autojump_clock):
    fake = FakeRuntime(
        [HOLD, respond_stream([After(5, CUT)], status_code=500), respond_events(["1"])]
    )
    async with AsyncRuntimeClient(dial=fake.dial) as client, client.events(URL) as events:
        for _ in range(2):
            with trio.move_on_after(2):
                await anext(events)
        assert (await anext(events)).data == "1"
        await settle()
        assert len(fake.cancelled) == 2
        assert len(fake.requests) == 3


async def test_the_runtime_may_be_away_for_a_while(autojump_clock):
    fake = FakeRuntime(lambda _: respond_events(["1", HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client, client.events(URL) as events:
        assert (await anext(events)).data == "1"
        fake.disconnect()
        assert (await anext(events)).data == "1"


async def test_a_client_that_was_closed_is_not_waited_for(autojump_clock):
    fake = FakeRuntime(lambda _: respond_events(["1", HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        events = client.events(URL, reconnect=Reconnect(max_attempts=3))
        await anext(events)
    with pytest.raises(ConnectionClosed, match="the client is closed"):
        await anext(events)
    await events.aclose()
