"""Credit through the whole runtime: a slow reader slows its own upstream, and nothing piles up."""

import tracemalloc
from typing import Self

import pytest
import trio
import trio.testing

from tests.support.held import check_nothing_is_held, check_sessions_are_idle
from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL
from tests.support.running import http_request, running
from tests.support.streaming import streaming
from tests.support.upstream_bodies import Flood, Sink
from vastar_client.wire import CreditUpdate
from vastar_runtime.transport.channel import ChannelStream
from vastar_runtime.transport.memory import memory_channel_pair

WINDOW = 65_536
SHARED = 1_048_576
AHEAD = 3 * 65_536
"""What may be taken from an upstream beyond what went to the caller: the piece that was read, one
that was received, and what the fake network holds."""


async def test_the_upstream_is_not_read_beyond_the_credit(autojump_clock):
    async with running() as runtime:
        flood = runtime.network.handlers[RAW_PORT] = Flood()
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL}, reads=False)
        await trio.sleep(10)
        assert stream.total_bytes == WINDOW
        assert WINDOW <= flood.taken_bytes <= WINDOW + AHEAD
        before = flood.taken_bytes
        stream.window.left_bytes += 1_000_000
        await caller.send(CreditUpdate(credit_delta=1_000_000, request_id=1))
        await trio.sleep(10)
        assert stream.total_bytes == WINDOW + 1_000_000
        assert 1_000_000 - AHEAD <= flood.taken_bytes - before <= 1_000_000 + AHEAD
        await stream.cancel()
        await stream.ended()
        assert flood.closed_at_s == [20]


async def test_nor_beyond_that_of_the_connection(autojump_clock):
    async with running() as runtime:
        flood = runtime.network.handlers[RAW_PORT] = Flood()
        caller = await streaming(runtime)
        caller.returns_credit = False
        streams = [await caller.begin(number, {"url": RAW_URL}) for number in range(1, 21)]
        await trio.sleep(10)
        assert sum(stream.total_bytes for stream in streams) == SHARED
        assert flood.taken_bytes <= SHARED + 20 * AHEAD
        caller.window.left_bytes += SHARED
        await caller.send(CreditUpdate(connection_bytes=SHARED))
        await trio.sleep(10)
        assert sum(stream.total_bytes for stream in streams) == 2 * SHARED
        for stream in streams:
            await stream.cancel()
            await stream.ended()
        check_sessions_are_idle(runtime.runtime)


async def test_a_stalled_reader_delays_no_other_stream_call_or_cancel(autojump_clock):
    """Not by a moment, though it and 19 others hold their windows full."""
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = Flood()
        caller = await streaming(runtime)
        stalled = [
            await caller.begin(number, {"url": RAW_URL}, reads=False) for number in range(1, 21)
        ]
        lively = [
            await caller.begin(number, {"url": f"{ORIGIN}/sse?n=40&gap=500&done=0"})
            for number in range(101, 121)
        ]
        await trio.sleep(3)
        await caller.send(http_request(500, {"url": f"{ORIGIN}/sleep?ms=1000"}))
        await caller.answer(500)
        assert trio.current_time() == 4
        await stalled[0].cancel()
        await stalled[0].ended()
        assert stalled[0].end_at_s == 4
        for stream in lively:
            await stream.ended()
            assert [at_s for at_s, _ in stream.chunks] == [n / 2 for n in range(40)]
            assert stream.end_at_s == 20
        assert [stream.keep_alives for stream in stalled[1:]] == [[15.0]] * 19
        for stream in stalled[1:]:
            await stream.cancel()
            await stream.ended()
        check_nothing_is_held(runtime.runtime._around)


async def test_a_caller_that_reads_nothing_from_its_socket_is_waited_for_then_cut_off(
    autojump_clock,
):
    """Its own upstreams wait with it; other connections do not notice."""
    async with running() as runtime:
        flood = runtime.network.handlers[RAW_PORT] = Flood()
        ours, theirs = memory_channel_pair(4096)
        deaf = runtime.caller(streams=(ChannelStream(ours), ChannelStream(theirs)))
        for request_id in range(1, 5):
            await deaf.send(http_request(request_id, {"url": RAW_URL}, stream=True))
        await deaf.send(CreditUpdate(connection_bytes=1 << 30))
        for request_id in range(1, 5):
            await deaf.send(CreditUpdate(credit_delta=1 << 30, request_id=request_id))
        await trio.sleep(20)
        assert flood.taken_bytes < 40 << 20, "the bound on queued answers, and what is ahead of it"
        before = flood.taken_bytes
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/sse?n=2&gap=1000"})
        await stream.ended()
        assert stream.end_at_s == 22
        assert flood.taken_bytes == before
        await trio.sleep(10)
        assert flood.closed_at_s == [30] * 4
        check_nothing_is_held(runtime.runtime._around)
        await deaf.close()


class Memory:
    """The most memory that Python held in the block beyond what it held before it."""

    peak_bytes = 0

    def __enter__(self) -> Self:
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_: object) -> None:
        self.peak_bytes = tracemalloc.get_traced_memory()[1] - self._before
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.cap_s(120)
async def test_memory_is_bounded_whatever_the_length_of_an_answer(autojump_clock):
    size = 64 << 20
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = Flood(length_bytes=size)
        caller = await streaming(runtime)
        with Memory() as memory:
            stream = await caller.begin(1, {"url": RAW_URL}, reads=False)
            stream.keeps = False
            while stream.end is None:
                await trio.sleep(0.01)
                await stream.consume()
        assert stream.ok.total_bytes == size
        assert memory.peak_bytes < 1_500_000


@pytest.mark.slow
@pytest.mark.cap_s(120)
async def test_memory_is_bounded_whatever_the_length_of_a_body(autojump_clock):
    size = 64 << 20
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(keeps=False, wait_s=0.001)
        caller = await streaming(runtime)
        payload = {"url": RAW_URL, "method": "POST"}
        stream = await caller.begin(1, payload, body_follows=True)
        body = bytes(size)
        with Memory() as memory:
            await caller.upload(1, body)
            await stream.ended()
        assert stream.body == b"ok"
        assert (sink.received_bytes, sink.whole) == (size, [True])
        assert memory.peak_bytes < 1_500_000
