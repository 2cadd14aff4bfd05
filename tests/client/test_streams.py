"""A stream as its reader sees it: silence, closing, and being forgotten."""

import asyncio
import gc
import threading
import warnings

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from tests.support.client_peer import ManualPeer, entered
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import CallTimeout
from vastar_client.testing import HOLD, FakeRuntime, respond_stream
from vastar_client.wire import Cancel, KeepAlive

settle = trio.testing.wait_all_tasks_blocked


@pytest.fixture
async def peer():
    return ManualPeer()


@pytest.fixture
async def client(peer):
    async with AsyncRuntimeClient(dial=peer.dial) as one:
        yield one


async def test_keepalives_keep_a_silent_stream_alive(peer, client, autojump_clock):
    async with entered(peer, client.stream("GET", URL)) as response:

        async def read():
            begin = trio.current_time()
            with pytest.raises(CallTimeout, match="no word from the runtime, for 60 s"):
                await anext(response.iter_bytes())
            # Silence is looked at when its time is over: it lasts 60 s, and up to 61 more.
            assert 59 + 60 <= trio.current_time() - begin <= 59 + 122

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(59)
            peer.say(KeepAlive(peer.request_id))


async def test_frames_that_came_while_the_process_was_stopped_count(
    peer, client, autojump_clock, monkeypatch
):
    """A laptop that slept: the time is over, and the answer lies in the socket."""
    async with (
        entered(peer, client.stream("GET", URL)) as response,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def read():
            assert await anext(response.iter_bytes()) == b"x"

        await trio.sleep(60.5)
        peer.chunk(b"x", 0)


async def forgotten(client):
    """Open a stream and forget it."""
    stream = client.stream("GET", URL + "?key=secret")
    request_id = (await stream.__aenter__()).request_id
    del stream
    gc.collect()
    return request_id


async def test_one_that_is_forgotten_is_cancelled_and_warned_about(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream(["x", HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.warns(ResourceWarning, match="of <HTTPRequest GET .* was not closed: use") as w:
            request_id = await forgotten(client)
        assert "secret" not in str(w[0].message)
        await settle()
        assert fake.cancelled == [request_id]
        assert_nothing_is_left(client)


def test_the_same_on_asyncio():
    async def main():
        fake = FakeRuntime(lambda _: respond_stream(["x", HOLD]))
        async with AsyncRuntimeClient(dial=fake.dial) as client:
            with pytest.warns(ResourceWarning, match="was not closed"):
                request_id = await forgotten(client)
            while client._link._slots.value != 256:  # noqa: ASYNC110  # a few turns of the loop
                await asyncio.sleep(0)
            assert fake.cancelled == [request_id]

    asyncio.run(main())


async def test_it_may_be_forgotten_in_any_thread(autojump_clock):
    fake = FakeRuntime(lambda _: respond_stream([HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        box = [await client.stream("GET", URL).__aenter__()]

        def forget():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                box.clear()
                gc.collect()

        thread = threading.Thread(target=forget)
        thread.start()
        thread.join()
        await settle()
        assert len(fake.cancelled) == 1
        assert_nothing_is_left(client)


@pytest.mark.parametrize("how", ["read", "closed", "lost"])
async def test_nothing_is_said_of_one_that_is_over(autojump_clock, how):
    fake = FakeRuntime(lambda _: respond_stream(["x"] if how == "read" else ["x", HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        response = await client.stream("GET", URL).__aenter__()
        if how == "read":
            await response.aread()
        elif how == "closed":
            await response.aclose()
        else:
            fake.disconnect()
            await settle()
        del response
        gc.collect()


def test_nor_when_the_loop_is_gone():
    kept = []

    async def main():
        fake = FakeRuntime(lambda _: respond_stream([HOLD]))
        client = AsyncRuntimeClient(dial=fake.dial)
        async with client:
            kept.append(await client.stream("GET", URL).__aenter__())

    trio.run(main)
    live = kept[0]._live
    live._entry.error = None  # as if it were still under way
    assert not live._call_soon(lambda: None)
    kept.clear()
    gc.collect()


async def test_an_async_generator_that_is_forgotten_closes_its_stream(autojump_clock):
    """Leaving the block happens in another task then, and must not wait for anything."""
    fake = FakeRuntime(lambda _: respond_stream(["x", HOLD]))
    async with AsyncRuntimeClient(dial=fake.dial) as client:

        async def generate():
            async with client.stream("GET", URL) as response:
                async for data in response.iter_bytes():
                    yield data

        generator = generate()
        assert await anext(generator) == b"x"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Trio's own, about any async generator
            del generator
            gc.collect()
        await settle()
        assert len(fake.cancelled) == 1
        assert_nothing_is_left(client)


async def test_closing_waits_until_the_callers_body_is_left_alone(autojump_clock):
    left = []

    async def body():
        try:
            await trio.sleep_forever()
            yield b""
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            left.append(trio.current_time())

    fake = FakeRuntime(lambda _: respond_stream([HOLD]))
    fake.waits_for_bodies = False
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        async with client.stream("PUT", URL, body=body()):
            begin = trio.current_time()
        assert left == [begin + 3]


async def test_what_is_taken_at_once_and_one_by_one(peer, client, autojump_clock):
    async with entered(peer, client.stream("GET", URL)) as response:
        live = response._live
        for sequence, data in enumerate([b"a", b"b", b"c"]):
            peer.chunk(data, sequence)
        await settle()
        assert await live.take() == b"a"
        assert await live.take_all() == [b"b", b"c"]
        peer.chunk(b"d", 3)
        assert await live.take_all() == [b"d"]
        assert not live.is_finished
        peer.end()
        assert (await live.take_all(), await live.take()) == ([], b"")
        assert live.is_finished
    assert peer.all_of(Cancel) == []
