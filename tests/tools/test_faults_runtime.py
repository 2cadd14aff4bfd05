"""The runtime between spoiled connections: whatever they do, each call ends, and nothing is left.

In virtual time, by seeds: `running` fails where a call or an upstream connection outlives its end.
"""

import re

import pytest
import trio
import trio.testing

from tests.support.conforming import End
from tests.support.running import UPSTREAM_PORT, URL, Running, http_request, running
from tests.support.sessions import CallerEnd
from tests.support.streaming import streaming
from tests.tools.test_faults_catalogue import EACH, ONCE, PORT, asked, placed
from tools.conformance import Upstream
from tools.faults import FaultProxy, Plan
from vastar_client.wire import (
    Cancel,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    RemoteProtocolError,
    Signal,
)
from vastar_runtime.transport.channel import ChannelStream
from vastar_runtime.transport.memory import MemoryChannel

SEEDS = [seed if seed <= 6 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 19)]
EXPECTED = {
    "/small": b'{"ok": true, "msg": "hello world"}',
    "/big?n=20000": b"y" * 20_000,
    "/status/404": b"status body 404",
}


def spoiled_upstream(runtime: Running, plan: Plan) -> FaultProxy:
    """A well-behaved upstream behind a proxy that is none."""
    upstream = Upstream(UPSTREAM_PORT)

    async def connect() -> trio.abc.HalfCloseableStream:
        near, far = trio.testing.memory_stream_pair()
        runtime.start(lambda: upstream.serve_stream(far))
        return near

    proxy = FaultProxy(connect, plan)

    async def serve(channel: MemoryChannel) -> None:
        def reset(stream: trio.abc.AsyncResource) -> None:
            if isinstance(stream, ChannelStream):
                channel.reset()

        await proxy.serve_stream(ChannelStream(channel), reset)

    runtime.network.handlers[UPSTREAM_PORT] = serve
    return proxy


@pytest.mark.parametrize("seed", SEEDS)
async def test_upstreams_behind_spoiled_connections(seed, autojump_clock):
    """Every call has one answer; one that is whole is right, unless bits were turned over."""
    async with running() as runtime:
        proxy = spoiled_upstream(runtime, Plan(seed=seed, share=0.7))
        caller = runtime.caller()
        paths = dict(enumerate([*EXPECTED] * 5))
        for number, path in paths.items():
            await caller.send(http_request(number, {"url": URL + path, "timeout_ms": 8000}))
        for _ in list(paths):
            answer = await caller.receive()
            assert isinstance(answer, ExecuteResponse)
            path = paths.pop(answer.request_id)
            assert answer.error_class in {
                ErrorClass.SUCCESS,
                ErrorClass.TRANSIENT,
                ErrorClass.TIMEOUT,
            }, answer.error_message
            is_corrupt = any(happening.what == "corrupt" for happening in proxy.happenings)
            if answer.error_class is ErrorClass.SUCCESS and not is_corrupt:
                text = re.search(rb'"body":"(.*?)","headers', bytes(answer.payload))  # type: ignore[arg-type]
                assert text is not None
                assert text[1].replace(b"\\", b"") == EXPECTED[path]
        assert not paths
        assert proxy.connections
        assert trio.current_time() < 10
        await caller.close()


def calls() -> list[ExecuteRequest]:
    """What a caller says: calls, streams, and one that would hang."""
    return [
        http_request(1, {"url": f"{URL}/small"}),
        http_request(2, {"url": f"{URL}/sse?n=20&gap=50"}, stream=True),
        http_request(3, {"url": f"{URL}/hang", "timeout_ms": 3000}),
        http_request(4, {"url": f"{URL}/big?n=80000"}, stream=True),
        http_request(5, {"url": f"{URL}/big?n=20000"}),
    ]


@pytest.mark.parametrize("seed", SEEDS[::3])
async def test_callers_behind_spoiled_connections(seed, autojump_clock):
    """Their bytes may say anything: other callers do not notice, and nothing of theirs is left."""
    async with running() as runtime:
        spoiled_upstream(runtime, Plan())

        async def connect() -> trio.abc.HalfCloseableStream:
            return End(runtime.caller(), None)

        proxy = FaultProxy(connect, Plan(seed=seed, share=0.9))
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(proxy.serve_stream, theirs)
                nursery.start_soon(one_caller, CallerEnd(ours, trio.Event()))
            good = runtime.caller()
            for number in range(20):
                await good.send(http_request(number, {"url": f"{URL}/small"}))
                answer = await good.receive()
                assert isinstance(answer, ExecuteResponse)
                assert (answer.request_id, answer.error_class) == (number, ErrorClass.SUCCESS)
                await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await good.send(HealthCheck())
        state = await good.receive()
        assert isinstance(state, HealthResponse)
        assert (state.healthy, state.active_requests) == (True, 0)
        await good.close()


async def one_caller(caller: CallerEnd) -> None:
    """Call, cancel, and read until the connection ends or makes no sense."""
    try:
        await caller.send(*calls(), Cancel(2))
        while not isinstance(await caller.receive(), Signal):
            pass
    except (RemoteProtocolError, trio.BrokenResourceError):
        pass
    finally:
        await caller.close()


@EACH
async def test_a_misbehaviour_ends_a_stream_as_it_ends_a_call(wrong, autojump_clock):
    """But for the length of an answer, which a stream does not mind."""
    if "frame limit" in wrong.expected.message:
        pytest.skip("about the length of an answer")
    async with running(ONCE) as runtime:
        placed(runtime, wrong)
        caller = await streaming(runtime)
        request = asked(wrong, PORT)
        fields = {name: getattr(request, name) for name in request.__struct_fields__}
        stream = await caller.begin_with(ExecuteRequest(**{**fields, "stream": True}))
        end = await stream.ended()
        expected = wrong.expected
        assert end.error_class is expected.error_class, end.error_message
        assert end.disposition in expected.dispositions
        if expected.error_class is ErrorClass.SUCCESS:
            assert stream.head is not None
            assert stream.head.status_code == (expected.status_code or 200)
            assert re.search(expected.message, stream.body.decode())
        else:
            assert re.search(expected.message, end.error_message or ""), end.error_message
        await caller.close()
