"""Streams over real sockets: far more than they hold, both ways at once, and callers that leave."""

import socket
from functools import partial

import pytest
import trio

from tests.support.held import check_nothing_is_held
from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL
from tests.support.running import Running, running
from tests.support.sessions import CallerEnd
from tests.support.streaming import StreamCaller, streaming
from tests.support.upstream_bodies import Flood, Sink
from vastar_runtime.transport import SocketChannel

SIZE = 5_000_000


def pair(kind: str) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets."""
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return ours, theirs


async def connected(runtime: Running, kind: str) -> StreamCaller:
    ours, theirs = pair(kind)
    theirs.setblocking(False)
    runtime.start(partial(runtime.runtime.serve, SocketChannel(ours)))
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    return await streaming(runtime, end=CallerEnd(stream, trio.Event()))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_bodies_and_answers_of_any_length_beside_each_other(kind):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = Flood(length_bytes=SIZE)
        sink = runtime.network.handlers[RAW_PORT + 1] = Sink(keeps=False)
        caller = await connected(runtime, kind)
        upload_to = {"url": f"http://127.0.0.1:{RAW_PORT + 1}/", "method": "POST"}
        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                await caller.begin(number, {"url": RAW_URL})
                await caller.begin(10 + number, upload_to, body_follows=True)
                nursery.start_soon(caller.upload, 10 + number, bytes(SIZE))
        for number in (1, 2, 3):
            await caller.streams[number].ended()
            assert caller.streams[number].ok.total_bytes == SIZE
            await caller.streams[10 + number].ended()
            assert caller.streams[10 + number].ok.total_bytes == 2
        assert sink.received_bytes == 3 * SIZE
        await caller.close()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_caller_that_is_gone_takes_its_upstreams_with_it(kind):
    """Those that flow, those that wait for its credit, and those that wait for its body."""
    async with running() as runtime:
        flood = runtime.network.handlers[RAW_PORT] = Flood()
        sink = runtime.network.handlers[RAW_PORT + 1] = Sink()
        caller = await connected(runtime, kind)
        await caller.begin(1, {"url": f"{ORIGIN}/sse?n=100000&gap=5"})
        stalled = await caller.begin(2, {"url": RAW_URL}, reads=False)
        upload_to = {"url": f"http://127.0.0.1:{RAW_PORT + 1}/", "method": "POST"}
        await caller.begin(3, upload_to, body_follows=True)
        await caller.chunk(3, b"some")
        await sink.until(lambda: sink.received_bytes == 4)
        await stalled.has(65_536)
        await caller.close()
        await runtime.upstream.wait_for("client_closed_while_busy")
        await sink.until(lambda: bool(sink.closed_at_s))
        while not flood.closed_at_s or runtime.runtime.state.connections:
            await trio.lowlevel.checkpoint()
        check_nothing_is_held(runtime.runtime._around)
