"""How streamed answers end: failures, time, leaving and closing."""

import itertools

import anyio
import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    RuntimeUnavailable,
)
from vastar_client.request import GET
from vastar_client.testing import HOLD, After, FakeRuntime, respond_events, respond_stream
from vastar_client.wire import Disposition, ErrorClass

settle = trio.testing.wait_all_tasks_blocked


@pytest.mark.parametrize("before", [[], [b"some"]])
async def test_failures_are_raised_behind_what_came(autojump_clock, before):
    said = ConnectorException(
        "the upstream hung up",
        ErrorClass.TRANSIENT,
        disposition=Disposition.RESPONSE_STARTED,
        attempts=2,
        retry_after_ms=30,
    )
    fake = FakeRuntime([respond_stream([*before, said], attempts=0)])
    got = []
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(ConnectorException, match="hung up") as caught:
            async with client.stream("GET", URL) as response:
                async for data in response.iter_bytes():
                    got.append(data)  # noqa: PERF401  # it breaks off
        assert got == before
        for name in ("error_class", "disposition", "attempts", "retry_after_ms"):
            assert getattr(caught.value, name) == getattr(said, name)
        assert caught.value.request_id == fake.messages[0].request_id
        assert_nothing_is_left(client)
    assert fake.cancelled == []


async def test_a_failure_is_raised_again_by_whoever_reads_on(autojump_clock):
    fake = FakeRuntime([respond_stream(["x", ConnectorException("cut", ErrorClass.TRANSIENT)])])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        parts = response.iter_bytes()
        await anext(parts)
        for _ in range(3):
            with pytest.raises(ConnectorException, match="cut"):
                await anext(parts)


async def test_a_timeout_is_the_total_and_the_runtimes_to_tell(autojump_clock):
    fake = FakeRuntime([respond_stream(["x", HOLD])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        with pytest.raises(CallTimeout, match="while the FakeRuntime held the call"):
            async with client.stream("GET", URL, timeout_s=20) as response:
                await response.aread()
        assert trio.current_time() - begin == pytest.approx(20, abs=0.5)
        assert fake.messages[0].deadline_at_ms
        assert_nothing_is_left(client)


async def test_without_a_timeout_no_deadline_is_sent_and_silence_is_waited_for(autojump_clock):
    """KeepAlives, every 15 s, say that there is still somebody."""
    fake = FakeRuntime([After(1000, respond_stream(["x", After(5000, "y")]))])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
    ):
        assert await response.aread() == b"xy"
    assert fake.messages[0].deadline_at_ms == 0


@pytest.mark.parametrize("before", [[], ["x"]])
async def test_a_stuck_runtime_is_noticed_by_its_silence(autojump_clock, before):
    fake = FakeRuntime([respond_stream([*before, HOLD]) if before else HOLD], keeps_deadlines=False)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        with pytest.raises(CallTimeout, match="no word from the runtime, for 60 s, not even") as e:
            async with client.stream("GET", URL) as response:
                await response.aread()
        assert trio.current_time() - begin == pytest.approx(61)
        started = Disposition.RESPONSE_STARTED if before else Disposition.SENT_NO_RESPONSE
        assert e.value.disposition is started
        await settle()
        assert fake.cancelled == [e.value.request_id]
        assert_nothing_is_left(client)


async def test_a_stuck_runtime_cannot_hang_a_stream_beyond_its_deadline(autojump_clock):
    fake = FakeRuntime([respond_stream(["x", HOLD])], keeps_deadlines=False)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        begin = trio.current_time()
        with pytest.raises(CallTimeout, match="not even that the deadline has passed"):
            async with client.stream("GET", URL, timeout_s=5) as response:
                await response.aread()
        assert trio.current_time() - begin == pytest.approx(6)


@pytest.mark.parametrize("timeout_s", [None, 3])
async def test_a_stream_waits_for_the_runtime_to_come_back_and_not_for_ever(
    autojump_clock, timeout_s
):
    fake = FakeRuntime(lambda _: respond_stream(["x"]))
    config = RuntimeConfig(timeout_ms=7000)
    async with AsyncRuntimeClient(config, dial=fake.dial) as client:
        await client.health()
        fake.available = False
        fake.disconnect()
        await settle()
        begin = trio.current_time()
        with pytest.raises(RuntimeUnavailable, match=rf"within {timeout_s or 7} s") as caught:
            await client.stream("GET", URL, timeout_s=timeout_s).__aenter__()
        assert trio.current_time() - begin == pytest.approx(timeout_s or 7)
        assert caught.value.disposition is Disposition.NOT_SENT
        fake.available = True
        async with client.stream("GET", URL) as response:
            assert await response.aread() == b"x"
        assert_nothing_is_left(client)


async def test_streams_take_slots_as_calls_do(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream([HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        streams = [client.stream("GET", URL) for _ in range(256)]
        for stream in streams:
            await stream.__aenter__()
        with pytest.raises(CallTimeout, match="256 calls were in flight for 2 s"):
            await client.stream("GET", URL, timeout_s=2).__aenter__()
        await streams[0].__aexit__(None, None, None)
        async with client.stream("GET", URL, timeout_s=2):
            pass
        for stream in streams[1:]:
            await stream.__aexit__(None, None, None)
        await settle()
        assert_nothing_is_left(client)


async def test_closing_the_client_ends_its_streams(autojump_clock):
    fake = FakeRuntime([respond_stream(["x", HOLD])])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        stream = client.stream("GET", URL)
        response = await stream.__aenter__()
    assert await anext(response.iter_bytes()) == b"x"
    with pytest.raises(ConnectionClosed, match="the client was closed"):
        await response.aread()
    await stream.__aexit__(None, None, None)
    with pytest.raises(ConnectionClosed, match="inside its `with` block"):
        await client.stream("GET", URL).__aenter__()


# Leaving


async def test_leaving_the_block_cancels(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(itertools.repeat(b"x" * 1000)))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as response:
            async for _ in response.iter_bytes():
                break
        await settle()
        assert fake.cancelled == [response.request_id]
        assert fake.streams[0].cancelled
        assert_nothing_is_left(client)
        with pytest.raises(ConnectionClosed, match="closed before its end: read it inside its"):
            await response.aread()
        await response.aclose()
        assert len(fake.cancelled) == 1


async def test_closing_it_ends_the_iteration_of_another_task(autojump_clock):
    fake = FakeRuntime([respond_stream([b"data: 1\n\ndata: 2\n\n", HOLD])])
    async with AsyncRuntimeClient(dial=fake.dial) as client, client.stream("GET", URL) as response:

        async def read():
            with pytest.raises(ConnectionClosed, match="the stream was closed before its end"):
                [event async for event in response.events()]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await settle()
            await response.aclose()
        with pytest.raises(ConnectionClosed):
            await anext(response.events())


async def test_what_was_read_ahead_cannot_be_read_after_closing(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream([b"data: 1\n\ndata: 2\n\n"]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("GET", URL) as response:
            assert (await anext(response.events())).data == "1"
        with pytest.raises(ConnectionClosed):
            await anext(response.events())
        async with client.stream("GET", URL) as response:
            events = [event async for event in response.events()]
        assert len(events) == 2
        assert await anext(response.events(), None) is None, "all was read"


async def test_two_readers_at_once_are_refused(autojump_clock):
    fake = FakeRuntime([respond_stream([HOLD])])
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("GET", URL) as response,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(response.aread)
        await settle()
        with pytest.raises(anyio.BusyResourceError):
            await response.aread()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_wait_loses_nothing(autojump_clock):
    fake = FakeRuntime([respond_events([After(1.5, "one"), After(1, "two")])])
    async with AsyncRuntimeClient(dial=fake.dial) as client, client.stream("GET", URL) as response:
        seen = []
        while not response.has_ended:
            with trio.move_on_after(0.4):
                async for event in response.events():
                    seen.append(event.data)  # noqa: PERF401  # it breaks off
        assert seen == ["one", "two"]


async def test_a_stream_begins_once_and_only_when_it_is_entered(autojump_clock):
    fake = FakeRuntime([respond_stream()])
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        stream = client.stream("GET", URL)
        await settle()
        assert fake.messages == []
        async with stream:
            pass
        with pytest.raises(RuntimeError, match="can be entered once"):
            await stream.__aenter__()
        await stream.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "arguments",
    [(), (5,), ("GET",), ("GET", 5), (GET(URL), URL), (None, URL)],
)
async def test_what_stream_takes(arguments):
    client = AsyncRuntimeClient(dial=FakeRuntime().dial)
    with pytest.raises(TypeError):
        client.stream(*arguments)
    with pytest.raises(TypeError, match="give an HTTPRequest alone"):
        client.stream(GET(URL), timeout_s=5)


async def test_the_published_protocol_has_no_streams(autojump_clock):
    config = RuntimeConfig(payload_format="json")
    async with AsyncRuntimeClient(config, dial=FakeRuntime().dial) as client:
        with pytest.raises(ConnectorException, match="need payload_format='native'"):
            await client.stream("GET", URL).__aenter__()
        assert_nothing_is_left(client)
