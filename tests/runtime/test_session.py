"""A connection is a nursery: calls side by side, faults that harm no neighbour, clear limits."""

import pytest
import trio
import trio.testing

from tests.support.sessions import WALL_START_MS, answer, echo, limits, request, session_with
from vastar_client.wire import (
    END_OF_STREAM,
    Authenticate,
    Cancel,
    CreditUpdate,
    Disposition,
    ErrorClass,
    HealthCheck,
    HealthResponse,
    MessageType,
    RequestChunk,
    StreamEnd,
)
from vastar_client.wire.codec import encode_message
from vastar_client.wire.framing import frame_header
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Outcome, Reply
from vastar_runtime.runtime_state import RuntimeState


async def test_calls_of_one_connection_run_side_by_side_and_answer_as_they_finish(autojump_clock):
    async with session_with() as (caller, _):
        started = trio.current_time()
        for request_id, operation in ((1, "3"), (2, "1"), (3, "2")):
            await caller.call(request_id, operation)
        ids = [answer(message).request_id for message in await caller.receive_many(3)]
        assert ids == [2, 3, 1]
        assert trio.current_time() - started == 3


async def test_an_answer_carries_id_payload_duration_and_disposition(autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(2**64 - 1, "2.5")
        got = answer(await caller.receive())
        assert got.request_id == 2**64 - 1
        assert bytes(got.payload or b"") == b"2.5"
        assert got.duration_us == 2_500_000
        assert (got.error_class, got.disposition) == (ErrorClass.SUCCESS, Disposition.COMPLETED)


async def test_two_calls_with_one_id_are_each_answered(autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(7, "1")
        await caller.call(7, "2")
        payloads = [bytes(answer(m).payload or b"") for m in await caller.receive_many(2)]
        assert payloads == [b"1", b"2"]


async def test_a_bug_in_a_connector_ends_its_own_call_only(autojump_clock):
    async def broken(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret in a traceback")

    async with session_with({"test": echo, "broken": broken}) as (caller, _):
        await caller.call(1, "5")
        await caller.call(2, connector_name="broken")
        bad, good = map(answer, await caller.receive_many(2))
        assert (bad.request_id, bad.error_class) == (2, ErrorClass.PERMANENT)
        assert bad.error_message == "internal error"
        assert (good.request_id, good.error_class) == (1, ErrorClass.SUCCESS)


async def test_a_bug_together_with_a_cancellation_is_still_one_answer(autojump_clock):
    async def broken(call: Call) -> Outcome:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("while being cancelled")
        raise AssertionError

    async with session_with({"test": broken}) as (caller, _):
        await caller.call(1, deadline_at_ms=WALL_START_MS + 1000)
        got = answer(await caller.receive())
        assert (got.error_class, got.error_message) == (ErrorClass.PERMANENT, "internal error")
        await caller.call(2, connector_name="nope")
        assert answer(await caller.receive()).request_id == 2


async def test_an_unknown_connector_is_named(autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(1, connector_name="mongo")
        got = answer(await caller.receive())
        assert got.error_class is ErrorClass.INVALID_REQUEST
        assert got.error_message == "Unknown connector: mongo; known are test"
        assert got.disposition is Disposition.NOT_SENT


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (frame_header(0, 4) + b"junk", "Invalid FlatBuffers message"),
        (frame_header(99, 0), "unknown message type 99"),
        (frame_header(1, 0), "never sent by a client"),
        (frame_header(9, 0), "never sent by a client"),
    ],
)
async def test_a_bad_frame_is_answered_and_the_connection_goes_on(frame, said, autojump_clock):
    async with session_with() as (caller, _):
        await caller.send_bytes(frame)
        fault = answer(await caller.receive())
        assert fault.error_class is ErrorClass.INVALID_REQUEST
        assert fault.request_id == 0
        assert said in (fault.error_message or "")
        await caller.call(5)
        assert answer(await caller.receive()).request_id == 5


async def test_the_id_of_a_bad_request_is_in_its_answer_when_it_could_be_read(autojump_clock):
    async with session_with() as (caller, _):
        frame = bytearray(b"".join(caller.wire.send(request(77, tenant_id="tenant"))))
        frame[frame.index(b"tenant")] = 0xFF
        await caller.send_bytes(bytes(frame))
        fault = answer(await caller.receive())
        assert (fault.request_id, fault.error_class) == (77, ErrorClass.INVALID_REQUEST)
        assert "tenant_id: not UTF-8" in (fault.error_message or "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\0", "length 0"),
        ((2 << 20).to_bytes(4) + b"\0", "exceeds the limit of 1048576 bytes"),
    ],
)
async def test_lost_framing_is_answered_then_the_connection_closes(data, said, autojump_clock):
    async with session_with() as (caller, _):
        await caller.call(1, "3")
        await caller.send_bytes(data + b"whatever follows")
        fault = answer(await caller.receive())
        assert fault.error_class is ErrorClass.INVALID_REQUEST
        assert said in (fault.error_message or "")
        # What was accepted before is not lost.
        assert answer(await caller.receive()).request_id == 1
        assert await caller.receive() is END_OF_STREAM


@pytest.mark.parametrize("update", [{"credit_delta": -1}, {"connection_bytes": 2**31}])
async def test_unsound_credit_closes_the_connection(update, autojump_clock):
    async with session_with() as (caller, _):
        encoded = b"".join(encode_message(CreditUpdate(**update)))
        await caller.send_bytes(frame_header(MessageType.CREDIT_UPDATE, len(encoded)) + encoded)
        fault = answer(await caller.receive())
        assert "credit is never negative" in (fault.error_message or "")
        assert await caller.receive() is END_OF_STREAM


async def test_an_unfinished_frame_is_given_up_after_silence_not_before(autojump_clock):
    async with session_with() as (caller, _):
        frame = b"".join(caller.wire.send(request(1)))
        for byte in frame[:-1]:
            await caller.send_bytes(bytes((byte,)))
        started = trio.current_time()
        fault = answer(await caller.receive())
        assert trio.current_time() - started == 30
        assert "unfinished frame" in (fault.error_message or "")
        assert await caller.receive() is END_OF_STREAM


async def test_a_frame_that_drips_is_given_up_though_it_is_never_silent(autojump_clock):
    async with session_with() as (caller, _):
        frame = b"".join(caller.wire.send(request(1)))
        started = trio.current_time()
        for byte in frame[:3]:
            await caller.send_bytes(bytes((byte,)))
            await trio.sleep(9)
        await caller.send_bytes(frame[3:4])
        fault = answer(await caller.receive())
        assert round(trio.current_time() - started, 2) == 30
        assert "a frame came too slowly: 3 bytes of it in 30 s" in (fault.error_message or "")
        assert await caller.receive() is END_OF_STREAM


async def test_frames_that_come_whole_are_each_given_their_time(autojump_clock):
    async with session_with() as (caller, _):
        for number in range(1, 20):
            frame = b"".join(caller.wire.send(request(number)))
            await caller.send_bytes(frame[:9])
            await trio.sleep(20)
            await caller.send_bytes(frame[9:])
            assert answer(await caller.receive()).request_id == number


async def test_an_idle_connection_is_never_given_up(autojump_clock):
    async with session_with() as (caller, _):
        await trio.sleep(80_000)
        await caller.call(1)
        assert answer(await caller.receive()).request_id == 1


# --- calls in flight ----------------------------------------------------------------------------


async def test_a_published_caller_is_paused_at_the_limit_and_loses_nothing(autojump_clock):
    seen: list[int] = []

    async def slow(call: Call) -> Outcome:
        seen.append(call.request.request_id)
        await trio.sleep(10)
        return Reply(b"ok")

    async with session_with({"test": slow}, limits(max_in_flight=4)) as (caller, _):
        for request_id in range(10):
            await caller.call(request_id)
        await trio.sleep(5)
        assert sorted(seen) == [0, 1, 2, 3]
        got = [answer(m) for m in await caller.receive_many(10)]
        assert sorted(m.request_id for m in got) == list(range(10))
        assert {m.error_class for m in got} == {ErrorClass.SUCCESS}


async def test_a_paused_caller_that_goes_away_is_noticed(autojump_clock):
    async with session_with(None, limits(max_in_flight=1)) as (caller, state):
        for request_id in range(3):
            await caller.call(request_id, "1000", deadline_at_ms=WALL_START_MS + 10**9)
        await trio.sleep(1)
        await caller.close()
        await trio.testing.wait_all_tasks_blocked()
        assert (state.calls_in_flight, state.connections) == (0, 0)


async def test_surplus_calls_of_an_opted_in_caller_are_refused_with_the_reason(autojump_clock):
    async with session_with(None, limits(max_in_flight=2)) as (caller, _):
        await caller.send(HealthCheck())
        assert isinstance(await caller.receive(), HealthResponse)
        for request_id in (1, 2, 3):
            await caller.call(request_id, "5")
        refused = answer(await caller.receive())
        assert (refused.request_id, refused.error_class) == (3, ErrorClass.TRANSIENT)
        assert refused.disposition is Disposition.NOT_SENT
        assert refused.refused_by == "in_flight:connection"
        assert refused.retry_after_ms == 100
        await caller.send(Cancel(request_id=1))  # the reader still reads
        assert answer(await caller.receive()).error_message == "cancelled by caller"


# --- other frames -------------------------------------------------------------------------------


async def test_health_tells_calls_and_credits(autojump_clock):
    async with session_with(None, limits(max_in_flight=10)) as (caller, _):
        await caller.call(1, "5")
        await trio.sleep(1)
        await caller.send(HealthCheck())
        health = await caller.receive()
        assert isinstance(health, HealthResponse)
        assert (health.healthy, health.active_requests, health.available_credits) == (True, 1, 9)


async def test_authenticate_is_answered_by_health_and_credit_by_credit(autojump_clock):
    async with session_with(None, limits(max_in_flight=10)) as (caller, _):
        await caller.send(Authenticate(token="secret"))
        assert isinstance(await caller.receive(), HealthResponse)
        await caller.send(CreditUpdate(credit_delta=5))
        credit = await caller.receive()
        assert isinstance(credit, CreditUpdate)
        assert (credit.credit_delta, credit.total_credits) == (0, 10)


@pytest.mark.parametrize("fields", [{"stream": True}, {"stream": True, "body_follows": True}])
async def test_a_stream_is_refused_with_the_final_frame_of_a_stream(fields, autojump_clock):
    async with session_with({"unary": echo}) as (caller, _):
        await caller.call(1, connector_name="unary", **fields)
        end = await caller.receive()
        assert isinstance(end, StreamEnd)
        assert (end.error_class, end.disposition) == (
            ErrorClass.INVALID_REQUEST,
            Disposition.NOT_SENT,
        )


async def test_chunks_of_no_call_are_discarded(autojump_clock):
    async with session_with() as (caller, _):
        await caller.send(RequestChunk(request_id=9, data=b"x", last=True))
        await caller.call(1)
        assert answer(await caller.receive()).request_id == 1


async def test_nothing_unsolicited_reaches_a_published_caller(autojump_clock):
    state = RuntimeState(0.0)
    async with session_with(state=state) as (caller, _):
        await caller.call(1)
        assert answer(await caller.receive()).request_id == 1
        state.draining = True
        with trio.move_on_after(10_000):
            pytest.fail(f"unsolicited: {await caller.receive()}")


async def test_while_draining_new_calls_are_refused_and_old_ones_finish(autojump_clock):
    async with session_with() as (caller, state):
        await caller.call(1, "10")
        await trio.sleep(1)
        state.draining = True
        await caller.call(2)
        refused, finished = map(answer, await caller.receive_many(2))
        assert (refused.request_id, refused.error_class) == (2, ErrorClass.TRANSIENT)
        assert (refused.error_message or "").startswith("draining")
        assert refused.retry_after_ms == 1000
        assert refused.disposition is Disposition.NOT_SENT
        assert (finished.request_id, finished.error_class) == (1, ErrorClass.SUCCESS)
        await caller.send(HealthCheck())
        health = await caller.receive()
        assert isinstance(health, HealthResponse)
        assert not health.healthy


async def test_one_connection_does_not_wait_for_another(autojump_clock):
    state = RuntimeState(0.0)
    streams = trio.testing.lockstep_stream_pair
    async with session_with(state=state) as (good, _):

        async def misbehave() -> None:
            async with session_with(state=state, streams=streams) as (bad, _):
                await bad.send_bytes(frame_header(0, 4) + b"junk")  # never reads the answer
                await bad.call(1, "100")
                await trio.sleep(20)

        async def behave() -> None:
            for request_id in range(50):
                await good.call(request_id)
                assert answer(await good.receive()).request_id == request_id
            assert trio.current_time() == 0
            await trio.sleep(25)

        # `session_with` asserts at its end that no connection is left: end both together.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(behave)
            bad_done = trio.Event()

            async def run_bad() -> None:
                try:
                    await misbehave()
                except AssertionError:
                    assert state.connections == 1  # the good one
                bad_done.set()

            nursery.start_soon(run_bad)
            await bad_done.wait()


async def test_an_answer_over_the_frame_limit_becomes_a_clear_error(autojump_clock):
    async def large(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Reply(b"x" * 70_000)

    bounds = limits(max_answer_frame_bytes=65_536)
    async with session_with({"test": large, "echo": echo}, bounds) as (caller, _):
        await caller.call(1)
        got = answer(await caller.receive())
        assert got.error_class is ErrorClass.PERMANENT
        assert got.error_message == (
            "response exceeds the frame limit of 65536 bytes: use streaming"
        )
        await caller.call(2, connector_name="echo")
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
