"""The streams of a connection: ids, keepalives, credit, and bodies that break the rules."""

import pytest
import trio
import trio.testing

from tests.support.layers import make_call
from tests.support.sessions import limits, request, session_with
from tests.support.streamed_sessions import script, stream_request, streaming_session
from vastar_client.wire import (
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    Message,
    RequestChunk,
    StreamEnd,
)
from vastar_client.wire.limits import MAX_WINDOW_BYTES
from vastar_runtime.calls import Call
from vastar_runtime.outbox import CallerNotReadingError
from vastar_runtime.outcomes import Outcome, Reply
from vastar_runtime.session_streams import SessionStreams

WINDOW = 65_536
SHARED = 1_048_576


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"body_follows": True}])
async def test_a_stream_needs_an_id(fields, autojump_clock):
    async with streaming_session() as (caller, state):
        stream = await caller.begin_with(stream_request(0, "head", **fields))
        end = await stream.ended()
        assert stream.failed(ErrorClass.INVALID_REQUEST) == (
            "a stream needs a request_id other than 0"
        )
        assert end.disposition is Disposition.NOT_SENT
        assert state.calls_accepted == 0


async def test_so_does_a_call_whose_body_follows(autojump_clock):
    async with streaming_session() as (caller, state):
        await caller.send(request(0, "all", body_follows=True))
        got = await caller.answer(0)
        assert got.error_class is ErrorClass.INVALID_REQUEST
        assert state.calls_accepted == 0


@pytest.mark.parametrize("first", [{"stream": True}, {}, {"body_follows": True}])
@pytest.mark.parametrize("second", [{"stream": True}, {"body_follows": True}])
async def test_an_id_in_flight_is_refused_and_its_call_goes_on(first, second, autojump_clock):
    words = "request_id 7 is in flight: a stream needs one of its own"
    async with session_with({"test": script}) as (caller, state):
        await caller.call(7, "10", **first)
        await caller.call(7, "head", **second)
        refusal = await caller.receive()
        assert isinstance(refusal, StreamEnd if "stream" in second else ExecuteResponse)
        assert (refusal.request_id, refusal.error_message) == (7, words)
        assert refusal.error_class is ErrorClass.INVALID_REQUEST
        assert (state.calls_in_flight, state.calls_accepted) == (1, 1)
        final = await caller.receive()
        assert isinstance(final, StreamEnd if "stream" in first else ExecuteResponse)
        assert (final.error_class, trio.current_time()) == (ErrorClass.SUCCESS, 10)


async def test_an_id_is_free_again_with_the_final_frame(autojump_clock):
    async with streaming_session() as (caller, state):
        for _ in range(50):
            stream = await caller.begin_with(stream_request(7, "head x"))
            await stream.ended()
            assert stream.ok.total_bytes == 1
            await caller.send(request(7, "0"))
            await caller.until(lambda: bool(caller.answers))
            assert caller.answers.pop().payload == b"done"
        assert state.calls_accepted == 100


async def test_a_call_with_the_id_of_a_stream_is_answered_too(autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(7, "head 5 x"))
        await caller.send(request(7, "1"))
        assert (await caller.answer(7)).payload == b"done"
        await stream.ended()
        assert stream.ok.total_bytes == 1


async def test_surplus_streams_are_refused_and_the_reader_reads_on(autojump_clock):
    async with streaming_session(session_limits=limits(max_in_flight=2)) as (caller, _):
        streams = [await caller.begin_with(stream_request(n, "head 9 x")) for n in (1, 2, 3)]
        end = await streams[2].ended()
        assert "2 calls are in flight" in streams[2].failed(ErrorClass.TRANSIENT)
        assert (end.disposition, end.retry_after_ms) == (Disposition.NOT_SENT, 100)
        await streams[0].cancel()
        await streams[0].ended()
        assert streams[0].end_at_s == 0
        await streams[1].ended()
        assert streams[1].ok.total_bytes == 1


async def test_a_connector_that_does_not_stream_is_not_even_asked(autojump_clock):
    """Its work would be done, and its caller told that it was not."""
    asked: list[int] = []

    async def unary(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        asked.append(call.request.request_id)
        return Reply(b"done")

    async with streaming_session({"unary": unary}) as (caller, _):
        stream = await caller.begin_with(stream_request(1, "x", connector_name="unary"))
        end = await stream.ended()
        assert stream.failed(ErrorClass.INVALID_REQUEST) == (
            "connector unary does not stream: send the call without `stream`"
        )
        assert end.disposition is Disposition.NOT_SENT
        await caller.send(request(2, "x", connector_name="unary", body_follows=True))
        got = await caller.answer(2)
        assert got.error_message == (
            "connector unary does not stream: send the call without `body_follows`"
        )
        assert asked == []


# --- keepalives ---------------------------------------------------------------------------------


async def test_a_silent_stream_says_that_it_lives_every_15_s_also_before_its_head(autojump_clock):
    async with streaming_session() as (caller, _):
        await trio.sleep(100)
        stream = await caller.begin_with(stream_request(1, "40 head 10 x 31 x"))
        await stream.ended()
        assert stream.keep_alives == [115, 130, 165, 180]
        assert stream.end_at_s == 181


async def test_each_stream_has_its_own_silence(autojump_clock):
    async with streaming_session() as (caller, _):
        first = await caller.begin_with(stream_request(1, "head 32"))
        await trio.sleep(7)
        second = await caller.begin_with(stream_request(2, "head " + "10 x " * 5))
        third = await caller.begin_with(stream_request(3, "head 15 x 14 x"))
        for stream in (first, second, third):
            await stream.ended()
        assert (first.keep_alives, second.keep_alives) == ([15, 30], [])
        assert third.keep_alives in ([], [22])  # at the same instant as its data
        assert second.end_at_s == 57


async def test_calls_that_are_no_streams_are_silent(autojump_clock):
    async with streaming_session() as (caller, _):
        await caller.send(request(1, "29"), request(2, "all", body_follows=True))
        await trio.sleep(29)
        caller.opens_upload(2)
        await caller.upload(2, b"x")
        await caller.answer(1)
        await caller.answer(2)
        assert caller.others == []


async def test_one_that_waits_for_credit_says_it_too_and_none_does_when_all_are_over(
    autojump_clock,
):
    async with streaming_session() as (caller, _):
        for _ in range(3):
            begun_s = trio.current_time()
            stream = await caller.begin_with(stream_request(1, f"head x{2 * WINDOW}"), reads=False)
            await trio.sleep(50)
            assert [at_s - begun_s for at_s in stream.keep_alives] == [15, 30, 45]
            await stream.read()
            await stream.ended()
            await trio.sleep(100)


# --- credit for answers -------------------------------------------------------------------------


async def test_nothing_goes_beyond_the_credit_of_the_stream(autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(1, f"head x{SHARED}"), reads=False)
        await trio.sleep(1)
        assert stream.total_bytes == WINDOW
        for delta in (1, 1000, WINDOW):
            stream.window.left_bytes += delta
            await caller.send(CreditUpdate(credit_delta=delta, request_id=1))
            await trio.sleep(1)
        assert stream.total_bytes == 2 * WINDOW + 1001


async def test_nor_beyond_that_of_the_connection_of_which_one_frame_may_bring_both(autojump_clock):
    async with streaming_session() as (caller, _):
        caller.returns_credit = False
        stream = await caller.begin_with(stream_request(1, f"head x{3 * SHARED}"), reads=False)
        stream.window.left_bytes += 4 * SHARED
        await caller.send(CreditUpdate(credit_delta=4 * SHARED, request_id=1))
        await trio.sleep(1)
        assert stream.total_bytes == SHARED
        caller.window.left_bytes += 5000
        await caller.send(CreditUpdate(connection_bytes=5000))
        await trio.sleep(1)
        assert stream.total_bytes == SHARED + 5000
        other = await caller.begin_with(stream_request(2, "head x"))
        await trio.sleep(1)
        assert (other.head is not None, other.total_bytes) == (True, 0)
        caller.window.left_bytes += 3 * SHARED
        await caller.send(CreditUpdate(connection_bytes=3 * SHARED, request_id=2, credit_delta=1))
        await stream.ended()
        await other.ended()
        assert (stream.ok.total_bytes, other.ok.total_bytes) == (3 * SHARED, 1)


async def test_a_stalled_reader_stalls_nobody_else(autojump_clock):
    """Neither streams of the same connection, nor its calls, keepalives, cancels and health."""
    async with streaming_session() as (caller, _):
        stalled = [
            await caller.begin_with(stream_request(number, f"head x{SHARED}"), reads=False)
            for number in range(1, 41)
        ]
        lively = await caller.begin_with(stream_request(50, f"head 1 x{4 * SHARED} 5 x"))
        await caller.send(request(51, "2"), HealthCheck())
        assert (await caller.answer(51)).payload == b"done"
        assert trio.current_time() == 2
        await lively.ended()
        assert (lively.end_at_s, lively.ok.total_bytes) == (6, 4 * SHARED + 1)
        assert any(isinstance(frame, HealthResponse) for frame in caller.others)
        assert [stream.total_bytes for stream in stalled] == [WINDOW] * 40
        await trio.sleep(10)
        assert stalled[0].keep_alives == [15]
        for stream in stalled:
            await stream.cancel()
            await stream.ended()
            assert stream.end_at_s == 16


async def test_credit_for_streams_that_have_ended_is_ignored(autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(1, "head x"))
        await stream.ended()
        for request_id in (1, 99):
            for _ in range(3):
                most = CreditUpdate(credit_delta=MAX_WINDOW_BYTES, request_id=request_id)
                await caller.send(most)
        again = await caller.begin_with(stream_request(1, "head x2"))
        await again.ended()
        assert again.ok.total_bytes == 2


@pytest.mark.parametrize(
    "update",
    [
        CreditUpdate(credit_delta=MAX_WINDOW_BYTES, request_id=1),
        CreditUpdate(connection_bytes=MAX_WINDOW_BYTES),
        CreditUpdate(connection_bytes=MAX_WINDOW_BYTES, request_id=5),
    ],
)
async def test_credit_that_overflows_ends_the_connection_and_says_why(update, autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(1, "head 3 x"))
        await caller.send(update)
        await caller.over()
        (complaint,) = caller.answers
        assert (complaint.request_id, complaint.error_class) == (0, ErrorClass.INVALID_REQUEST)
        assert complaint.error_message == "a window of more than 2147483647 bytes was granted"
        assert stream.ok.total_bytes == 1, "what was begun is finished"
        assert trio.current_time() == 3


# --- the end of the caller ----------------------------------------------------------------------


async def test_a_half_closed_caller_gets_what_its_credit_allows(autojump_clock):
    async with streaming_session() as (caller, _):
        short = await caller.begin_with(stream_request(1, f"head 2 x{WINDOW} 20"))
        await caller.wire_end.half_close()
        await caller.over()
        assert short.ok.total_bytes == WINDOW
        assert short.keep_alives == [17]


@pytest.mark.parametrize("shared", [False, True])
async def test_and_is_told_when_it_can_get_no_more(shared, autojump_clock):
    """Nobody can grant it any more: to wait would be to wait for the deadline."""
    async with streaming_session() as (caller, state):
        stream = await caller.begin_with(stream_request(1, f"head 2 x{2 * SHARED}"), reads=False)
        if shared:
            caller.returns_credit = False
            stream.window.left_bytes += 2 * SHARED
            await caller.send(CreditUpdate(credit_delta=2 * SHARED, request_id=1))
        await trio.testing.wait_all_tasks_blocked()
        await caller.wire_end.half_close()
        await caller.over()
        words = stream.failed(ErrorClass.PERMANENT)
        assert words == "the caller sends no more, so it can grant no more of the answer"
        assert (stream.end_at_s, stream.total_bytes) == (2, SHARED if shared else WINDOW)
        assert state.calls_in_flight == 0


async def test_also_one_that_waits_when_it_half_closes(autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(1, f"head x{2 * WINDOW}"), reads=False)
        await trio.sleep(5)
        await caller.wire_end.half_close()
        await caller.over()
        assert stream.failed(ErrorClass.PERMANENT)
        assert stream.end_at_s == 5


async def test_a_full_close_ends_all_streams_at_once(autojump_clock):
    ended_at_s: list[float] = []

    async def watched(call: Call) -> Outcome:
        try:
            return await script(call)
        finally:
            ended_at_s.append(trio.current_time())

    async with streaming_session({"test": watched}) as (caller, state):
        for number, words in enumerate(["100 head", "head 100", f"head x{SHARED}"], 1):
            await caller.begin_with(stream_request(number, words), reads=False)
        await caller.send(request(4, "all", body_follows=True))
        await trio.sleep(2)
        await caller.close()
        await trio.testing.wait_all_tasks_blocked()
        assert ended_at_s == [2] * 4
        assert (state.calls_in_flight, state.connections) == (0, 0)


# --- a caller that takes nothing ----------------------------------------------------------------


class Full:
    """The outbox of a caller that sends, and does not read what it is answered."""

    async def put(self, message: Message) -> None:
        await trio.sleep_forever()

    def put_at_once(self, message: Message) -> None:
        raise CallerNotReadingError("far too much")


async def test_the_reader_cuts_it_off_and_no_call_fails_for_it(autojump_clock):
    streams = SessionStreams(Full())  # type: ignore[arg-type]
    call = make_call(stream=True, body_follows=True)
    assert streams.open(call)
    assert call.upload is not None
    for sequence in range(7):
        streams.receive_chunk(RequestChunk(1, sequence, bytes(WINDOW)))
        assert len(await call.upload.receive()) == WINDOW, "though it grants credit"
    with pytest.raises(CallerNotReadingError):
        streams.receive_chunk(RequestChunk(1, 7, bytes(WINDOW)))
    await streams.keep_alive()
    assert trio.current_time() == 15
    streams.close(call)
    assert not streams
    assert streams.open(make_call(stream=True)), "a later stream is kept alive again"
