"""Request bodies on a connection: credit for both windows, and callers that break the rules."""

import pytest
import trio
import trio.testing

from tests.support.sessions import request, session_with
from tests.support.streamed_sessions import script, stream_request, streaming_session
from vastar_client.wire import (
    END_OF_STREAM,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    RequestChunk,
)
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Outcome, Reply

WINDOW = 65_536
SHARED = 1_048_576
GONE = "the caller ended the connection before the end of the request body"


def body_request(request_id: int, operation: str = "all", **fields: object):
    return request(request_id, operation, body_follows=True, **fields)


# --- credit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [1000, 65_536])
async def test_a_body_far_beyond_the_windows_goes_through_as_it_is_taken(
    piece_bytes, autojump_clock
):
    size = 3 * SHARED + 17
    async with streaming_session() as (caller, state):
        caller.opens_upload(1)
        await caller.send(body_request(1))
        await caller.upload(1, bytes(size), piece_bytes=piece_bytes)
        assert (await caller.answer(1)).payload == b"done"
        stream = await caller.begin_with(stream_request(2, "all head x", body_follows=True))
        await caller.upload(2, bytes(size), piece_bytes=piece_bytes)
        await stream.ended()
        assert stream.ok.total_bytes == 1
        assert state.calls_in_flight == 0


async def test_what_is_not_granted_again_is_less_than_half_of_a_window(autojump_clock):
    """However a body is cut: so its caller is never stopped while all of it was taken."""
    for piece_bytes in (64, 777, 4095, 4096, 20_000, 32_767):
        async with streaming_session() as (caller, _):
            caller.opens_upload(1)
            await caller.send(body_request(1, "take " * (WINDOW // piece_bytes + 1)))
            await caller.upload(1, bytes(WINDOW), piece_bytes=piece_bytes, last=False)
            await trio.testing.wait_all_tasks_blocked()
            assert caller.send_windows[1].available_bytes > WINDOW // 2
            assert caller.send_window.available_bytes >= SHARED // 2


async def test_stream_credit_comes_with_consumption_and_that_of_the_connection_with_receipt(
    autojump_clock,
):
    """Else a few uploads that stand still would stop all the others."""
    async with streaming_session() as (caller, _):
        for request_id in range(1, 41):
            caller.opens_upload(request_id)
            await caller.send(body_request(request_id, "take 100 all"))
            await caller.upload(request_id, bytes(WINDOW), piece_bytes=8192, last=False)
        await trio.sleep(1)
        windows = [caller.send_windows[number].available_bytes for number in range(1, 41)]
        assert windows == [0] * 40
        assert caller.send_window.available_bytes > SHARED // 2
        caller.opens_upload(50)
        await caller.send(body_request(50))
        await caller.upload(50, bytes(SHARED))
        await caller.answer(50)
        assert trio.current_time() < 2


async def test_chunks_of_no_call_are_discarded_and_their_credit_comes_back(autojump_clock):
    async with streaming_session() as (caller, _):
        await caller.send(request(8, "1000"))
        for request_id in (9, 0, 8, 2**64 - 1):
            for _ in range(40):
                caller.send_window.take(WINDOW)
                await caller.chunk(request_id, bytes(WINDOW))
                await trio.testing.wait_all_tasks_blocked()
        assert caller.send_window.available_bytes > SHARED // 2
        await caller.send(request(10, "0"))
        assert (await caller.answer(10)).payload == b"done"


async def test_chunks_behind_the_final_frame_are_discarded_too(autojump_clock):
    async with streaming_session() as (caller, _):
        caller.opens_upload(1)
        await caller.send(body_request(1, "take"))
        await caller.chunk(1, b"x")
        assert (await caller.answer(1)).payload == b"done"
        for _ in range(40):
            caller.send_window.take(WINDOW)
            await caller.chunk(1, bytes(WINDOW), last=True)
            await trio.testing.wait_all_tasks_blocked()
        assert caller.send_window.available_bytes > SHARED // 2
        caller.answers.clear()
        caller._sequences[1] = 0
        await caller.send(body_request(1))
        await caller.chunk(1, b"x", last=True)
        assert (await caller.answer(1)).payload == b"done"


# --- what breaks the rules ----------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([(1, False)], "chunk 1 of the request body came where 0 was due"),
        ([(0, False), (2, True)], "chunk 2 of the request body came where 1 was due"),
        ([(0, True), (1, False)], "a chunk of the request body came behind the last one"),
    ],
)
async def test_a_body_out_of_order_fails_its_call_alone(chunks, why, fields, autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(2, "head 5 x"))
        await caller.send(request(3, "1 all", body_follows=True))
        for sequence, last in chunks:
            await caller.send(RequestChunk(3, sequence, b"x", last))
        got = await caller.answer(3)
        assert (got.error_class, got.error_message) == (ErrorClass.INVALID_REQUEST, why)
        await stream.ended()
        assert stream.ok.total_bytes == 1


async def test_data_beyond_the_window_of_a_stream_costs_the_connection(autojump_clock):
    async with session_with({"test": script}) as (caller, state):
        await caller.send(body_request(1, "take 5 all"), request(2, "3"))
        await caller.send(RequestChunk(1, 0, bytes(WINDOW - 10)))
        await trio.testing.wait_all_tasks_blocked()
        await caller.send(*[RequestChunk(1, n, bytes(60_000)) for n in (1, 2)], request(3, "0"))
        frames = []
        while (frame := await caller.receive()) is not END_OF_STREAM:
            if isinstance(frame, ExecuteResponse):
                frames.append(frame)
        complaint, other, own = frames
        assert (complaint.request_id, complaint.error_class) == (0, ErrorClass.INVALID_REQUEST)
        assert complaint.error_message is not None
        assert complaint.error_message.startswith("60000 bytes of stream data came where ")
        assert (other.request_id, other.payload) == (2, b"done")
        assert (own.request_id, own.error_class) == (1, ErrorClass.INVALID_REQUEST)
        assert own.error_message == GONE
        assert trio.current_time() == 5, "what was begun is finished, and nothing else is"
        assert state.calls_accepted == 2


async def test_so_does_data_beyond_that_of_the_connection(autojump_clock):
    """Of no call at all, and less than half of the window before it."""
    async with session_with() as (caller, _):
        await caller.send(RequestChunk(9, 0, bytes(500_000)), RequestChunk(8, 0, bytes(900_000)))
        complaint = await caller.receive()
        assert isinstance(complaint, ExecuteResponse)
        assert complaint.error_message == (
            "900000 bytes of stream data came where 548576 were granted"
        )
        assert await caller.receive() is END_OF_STREAM


@pytest.mark.parametrize("way", ["end", "in a frame", "silence in a frame", "garbage"])
@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_a_caller_that_ends_in_the_middle_of_a_body(way, fields, autojump_clock):
    """Its call is not left waiting for the rest, whichever way it ended."""
    ended_at_s = 30.0 if way == "silence in a frame" else 0.0
    async with streaming_session(default_timeout_s=100.0) as (caller, _):
        if fields:
            stream = await caller.begin_with(stream_request(1, "all", body_follows=True))
        else:
            await caller.send(body_request(1))
        await caller.chunk(1, b"some")
        cut = b"".join(caller.wire_end.wire.send(RequestChunk(1, 1, b"more")))[:-3]
        if way == "garbage":
            await caller.wire_end.send_bytes(bytes(4))
        elif way != "end":
            await caller.wire_end.send_bytes(cut)
        if way in {"end", "in a frame"}:
            await caller.wire_end.half_close()
        await caller.over()
        if fields:
            assert stream.failed(ErrorClass.INVALID_REQUEST) == GONE
            assert stream.end_at_s == ended_at_s
        else:
            got = next(got for got in caller.answers if got.request_id == 1)
            assert (got.error_class, got.error_message) == (ErrorClass.INVALID_REQUEST, GONE)
        assert trio.current_time() <= ended_at_s + 2


async def test_a_half_close_behind_the_last_chunk_is_no_fault(autojump_clock):
    async with streaming_session() as (caller, _):
        stream = await caller.begin_with(stream_request(1, "5 all head x", body_follows=True))
        await caller.chunk(1, bytes(WINDOW))
        await caller.chunk(1, b"", last=True)
        await caller.wire_end.half_close()
        await caller.over()
        assert stream.ok.total_bytes == 1


async def test_empty_chunks_cost_nothing_and_end_nothing(autojump_clock):
    async with streaming_session() as (caller, _):
        await caller.send(body_request(1))
        for _ in range(1000):
            await caller.chunk(1, b"")
        await caller.chunk(1, b"x")
        await caller.chunk(1, b"", last=True)
        assert (await caller.answer(1)).payload == b"done"


async def test_a_body_of_single_bytes_is_held_in_few_pieces(autojump_clock):
    held: list[int] = []

    async def hold(call: Call) -> Outcome:
        await trio.sleep(5)
        assert call.upload is not None
        held.append(len(call.upload._pieces))
        body = b""
        while piece := await call.upload.receive():
            body += piece
        assert body == bytes(range(256)) * 16
        return Reply(b"done")

    async with streaming_session({"test": hold}) as (caller, _):
        await caller.send(body_request(1))
        for number in range(4096):
            await caller.chunk(1, bytes([number % 256]), last=number == 4095)
        got = await caller.answer(1)
        assert (got.payload, got.disposition) == (b"done", Disposition.COMPLETED)
        assert held == [1]
