"""One connection: what breaks it is named, and what it writes."""

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left, connected, echo
from tests.support.client_streams import Wrapped, recording_dial, scripted
from vastar_client._entries import Entry
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import (
    ConnectionClosed,
    ConnectorException,
)
from vastar_client.request import GET
from vastar_client.testing import FakeRuntime
from vastar_client.wire import (
    Cancel,
    Connection,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    Role,
)


async def test_a_call_that_was_not_written_yet_fails_as_not_sent(autojump_clock):
    fake = FakeRuntime(echo)
    streams = []

    async def dial():
        streams.append(Wrapped(await fake.dial()))
        streams[-1].gate = trio.Event()
        return streams[-1]

    dispositions = {}
    async with AsyncRuntimeClient(dial=dial) as client, trio.open_nursery() as nursery:
        await connected(client)

        async def call(name):
            with pytest.raises(ConnectionClosed) as caught:
                await client.get(URL)
            dispositions[name] = caught.value.disposition

        nursery.start_soon(call, "being written")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, "waiting")
        await trio.testing.wait_all_tasks_blocked()
        fake.disconnect()
    assert dispositions == {
        "being written": Disposition.SENT_NO_RESPONSE,
        "waiting": Disposition.NOT_SENT,
    }


async def test_a_failed_write_ends_the_connection_even_when_reading_hangs(autojump_clock):
    fake = FakeRuntime(echo)
    dial, streams = recording_dial(fake)

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        streams[0].write_error = BrokenPipeError
        begin = trio.current_time()
        with pytest.raises(ConnectionClosed, match="the connection to the runtime broke"):
            await client.get(URL)
        assert trio.current_time() - begin == pytest.approx(1.0)
        assert (await client.get(URL)).ok
        assert len(streams) == 2


def frame(message, role=Role.RUNTIME):
    return b"".join(Connection(role).send(message))


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([], "the runtime closed the connection"),
        ([b"\0\0\0\0"], "broke the protocol.*length 0"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "broke the protocol.*exceeds the limit"),
        ([b"\0\0\0\x02\x63x"], "broke the protocol.*unknown message type 99"),
        ([b"\0\0\0\x02\x01x"], "broke the protocol"),
        ([b"\0\0"], "broke the protocol.*ended inside a frame"),
        ([b"\0\0\0\x02\0x"], "broke the protocol.*never sent by a runtime"),
        (
            [frame(ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "bad frame of length 7"))],
            "closed the connection; it had said: bad frame of length 7",
        ),
    ],
)
async def test_what_a_broken_runtime_sends_is_named(autojump_clock, chunks, reason):
    async with AsyncRuntimeClient(dial=scripted(*chunks)) as client:
        with pytest.raises(ConnectionClosed, match=reason) as caught:
            await client.get(URL)
        assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
        assert_nothing_is_left(client)


async def test_a_runtime_without_health_checks_says_so(autojump_clock):
    said = ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "Invalid FlatBuffers message")
    async with AsyncRuntimeClient(dial=scripted(frame(said))) as client:
        with pytest.raises(ConnectorException, match="does not answer health checks: Invalid Flat"):
            await client.health()


async def test_frames_that_are_ready_together_leave_in_one_write(autojump_clock):
    fake = FakeRuntime(echo)
    dial, streams = recording_dial(fake)

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        await client.execute_many([GET(URL)] * 100)
    assert len(fake.requests) == 100
    assert len(streams[0].sent) <= 3


async def test_a_large_body_is_not_copied(autojump_clock):
    body = bytes(1_000_000)
    fake = FakeRuntime(echo)
    dial, streams = recording_dial(fake)

    async with AsyncRuntimeClient(dial=dial) as client:
        assert (await client.put(URL, data=body)).body == body
    large = [item for item in streams[0].sent if len(item) >= len(body)]
    assert [item is body or item.obj is body for item in large] == [True]


async def test_calls_given_up_while_the_runtime_reads_nothing_leave_no_bodies(autojump_clock):
    """A runtime that is stopped would otherwise fill its clients with bodies that nobody wants."""
    fake = FakeRuntime(echo)
    dial, streams = recording_dial(fake)

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        streams[0].gate = trio.Event()
        for _ in range(10):
            with trio.move_on_after(1):
                await client.put(URL, data=bytes(100_000))
        for _ in range(10):
            with trio.move_on_after(1):
                await client.health()
        session = client._link._session
        assert not session._health
        assert [type(item) for item in session._outgoing._urgent] == [Cancel], (
            "of the one being written"
        )
        assert len(session._outgoing) == 1
        streams[0].gate.set()
        assert (await client.health()).healthy
        assert (await client.get(URL)).ok
        assert len(fake.requests) == 2
        assert_nothing_is_left(client)


class Trying(Wrapped):
    """A stream whose socket takes `room` bytes without waiting, and then no more."""

    def __init__(self, inner, room):
        super().__init__(inner)
        self.room = room
        self.tried = b""

    def try_send(self, item):
        if self.room is None:
            raise BrokenPipeError
        taken, self.room = min(len(item), self.room), max(0, self.room - len(item))
        self.tried += bytes(item[:taken])
        return taken

    async def send(self, item):
        await super().send(self.tried + bytes(item))
        self.tried = b""


def lined_up(client, count):
    """Entries of calls that wait for a push, and the session."""
    calls, link = client.for_threads()
    entries = [Entry(calls.http(GET(f"{URL}/{n}")).message) for n in range(count)]
    (session,) = {link.begin(entry) for entry in entries}
    return entries, session


@pytest.mark.parametrize("room", [None, 0, 1, 150])
async def test_what_a_push_cannot_send_the_writer_sends(autojump_clock, room):
    fake = FakeRuntime(echo)
    streams = []

    async def dial():
        streams.append(Trying(await fake.dial(), room))
        return streams[-1]

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        entries, session = lined_up(client, 3)
        session.push()
        more, _ = lined_up(client, 2)
        session.push()  # behind what is unsent
        assert len(streams[0].tried) == (room or 0)
        for entry in (*entries, *more):
            await entry.done.wait()
        urls = [call.url for call in fake.requests]
        assert urls == [f"{URL}/{n}" for n in (0, 1, 2, 0, 1)]
        assert_nothing_is_left(client)


async def test_a_push_while_the_writer_writes_is_left_to_it(autojump_clock):
    fake = FakeRuntime(echo)
    streams = []

    async def dial():
        streams.append(Trying(await fake.dial(), 10_000_000))
        streams[-1].gate = trio.Event()
        return streams[-1]

    async with AsyncRuntimeClient(dial=dial) as client, trio.open_nursery() as nursery:
        await connected(client)
        nursery.start_soon(client.get, URL)
        await trio.testing.wait_all_tasks_blocked()
        entries, session = lined_up(client, 1)
        session.push()
        assert streams[0].tried == b"", "it would come in the middle of a frame"
        streams[0].gate.set()
        await entries[0].done.wait()
    assert len(fake.requests) == 2
