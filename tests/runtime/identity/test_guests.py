"""What one user holds in the memory of the runtime, over all of its connections, is bounded."""

import trio
import trio.testing

from tests.support.sessions import CallerEnd, answer, limits, session_with
from vastar_client.wire import (
    END_OF_STREAM,
    Connection,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    Role,
)
from vastar_runtime.identity.guests import Guest
from vastar_runtime.outcomes import Reply

MIB = 1 << 20
ROOMY = limits(max_request_frame_bytes=8 * MIB, max_answer_frame_bytes=8 * MIB)


def test_a_guest_without_a_bound_is_never_full():
    assert not Guest(held_bytes=1 << 60).is_full
    assert [Guest(100, held_bytes=held).is_full for held in (100, 101)] == [False, True]


async def large(call):
    """Answers with as many MiB as the payload says, after as many seconds."""
    mib, seconds = map(int, bytes(call.request.payload).split())
    await trio.sleep(seconds)
    return Reply(bytes(mib * MIB))


async def ask(caller: CallerEnd, request_id: int, script: bytes, *, spare_bytes: int = 0) -> None:
    payload = script + b" " * spare_bytes
    await caller.send(ExecuteRequest(request_id, "t", "test", "do", payload=payload))


async def test_calls_in_flight_count_and_who_holds_too_much_begins_no_more(autojump_clock):
    guest = Guest(3 * MIB)
    async with (
        session_with({"test": large}, ROOMY, guest=guest) as (first, _),
        session_with({"test": large}, ROOMY, guest=guest) as (second, _),
    ):
        for request_id in range(3):
            await ask(first, request_id, b"0 5", spare_bytes=MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert guest.held_bytes == 3 * MIB + 9
        await ask(second, 9, b"0 0")
        refused = answer(await second.receive())
        assert (refused.request_id, refused.error_class) == (9, ErrorClass.TRANSIENT)
        assert (refused.disposition, refused.refused_by) == (Disposition.NOT_SENT, "memory:user")
        assert refused.retry_after_ms == 100
        assert "the most is 3145728" in (refused.error_message or "")
        for _ in range(3):
            assert answer(await first.receive()).error_class is ErrorClass.SUCCESS
        await ask(second, 10, b"0 0")
        assert answer(await second.receive()).error_class is ErrorClass.SUCCESS
    assert guest.held_bytes == 0


async def test_answers_that_nobody_reads_count(autojump_clock):
    guest = Guest(5 * MIB // 2)
    stalled = limits(
        max_answer_frame_bytes=8 * MIB, max_queued_answer_bytes=MIB, stalled_caller_timeout_s=5
    )
    streams = trio.testing.lockstep_stream_pair
    async with (
        session_with({"test": large}, stalled, guest=guest, streams=streams) as (lazy, _),
        session_with({"test": large}, guest=guest) as (other, _),
    ):
        for request_id in range(3):
            await ask(lazy, request_id, b"1 0")
        await trio.testing.wait_all_tasks_blocked()
        assert 3 * MIB < guest.held_bytes < 4 * MIB, "queued, and waiting for room in the queue"
        await ask(other, 9, b"0 0")
        assert answer(await other.receive()).refused_by == "memory:user"
        await trio.sleep(10)  # it is cut off meanwhile
        assert guest.held_bytes == 0
        await ask(other, 10, b"0 0")
        assert answer(await other.receive()).error_class is ErrorClass.SUCCESS


def frame_of(size_bytes: int) -> bytes:
    request = ExecuteRequest(1, "t", "test", "do", payload=b"0 0".ljust(size_bytes))
    return b"".join(Connection(Role.CLIENT).send(request))


async def test_a_frame_waits_while_others_hold_too_much(autojump_clock):
    guest = Guest(2 * MIB)
    async with (
        session_with({"test": large}, ROOMY, guest=guest) as (first, _),
        session_with({"test": large}, ROOMY, guest=guest) as (second, _),
    ):
        await ask(first, 1, b"0 20", spare_bytes=3 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        await second.send_bytes(frame_of(4 * MIB))
        await trio.sleep(19)
        assert guest.held_bytes < 4 * MIB, "little of the second frame was read"
        assert answer(await second.receive()).error_class is ErrorClass.SUCCESS
        assert 20 < trio.current_time() < 21
        assert answer(await first.receive()).error_class is ErrorClass.SUCCESS
    assert guest.held_bytes == 0


async def test_frames_that_never_become_whole_hold_up_others_for_as_long_as_a_silence(
    autojump_clock,
):
    guest = Guest(2 * MIB)
    async with (
        session_with({"test": large}, ROOMY, guest=guest) as (first, _),
        session_with({"test": large}, ROOMY, guest=guest) as (second, _),
    ):
        for caller in (first, second):
            await caller.send_bytes(frame_of(7 * MIB)[: 3 * MIB])
        await trio.sleep(1)
        assert 2 * MIB < guest.held_bytes < 6 * MIB
        words = [answer(await caller.receive()).error_message or "" for caller in (first, second)]
        assert [word.partition(":")[0] for word in words] == ["no room for a frame"] * 2
        assert 29 < trio.current_time() < 31
        for caller in (first, second):
            assert await caller.receive() is END_OF_STREAM
        await trio.sleep(3)  # they may read why first
        assert guest.held_bytes == 0


async def test_a_frame_that_is_whole_counts_as_its_call(autojump_clock):
    guest = Guest(3 * MIB)
    async with session_with({"test": large}, ROOMY, guest=guest) as (caller, _):
        await ask(caller, 1, b"0 5", spare_bytes=MIB - 3)
        await trio.testing.wait_all_tasks_blocked()
        assert guest.held_bytes == MIB
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
        await trio.testing.wait_all_tasks_blocked()
        assert guest.held_bytes == 0
