"""The async client on both event loops of anyio, over a real Unix socket, on the real clock."""

import asyncio
import itertools

import anyio
import anyio.lowlevel
import pytest

from vastar_client._reconnecting import Reconnect
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import CallTimeout, ConnectionClosed, ConnectorException
from vastar_client.request import GET
from vastar_client.testing import HOLD, After, FakeRuntime, respond, respond_events, respond_stream
from vastar_client.wire import Disposition, ErrorClass
from vastar_client.wire.sse import SSEEvent

URL = "http://api.test/x"


@pytest.fixture(params=["trio", "asyncio"])
def run(request):
    """Run an async function of a FakeRuntime and a connected client."""

    def run(replies, main):
        async def whole():
            with anyio.fail_after(15):
                async with AsyncRuntimeClient(fake.config) as client:
                    return await main(fake, client)

        with FakeRuntime(replies) as fake:
            return anyio.run(whole, backend=request.param)

    return run


async def until(condition):
    while not condition():  # noqa: ASYNC110  # another thread makes it true
        await anyio.sleep(0.001)


def echo(request):
    return respond(headers={"x-url": request.url}, body=request.body or b"")


def test_calls_and_large_bodies(run):
    body = bytes(range(256)) * 8192

    async def main(fake, client):
        assert (await client.post(URL, json={"a": 1})).json() == {"a": 1}
        assert (await client.put(URL, data=body)).body == body
        assert await client.health() == fake.health

    run(echo, main)


def test_calls_run_side_by_side(run):
    """All are with the runtime before the first one is answered."""

    async def main(fake, client):
        async def answer_all():
            await until(lambda: len(fake.held) == 64)
            for held in list(fake.held):
                held.reply(echo(held.request))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer_all)
            responses = await client.execute_many(GET(f"{URL}/{n}") for n in range(64))
        assert [r.headers["x-url"] for r in responses] == [f"{URL}/{n}" for n in range(64)]

    run(lambda request: HOLD, main)


def test_cancellation_frees_the_call_and_tells_the_runtime(run):
    async def main(fake, client):
        with anyio.move_on_after(0.05):
            await client.get(URL)
        await until(lambda: fake.cancelled)
        assert (await client.get(URL)).text == "second"
        assert client._link._session._pending == {}
        await until(lambda: client._link._slots.value == 256)

    run([HOLD, respond(body="second")], main)


def test_timeouts(run):
    async def main(fake, client):
        with pytest.raises(CallTimeout):
            await client.get(URL, timeout_s=0.01)

    run([HOLD], main)


def test_streams(run):
    async def main(fake, client):
        async with client.stream("GET", URL) as response:
            assert [event.data async for event in response.events()] == ["one", "two"]
        async with client.stream("GET", URL) as response:
            async for _ in response.iter_bytes():
                if response.received_bytes > 3_000_000:
                    break
        await until(lambda: client._link._slots.value == 256)
        assert fake.cancelled == [response.request_id]
        with anyio.move_on_after(0.05) as scope:
            async with client.stream("GET", URL) as response:
                await response.aread()
        assert scope.cancelled_caught
        await until(lambda: client._link._slots.value == 256)
        with pytest.raises(ConnectorException, match="cut"):
            async with client.stream("GET", URL) as response:
                await response.aread()

    run(
        [
            respond_events(["one", After(0.02, "two")]),
            respond_stream(itertools.repeat(b"x" * 10_000)),
            respond_stream(["x", HOLD]),
            respond_stream(["x", ConnectorException("cut", ErrorClass.TRANSIENT)]),
        ],
        main,
    )


def test_bodies_in_pieces(run, tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"x" * 500_000)

    async def pieces():
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
            yield b"y" * 10_000

    async def endless():
        while True:
            yield b"z" * 1000

    async def main(fake, client):
        with path.open("rb") as file:
            assert (await client.put(URL, body=file)).body == b"x" * 500_000
        async with await anyio.open_file(path, "rb") as file:
            assert (await client.put(URL, body=file)).body == b"x" * 500_000
        assert (await client.put(URL, body=pieces())).body == b"y" * 500_000
        assert (await client.put(URL, body=(b"w" * 10 for _ in range(10)))).body == b"w" * 100
        fake.reads_bodies = False
        with anyio.move_on_after(0.05) as scope:
            await client.put(URL, body=endless())
        assert scope.cancelled_caught
        await until(lambda: client._link._slots.value == 256)
        assert client._link._session._pending == {}

    run(echo, main)


def test_events_that_go_on(run):
    async def main(fake, client):
        now = Reconnect(initial_backoff_ms=0)
        async with client.events(URL, reconnect=now) as events:
            assert [event.data async for event in events] == ["one", "two"]
        assert fake.requests[1].get_header("last-event-id") == "7"

    run([respond_events([SSEEvent("one", id="7")]), respond_events(["two"]), respond(204)], main)


def test_asyncios_own_cancellation_leaves_no_stream():
    async def main():
        async with AsyncRuntimeClient(fake.config) as client:

            async def read():
                async with client.stream("GET", URL) as response:
                    await response.aread()

            task = asyncio.create_task(read())
            await until(lambda: fake.streams)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: client._link._slots.value == 256)
            assert len(fake.cancelled) == 1

    with FakeRuntime([respond_stream(["x", HOLD])]) as fake:
        asyncio.run(main())


def test_a_lost_connection_is_replaced(run):
    async def main(fake, client):
        async def call():
            with pytest.raises(ConnectionClosed) as caught:
                await client.get(URL)
            assert caught.value.disposition is Disposition.SENT_NO_RESPONSE

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(lambda: fake.held)
            fake.disconnect()
        assert (await client.get(URL)).ok

    run([HOLD, respond()], main)


def test_closing_fails_what_is_in_flight(run):
    async def main(fake, client):
        async def doomed(other):
            with pytest.raises(ConnectionClosed, match="the client was closed"):
                await other.get(URL)

        other = AsyncRuntimeClient(fake.config)
        async with anyio.create_task_group() as tasks, other:
            tasks.start_soon(doomed, other)
            await until(lambda: fake.held)
        assert client.config is not other.config

    run([HOLD], main)


def test_a_cancelled_block_closes_and_passes_the_cancellation_on(run):
    async def main(fake, client):
        with anyio.move_on_after(0.05) as scope:
            async with AsyncRuntimeClient(fake.config) as other:
                await other.get(URL)
        assert scope.cancelled_caught
        assert (await client.get(URL)).ok

    run([HOLD, respond()], main)


def test_asyncios_own_cancellation_works_as_well():
    async def main():
        async with AsyncRuntimeClient(fake.config) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.get(URL), 0.05)
            task = asyncio.create_task(client.get(URL))
            await until(lambda: len(fake.messages) == 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await asyncio.gather(client.get(URL), client.get(URL)))[1].ok
            assert client._link._session._pending == {}

    with FakeRuntime([HOLD, HOLD, respond(), respond()]) as fake:
        asyncio.run(main())


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_tcp(backend):
    """Through a forwarder: the fake runtime itself listens on a Unix socket."""

    async def forward(stream):
        inner = await anyio.connect_unix(fake.config.socket_path)
        async with stream, inner, anyio.create_task_group() as tasks:
            tasks.start_soon(copy, stream, inner)
            await copy(inner, stream)
            tasks.cancel_scope.cancel()

    async def copy(source, sink):
        try:
            async for data in source:
                await sink.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, forward)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            config = RuntimeConfig(use_tcp=True, tcp_port=port, use_environment=False)
            async with AsyncRuntimeClient(config) as client:
                assert (await client.put(URL, data=b"over tcp")).text == "over tcp"
            tasks.cancel_scope.cancel()
        await listener.aclose()

    with FakeRuntime(echo) as fake:
        anyio.run(main, backend=backend)
