"""Bodies that are sent in pieces, with streams and with calls."""

import gzip
import io

import anyio
import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import (
    ConnectorException,
)
from vastar_client.request import GET, POST, HTTPRequest
from vastar_client.testing import HOLD, FakeRuntime, respond, respond_stream
from vastar_client.wire import Disposition

settle = trio.testing.wait_all_tasks_blocked


async def body_of(size_bytes):
    for _ in range(size_bytes // 1000):
        yield bytes(1000)


BODIES = {
    "bytes": lambda: bytes(100_000),
    "a file": lambda: io.BytesIO(bytes(100_000)),
    "an async iterator": lambda: body_of(100_000),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_of_any_kind_to_a_stream_and_to_a_call(autojump_clock, kind):
    fake = FakeRuntime(lambda request: respond(body=str(len(request.body))))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await client.put(URL, body=BODIES[kind]())).text == "100000"
        async with client.stream("PUT", URL, body=BODIES[kind]()) as response:
            assert await response.aread() == b"100000"
        await settle()
        assert_nothing_is_left(client)
    assert [upload.ended for upload in fake.uploads] == [True] * (0 if kind == "bytes" else 2)


async def test_a_body_that_is_too_long_for_a_frame(autojump_clock):
    body = memoryview(bytes(65 * 1024 * 1024))
    fake = FakeRuntime(lambda request: respond(body=str(len(request.body))))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        assert (await client.put(URL, data=body)).text == str(len(body))
    assert fake.requests[0].get_header("content-length") == str(len(body))


async def test_an_upstream_that_does_not_read_stops_the_body_at_one_window(autojump_clock):
    fetched = []

    async def endless():
        while True:
            fetched.append(1000)
            yield bytes(1000)

    fake = FakeRuntime()
    fake.reads_bodies = False
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with trio.move_on_after(30):
            await client.put(URL, body=endless())
        assert len(fake.uploads[0].data) == 65_536
        assert sum(fetched) <= 2 * 65_536 + 1000, "one window, and a chunk ahead"
        assert (await client.health()).healthy
        await settle()
        assert_nothing_is_left(client)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_before_the_end_of_the_body_ends_the_sending(autojump_clock, is_stream):
    ended = []

    async def endless():
        try:
            while True:
                yield bytes(1000)
        finally:
            ended.append(True)

    fake = FakeRuntime(lambda _: respond(401))
    fake.waits_for_bodies = False
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        if is_stream:
            async with client.stream("PUT", URL, body=endless()) as response:
                assert response.status_code == 401
                assert await response.aread() == b""
        else:
            assert (await client.put(URL, body=endless())).status_code == 401
        assert ended == [True], "before the call was over"
        await settle()
        assert_nothing_is_left(client)
    assert fake.cancelled == []
    assert not fake.uploads[0].ended


async def test_the_end_of_a_stream_ends_the_sending_though_nobody_has_read_it(autojump_clock):
    ended = []

    async def endless():
        try:
            while True:
                yield bytes(1000)
        finally:
            ended.append(True)

    fake = FakeRuntime(lambda _: respond(401))
    fake.waits_for_bodies = False
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("PUT", URL, body=endless()) as response,
    ):
        await settle()
        assert response.has_ended
        assert ended == [True]


async def test_both_directions_at_once(autojump_clock):
    """The answer is read while the body still goes out."""
    fake = FakeRuntime(lambda _: respond_stream([HOLD]))
    fake.waits_for_bodies = False
    send, receive = trio.open_memory_channel(0)
    async with (
        AsyncRuntimeClient(dial=fake.dial) as client,
        client.stream("POST", URL, body=receive) as response,
    ):
        parts = response.iter_bytes()
        for number in range(5):
            await send.send(b"%d" % number)
            await settle()
            fake.streams[0].push(bytes(fake.uploads[0].data))
            assert await anext(parts) == b"01234"[: number + 1]
        await send.aclose()
        await settle()
        fake.streams[0].end()
        assert await anext(parts, None) is None
    assert fake.uploads[0].ended


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock, is_stream):
    async def broken():
        yield b"x"
        raise LookupError("no more of it")

    fake = FakeRuntime()
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with pytest.raises(LookupError, match="no more of it"):
            if is_stream:
                await client.stream("PUT", URL, body=broken()).__aenter__()
            else:
                await client.put(URL, body=broken())
        await settle()
        assert len(fake.cancelled) == 1
        assert_nothing_is_left(client)


async def test_what_a_body_raises_among_many_is_a_value(autojump_clock):
    async def broken():
        yield b"x"
        raise LookupError("no more of it")

    async def wrong():
        yield 5

    fake = FakeRuntime(lambda _: respond())
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        first, second, last = await client.execute_many(
            [GET(URL), HTTPRequest("PUT", URL, body=broken()), POST(URL).with_body(wrong())]
        )
    assert first.ok
    for failed, kind in ((second, LookupError), (last, TypeError)):
        assert isinstance(failed, ConnectorException)
        assert isinstance(failed.__cause__, kind)
        assert failed.disposition is Disposition.SENT_NO_RESPONSE


async def test_a_retry_sends_a_file_whole_again(autojump_clock):
    fake = FakeRuntime([respond(503), ConnectorException("no", 1), respond()])
    file = io.BytesIO(b"all of it")
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        for _ in range(3):
            with anyio.move_on_after(5):
                try:
                    await client.put(URL, body=file)
                except ConnectorException:
                    continue
    assert [request.body for request in fake.requests] == [b"all of it"] * 3


async def test_a_large_file_through_a_thread(tmp_path):
    """On the real clock: a virtual one jumps over what a thread does."""
    path = tmp_path / "packed.gz"
    with gzip.open(path, "wb") as packing:
        packing.write(bytes(3_000_000))
    fake = FakeRuntime(lambda request: respond(body=str(len(request.body))))
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        with gzip.open(path) as file:
            assert (await client.put(URL, body=file)).text == "3000000"
        assert_nothing_is_left(client)
