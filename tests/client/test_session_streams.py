"""Streams on one connection: order and credit, which a broken runtime does not keep."""

import re
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left
from tests.support.client_peer import ManualPeer, entered
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import ConnectionClosed, ConnectorException
from vastar_client.wire import (
    Cancel,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    Goaway,
    KeepAlive,
    StreamChunk,
    StreamEnd,
    StreamStart,
)

WINDOW = 65_536
CONNECTION_WINDOW = 1_048_576


@pytest.fixture
async def peer():
    return ManualPeer()


@pytest.fixture
async def client(peer):
    async with AsyncRuntimeClient(dial=peer.dial) as one:
        yield one


settle = trio.testing.wait_all_tasks_blocked


async def read_all(client, got=None):
    """Read one stream; what came of it goes to `got`."""
    got = [] if got is None else got
    async with client.stream("GET", URL) as response:
        async for data in response.iter_bytes():
            got.append(data)
    return got


VIOLATIONS = {
    "a chunk before the head": (
        lambda i: [StreamChunk(i, 0, b"x")],
        r"a StreamChunk came before the StreamStart \(request \d+\)",
    ),
    "two heads": (
        lambda i: [StreamStart(i, 200), StreamStart(i, 200)],
        "a second StreamStart came",
    ),
    "a chunk left out": (
        lambda i: [StreamStart(i, 200), StreamChunk(i, 0, b"x"), StreamChunk(i, 2, b"x")],
        "StreamChunk 2 came where 1 was due",
    ),
    "a chunk again": (
        lambda i: [StreamStart(i, 200), StreamChunk(i, 0, b"x"), StreamChunk(i, 0, b"x")],
        "StreamChunk 0 came where 1 was due",
    ),
    "more than the window": (
        lambda i: [
            StreamStart(i, 200),
            StreamChunk(i, 0, bytes(WINDOW)),
            StreamChunk(i, 1, b"x"),
        ],
        "1 bytes of stream data came where 0 were granted",
    ),
    "an end that is no failure, without a head": (
        lambda i: [StreamEnd(i)],
        "a stream ended well without a head",
    ),
    "an answer that is no stream": (
        lambda i: [StreamStart(i, 200), ExecuteResponse(i, payload=b"{}")],
        "a stream ended well without a head",
    ),
    "a head for nobody": (
        lambda i: [StreamStart(i + 1, 200)],
        r"a StreamStart came for request \d+, that has ended, or never was one",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_what_is_out_of_order_costs_the_connection(peer, client, autojump_clock, name):
    """All that wait are told; what came before it can still be read."""
    make, reason = VIOLATIONS[name]
    errors = []

    async def fails(call):
        with pytest.raises(ConnectionClosed, match="broke the protocol, so its connection") as e:
            await call
        errors.append(e.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, client.get(URL))
        await settle()
        nursery.start_soon(fails, read_all(client))
        await settle()
        peer.say(*make(peer.request_id))
    assert len(errors) == 2
    for error in errors:
        assert re.search(reason, error.message), error.message
        assert error.is_retryable()
    assert_nothing_is_left(client)


@pytest.mark.parametrize("kind", [StreamStart, StreamChunk, StreamEnd])
async def test_frames_of_streams_for_a_call_that_is_none_cost_it_too(
    peer, client, autojump_clock, kind
):
    await client.health()  # which allows the peer more than answers
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call():
            with pytest.raises(ConnectionClosed, match=rf"a {kind.__name__} came .* is no stream"):
                await client.get(URL)

        await settle()
        peer.say(kind(peer.request_id))


@pytest.mark.parametrize("kind", [StreamStart, StreamChunk, StreamEnd])
async def test_nothing_comes_behind_the_end(peer, client, autojump_clock, kind):
    got = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, client, got)
        await settle()
        request_id = peer.request_id
        peer.start()
        peer.chunk(b"all", 0)
        peer.end()
    assert got == [b"all"]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def other():
            with pytest.raises(ConnectionClosed, match=f"for request {request_id}, that has ended"):
                await read_all(client)

        await settle()
        peer.say(kind(request_id))


async def test_a_failure_may_be_the_only_frame(peer, client, autojump_clock):
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call():
            with pytest.raises(ConnectorException, match="refused") as caught:
                await read_all(client)
            error = caught.value
            assert error.error_class is ErrorClass.RATE_LIMITED
            assert error.disposition is Disposition.NOT_SENT
            assert (error.retry_after_ms, error.attempts) == (70, 2)
            assert error.request_id == peer.request_id

        await settle()
        peer.end(
            ErrorClass.RATE_LIMITED,
            "refused",
            disposition=Disposition.NOT_SENT,
            retry_after_ms=70,
            attempts=2,
        )
    assert_nothing_is_left(client)


async def test_a_request_that_cannot_be_read_is_answered_as_a_call_is(peer, client, autojump_clock):
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call():
            with pytest.raises(ConnectorException, match="no FlatBuffers message"):
                await read_all(client)

        await settle()
        peer.answer(
            None, error_class=ErrorClass.INVALID_REQUEST, error_message="no FlatBuffers message"
        )
    assert_nothing_is_left(client)


async def test_what_came_before_a_lost_connection_is_read_first(peer, client, autojump_clock):
    got = []

    async def call():
        with pytest.raises(ConnectionClosed, match="the runtime closed the connection") as caught:
            await read_all(client, got)
        assert caught.value.disposition is Disposition.RESPONSE_STARTED

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await settle()
        peer.start()
        peer.chunk(b"some", 0)
        peer.hang_up()
    assert got == [b"some"]
    assert_nothing_is_left(client)


async def test_empty_chunks_cost_nothing(peer, client, autojump_clock):
    got = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, client, got)
        await settle()
        peer.start()
        for sequence in range(5):
            peer.chunk(b"", sequence)
        peer.chunk(None, 5)
        peer.chunk(b"x", 6)
        peer.end()
    assert got == [b"x"]


# Credit


def grants(peer):
    """The credit that the client has given so far, for streams and for the connection."""
    credits_ = peer.all_of(CreditUpdate)
    assert all(bool(c.request_id) == bool(c.credit_delta) for c in credits_)
    return (
        [c.credit_delta for c in credits_ if c.request_id],
        [c.connection_bytes for c in credits_ if c.connection_bytes],
    )


async def test_credit_of_a_stream_comes_back_at_half_as_it_is_read(peer, client, autojump_clock):
    async with entered(peer, client.stream("GET", URL)) as response:
        parts = response.iter_bytes()
        for sequence in range(4):
            peer.chunk(bytes(WINDOW // 4), sequence)
        await settle()
        assert grants(peer) == ([], []), "nothing was read"
        await anext(parts)
        await settle()
        assert grants(peer) == ([], []), "a quarter was read"
        await anext(parts)
        await settle()
        assert grants(peer) == ([WINDOW // 2], [])
        assert {c.request_id for c in peer.all_of(CreditUpdate)} == {peer.request_id}
        peer.chunk(bytes(WINDOW // 2), 4)
        peer.end()
        await settle()
        assert [len(part) async for part in parts] == [WINDOW // 4, WINDOW // 4, WINDOW // 2]
    await settle()
    assert grants(peer) == ([WINDOW // 2], []), "nothing for a stream that has ended"
    assert_nothing_is_left(client)


async def test_credit_of_the_connection_comes_back_as_data_arrives(peer, client, autojump_clock):
    """Sixteen readers that stand still fill their windows, and the seventeenth still gets its."""
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(entered(peer, client.stream("GET", URL)))
            for sequence in range(4):
                peer.chunk(bytes(WINDOW // 4), sequence)
        await settle()
        assert grants(peer) == ([], [CONNECTION_WINDOW // 2] * 2)
        async with entered(peer, client.stream("GET", URL)) as response:
            peer.chunk(b"mine", 0)
            assert await anext(response.iter_bytes()) == b"mine"


async def test_more_than_the_window_of_the_connection_is_noticed(peer, client, autojump_clock):
    """It cannot be more than its streams may have but where nobody was told of the credit."""
    async with entered(peer, client.stream("GET", URL)) as response:
        client._link._session._window.left_bytes = 10
        peer.chunk(bytes(11), 0)
        with pytest.raises(ConnectionClosed, match="11 bytes of stream data came where 10 were"):
            await response.aread()


async def test_what_comes_of_a_stream_that_was_left_is_dropped_and_counted(
    peer, client, autojump_clock
):
    async with entered(peer, client.stream("GET", URL)):
        peer.chunk(bytes(WINDOW // 2), 0)
        await settle()
    await settle()
    assert peer.all_of(Cancel) == [Cancel(peer.request_id)]
    session = client._link._session
    assert (session._late, session._pending) == ({peer.request_id}, {})
    assert client._link._slots.value == 255, "the runtime is still busy with it"
    for sequence in range(1, 32):
        peer.chunk(bytes(WINDOW // 2), sequence)
    await settle()
    assert grants(peer) == ([], [CONNECTION_WINDOW // 2] * 2)
    peer.end(ErrorClass.PERMANENT, "cancelled by caller")
    await settle()
    assert_nothing_is_left(client)


@pytest.mark.parametrize("final", ["end", "answer"])
async def test_a_stream_that_was_left_before_its_head(peer, client, autojump_clock, final):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, client)
        await settle()
        nursery.cancel_scope.cancel()
    await settle()
    assert peer.all_of(Cancel) == [Cancel(peer.request_id)]
    if final == "end":
        peer.start()
        peer.end()
    else:
        peer.answer(None, error_class=ErrorClass.INVALID_REQUEST, error_message="no")
    await settle()
    assert_nothing_is_left(client)


async def test_a_slot_is_free_with_the_end_though_nobody_has_read_it(peer, client, autojump_clock):
    async with entered(peer, client.stream("GET", URL)) as response:
        peer.chunk(b"x", 0)
        peer.end()
        await settle()
        assert_nothing_is_left(client)
        assert response.has_ended
        assert await response.aread() == b"x"
    assert peer.all_of(Cancel) == []


# What else may come


async def test_keepalives_and_foreign_credit_are_taken(peer, client, autojump_clock):
    async with entered(peer, client.stream("GET", URL)) as response:
        for request_id in (peer.request_id, 5):
            peer.say(KeepAlive(request_id), CreditUpdate(7, request_id=request_id))
        peer.chunk(b"x", 0)
        peer.end()
        assert await response.aread() == b"x"


async def test_a_goodbye_explains_the_end_behind_it(peer, client, autojump_clock):
    async with entered(peer, client.stream("GET", URL)) as response:
        peer.chunk(bytes(WINDOW // 2), 0)
        assert len(await anext(response.iter_bytes())) == WINDOW // 2
        await settle()  # the credit for it allows a goodbye
        peer.say(Goaway("draining", 30_000), Goaway())
        peer.say(Goaway("draining", 30_000))
        peer.hang_up()
        with pytest.raises(ConnectionClosed, match="it had said: it is leaving: draining"):
            await response.aread()


async def test_windows_that_overflow_cost_the_connection(peer, client, autojump_clock):
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call():
            with pytest.raises(ConnectionClosed, match="a window of more than 2147483647 bytes"):
                await read_all(client)

        await settle()
        peer.say(CreditUpdate(connection_bytes=2**31 - 1, request_id=5))
