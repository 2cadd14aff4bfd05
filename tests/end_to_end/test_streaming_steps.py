"""Streams left at every step that any task takes, and a thousand left at random: nothing stays."""

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import pytest
import trio
import trio.testing

from tests.support.held import check_nothing_is_held, check_sessions_are_idle
from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL
from tests.support.http_cancel import AtStep, cancel_all, hang_up
from tests.support.running import Running, http_request, running
from tests.support.sessions import WALL_START_MS
from tests.support.streaming import StreamCaller, streaming
from tests.support.upstream_bodies import SSE, Sink, chunked, counted, pieces
from vastar_client.wire import ErrorClass
from vastar_runtime.config import HttpConfig, PoolConfig, RuntimeConfig
from vastar_runtime.config._policies import (
    BulkheadConfig,
    PoliciesConfig,
    RateLimitConfig,
    TokenLimitConfig,
)

Scenario = Callable[[Running, StreamCaller], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}
MANY = 10**6
EVERY_POLICY = RuntimeConfig(
    defaults=PoliciesConfig(
        rate_limit=RateLimitConfig(limit=MANY),
        token_limit=TokenLimitConfig(limit=10**12),
        tenant_rate_limit=RateLimitConfig(limit=MANY),
        origin_token_limit=TokenLimitConfig(limit=10**12),
        bulkhead=BulkheadConfig(adaptive=True),
    )
)
LEFT = (trio.ClosedResourceError, trio.BrokenResourceError, AssertionError)
"""What the caller's own end meets once it has hung up."""
BODY = b'{"messages": [{"content": "hello"}], "max_tokens": 9}'


def scenario(run: Scenario) -> Scenario:
    """Add a call (or a few) that is run to its end, or left."""
    SCENARIOS[run.__name__] = run
    return run


@scenario
async def events(runtime: Running, caller: StreamCaller) -> None:
    parts = [
        0.5,
        b"data: a\n\n",
        0.5,
        b'data: {"usage":{"total_tokens":3}}\n\n',
        0.5,
        b"data: c\n\n",
    ]
    runtime.network.handlers[RAW_PORT] = pieces(chunked(*parts, headers=[SSE]))
    stream = await caller.begin(1, {"url": RAW_URL, "method": "POST", "body": BODY.decode()})
    await stream.ended()


@scenario
async def slow_reader(runtime: Running, caller: StreamCaller) -> None:
    runtime.network.handlers[RAW_PORT] = pieces(counted(bytes(200_000)))
    stream = await caller.begin(1, {"url": RAW_URL}, reads=False)
    while stream.end is None and not caller.is_over:
        await trio.sleep(1)
        await stream.consume()


@scenario
async def coded(runtime: Running, caller: StreamCaller) -> None:
    stream = await caller.begin(1, {"url": f"{ORIGIN}/gzip"})
    await stream.ended()


@scenario
async def second_attempt(runtime: Running, caller: StreamCaller) -> None:
    runtime.network.handlers[RAW_PORT] = pieces(
        counted(b"busy", "retry-after: 1", status=503), chunked(b"x", 1.0, b"y")
    )
    stream = await caller.begin(1, {"url": RAW_URL})
    await stream.ended()


@scenario
async def body_and_answer(runtime: Running, caller: StreamCaller) -> None:
    runtime.network.handlers[RAW_PORT] = Sink(chunked(b"x", 1.0, b"y"), wait_s=0.1)
    payload = {"url": RAW_URL, "method": "POST"}
    stream = await caller.begin(1, payload, body_follows=True)
    await caller.upload(1, bytes(90_000), piece_bytes=30_000)
    await stream.ended()


@scenario
async def body_that_is_sent_again(runtime: Running, caller: StreamCaller) -> None:
    moved = counted(b"", "location: /elsewhere", status=307)
    runtime.network.handlers[RAW_PORT] = Sink(
        counted(b"", "retry-after: 1", status=503), moved, counted(b"ok")
    )
    caller.opens_upload(1)
    payload = {"url": RAW_URL, "method": "PUT"}
    await caller.send(http_request(1, payload, body_follows=True))
    await caller.upload(1, bytes(20_000), piece_bytes=9000)
    await caller.answer(1)


@scenario
async def early_answer(runtime: Running, caller: StreamCaller) -> None:
    runtime.network.handlers[RAW_PORT] = Sink(counted(b"no", status=413), after_bytes=70_000)
    payload = {"url": RAW_URL, "method": "POST"}
    stream = await caller.begin(1, payload, body_follows=True)
    await caller.upload(1, bytes(200_000))
    await stream.ended()


@scenario
async def cut_short(runtime: Running, caller: StreamCaller) -> None:
    stream = await caller.begin(1, {"url": f"{ORIGIN}/sse?n=2&cut=1"})
    await stream.ended()


async def credit_agrees(runtime: Running, caller: StreamCaller) -> None:
    """What the caller has not returned yet is all that the runtime lacks, in both directions."""
    (session,) = runtime.runtime._sessions
    streams = session._streams
    assert streams._answer_credit.window.available_bytes == caller.window.left_bytes
    assert streams._upload_window.left_bytes == caller.send_window.available_bytes


async def run_and_leave(name: str, step: int, way: str) -> bool:
    """Make the call, leave at that step; whether the call lived that long."""
    async with running(EVERY_POLICY) as runtime:
        caller = await streaming(runtime)
        await trio.testing.wait_all_tasks_blocked()
        tasks_before = trio.lowlevel.current_statistics().tasks_living
        action = (
            (lambda: cancel_all(runtime)) if way == "cancel" else (lambda: hang_up(caller.wire_end))
        )
        instrument = AtStep(step, action)
        trio.lowlevel.add_instrument(instrument)
        try:
            with suppress(*LEFT if way == "hang up" else ()):
                await SCENARIOS[name](runtime, caller)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        for sink in runtime.network.handlers.values():
            if isinstance(sink, Sink):
                sink.resume()
        await trio.testing.wait_all_tasks_blocked()
        check_nothing_is_held(runtime.runtime._around)
        check_sessions_are_idle(runtime.runtime)
        if way == "cancel" or not instrument.done:
            finals = [s.end for s in caller.streams.values()] + list(caller.answers)
            assert len(finals) == 1
            (final,) = finals
            assert final is not None
            if final.error_class is ErrorClass.PERMANENT:
                assert final.error_message == "cancelled by caller"
            else:
                assert (final.error_class is ErrorClass.TRANSIENT) is (name == "cut_short")
            await credit_agrees(runtime, caller)
            again = await caller.begin(2, {"url": f"{ORIGIN}/small"})
            await again.ended()
            assert again.ok.total_bytes > 0
            await caller.close()
        await trio.sleep(31)  # idle connections are closed
        await trio.testing.wait_all_tasks_blocked()
        # The reader of the caller's own frames, and the session, which have ended.
        assert trio.lowlevel.current_statistics().tasks_living <= tasks_before
        return instrument.done


@pytest.mark.parametrize("way", ["cancel", "hang up"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_leaving_at_some_steps_leaves_nothing(name, way, autojump_clock):
    for step in (2, 5, 9, 14, 20, 27, 35, 50):
        await run_and_leave(name, step, way)
    assert not await run_and_leave(name, MANY, way)


@pytest.mark.slow
@pytest.mark.cap_s(240)
@pytest.mark.parametrize("way", ["cancel", "hang up"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_leaving_at_any_step_leaves_nothing(name, way, autojump_clock):
    for step in range(1, 2000):
        if not await run_and_leave(name, step, way):
            assert step > 20
            return
    pytest.fail("it never ran to its end")


# --- a thousand at random -----------------------------------------------------------------------

URLS = (
    f"{ORIGIN}/sse?n=30&gap=300",
    f"{ORIGIN}/hang?s=8",
    f"{ORIGIN}/sse?n=3&cut=1",
    f"{ORIGIN}/flaky?fail=1&key=",
    f"{ORIGIN}/redir?to=/sse",
    f"{ORIGIN}/gzip",
    f"{ORIGIN}/big?n=300000",
    RAW_URL,
    "http://127.0.0.1:1/",
)
FEW_OF_ALL = msgspec.structs.replace(
    EVERY_POLICY,
    http=HttpConfig(pool=PoolConfig(max_connections_per_key=12)),
    defaults=msgspec.structs.replace(
        EVERY_POLICY.defaults,
        bulkhead=BulkheadConfig(max_per_origin=25, max_per_tenant=60),
        rate_limit=RateLimitConfig(limit=40, max_waiting=MANY),
    ),
)


class Storm:
    """Streams on a few connections, each left at a moment of its own; some connections too."""

    def __init__(self, runtime: Running, seed: int) -> None:
        self._runtime = runtime
        self._random = random.Random(seed)
        self.cancelled = 0
        self.ended: dict[str, int] = {}

    async def connection(self, count: int) -> None:
        caller = await streaming(self._runtime)
        leaves_at_s = self._random.uniform(5, 25) if self._random.random() < 0.3 else math.inf
        with trio.move_on_at(leaves_at_s):
            async with trio.open_nursery() as nursery:
                for request_id in range(1, count + 1):
                    nursery.start_soon(self._stream, caller, request_id)
            await trio.testing.wait_all_tasks_blocked()
            await credit_agrees_on(self._runtime, caller)
        await caller.close()

    async def _stream(self, caller: StreamCaller, request_id: int) -> None:
        chance = self._random
        await trio.sleep(chance.uniform(0, 10))
        url = chance.choice(URLS)
        has_body = url == RAW_URL or chance.random() < 0.2
        stream = await caller.begin(
            request_id,
            {"url": f"{url}{request_id if url.endswith('=') else ''}", "method": "PUT"},
            reads=chance.random() < 0.7,
            body_follows=has_body,
            tenant_id=chance.choice(("one", "two", "three")),
            deadline_at_ms=WALL_START_MS + round(chance.uniform(5, 60) * 1000),
        )
        with trio.move_on_after(chance.uniform(0, 12)):
            async with trio.open_nursery() as nursery:
                if has_body:
                    nursery.start_soon(self._send_body, caller, request_id, chance.random())
                await stream.ended()
                nursery.cancel_scope.cancel()
        if stream.end is None:
            self.cancelled += 1
            await stream.cancel()
            left_at_s = trio.current_time()
            end = await stream.ended()
            assert trio.current_time() == left_at_s
            assert end.error_message == "cancelled by caller" or stream.end_at_s == left_at_s
        assert stream.end is not None
        kind = stream.end.error_class.name
        self.ended[kind] = self.ended.get(kind, 0) + 1

    async def _send_body(self, caller: StreamCaller, request_id: int, ratio: float) -> None:
        for _ in range(20):
            await caller.upload(request_id, bytes(int(20_000 * ratio) + 1), last=False)
            await trio.sleep(0.5 * ratio)
        await caller.upload(request_id, b"")


async def credit_agrees_on(runtime: Running, caller: StreamCaller) -> None:
    """As `credit_agrees`, where there are several connections: one of them is this one's."""
    left = {
        (
            each._streams._answer_credit.window.available_bytes,
            each._streams._upload_window.left_bytes,
        )
        for each in runtime.runtime._sessions
    }
    assert (caller.window.left_bytes, caller.send_window.available_bytes) in left


async def weather(seed: int, connections: int, streams: int) -> Storm:
    async with running(FEW_OF_ALL) as runtime:
        await trio.testing.wait_all_tasks_blocked()
        tasks_before = trio.lowlevel.current_statistics().tasks_living
        runtime.network.handlers[RAW_PORT] = Sink(
            chunked(b"x", 1.0, b"y"), wait_s=0.05, keeps=False
        )
        storm = Storm(runtime, seed)
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(storm.connection, streams)
        await trio.testing.wait_all_tasks_blocked()
        check_nothing_is_held(runtime.runtime._around)
        check_sessions_are_idle(runtime.runtime)
        assert runtime.runtime.state.connections == 0
        await trio.sleep(31)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks_before
    return storm


async def test_a_few_streams_left_at_random_leave_nothing(autojump_clock):
    storm = await weather(5, 4, 30)
    assert storm.cancelled > 30


@pytest.mark.slow
@pytest.mark.cap_s(240)
@pytest.mark.parametrize("seed", range(2))
async def test_a_thousand_streams_left_at_random_leave_nothing(seed, autojump_clock):
    storm = await weather(seed, 14, 170)
    assert storm.cancelled >= 1000
    assert len(storm.ended) >= 4, storm.ended
