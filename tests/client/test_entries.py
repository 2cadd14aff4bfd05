"""Where answers are put: one answer, or a stream in its one legal order."""

import pytest
import trio
import trio.testing

from vastar_client._entries import Entry, StreamEntry
from vastar_client.errors import CallTimeout, ConnectionClosed, ConnectorException
from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    RemoteProtocolError,
    StreamChunk,
    StreamEnd,
    StreamStart,
)

CALL = ExecuteRequest(7, "t", "http", "request", stream=True)


@pytest.fixture
async def entry():
    return StreamEntry(CALL)


async def test_an_answer_wakes_its_caller():
    entry = Entry(CALL)
    assert not entry.done.is_set()
    answer = ExecuteResponse(7)
    entry.finish(answer)
    assert entry.done.is_set()
    assert (entry.answer, entry.error) == (answer, None)


async def test_ids():
    assert Entry(CALL).request_id == StreamEntry(CALL).request_id == 7
    assert Entry(HealthCheck()).request_id == 0


@pytest.mark.parametrize("make", [Entry, StreamEntry])
async def test_a_lost_connection_says_how_far_it_got(make):
    for written, disposition in (
        (False, Disposition.NOT_SENT),
        (True, Disposition.SENT_NO_RESPONSE),
    ):
        entry = make(CALL)
        entry.written = written
        entry.lose("gone")
        assert isinstance(entry.error, ConnectionClosed)
        assert (entry.error.message, entry.error.request_id) == ("gone", 7)
        assert entry.error.disposition is disposition


async def test_a_stream_that_has_begun_says_so(entry):
    entry.start(StreamStart(7, 200))
    entry.lose("gone")
    assert entry.error.disposition is Disposition.RESPONSE_STARTED
    assert entry.is_over


async def test_a_whole_stream(entry):
    entry.start(StreamStart(7, 201))
    assert entry.head.status_code == 201
    for sequence, data in enumerate([b"a", None, b"", memoryview(b"bc")]):
        entry.take_chunk(StreamChunk(7, sequence, data))
    assert list(entry.chunks) == [b"a", b"bc"]
    assert all(type(chunk) is bytes for chunk in entry.chunks), "a view would keep the frame"
    assert entry.window.left_bytes == 65_533
    assert not entry.is_over
    end = StreamEnd(7, total_bytes=3)
    entry.finish(end)
    assert entry.is_over
    assert (entry.end, entry.error) == (end, None)


async def test_a_failure_with_and_without_a_head(entry):
    entry.finish(StreamEnd(7, ErrorClass.TIMEOUT, "late"))
    assert isinstance(entry.error, CallTimeout)
    assert entry.end is not None
    other = StreamEntry(CALL)
    other.start(StreamStart(7, 200))
    other.finish(ExecuteResponse(7, ErrorClass.PERMANENT, "unreadable"))
    assert type(other.error) is ConnectorException
    assert other.end is None
    assert other.is_over


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([StreamStart(7), StreamStart(7)], "a second StreamStart came"),
        ([StreamChunk(7, 0, b"x")], "a StreamChunk came before the StreamStart"),
        ([StreamStart(7), StreamChunk(7, 1, b"x")], "StreamChunk 1 came where 0 was due"),
        ([StreamStart(7), StreamChunk(7, 0, bytes(65_537))], "65537 bytes .* where 65536 were"),
        ([StreamEnd(7)], "a stream ended well without a head"),
        ([ExecuteResponse(7)], "a stream ended well without a head"),
        ([StreamStart(7), ExecuteResponse(7)], "a stream ended well without a head"),
    ],
)
async def test_what_is_out_of_order_closes_the_connection(entry, messages, reason):
    take = {
        StreamStart: entry.start,
        StreamChunk: entry.take_chunk,
        StreamEnd: entry.finish,
        ExecuteResponse: entry.finish,
    }
    *first, last = messages
    for message in first:
        take[type(message)](message)
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        take[type(last)](last)
    assert caught.value.closes


async def test_the_first_failure_counts(entry):
    entry.fail(LookupError())
    entry.lose("gone")
    assert isinstance(entry.error, LookupError)


@pytest.mark.parametrize(
    "happens",
    [
        lambda entry: entry.start(StreamStart(7)),
        lambda entry: entry.fail(LookupError()),
        lambda entry: entry.lose("gone"),
        lambda entry: entry.finish(StreamEnd(7, ErrorClass.PERMANENT)),
    ],
)
async def test_whatever_happens_wakes_the_reader(entry, happens, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.wait)
        await trio.testing.wait_all_tasks_blocked()
        happens(entry)
    happens(StreamEntry(CALL))  # and nobody, where nobody waits


async def test_data_wakes_the_reader(entry, autojump_clock):
    entry.start(StreamStart(7))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.wait)
        await trio.testing.wait_all_tasks_blocked()
        entry.take_chunk(StreamChunk(7, 0, b""))
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks, "not when there is none"
        entry.take_chunk(StreamChunk(7, 1, b"x"))
