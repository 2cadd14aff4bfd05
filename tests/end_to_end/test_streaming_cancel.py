"""Whoever leaves a stream takes everything with it, at once, and is told so exactly once."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.support.held import check_nothing_is_held, check_sessions_are_idle
from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL
from tests.support.running import Running, http_request, running
from tests.support.sessions import WALL_START_MS
from tests.support.streaming import Stream, StreamCaller, streaming
from tests.support.upstream_bodies import Flood, Sink, counted, pieces
from vastar_client.wire import Cancel, Disposition, ErrorClass, ExecuteResponse
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.config._policies import (
    BulkheadConfig,
    PoliciesConfig,
    RateLimitConfig,
    TokenLimitConfig,
)
from vastar_runtime.transport.fake import Send, Wait

LONG_S = 10**6
LONG = {"deadline_at_ms": WALL_START_MS + LONG_S * 1000}
ALL_ON = RuntimeConfig(
    defaults=PoliciesConfig(
        bulkhead=BulkheadConfig(max_per_origin=3),
        rate_limit=RateLimitConfig(limit=1000),
        token_limit=TokenLimitConfig(limit=10**9),
        tenant_rate_limit=RateLimitConfig(limit=1000),
    )
)

Begin = Callable[[Running, StreamCaller], Awaitable[Stream]]
WAITS: dict[str, tuple[Begin, Disposition]] = {}


def waits(disposition: Disposition) -> Callable[[Begin], Begin]:
    """A stream that waits, and how far its upstream got by then."""

    def add(begin: Begin) -> Begin:
        WAITS[begin.__name__] = (begin, disposition)
        return begin

    return add


@waits(Disposition.SENT_NO_RESPONSE)
async def for_its_head(runtime: Running, caller: StreamCaller) -> Stream:
    return await caller.begin(7, {"url": f"{ORIGIN}/hang?s=40"}, **LONG)


@waits(Disposition.RESPONSE_STARTED)
async def in_the_middle(runtime: Running, caller: StreamCaller) -> Stream:
    return await caller.begin(7, {"url": f"{ORIGIN}/sse?n=1000&gap=1000"}, **LONG)


@waits(Disposition.RESPONSE_STARTED)
async def for_credit(runtime: Running, caller: StreamCaller) -> Stream:
    runtime.network.handlers[RAW_PORT] = Flood()
    return await caller.begin(7, {"url": RAW_URL}, reads=False, **LONG)


@waits(Disposition.RESPONSE_STARTED)
async def for_credit_of_the_connection(runtime: Running, caller: StreamCaller) -> Stream:
    runtime.network.handlers[RAW_PORT] = Flood()
    caller.returns_credit = False
    return await caller.begin(7, {"url": RAW_URL}, **LONG)


@waits(Disposition.COMPLETED)
async def in_a_backoff(runtime: Running, caller: StreamCaller) -> Stream:
    runtime.network.handlers[RAW_PORT] = pieces(counted(b"", "retry-after: 50", status=503))
    return await caller.begin(7, {"url": RAW_URL}, **LONG)


@waits(Disposition.NOT_SENT)
async def for_a_place(runtime: Running, caller: StreamCaller) -> Stream:
    for number in (1, 2, 3):
        await caller.begin(number, {"url": f"{ORIGIN}/sse?n=100&gap=1000"}, **LONG)
    return await caller.begin(7, {"url": f"{ORIGIN}/sse"}, **LONG)


@waits(Disposition.SENT_NO_RESPONSE)
async def for_its_own_body(runtime: Running, caller: StreamCaller) -> Stream:
    runtime.network.handlers[RAW_PORT] = Sink()
    fields = {"body_follows": True, **LONG}
    stream = await caller.begin(7, {"url": RAW_URL, "method": "POST"}, **fields)
    await caller.chunk(7, b"some of it")
    return stream


@waits(Disposition.SENT_NO_RESPONSE)
async def for_an_upstream_that_takes_nothing(runtime: Running, caller: StreamCaller) -> Stream:
    runtime.network.handlers[RAW_PORT] = Sink(reads=False)
    fields = {"body_follows": True, **LONG}
    stream = await caller.begin(7, {"url": RAW_URL, "method": "POST"}, **fields)
    with trio.move_on_after(1):
        await caller.upload(7, bytes(1_000_000))
    return stream


@waits(Disposition.RESPONSE_STARTED)
async def for_the_rest_of_a_gzip_body(runtime: Running, caller: StreamCaller) -> Stream:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 99\r\n\r\n\x1f\x8b"
    runtime.network.handlers[RAW_PORT] = pieces([Send(head), Wait(LONG_S)])
    return await caller.begin(7, {"url": RAW_URL}, **LONG)


def connections_left(runtime: Running) -> int:
    """Those that are open and not idle in the pool, where only what ended in good order goes."""
    idle = sum(pool.idle for pool in runtime.runtime._transport.stats())
    return sum(not channel.closed for channel in runtime.network.channels) - idle


WAYS = [(name, way) for name in WAITS for way in ("cancel", "hang up", "deadline", "drain")]
WAYS.remove(("in_a_backoff", "deadline"))  # one that does not fit is not begun


@pytest.mark.parametrize(("name", "way"), WAYS)
async def test_leaving_gives_back_everything_at_the_same_instant(name, way, autojump_clock):
    begin, disposition = WAITS[name]
    async with running(ALL_ON) as runtime:
        caller = await streaming(runtime)
        old = LONG["deadline_at_ms"]
        if way == "deadline":
            LONG["deadline_at_ms"] = WALL_START_MS + 12_000
        try:
            stream = await begin(runtime, caller)
        finally:
            LONG["deadline_at_ms"] = old
        await trio.sleep_until(12 if way == "deadline" else 11.7)
        left_at_s = trio.current_time()
        if way == "cancel":
            await caller.send(Cancel(8), Cancel(7), Cancel(7))
            end = await stream.ended()
            assert stream.failed(ErrorClass.PERMANENT) == "cancelled by caller"
        elif way == "hang up":
            await caller.close()
        elif way == "deadline":
            end = await stream.ended()
            assert stream.failed(ErrorClass.TIMEOUT).startswith("timed out: the deadline of 12000")
        else:
            await runtime.runtime.drain(0, 0)
            end = await stream.ended()
            assert stream.failed(ErrorClass.TRANSIENT).startswith("the runtime ended the call")
        if way != "hang up":
            assert (end.disposition, stream.end_at_s) == (disposition, left_at_s)
        await trio.testing.wait_all_tasks_blocked()
        others = [other for other in caller.streams.values() if other is not stream]
        for other in others:
            if other.end is None and way == "cancel":
                await other.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == left_at_s
        assert connections_left(runtime) == 0, "one that was left is not used again"
        check_nothing_is_held(runtime.runtime._around)
        check_sessions_are_idle(runtime.runtime)
        if way == "cancel":
            await cancelled_and_well(runtime, caller, stream)


async def cancelled_and_well(runtime: Running, caller: StreamCaller, stream: Stream) -> None:
    """No second final frame comes, the id is free, and the connection serves on."""
    await caller.send(Cancel(7))
    caller.returns_credit = True
    await caller.credit_all()
    await trio.sleep(100)
    again = await caller.begin(7, {"url": f"{ORIGIN}/small"})
    await again.ended()
    assert again.body == b'{"ok": true, "msg": "hello world"}'
    session = next(iter(runtime.runtime._sessions))
    streams = session._streams
    assert streams._answer_credit.window.available_bytes == caller.window.left_bytes


# --- calls that are no streams, whose body is one -------------------------------------------------


async def test_a_call_whose_body_follows_is_cancelled_like_any_other(autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink()
        caller = await streaming(runtime)
        caller.opens_upload(3)
        payload = {"url": RAW_URL, "method": "PUT"}
        await caller.send(http_request(3, payload, body_follows=True))
        await caller.upload(3, bytes(200_000), last=False)
        await sink.until(lambda: sink.received_bytes == 200_000)
        await trio.sleep(2)
        await caller.send(Cancel(3))
        got = await caller.answer(3)
        assert isinstance(got, ExecuteResponse)
        assert (got.error_message, got.attempts) == ("cancelled by caller", 1)
        assert got.disposition is Disposition.SENT_NO_RESPONSE
        await trio.testing.wait_all_tasks_blocked()
        assert sink.closed_at_s == [2]
        assert sink.whole == [False], "the upstream was never made to believe that it has it all"
        await caller.chunk(3, b"still on its way", last=True)
        await trio.testing.wait_all_tasks_blocked()
        assert len(caller.answers) == 1
        check_sessions_are_idle(runtime.runtime)
