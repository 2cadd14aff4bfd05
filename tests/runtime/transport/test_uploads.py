"""Bodies that are still being made while they are sent: exact, live, stopped early, cut off."""

import json
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from tests.runtime.transport.conftest import SCOPE, House, make_request
from tests.support.http_bodies import ScriptedBody, Step
from tests.support.upstream import serve_upstream
from vastar_client.wire.enums import Disposition
from vastar_runtime.transport import (
    BodyAborted,
    FaultKind,
    HttpTransport,
    Phase,
    Progress,
    StreamedBody,
    TransportError,
)
from vastar_runtime.transport.channel import SocketChannel
from vastar_runtime.transport.fake import Close, Request, Reset, Script, Send, Serve, Wait
from vastar_runtime.transport.memory import MemoryChannel

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MB = [bytes(50_000)] * 20
Hosts = Callable[..., None]


def sizes(steps: Sequence[Step]) -> int:
    return sum(len(step) for step in steps if isinstance(step, bytes))


class Taken:
    """An upstream that takes all, and what it got when; see `ends` for how it saw the end."""

    def __init__(self, *, every_s: float = 0, piece_bytes: int = 65536) -> None:
        self.every_s = every_s
        self.piece_bytes = piece_bytes
        self.pieces: list[tuple[float, bytes]] = []
        self.ended_at_s: float | None = None

    async def __call__(self, channel: MemoryChannel) -> None:
        while True:
            await trio.sleep(self.every_s)
            piece = await channel.receive_some(self.piece_bytes)
            if not piece:
                self.ended_at_s = trio.current_time()
                return
            self.pieces.append((trio.current_time(), piece))

    @property
    def wire(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


# Whole.


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [b"abc"],
        [b"a", 1.0, b"b" * 65536, 1.0, b"c"],
        MB,
    ],
    ids=["empty", "one piece", "with waits", "a megabyte"],
)
async def test_a_streamed_body_arrives_whole_and_the_connection_is_kept(
    house: House, steps: list[Step], *, is_counted: bool
) -> None:
    body = ScriptedBody(steps, sizes(steps) if is_counted else None)
    _, text = await house.fetch("/echo", method=b"POST", body=body)
    answer = json.loads(text)
    assert answer["len"] == sizes(steps)
    assert answer["body"] == b"".join(s for s in steps if isinstance(s, bytes)).decode()
    framing = (
        ["content-length", str(sizes(steps))] if is_counted else ["transfer-encoding", "chunked"]
    )
    assert [pair for pair in answer["headers"] if pair[0] != "host"] == [framing]
    assert house.progress.request_sent
    assert house.progress.disposition is Disposition.COMPLETED
    await house.fetch("/small")
    assert house.progress.reused
    house.check_nothing_is_left()


async def test_each_piece_leaves_when_it_is_made(house: House, serve: Hosts) -> None:
    serve(Serve(taken := Taken()))
    body = ScriptedBody([1.0, b"ab", 2.0, b"cd", 3.0])
    with trio.move_on_after(10):
        await house.fetch(host="other.test", method=b"PUT", body=body)
    head = b"PUT /small HTTP/1.1\r\nhost: other.test\r\ntransfer-encoding: chunked\r\n\r\n"
    assert taken.pieces == [
        (0, head),
        (1, b"2\r\nab\r\n"),
        (3, b"2\r\ncd\r\n"),
        (6, b"0\r\n\r\n"),
    ]
    assert house.progress.request_sent


async def test_a_slow_upstream_slows_the_maker(house: House, serve: Hosts) -> None:
    serve(Serve(taken := Taken(every_s=1, piece_bytes=1000), capacity_bytes=2000))
    body = ScriptedBody([bytes(10_000)] * 1000)
    async with trio.open_nursery() as nursery:
        request = {"host": "other.test", "method": b"POST", "body": body}
        nursery.start_soon(lambda: house.fetch(**request))
        for now_s in (0.5, 100.5, 200.5):
            await trio.sleep_until(now_s)
            assert body.made_bytes <= len(taken.wire) + 2000 + 10_000
        nursery.cancel_scope.cancel()
    assert body.made_bytes > 190_000


# Answered early.


def early(status: int, rest: bytes = b"") -> list[Send | Wait]:
    """An answer after a second, its body a second later."""
    head = b"HTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\n" % status
    return [Wait(1), Send(head), Wait(1), Send(b"no!" + rest)]


@pytest.mark.parametrize("end", [Close(), Reset(), Wait()])
@pytest.mark.parametrize("steps", [[b"a", 50.0, b"b"], MB], ids=["source waits", "socket is full"])
@pytest.mark.parametrize("status", [307, 401, 413, 503])
async def test_an_early_answer_stops_the_sending_and_is_read(
    house: House, serve: Hosts, status: int, steps: list[Step], end: Close | Reset | Wait
) -> None:
    serve(Script([*early(status), Wait(1), end]))
    body = ScriptedBody(steps)
    async with await house.ask(host="other.test", method=b"POST", body=body) as response:
        assert (trio.current_time(), response.status) == (1, status)
        made_bytes = body.made_bytes
        assert await response.read_all() == b"no!"
        assert trio.current_time() == 2
    assert body.made_bytes == made_bytes < sizes(steps)
    assert not house.progress.request_sent
    assert house.progress.disposition is Disposition.COMPLETED
    assert house.counts == (0, 0, 0), "half a request is on the connection"
    house.check_nothing_is_left()


async def test_an_early_success_waits_for_the_body(house: House, serve: Hosts) -> None:
    serve(Script([*early(200)[:2], Request(), Send(b"yes"), Wait()]))
    body = ScriptedBody([b"a", 5.0, b"b"])
    async with await house.ask(host="other.test", method=b"POST", body=body) as response:
        assert trio.current_time() == 5
        assert house.progress.request_sent
        assert await response.read_all() == b"yes"
    assert house.counts == (0, 1, 0)


async def test_an_upstream_that_leaves_while_the_maker_is_waited_for(
    house: House, serve: Hosts
) -> None:
    serve(Script([Wait(1), Close()]))
    body = ScriptedBody([b"a", 50.0, b"b"])
    with pytest.raises(TransportError, match="closed before the response") as caught:
        await house.fetch(host="other.test", method=b"POST", body=body)
    assert trio.current_time() == 1
    assert (caught.value.phase, caught.value.kind) == (Phase.SEND, FaultKind.RESET)
    assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
    house.check_nothing_is_left()


# The maker fails.

GAVE_UP = BodyAborted("the caller cancelled the upload")
FAULTS: list[tuple[list[Step], int | None, str]] = [
    ([b"abc", 1.0], 4, "the request body ended short: 3 of 4 bytes"),
    ([b"abc", 1.0, b"de"], 4, "the request body is longer than the 4 bytes declared"),
    ([b"abc", 1.0, b"d", b"e"], 4, "the request body is longer than the 4 bytes declared"),
    ([b"abc", 1.0, GAVE_UP], None, "the caller cancelled the upload"),
    ([b"abc", 1.0, GAVE_UP], 4, "the caller cancelled the upload"),
    ([b"abc", 1.0, GAVE_UP], 3, "the caller cancelled the upload"),
]


@pytest.mark.parametrize("is_reused", [True, False])
@pytest.mark.parametrize(("steps", "length", "words"), FAULTS)
async def test_a_body_that_fails_is_the_callers_fault_and_ends_the_connection(
    house: House,
    serve: Hosts,
    steps: list[Step],
    length: int | None,
    words: str,
    *,
    is_reused: bool,
) -> None:
    taken = Taken()

    async def answer_once(channel: MemoryChannel) -> None:
        if is_reused:
            await Script([Request(), Send(OK)])(channel)
        await taken(channel)

    serve(Serve(answer_once))
    if is_reused:
        await house.fetch(host="other.test")
    with pytest.raises(TransportError, match=words) as caught:
        await house.fetch(host="other.test", method=b"PUT", body=ScriptedBody(steps, length))
    assert trio.current_time() == 1
    assert (caught.value.kind, caught.value.phase) == (FaultKind.LOCAL, Phase.SEND)
    assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
    await trio.testing.wait_all_tasks_blocked()
    assert taken.ended_at_s == 1
    assert len(house.network.connected) == 1, "nobody else would fare better"
    sent = taken.wire.partition(b"\r\n\r\n")[2]
    assert sent == {None: b"3\r\nabc\r\n", 3: b"", 4: b"abc"}[length]
    house.check_nothing_is_left()
    assert house.counts == (0, 0, 0)


async def test_a_maker_that_fails_behind_an_early_success(house: House, serve: Hosts) -> None:
    serve(Script([*early(200), Wait()]))
    body = ScriptedBody([b"a", 1.5, GAVE_UP])
    with pytest.raises(TransportError, match="cancelled the upload") as caught:
        await house.fetch(host="other.test", method=b"POST", body=body)
    assert trio.current_time() == 1.5
    assert caught.value.disposition is Disposition.RESPONSE_STARTED
    house.check_nothing_is_left()


# Sent again.

DIES: dict[str, Close | Reset] = {"closed": Close(), "reset": Reset()}


@pytest.mark.parametrize("end", DIES)
@pytest.mark.parametrize(
    ("count", "method", "again"),
    [(1, b"PUT", True), (6, b"PUT", True), (7, b"PUT", False), (1, b"POST", False)],
)
async def test_a_dead_idle_connection_is_replaced_while_the_body_can_be_rewound(
    house: House, serve: Hosts, end: str, count: int, method: bytes, *, again: bool
) -> None:
    steps = [b"x" * 10_000] * count
    serve(Script([Request(), Send(OK), Request(), DIES[end]]))
    await house.fetch(host="other.test")
    body = ScriptedBody(steps)
    if again:
        await house.fetch(host="other.test", method=method, body=body)
        assert body.consumed_bytes == sizes(steps)
    else:
        with pytest.raises(TransportError):
            await house.fetch(host="other.test", method=method, body=body)
    assert house.progress.resent is again
    assert len(house.network.connected) == 1 + again
    house.check_nothing_is_left()


async def test_a_connection_found_dead_at_the_head_costs_the_body_nothing(
    house: House, serve: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(Script([Request(), Send(OK), Close()]))
    await house.fetch(host="other.test")
    await trio.sleep(1)
    monkeypatch.setattr(MemoryChannel, "is_readable", lambda self: False)
    body = ScriptedBody(MB)
    assert (await house.fetch(host="other.test", method=b"POST", body=body))[0] == 200
    assert house.progress.resent
    assert len(house.network.connected) == 2


async def test_the_same_request_again_starts_from_the_start(house: House) -> None:
    for steps, can in (([b"abc", b"de"], True), ([bytes(65536)], True), (MB, False)):
        body = ScriptedBody(steps)
        await house.fetch("/echo", method=b"POST", body=body)
        if can:
            answer = json.loads((await house.fetch("/echo", method=b"POST", body=body))[1])
            assert answer["len"] == sizes(steps)
            continue
        with pytest.raises(TransportError, match="body cannot be sent again") as caught:
            await house.fetch("/echo", method=b"POST", body=body)
        assert caught.value.kind is FaultKind.LOCAL
        assert caught.value.disposition is Disposition.NOT_SENT
    house.check_nothing_is_left()


# Cut off.


@pytest.mark.parametrize("steps", [[b"a", 50.0], MB], ids=["source waits", "socket is full"])
@pytest.mark.parametrize("is_closed", [True, False], ids=["transport closed", "cancelled"])
async def test_the_upstream_sees_the_end_of_an_upload_at_once(
    house: House, serve: Hosts, steps: list[Step], *, is_closed: bool
) -> None:
    saw: list[float] = []

    async def look(channel: MemoryChannel) -> None:
        await channel.wait_hangup()
        saw.append(trio.current_time())

    serve(Serve(look))
    failures = []

    async def call() -> None:
        try:
            await house.fetch(host="other.test", method=b"POST", body=ScriptedBody(steps))
        except TransportError as error:
            failures.append(error.cause)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.sleep(3)
        if is_closed:
            await house.transport.aclose()
        else:
            nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert (trio.current_time(), saw) == (3, [3])
    assert failures == ["the transport was closed"] * is_closed
    house.check_nothing_is_left()


async def test_the_upstream_sees_the_end_of_a_download_at_once(house: House) -> None:
    async with await house.ask("/drip?n=50&gap=1000") as response:
        await response.read_some()
        await trio.sleep(2.5)
        response.abort()
        seen = await house.upstream.wait_for("client_closed_while_busy")
    assert seen["t"] == trio.current_time()
    house.check_nothing_is_left()


# On real sockets.


async def test_real_streamed_upload_of_many_megabytes() -> None:
    transport = HttpTransport(environ={})
    async with serve_upstream() as upstream:
        progress = Progress()
        for length in (None, 10_000_000):
            body = ScriptedBody([bytes(65536)] * 152 + [bytes(38528)], length)
            request = make_request(
                "/echo", host="127.0.0.1", port=upstream.port, method=b"POST", body=body
            )
            async with await transport.request(SCOPE, request, progress) as response:
                assert json.loads(await response.read_all())["len"] == 10_000_000
        assert len(upstream.seen("conn_open")) == 1
        await transport.aclose()


async def test_real_early_refusal_of_a_streamed_upload() -> None:
    """The upstream answers, stops reading and closes: a reset chases the answer."""

    async def refuse(listener: trio.SocketListener) -> None:
        stream = await listener.accept()
        channel = SocketChannel(stream.socket._sock)
        await channel.receive_some(1000)
        await channel.send_buffers([b"HTTP/1.1 413 X\r\nContent-Length: 3\r\n\r\nno!"])
        await channel.aclose()

    async def receive() -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(65536)

    transport = HttpTransport(environ={})
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(refuse, listener)
        port = listener.socket.getsockname()[1]
        body = StreamedBody(receive)
        request = make_request(host="127.0.0.1", port=port, method=b"POST", body=body)
        async with await transport.request(SCOPE, request, Progress()) as response:
            assert response.status == 413
            assert await response.read_all() == b"no!"
    await transport.aclose()
