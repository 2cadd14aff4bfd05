"""The one writer of a connection: order, batches, back-pressure, and answers that do not fit."""

import pytest
import trio
import trio.testing

from tests.support.log_lines import log_lines
from vastar_client.wire import (
    NEED_DATA,
    Connection,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthResponse,
    KeepAlive,
    LocalProtocolError,
    Message,
    Role,
    StreamChunk,
    StreamEnd,
)
from vastar_client.wire.limits import MAX_HEADER_PAIRS
from vastar_runtime.outbox import CallerNotReadingError, Outbox
from vastar_runtime.transport import ChannelStalled
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair


class Rig:
    """An outbox and the caller's end of its channel."""

    def __init__(self, *, max_queued_bytes: int = 1 << 20, max_frame_bytes: int = 1 << 20) -> None:
        self.channel, self.caller = memory_channel_pair(4096)
        self.writes: list[int] = []
        self.connection = Connection(Role.RUNTIME, max_sent_frame_bytes=max_frame_bytes)
        self.outbox = Outbox(
            Counting(self.channel, self.writes),  # type: ignore[arg-type]
            self.connection,
            max_queued_bytes=max_queued_bytes,
            stall_timeout_s=30.0,
        )
        self._wire = Connection(Role.CLIENT)

    def opt_in(self) -> None:
        """Have both ends know that the caller has begun a stream."""
        request = ExecuteRequest(1, "t", "http", "request", stream=True)
        self.connection.receive_data(b"".join(self._wire.send(request)))
        assert self.connection.next_event() == request

    async def received(self, count: int) -> list[Message]:
        found: list[Message] = []
        while len(found) < count:
            while (event := self._wire.next_event()) is NEED_DATA:
                self._wire.receive_data(await self.caller.receive_some())
            found.append(event)  # type: ignore[arg-type]
        return found


class Counting:
    """A channel that notes each write."""

    def __init__(self, channel: MemoryChannel, writes: list[int]) -> None:
        self._channel = channel
        self._writes = writes

    def try_send(self, buffers):
        """As a stream, which cannot be tried."""

    async def send_buffers(self, buffers, *, stall_timeout_s=None):
        self._writes.append(sum(map(len, buffers)))
        await self._channel.send_buffers(buffers, stall_timeout_s=stall_timeout_s)


def answer(request_id: int, size: int = 1) -> ExecuteResponse:
    return ExecuteResponse(
        request_id=request_id, payload=b"x" * size, disposition=Disposition.COMPLETED
    )


async def test_messages_leave_in_order_and_what_is_ready_together_in_one_write(autojump_clock):
    rig = Rig()
    for request_id in range(20):
        rig.outbox.put_at_once(answer(request_id))
    assert not rig.outbox.is_empty
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.outbox.run)
        got = await rig.received(20)
        await rig.outbox.wait_empty()
        assert [message.request_id for message in got] == list(range(20))  # type: ignore[union-attr]
        assert len(rig.writes) == 1
        await rig.outbox.put(answer(20))
        await rig.received(1)
        assert len(rig.writes) == 2
        nursery.cancel_scope.cancel()


async def test_a_write_takes_a_bounded_batch(autojump_clock):
    rig = Rig()
    for request_id in range(10):
        rig.outbox.put_at_once(answer(request_id, 100_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.outbox.run)
        await rig.received(10)
        nursery.cancel_scope.cancel()
    assert len(rig.writes) > 2
    assert max(rig.writes) < 450_000


async def test_putting_waits_while_too_much_is_queued_and_wakes_all_when_there_is_room(
    autojump_clock,
):
    rig = Rig(max_queued_bytes=50_000)
    done: list[int] = []

    async def put(request_id: int) -> None:
        await rig.outbox.put(answer(request_id, 30_000))
        done.append(request_id)

    async with trio.open_nursery() as nursery:
        for request_id in range(6):
            nursery.start_soon(put, request_id)
            await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 1]
        nursery.start_soon(rig.outbox.run)
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 1]  # the caller has read nothing yet
        got = await rig.received(6)
        assert sorted(message.request_id for message in got) == list(range(6))  # type: ignore[union-attr]
        await rig.outbox.wait_empty()
        assert rig.outbox._queued_bytes == 0
        nursery.cancel_scope.cancel()


async def test_a_sender_that_is_cancelled_while_it_waits_leaves_no_message(autojump_clock):
    rig = Rig(max_queued_bytes=1000)
    rig.outbox.put_at_once(answer(1, 5000))
    with trio.move_on_after(1) as scope:
        await rig.outbox.put(answer(2))
    assert scope.cancelled_caught
    assert len(rig.outbox._queue) == 1


async def test_the_reader_never_waits_but_gives_up_in_the_end():
    rig = Rig(max_queued_bytes=10)
    with pytest.raises(CallerNotReadingError):
        for _ in range(10_000):
            rig.outbox.put_at_once(HealthResponse())
    assert len(rig.outbox._queue) > 8000


async def test_what_waits_for_a_slow_caller_is_not_held_against_the_reader(autojump_clock):
    """A stream of single bytes has many small messages in line: its caller means no harm."""
    rig = Rig(max_queued_bytes=1 << 24)
    rig.opt_in()
    for sequence in range(10_000):
        await rig.outbox.put(StreamChunk(1, sequence, b"x"))
    for _ in range(2):
        for _ in range(8000):
            rig.outbox.put_at_once(KeepAlive(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.outbox.run)
            await rig.received(len(rig.outbox._queue))
            await rig.outbox.wait_empty()
            nursery.cancel_scope.cancel()


async def test_a_caller_that_takes_nothing_ends_the_writer_and_the_connection(autojump_clock):
    rig = Rig()
    rig.outbox.put_at_once(answer(1, 100_000))
    with pytest.raises(ChannelStalled):
        await rig.outbox.run()
    assert trio.current_time() == 30
    assert not rig.outbox.is_empty
    with pytest.raises(LocalProtocolError):
        rig.connection.send(answer(2))


async def test_one_that_takes_a_little_now_and_then_is_served(autojump_clock):
    rig = Rig()
    rig.outbox.put_at_once(answer(1, 20_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.outbox.run)
        got = 0
        while got < 20_000:
            await trio.sleep(20)
            got += len(await rig.caller.receive_some(4096))
        nursery.cancel_scope.cancel()
    assert trio.current_time() > 60


async def test_a_cut_writer_never_sends_again(autojump_clock):
    """Half a frame is on the wire: whatever followed it would be read as its rest."""
    rig = Rig()
    rig.outbox.put_at_once(answer(1, 100_000))
    with trio.move_on_after(5):
        await rig.outbox.run()
    assert not rig.connection.phase.name.startswith("BASE")


@pytest.mark.parametrize("size", [3000, 100_000])
async def test_an_answer_over_the_limit_is_told_in_its_place(size, autojump_clock):
    rig = Rig(max_frame_bytes=2048)
    message = ExecuteResponse(
        request_id=7,
        payload=[b"x" * size],
        duration_us=5,
        disposition=Disposition.COMPLETED,
        attempts=2,
    )
    rig.outbox.put_at_once(message)
    rig.outbox.put_at_once(answer(8))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.outbox.run)
        first, second = await rig.received(2)
        await rig.outbox.wait_empty()
        assert rig.outbox._queued_bytes == 0
        nursery.cancel_scope.cancel()
    assert first == ExecuteResponse(
        request_id=7,
        error_class=ErrorClass.PERMANENT,
        error_message="response exceeds the frame limit of 2048 bytes: use streaming",
        duration_us=5,
        disposition=Disposition.COMPLETED,
        attempts=2,
    )
    assert second.request_id == 8  # type: ignore[union-attr]


async def test_the_end_of_a_stream_is_told_though_it_cannot_be_written(autojump_clock, tmp_path):
    rig = Rig()
    rig.opt_in()
    trailers = [("a", "b")] * (MAX_HEADER_PAIRS + 1)
    end = StreamEnd(
        1,
        duration_us=5,
        disposition=Disposition.COMPLETED,
        attempts=2,
        trailers=trailers,
        total_bytes=9,
    )
    rig.outbox.put_at_once(end)
    with log_lines(tmp_path) as logged:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.outbox.run)
            (only,) = await rig.received(1)
            nursery.cancel_scope.cancel()
        (line,) = logged()
    assert only == StreamEnd(
        1,
        error_class=ErrorClass.PERMANENT,
        error_message="internal error",
        duration_us=5,
        disposition=Disposition.COMPLETED,
        attempts=2,
        total_bytes=9,
    )
    assert line["event"] == "internal error"


async def test_a_message_that_may_not_be_sent_is_a_bug_of_its_own_only(autojump_clock, tmp_path):
    rig = Rig()
    rig.outbox.put_at_once(CreditUpdate(total_credits=1))  # nobody has opted in
    rig.outbox.put_at_once(answer(1))
    with log_lines(tmp_path) as logged:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.outbox.run)
            (only,) = await rig.received(1)
            nursery.cancel_scope.cancel()
        (line,) = logged()
    assert only.request_id == 1  # type: ignore[union-attr]
    assert line["event"] == "internal error"


async def test_waiting_for_an_empty_outbox(autojump_clock):
    rig = Rig()
    await rig.outbox.wait_empty()
    rig.outbox.put_at_once(answer(1, 10_000))
    emptied: list[float] = []

    async def wait() -> None:
        await rig.outbox.wait_empty()
        emptied.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(rig.outbox.run)
        await trio.sleep(3)
        assert not emptied
        await rig.received(1)
        await trio.testing.wait_all_tasks_blocked()
        assert emptied == [3]
        nursery.cancel_scope.cancel()


class Tried(Counting):
    """A channel that can be tried, and notes what is sent by whom."""

    def __init__(self, channel: MemoryChannel, writes: list[int]) -> None:
        super().__init__(channel, writes)
        self.tries = 0

    def try_send(self, buffers):
        self.tries += 1
        return self._channel.try_send(buffers)


def tried(rig: Rig) -> Tried:
    channel = Tried(rig.channel, rig.writes)
    rig.outbox._channel = channel  # type: ignore[assignment]
    return channel


async def test_nobody_waits_for_what_was_discarded(autojump_clock):
    rig = Rig()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, trio.open_nursery() as writing:
            for request_id in range(10):
                rig.outbox.put_at_once(answer(request_id, 100_000))
            writing.start_soon(rig.outbox.run)
            nursery.start_soon(rig.outbox.wait_empty)
            await trio.testing.wait_all_tasks_blocked()
            writing.cancel_scope.cancel()  # the caller is gone, in the middle of a write
            rig.outbox.discard()
        await rig.outbox.wait_empty()


async def test_one_that_is_alone_is_sent_without_the_writer(autojump_clock):
    rig = Rig()
    channel = tried(rig)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.outbox.run)
        await trio.testing.wait_all_tasks_blocked()
        await rig.outbox.put(answer(1), is_alone=True)
        rig.outbox.put_at_once(answer(2))
        await rig.outbox.put(answer(3))  # it may be joined by others
        await rig.outbox.put(answer(4), is_alone=True)  # not past the one that waits
        assert (channel.tries, rig.writes) == (2, [])
        got = await rig.received(4)
        assert [message.request_id for message in got] == [1, 2, 3, 4]  # type: ignore[union-attr]
        assert (channel.tries, len(rig.writes)) == (2, 1)
        await rig.outbox.wait_empty()
        nursery.cancel_scope.cancel()


async def test_what_the_socket_does_not_take_at_once_is_sent_before_all_else(autojump_clock):
    rig = Rig()
    channel = tried(rig)
    rig.opt_in()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.outbox.run)
        await trio.testing.wait_all_tasks_blocked()
        await rig.outbox.put(answer(1, 10_000), is_alone=True)  # the pipe takes 4,096 bytes
        assert not rig.outbox.is_empty
        await rig.outbox.put(answer(2), is_alone=True)
        await rig.outbox.put(answer(3, 20_000))  # large ones go alone, where they can
        assert channel.tries == 1
        got = await rig.received(3)
        assert [len(message.payload) for message in got] == [10_000, 1, 20_000]  # type: ignore[union-attr,arg-type]
        await rig.outbox.wait_empty()
        await rig.outbox.put(answer(4, 20_000))
        assert channel.tries == 2
        await rig.received(1)
        nursery.cancel_scope.cancel()


async def test_a_try_that_fails_ends_the_writer(autojump_clock):
    rig = Rig()
    tried(rig)
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.outbox.run)
            await trio.testing.wait_all_tasks_blocked()
            rig.caller.abort()
            await rig.outbox.put(answer(1), is_alone=True)
            await rig.outbox.put(answer(2), is_alone=True)
            await trio.sleep_forever()
    with pytest.raises(LocalProtocolError, match="failed write"):
        rig.connection.send(answer(3))
