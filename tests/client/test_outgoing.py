"""What is written first, what in turns, and in how few pieces."""

import pytest
import trio
import trio.testing

from vastar_client._bodies import BytesSource
from vastar_client._entries import Entry, StreamEntry
from vastar_client._outgoing import Outgoing
from vastar_client._uploads import Upload
from vastar_client.wire import (
    NEED_DATA,
    Cancel,
    Connection,
    CreditUpdate,
    ExecuteRequest,
    HealthCheck,
    RequestChunk,
    Role,
)

WINDOW = 65_536
CONNECTION_WINDOW = 1_048_576


def call(request_id, **fields):
    return ExecuteRequest(request_id, "t", "http", "request", **fields)


class Line:
    """An `Outgoing`, and what the runtime gets of it."""

    def __init__(self):
        self.refused = []
        self.outgoing = Outgoing(Connection(Role.CLIENT), lambda *told: self.refused.append(told))
        self._runtime = Connection(Role.RUNTIME)

    def sent(self):
        """The messages of one gathering."""
        for buffer in self.outgoing.gather():
            self._runtime.receive_data(bytes(buffer))
        messages = []
        while (message := self._runtime.next_event()) is not NEED_DATA:
            messages.append(message)
        return messages


@pytest.fixture
async def line():
    return Line()


async def uploading(line, request_id, size_bytes):
    """An entry whose message was sent, and whose body waits in the line."""
    upload = Upload(BytesSource(bytes(size_bytes)))
    upload._put(bytes(size_bytes))
    upload._is_last = True
    entry = StreamEntry(call(request_id, body_follows=True, stream=True), upload)
    line.outgoing.put(entry)
    return entry


def kinds(messages):
    return [(type(m).__name__, getattr(m, "request_id", 0)) for m in messages]


async def test_controls_go_first_and_chunks_last(line):
    await uploading(line, 1, 10)
    line.outgoing.put(Entry(call(2)))
    line.outgoing.put(Entry(HealthCheck()))
    line.outgoing.put_first(CreditUpdate(5, request_id=3))
    line.outgoing.put_first(Cancel(3))
    assert len(line.outgoing) == 5
    assert kinds(line.sent()) == [
        ("CreditUpdate", 3),
        ("Cancel", 3),
        ("ExecuteRequest", 1),
        ("ExecuteRequest", 2),
        ("HealthCheck", 0),
        ("RequestChunk", 1),
    ]
    assert len(line.outgoing) == 0
    assert line.sent() == []


async def test_bodies_take_turns(line):
    for request_id in (1, 2):
        entry = await uploading(line, request_id, 150_000)
        entry.upload.window.grant(100_000)
    messages = [message for _ in range(10) for message in line.sent()]
    chunks = [m for m in messages if isinstance(m, RequestChunk)]
    assert [(m.request_id, len(m.data)) for m in chunks] == [
        (1, WINDOW), (2, WINDOW), (1, WINDOW), (2, WINDOW), (1, 18_928), (2, 18_928),
    ]  # fmt: skip
    assert [m.last for m in chunks] == [False] * 4 + [True] * 2


async def test_chunks_wait_for_credit_of_the_connection(line):
    entry = await uploading(line, 1, 2 * CONNECTION_WINDOW)
    entry.upload.window.grant(2 * CONNECTION_WINDOW)
    sent = [message for _ in range(40) for message in line.sent()]
    assert sum(len(m.data) for m in sent if isinstance(m, RequestChunk)) == CONNECTION_WINDOW
    assert line.sent() == []
    assert len(line.outgoing) == 1, "it keeps its turn"
    line.outgoing.put(Entry(call(2)))
    assert kinds(line.sent()) == [("ExecuteRequest", 2)], "which holds up no message"
    line.outgoing.grant(3)
    assert [len(m.data) for m in line.sent()] == [3]


async def test_chunks_wait_for_credit_of_their_stream_behind_nobody(line):
    await uploading(line, 1, 100_000)
    second = await uploading(line, 2, 10)
    assert kinds(line.sent()) == [
        ("ExecuteRequest", 1), ("ExecuteRequest", 2), ("RequestChunk", 1),
    ]  # fmt: skip
    assert kinds(line.sent()) == [("RequestChunk", 2)]
    assert not second.upload.has_chunk
    assert len(line.outgoing) == 0


async def test_a_body_is_in_the_line_once_and_not_before_its_message(line):
    entry = await uploading(line, 1, 10)
    line.outgoing.offer(entry)
    assert len(line.outgoing) == 1, "its message alone"
    line.sent()
    line.outgoing.offer(entry)
    line.outgoing.offer(Entry(call(2)))
    assert len(line.outgoing) == 0
    entry = await uploading(line, 3, 100_000)
    line.sent()
    entry.upload.window.grant(WINDOW)
    for _ in range(3):
        line.outgoing.offer(entry)
    assert len(line.outgoing) == 1


async def test_a_body_that_was_given_up_in_the_line_is_passed_over(line):
    first, _ = await uploading(line, 1, 10), await uploading(line, 2, 10)
    line.outgoing.remove(first)
    line.outgoing.remove(first)
    assert kinds(line.sent()) == [("ExecuteRequest", 2), ("RequestChunk", 2)]
    third = await uploading(line, 3, 100_000)
    line.sent()
    third.upload.window.grant(WINDOW)
    line.outgoing.offer(third)
    third.upload.stop()
    assert line.sent() == []


async def test_what_cannot_be_encoded_is_refused_and_the_rest_goes(line):
    bad = Entry(call(1, payload=b"x" * 67_108_864))
    line.outgoing.put(bad)
    line.outgoing.put(Entry(call(2)))
    assert kinds(line.sent()) == [("ExecuteRequest", 2)]
    ((entry, error),) = line.refused
    assert entry is bad
    assert "exceeds the limit" in str(error)
    assert not bad.written


async def test_small_frames_leave_as_one_buffer_and_large_ones_uncopied(line):
    body = bytes(100_000)
    for message in (call(1), call(2), call(3, payload=body), call(4)):
        line.outgoing.put(Entry(message))
    buffers = line.outgoing.gather()
    assert len(buffers) == 2
    assert buffers[1] is body
    assert len(line.outgoing.gather()) == 1, "the last one, in the next batch"


async def test_the_writer_is_woken_by_whatever_comes(line, autojump_clock):
    entry = await uploading(line, 1, 10)
    for wake in (
        lambda: line.outgoing.put(Entry(call(2))),
        lambda: line.outgoing.put_first(Cancel(1)),
        lambda: line.outgoing.grant(1),
        lambda: line.outgoing.offer(entry),
    ):
        await line.outgoing.wait()
        line.sent()
        if len(line.outgoing) == 0:
            entry.upload._is_over = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.outgoing.wait)
            await trio.testing.wait_all_tasks_blocked()
            wake()
        wake()


async def test_nothing_is_left_when_the_connection_ended(line):
    await uploading(line, 1, 10)
    line.outgoing.put_first(Cancel(1))
    line.outgoing.clear()
    assert len(line.outgoing) == 0
    assert line.sent() == []
