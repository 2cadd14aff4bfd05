"""The simulator as an HTTP/1.1 server, and what it counts when clients leave."""

import json
from contextlib import nullcontext

import pytest
import trio
from trio.testing import MockClock

from tests.tools.simulator_client import CHAT, Client, asking, connect
from tools.llm_simulator import Knobs, Simulator
from tools.llm_simulator._http import HEAD_LIMIT_BYTES, BadRequestError, RequestReader

STREAM = asking("Count for me", stream=True)


def raw(nursery: trio.Nursery, simulator: Simulator | None = None) -> trio.abc.Stream:
    """A bare connection in memory."""
    return connect(nursery, simulator or Simulator()).stream


async def all_of(stream: trio.abc.Stream) -> bytes:
    """What comes until the end of the stream."""
    parts = []
    while part := await stream.receive_some(65_536):
        parts.append(part)
    return b"".join(parts)


async def test_keep_alive(nursery: trio.Nursery) -> None:
    """Streams, whole answers and errors follow each other on one connection."""
    simulator = Simulator()
    client = connect(nursery, simulator)
    for body in (STREAM, {}, b"{", asking("a", stream=False), STREAM):
        assert (await client.ask("POST", CHAT, body)).complete
    await trio.testing.wait_all_tasks_blocked()
    assert simulator.stats.connections_total == 1
    assert simulator.stats.finished == 5


async def test_pipelined_requests_are_answered_in_order(nursery: trio.Nursery) -> None:
    """Sent in one write, a stream among them."""
    stream = raw(nursery)
    body = json.dumps(STREAM).encode()
    await stream.send_all(
        b"GET /health HTTP/1.1\r\nhost: s\r\n\r\n"
        + b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
        + b"GET /v1/models HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n"
    )
    got = await all_of(stream)
    places = [got.index(mark) for mark in (b'"healthy"', b"[DONE]", b'"owned_by"')]
    assert places == sorted(places)
    assert got.count(b"HTTP/1.1 200 OK") == 3


async def test_requests_sent_during_a_stream_are_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The watcher reads them; they are answered when the stream has ended."""
    client = connect(nursery, Simulator(Knobs(event_delay_s=1)))
    await client.send("POST", CHAT, STREAM)
    await client.receive(parts=2)
    await client.stream.send_all(b"GET /v1/models HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n")
    rest = await all_of(client.stream)
    assert rest.index(b"[DONE]") < rest.index(b"owned_by")


async def test_byte_by_byte(nursery: trio.Nursery) -> None:
    """A request may arrive in any split."""
    stream = raw(nursery)
    body = json.dumps(asking("Bytes", stream=False)).encode()
    request = b"POST %b HTTP/1.1\r\nhost: s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    for byte in request % (CHAT.encode(), len(body), body):
        await stream.send_all(bytes([byte]))
    assert b'"chat.completion"' in await all_of(stream)


async def test_chunked_request_body_with_trailers(nursery: trio.Nursery) -> None:
    stream = raw(nursery)
    body = json.dumps(asking("Chunks", stream=False)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    await stream.send_all(head + chunks + b"0\r\nx-trailer: yes\r\n\r\n")
    await stream.send_all(b"GET /nothing HTTP/1.1\r\nconnection: close\r\n\r\n")
    got = await all_of(stream)
    assert b'"chat.completion"' in got
    assert b"404 Not Found" in got


async def test_expect_continue(nursery: trio.Nursery) -> None:
    """The body is asked for before it is waited for."""
    stream = raw(nursery)
    head = b"POST /test_completion HTTP/1.1\r\nhost: s\r\ncontent-length: 2\r\n"
    await stream.send_all(head + b"expect: 100-continue\r\n\r\n")
    assert await stream.receive_some(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await stream.send_all(b"{}")
    assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(nursery: trio.Nursery) -> None:
    stream = raw(nursery)
    await stream.send_all(b"POST /v1/chat/completions HTTP/1.0\r\n\r\n")
    head, _, body = (await all_of(stream)).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"connection: close" in head
    assert body.startswith(b"data: {")
    assert body.endswith(b"}\n\n")


async def test_an_upgrade_is_ignored(nursery: trio.Nursery) -> None:
    """Clients offer h2c in the middle of ordinary requests."""
    stream = raw(nursery)
    offer = b"GET /health HTTP/1.1\r\nhost: s\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    await stream.send_all(offer + offer)
    await stream.send_all(b"GET /nothing HTTP/1.1\r\nconnection: close\r\n\r\n")
    got = await all_of(stream)
    assert got.count(b"200 OK") == 2
    assert got.count(b"404 Not Found") == 1


async def test_absolute_form_and_query(nursery: trio.Nursery) -> None:
    """As a proxy would send it."""
    client = connect(nursery, Simulator())
    assert (await client.ask("GET", "http://other.example:80/health?x=1")).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS by mistake\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET http://[x/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nx: " + b"a" * (HEAD_LIMIT_BYTES + 1), 431),
    ],
)
async def test_what_is_no_request_is_refused_and_closed(
    nursery: trio.Nursery, sent: bytes, status: int
) -> None:
    stream = raw(nursery)
    await stream.send_all(sent)
    got = await all_of(stream)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in got


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
@pytest.mark.parametrize(("length", "refused"), [(10, False), (11, True), (500, True)])
def test_a_body_over_the_limit_is_refused(length: int, refused: bool, piece_bytes: int) -> None:
    """By the bytes that came, whether or not the request is complete with them."""
    reader = RequestReader(body_limit_bytes=10)
    sent = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (length, bytes(length))
    with pytest.raises(BadRequestError) if refused else nullcontext() as caught:
        for start in range(0, len(sent), piece_bytes):
            reader.feed(sent[start : start + piece_bytes])
    if refused:
        assert caught.value.status == 413
    else:
        assert reader.ready.popleft().body == bytes(length)


async def test_a_disconnect_stops_the_stream_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """In the middle of a delay: nothing more is made, and it is counted once."""
    simulator = Simulator()
    client = connect(nursery, simulator)
    await client.send("POST", CHAT, STREAM, {"x-sim-event-delay-s": "100"})
    await client.receive(parts=3)
    assert (simulator.stats.active_streams, simulator.stats.connections_open) == (1, 1)
    left_at_s = trio.current_time()
    await client.leave()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == left_at_s
    stats = simulator.stats
    assert (stats.active_streams, stats.active_requests, stats.connections_open) == (0, 0, 0)
    assert (stats.cut_by_client, stats.streams_cut_by_client, stats.finished) == (1, 1, 0)
    assert stats.events_sent == 3


async def test_a_half_close_counts_as_leaving(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    simulator = Simulator(Knobs(event_delay_s=100))
    client = connect(nursery, simulator)
    await client.send("POST", CHAT, STREAM)
    await client.receive(parts=1)
    assert isinstance(client.stream, trio.StapledStream)
    await client.stream.send_eof()
    assert not (await client.receive()).complete
    assert simulator.stats.streams_cut_by_client == 1


async def test_a_client_that_leaves_while_a_send_waits(nursery: trio.Nursery) -> None:
    """A stream that nobody reads is stuck in a send; the disconnect ends that too."""
    simulator = Simulator()
    ours, theirs = trio.testing.lockstep_stream_pair()
    nursery.start_soon(simulator.serve_stream, theirs)
    client = Client(ours)
    await client.send("POST", CHAT, STREAM)
    await trio.testing.wait_all_tasks_blocked()
    assert simulator.stats.active_streams == 1
    await client.leave()
    await trio.testing.wait_all_tasks_blocked()
    assert (simulator.stats.active_streams, simulator.stats.streams_cut_by_client) == (0, 1)


async def test_a_client_that_leaves_while_a_plain_answer_is_sent(nursery: trio.Nursery) -> None:
    simulator = Simulator()
    ours, theirs = trio.testing.lockstep_stream_pair()
    nursery.start_soon(simulator.serve_stream, theirs)
    client = Client(ours)
    await client.send("POST", "/test_completion")
    await trio.testing.wait_all_tasks_blocked()
    await client.leave()
    await trio.testing.wait_all_tasks_blocked()
    assert (simulator.stats.cut_by_client, simulator.stats.connections_open) == (1, 0)


async def test_the_simulator_s_own_end_is_nobody_s_leaving(autojump_clock: MockClock) -> None:
    """Cancelled from outside, a stream is neither finished nor cut by its client."""
    simulator = Simulator(Knobs(event_delay_s=1))
    async with trio.open_nursery() as nursery:
        client = connect(nursery, simulator)
        await client.send("POST", CHAT, STREAM)
        await client.receive(parts=1)
        nursery.cancel_scope.cancel()
    stats = simulator.stats
    assert (stats.cut_by_client, stats.streams_cut_by_client, stats.finished) == (0, 0, 0)
    assert (stats.active_streams, stats.active_requests, stats.connections_open) == (0, 0, 0)


async def test_stats_are_served(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """What later tests ask over HTTP; asking is not counted itself."""
    simulator = Simulator()
    client = connect(nursery, simulator)
    finished = await client.ask("POST", CHAT, STREAM)
    slow = connect(nursery, simulator)
    await slow.send("POST", CHAT, STREAM, {"x-sim-event-delay-s": "100"})
    await slow.receive(parts=2)
    await client.ask("GET", "/nothing")
    await trio.testing.wait_all_tasks_blocked()
    assert (await client.ask("GET", "/_sim/stats")).json() == {
        "connections_open": 2,
        "connections_total": 2,
        "requests": 3,
        "active_requests": 1,
        "active_streams": 1,
        "finished": 2,
        "streams_finished": 1,
        "cut_by_client": 0,
        "streams_cut_by_client": 0,
        "cut_by_knob": 0,
        "events_sent": len(finished.events) + 2,
    }
