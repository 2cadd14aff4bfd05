"""A runtime that leaves: calls get their time, streams get theirs, and who is cut is told so."""

import os

import pytest
import trio
import trio.testing

from tests.support.held import check_nothing_is_held, check_sessions_are_idle
from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL
from tests.support.running import Running, http_request, running
from tests.support.streaming import StreamCaller, streaming
from tests.support.upstream_bodies import Flood, Sink
from vastar_client.wire import CreditUpdate, Disposition, ErrorClass, ExecuteRequest, Goaway

NEVER_MS = 10**9
CUT = "the runtime ended the call while "


async def all_kinds(runtime: Running, *, stream_s: int = 1000) -> StreamCaller:
    """Call 1, stream 2 of so many events in as many seconds, and stream 3, which nobody reads."""
    runtime.network.handlers[RAW_PORT] = Flood()
    caller = await streaming(runtime)
    await caller.send(CreditUpdate())
    await caller.send(
        http_request(1, {"url": f"{ORIGIN}/sleep?ms={NEVER_MS}", "timeout_ms": 3_000_000})
    )
    url = f"{ORIGIN}/sse?n={stream_s}&gap=1000"
    await caller.begin(2, {"url": url, "timeout_ms": 3_000_000})
    await caller.begin(3, {"url": RAW_URL, "timeout_ms": 3_000_000}, reads=False)
    await runtime.upstream.wait_for("sse_start")
    await runtime.upstream.wait_for("sleep_start")
    return caller


@pytest.mark.parametrize(("drain_s", "stream_drain_s"), [(30, 600), (600, 30), (50, 50)])
async def test_calls_and_streams_are_cut_each_at_their_time_and_told(
    drain_s, stream_drain_s, autojump_clock
):
    async with running() as runtime:
        caller = await all_kinds(runtime)
        await trio.sleep(5.5)
        assert not await runtime.runtime.drain(drain_s, stream_drain_s)
        assert trio.current_time() == 5.5 + max(drain_s, stream_drain_s)
        await trio.testing.wait_all_tasks_blocked()
        cut = await caller.answer(1)
        assert (cut.error_class, cut.duration_us) == (
            ErrorClass.TRANSIENT,
            (5.5 + drain_s) * 1_000_000,
        )
        assert (cut.error_message or "").startswith(CUT)
        for request_id in (2, 3):
            stream = caller.streams[request_id]
            words = f"{CUT}reading the response body ({ORIGIN if request_id == 2 else RAW_URL})"
            assert stream.failed(ErrorClass.TRANSIENT) == words
            assert stream.end_at_s == 5.5 + stream_drain_s
            assert stream.end is not None
            assert stream.end.disposition is Disposition.RESPONSE_STARTED
        (goaway,) = [frame for frame in caller.others if isinstance(frame, Goaway)]
        assert goaway.drain_ms == max(drain_s, stream_drain_s) * 1000
        check_nothing_is_held(runtime.runtime._around)
        check_sessions_are_idle(runtime.runtime)


async def test_a_stream_that_ends_in_its_time_ends_the_drain(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(2, {"url": f"{ORIGIN}/sse?n=100&gap=1000"})
        await trio.sleep(5.5)
        assert await runtime.runtime.drain(30, 600)
        assert trio.current_time() == 100
        await stream.ended()
        assert stream.ok.total_bytes > 0


async def test_while_draining_new_streams_are_refused_and_old_ones_go_on(autojump_clock):
    """With their credit, their bodies, their keepalives and their cancels."""
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink()
        caller = await streaming(runtime)
        old = await caller.begin(1, {"url": f"{ORIGIN}/sse?n=3&gap=20000"})
        upload = await caller.begin(2, {"url": RAW_URL, "method": "POST"}, body_follows=True)
        left = await caller.begin(3, {"url": f"{ORIGIN}/hang?s=500"})
        await runtime.upstream.wait_for("hang_start")
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await runtime.runtime.drain(30, 600))

        runtime.start(drain)
        await trio.sleep(1)
        refused = await caller.begin(4, {"url": f"{ORIGIN}/small"})
        end = await refused.ended()
        assert refused.failed(ErrorClass.TRANSIENT).startswith("draining")
        assert (end.retry_after_ms, end.disposition) == (1000, Disposition.NOT_SENT)
        await caller.upload(2, bytes(1_000_000))
        await upload.ended()
        assert len(sink.bodies[0]) == 1_000_000
        await left.cancel()
        await left.ended()
        assert left.end_at_s == 1
        await old.ended()
        assert (old.end_at_s, old.keep_alives) == (60, [15, 35, 55])
        await trio.testing.wait_all_tasks_blocked()
        assert drained == [True]


async def test_a_caller_that_takes_nothing_does_not_hold_up_the_end(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = Flood()
        ours, theirs = trio.testing.lockstep_stream_pair()
        caller = runtime.caller(streams=(ours, theirs))
        await caller.send(http_request(1, {"url": RAW_URL}, stream=True))
        await trio.sleep(1)
        assert not await runtime.runtime.drain(2, 3)
        assert trio.current_time() == 1 + 3 + 1, "a second for last words"
        await caller.close()


async def test_a_streamed_drain_is_refused_and_does_not_happen(autojump_clock):
    """The control connector does not stream, and does nothing that it then denies."""
    async with running() as runtime:
        caller = await streaming(runtime, end=runtime.caller(uid=os.geteuid()))
        asked = ExecuteRequest(1, "", "vastar", "drain", stream=True)
        stream = await caller.begin_with(asked)
        await stream.ended()
        assert stream.failed(ErrorClass.INVALID_REQUEST) == (
            "connector vastar does not stream: send the call without `stream`"
        )
        assert not runtime.runtime.state.drain_requested.is_set()
        await caller.send(ExecuteRequest(2, "", "vastar", "drain"))
        assert (await caller.answer(2)).error_class is ErrorClass.SUCCESS
        assert runtime.runtime.state.drain_requested.is_set()
