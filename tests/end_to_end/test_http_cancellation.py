"""Whoever leaves takes everything with it: at any point of a call, by Cancel and by hanging up."""

import pytest
import trio
import trio.testing

from tests.support.http_calls import NATIVE, ORIGIN, json_of, native_payload
from tests.support.http_cancel import AtStep, cancel_all, hang_up
from tests.support.running import Running, http_request, running
from vastar_client.wire import Cancel, Disposition, ErrorClass, ExecuteResponse
from vastar_runtime.config import HttpConfig, PoolConfig, RuntimeConfig


def nothing_is_left(runtime: Running) -> None:
    """No call, no waiter, no busy connection; what is open is idle in the pool."""
    assert runtime.runtime.state.calls_in_flight == 0
    pools = runtime.runtime._transport.stats()
    assert [(pool.busy, pool.waiting) for pool in pools] == [(0, 0)] * len(pools)
    still_open = [channel for channel in runtime.network.channels if not channel.closed]
    assert len(still_open) == sum(pool.idle for pool in pools)


# --- while the upstream is busy -----------------------------------------------------------------

BUSY = {
    "before the first byte": ("/sleep?ms=3600000", "sleep_start", Disposition.SENT_NO_RESPONSE),
    "in the body": ("/drip?n=1000&gap=1000", "body_start", Disposition.RESPONSE_STARTED),
    "in a stream": ("/sse?n=1000&gap=1000", "sse_start", Disposition.RESPONSE_STARTED),
}


@pytest.mark.parametrize("name", BUSY)
async def test_a_caller_that_hangs_up_closes_its_upstream_at_once(name, autojump_clock):
    path, begun, _ = BUSY[name]
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send(http_request(1, {"url": ORIGIN + path}))
        await runtime.upstream.wait_for(begun)
        await trio.sleep(1.5)
        left_at_s = trio.current_time()
        await caller.close()
        await runtime.upstream.wait_for("client_closed_while_busy")
        assert trio.current_time() == left_at_s
        await trio.testing.wait_all_tasks_blocked()
        nothing_is_left(runtime)
        assert runtime.runtime.state.connections == 0


@pytest.mark.parametrize("name", BUSY)
async def test_a_cancel_does_the_same_and_is_answered_once(name, autojump_clock):
    path, begun, disposition = BUSY[name]
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send(http_request(7, {"url": ORIGIN + path}))
        await runtime.upstream.wait_for(begun)
        await trio.sleep(1.5)
        left_at_s = trio.current_time()
        await caller.send(Cancel(request_id=8), Cancel(request_id=7), Cancel(request_id=7))
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        assert (answer.request_id, answer.error_class) == (7, ErrorClass.PERMANENT)
        assert (answer.error_message, answer.disposition) == ("cancelled by caller", disposition)
        await runtime.upstream.wait_for("client_closed_while_busy")
        assert trio.current_time() == left_at_s
        nothing_is_left(runtime)
        await caller.send(Cancel(request_id=7), http_request(9, {"url": f"{ORIGIN}/small"}))
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        assert answer.request_id == 9
        await caller.close()


async def test_a_half_close_still_gets_its_answers(autojump_clock):
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send(http_request(1, {"url": f"{ORIGIN}/sleep?ms=5000"}))
        await caller.half_close()
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        assert json_of(answer)["status_code"] == 200
        await caller.close()


async def test_a_call_that_waits_for_a_connection_leaves_the_queue(autojump_clock):
    config = RuntimeConfig(http=HttpConfig(pool=PoolConfig(max_connections_per_key=1)))
    async with running(config) as runtime:
        first, second = runtime.caller(), runtime.caller()
        await first.send(http_request(1, {"url": f"{ORIGIN}/sleep?ms=10000"}))
        await runtime.upstream.wait_for("sleep_start")
        await second.send(http_request(1, {"url": f"{ORIGIN}/small", "timeout_ms": 2000}))
        answer = await second.receive()
        assert isinstance(answer, ExecuteResponse)
        assert answer.error_message == (
            f"timed out: the timeout_ms of 2000 ms passed while waiting for a connection ({ORIGIN})"
        )
        assert answer.disposition is Disposition.NOT_SENT
        await second.send(http_request(2, {"url": f"{ORIGIN}/small"}))
        await trio.sleep(1)
        await second.close()
        await trio.testing.wait_all_tasks_blocked()
        (pool,) = runtime.runtime._transport.stats()
        assert (pool.busy, pool.waiting) == (1, 0)
        await first.receive()
        await first.close()


# --- at every step ------------------------------------------------------------------------------


CALLS: dict[str, tuple[object, dict[str, object]]] = {
    "small": ({"url": f"{ORIGIN}/small"}, {}),
    "large body": (native_payload(f"{ORIGIN}/echo", "POST", body=bytes(150_000)), NATIVE),
    "large answer": ({"url": f"{ORIGIN}/big?n=300000"}, {}),
    "redirect": ({"url": f"{ORIGIN}/redir?to=/chunked"}, {}),
    "stream": ({"url": f"{ORIGIN}/sse?n=2"}, {}),
    "fault": ({"url": f"{ORIGIN}/short"}, {}),
}


async def run_and_leave(name: str, step: int, way: str, *, reuse: bool) -> bool:
    """Make the call, leave at that step; whether the call lived that long."""
    payload, fields = CALLS[name]
    async with running() as runtime:
        if reuse:
            json_of(await runtime.http({"url": f"{ORIGIN}/small"}))
        caller = runtime.caller()
        await trio.testing.wait_all_tasks_blocked()
        action = (lambda: cancel_all(runtime)) if way == "cancel" else (lambda: hang_up(caller))
        instrument = AtStep(step, action)
        trio.lowlevel.add_instrument(instrument)
        try:
            await caller.send(http_request(1, payload, **fields))
            if way == "cancel":
                answer = await caller.receive()
                assert isinstance(answer, ExecuteResponse)
                assert answer.request_id == 1
                if answer.error_class is ErrorClass.PERMANENT:
                    assert answer.error_message == "cancelled by caller"
                else:
                    assert (answer.error_class is ErrorClass.TRANSIENT) is (name == "fault")
            else:
                for _ in range(1000):
                    await trio.sleep(0.001)
                    if instrument.done:
                        break
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            assert way == "hang up"
        finally:
            trio.lowlevel.remove_instrument(instrument)
        await trio.testing.wait_all_tasks_blocked()
        if instrument.done or way == "cancel":
            nothing_is_left(runtime)
        answer = await runtime.http({"url": f"{ORIGIN}/small"})
        assert json_of(answer)["status_code"] == 200
        await caller.close()
        return instrument.done


@pytest.mark.slow
@pytest.mark.cap_s(60)
@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("way", ["cancel", "hang up"])
@pytest.mark.parametrize("name", CALLS)
async def test_leaving_at_any_step_leaves_nothing(name, way, reuse, autojump_clock):
    longest = {"cancel": 200, "hang up": 120}[way]
    steps = 0
    for step in range(1, longest):
        if not await run_and_leave(name, step, way, reuse=reuse):
            break
        steps = step
    assert steps > 10


@pytest.mark.parametrize("way", ["cancel", "hang up"])
@pytest.mark.parametrize("name", CALLS)
async def test_leaving_at_some_steps_leaves_nothing(name, way, autojump_clock):
    for step in (3, 7, 11, 16, 23):
        await run_and_leave(name, step, way, reuse=False)
