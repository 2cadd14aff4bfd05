"""What a hostile or unlucky caller cannot do: starve others, be cut off while reading, leak."""

import gc
import sys
import weakref

import pytest
import trio
import trio.testing

from tests.support import sessions
from tests.support.sessions import answer, echo, limits, session_with
from vastar_client.wire import Cancel, ErrorClass, HealthCheck, HealthResponse
from vastar_runtime.calls import Call, Caller
from vastar_runtime.config import RuntimeConfig, TenantConfig
from vastar_runtime.identity import Identity
from vastar_runtime.outcomes import Outcome, Reply
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.session import Session


async def test_a_caller_that_reads_is_never_cut_off_however_small_its_frames(autojump_clock):
    async with session_with() as (caller, _):
        frame = b"".join(caller.wire.send(HealthCheck()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.send_bytes, frame * 20_000)
            for _ in range(20_000):
                assert isinstance(await caller.receive(), HealthResponse)


async def test_a_flood_of_frames_lets_others_in_between(autojump_clock):
    state = RuntimeState(0.0)
    async with session_with(state=state) as (flood, _):
        frame = b"".join(flood.wire.send(Cancel(request_id=9)))
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await flood.send_bytes(frame * 10_000 + b"".join(flood.wire.send(HealthCheck())))
            assert isinstance(await flood.receive(), HealthResponse)
            nursery.cancel_scope.cancel()
    assert turns > 50


async def test_an_idle_connection_does_not_keep_its_last_answer(autojump_clock):
    payload = bytes(bytearray(300_000))

    async def large(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Reply(payload)

    async with session_with({"test": large}) as (caller, _):
        before = sys.getrefcount(payload)
        await caller.call(1)
        await caller.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert sys.getrefcount(payload) == before


async def test_a_session_is_gone_with_its_connection_without_the_garbage_collector(
    autojump_clock, monkeypatch
):
    made: list[weakref.ref[Session]] = []

    class Watched(Session):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(weakref.ref(self))

    monkeypatch.setattr(sessions, "Session", Watched)
    gc.collect()
    gc.disable()
    try:
        async with session_with() as (caller, _):
            await caller.call(1)
            assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
        assert made[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["tenant_id", "workspace_id", "trace_id"])
async def test_an_id_is_a_name_and_not_a_document(name, autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(1, **{name: "x" * 1024})
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
        await caller.call(2, **{name: "x" * 1025})
        refused = answer(await caller.receive())
        assert refused.error_class is ErrorClass.INVALID_REQUEST
        assert refused.error_message == f"{name} of 1025 characters: at most 1024"


@pytest.mark.parametrize("name", ["tenant_id", "workspace_id", "trace_id"])
async def test_an_id_that_is_too_long_is_told_to_no_visa(name, autojump_clock):
    rules = Identity(RuntimeConfig(tenants={"acme": TenantConfig(allow_uids=(1,))}))
    visa = rules.visa(Caller(1, 2))
    async with session_with(visa=visa) as (caller, _):
        for number in range(3):
            await caller.call(number, **{name: f"{number}" + "x" * 100_000})
            refused = answer(await caller.receive())
            assert refused.error_message == f"{name} of 100001 characters: at most 1024"
    assert not visa._known


async def test_a_caller_that_cannot_be_watched_is_served_all_the_same(autojump_clock, monkeypatch):
    async def no_descriptor(_channel: object) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("vastar_runtime.transport.StreamChannel.wait_hangup", no_descriptor)
    async with session_with({"test": echo}, limits()) as (caller, _):
        await caller.call(1, "5")
        await caller.half_close()
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
