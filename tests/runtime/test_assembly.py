"""The runtime put together: what the configuration becomes, its drain, and its end."""

import trio
import trio.testing

from tests.support.http_calls import ORIGIN, json_of
from tests.support.running import http_request, running
from vastar_client.wire import (
    CreditUpdate,
    ErrorClass,
    ExecuteResponse,
    Goaway,
    HealthCheck,
    HealthResponse,
)
from vastar_runtime.assembly import Clocks


def test_the_real_clocks_are_real():
    clocks = Clocks()
    assert clocks.wall_clock_ms() > 1_600_000_000_000
    numbers = {clocks.random_u64() for _ in range(10)}
    assert len(numbers) == 10
    assert all(0 <= number < 2**64 for number in numbers)


async def test_draining_finishes_what_is_under_way_and_refuses_the_rest(autojump_clock):
    async with running() as runtime:
        old, new, credited = runtime.caller(), runtime.caller(), runtime.caller()
        await credited.send(CreditUpdate(credit_delta=1))
        assert isinstance(await credited.receive(), CreditUpdate)
        await old.send(http_request(1, {"url": f"{ORIGIN}/sleep?ms=5000"}))
        await runtime.upstream.wait_for("sleep_start")
        async with trio.open_nursery() as nursery:
            drained: list[bool] = []

            async def drain() -> None:
                drained.append(await runtime.runtime.drain(30))

            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            await new.send(http_request(2, {"url": f"{ORIGIN}/small"}), HealthCheck())
            refused, health = await new.receive(), await new.receive()
            assert isinstance(refused, ExecuteResponse)
            assert refused.error_class is ErrorClass.TRANSIENT
            assert isinstance(health, HealthResponse)
            assert not health.healthy
            goaway = await credited.receive()
            assert goaway == Goaway(reason="draining", drain_ms=30_000)
            answer = await old.receive()
            assert isinstance(answer, ExecuteResponse)
            assert json_of(answer)["status_code"] == 200
        assert drained == [True]
        assert trio.current_time() == 5
        for caller in (old, new, credited):
            await caller.close()


async def test_a_drain_does_not_wait_longer_than_told(autojump_clock):
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send(http_request(1, {"url": f"{ORIGIN}/sleep?ms=20000"}))
        await runtime.upstream.wait_for("sleep_start")
        assert not await runtime.runtime.drain(2)
        assert trio.current_time() == 2
        await caller.close()


async def test_idle_upstream_connections_are_closed_in_time(autojump_clock):
    async with running() as runtime:
        json_of(await runtime.http({"url": f"{ORIGIN}/small"}))
        assert [channel.closed for channel in runtime.network.channels] == [False]
        await trio.sleep(29)
        assert not runtime.network.channels[0].closed
        await trio.sleep(2)
        assert runtime.network.channels[0].closed
        assert runtime.runtime.pools() == []


async def test_tenants_and_workspaces_share_no_connection(autojump_clock):
    async with running() as runtime:
        for tenant, workspace in (("a", "x"), ("b", "x"), ("a", "y"), ("a", None), ("a", "x")):
            answer = await runtime.http(
                {"url": f"{ORIGIN}/small"}, tenant_id=tenant, workspace_id=workspace
            )
            json_of(answer)
        assert len(runtime.network.channels) == 4


async def test_64_pipelined_calls_to_a_slow_upstream_take_the_time_of_one(autojump_clock):
    async with running() as runtime:
        caller = runtime.caller()
        for request_id in range(64):
            await caller.send(http_request(request_id, {"url": f"{ORIGIN}/sleep?ms=100"}))
        got = await caller.receive_many(64)
        assert {message.request_id for message in got} == set(range(64))  # type: ignore[union-attr]
        assert trio.current_time() < 0.11
        await caller.close()
