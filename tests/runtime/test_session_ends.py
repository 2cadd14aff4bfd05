"""How calls and connections end: deadlines, cancels, callers that leave or do not read."""

import pytest
import trio
import trio.testing

from tests.support.log_lines import log_lines
from tests.support.sessions import WALL_START_MS, answer, echo, limits, request, session_with
from vastar_client.wire import (
    END_OF_STREAM,
    Cancel,
    Disposition,
    ErrorClass,
    HealthCheck,
)
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Outcome, Reply

# --- deadlines ----------------------------------------------------------------------------------


async def test_a_deadline_in_the_past_never_reaches_the_connector(autojump_clock):
    async def never(call: Call) -> Outcome:
        raise AssertionError("reached")

    async with session_with({"test": never}) as (caller, _):
        await caller.call(1, deadline_at_ms=WALL_START_MS - 1500)
        got = answer(await caller.receive())
        assert (got.error_class, got.disposition) == (ErrorClass.TIMEOUT, Disposition.NOT_SENT)
        assert got.error_message == "the deadline had passed 1500 ms before the call arrived"


async def test_a_deadline_is_kept_to_the_moment(autojump_clock):
    async with session_with() as (caller, _):
        started = trio.current_time()
        await caller.call(1, "100", deadline_at_ms=WALL_START_MS + 1234)
        got = answer(await caller.receive())
        assert trio.current_time() - started == pytest.approx(1.234)
        assert got.error_class is ErrorClass.TIMEOUT
        assert "deadline of 1234 ms passed" in (got.error_message or "")


async def test_without_any_limit_the_default_holds(autojump_clock):
    async with session_with(default_timeout_s=12.0) as (caller, _):
        started = trio.current_time()
        await caller.call(1, "100")
        got = answer(await caller.receive())
        assert trio.current_time() - started == 12
        assert "default timeout of 12000 ms passed" in (got.error_message or "")


async def test_the_furthest_deadline_there_is_works(autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(1, "100000", deadline_at_ms=2**64 - 1)
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS


# --- cancel -------------------------------------------------------------------------------------


async def test_cancel_ends_the_call_with_exactly_one_final_frame(autojump_clock):
    async with session_with() as (caller, state):
        await caller.call(1, "20")
        await trio.sleep(1)
        await caller.send(Cancel(request_id=1))
        got = answer(await caller.receive())
        assert (got.request_id, got.error_class) == (1, ErrorClass.PERMANENT)
        assert got.error_message == "cancelled by caller"
        assert trio.current_time() == 1
        assert state.calls_in_flight == 0
        with trio.move_on_after(1000):
            pytest.fail(f"a second answer: {await caller.receive()}")


async def test_cancel_of_unknown_and_finished_calls_is_ignored(autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(1)
        assert answer(await caller.receive()).request_id == 1
        await caller.send(Cancel(request_id=1), Cancel(request_id=99))
        await caller.call(2)
        assert answer(await caller.receive()).request_id == 2


# --- the caller's end ---------------------------------------------------------------------------


async def test_a_half_closed_connection_still_gets_its_answers_and_then_the_end(autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(1, "5")
        await caller.call(2, "1")
        await caller.half_close()
        ids = [answer(m).request_id for m in await caller.receive_many(2)]
        assert ids == [2, 1]
        assert await caller.receive() is END_OF_STREAM


async def test_a_full_close_cancels_the_calls_at_once(autojump_clock):
    ended_at = []

    async def watched(call: Call) -> Outcome:
        try:
            await trio.sleep(1000)
        finally:
            ended_at.append(trio.current_time())
        return Reply(b"")

    async with session_with({"test": watched}) as (caller, _):
        await caller.call(1, deadline_at_ms=WALL_START_MS + 10**9)
        await trio.sleep(2)
        await caller.close()
        await trio.testing.wait_all_tasks_blocked()
    assert ended_at == [2]


async def test_a_connection_cut_inside_a_frame_ends(autojump_clock):
    async with session_with() as (caller, _):
        await caller.send_bytes(b"".join(caller.wire.send(request(1)))[:-3])
        await caller.half_close()
        fault = answer(await caller.receive())
        assert "ended inside a frame" in (fault.error_message or "")
        assert await caller.receive() is END_OF_STREAM


async def test_a_caller_that_takes_no_byte_is_cut_off_and_its_calls_are_cancelled(autojump_clock):
    async def large(call: Call) -> Outcome:
        await echo(call)
        return Reply(b"x" * 1000)

    streams = trio.testing.lockstep_stream_pair
    async with session_with({"test": large}, streams=streams) as (caller, state):
        await caller.call(1)
        await caller.call(2, "900", deadline_at_ms=WALL_START_MS + 10**9)
        await trio.sleep(29)
        assert state.calls_in_flight == 1
        await trio.sleep(2)
        assert (state.calls_in_flight, state.connections) == (0, 0)


async def test_calls_wait_while_too_many_bytes_of_answers_are_unread(autojump_clock):
    async def large(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Reply(b"x" * 1000)

    bounds = limits(max_queued_answer_bytes=10_000)
    streams = trio.testing.lockstep_stream_pair
    async with session_with({"test": large}, bounds, streams=streams) as (caller, state):
        for request_id in range(100):
            await caller.call(request_id)
        await trio.testing.wait_all_tasks_blocked()
        assert state.calls_in_flight > 80
        got = await caller.receive_many(100)
        assert sorted(answer(m).request_id for m in got) == list(range(100))


async def test_a_caller_that_only_ever_sends_is_cut_off(autojump_clock):
    async with session_with(streams=trio.testing.lockstep_stream_pair) as (caller, state):
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(20_000):
                await caller.send(HealthCheck())
        assert state.connections == 0
        assert trio.current_time() < 30


async def test_who_goes_without_its_answer_is_no_news_and_who_stalls_is(autojump_clock, tmp_path):
    """`start` asks how a runtime is, and may be gone before it hears."""
    streams = trio.testing.lockstep_stream_pair
    with log_lines(tmp_path) as lines:
        async with session_with(streams=streams) as (caller, state):
            await caller.send(HealthCheck())
            await caller.close()
            await trio.testing.wait_all_tasks_blocked()
            assert state.connections == 0
        assert [line["event"] for line in lines()] == []
        async with session_with(streams=streams) as (caller, state):
            await caller.send(HealthCheck())
            await trio.sleep(31)
        (line,) = lines()
        assert (line["event"], line["reason"]) == ("caller cut off", "it does not read its answers")
