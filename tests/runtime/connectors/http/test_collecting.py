"""From pieces to one bounded answer, with a scripted response in place of the transport."""

import gzip

import pytest
import trio

from tests.support.sessions import request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.http.collecting import (
    AnswerTooLarge,
    collect,
    discard,
)
from vastar_runtime.connectors.http.decoding import BadContent
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.transport import BodyTooLarge, Phase, Progress, TransportError

LIMIT_BYTES = 2000
EVENTS = (b"content-type", b"text/event-stream")


class Response:
    """What an upstream would have sent: pieces, pauses (numbers) and a fault."""

    status = 200
    http_version = "1.1"

    def __init__(self, *steps: bytes | float | Exception, headers=()) -> None:
        self.headers = list(headers)
        self.steps = list(steps)

    async def read_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, bytes):
                return step
            if isinstance(step, Exception):
                raise step
            await trio.sleep(step)
        return b""

    async def read_all(self, max_bytes: int) -> bytes:
        got = b""
        while piece := await self.read_some():
            got += piece
            if len(got) > max_bytes:
                raise BodyTooLarge(max_bytes)
        return got


def call() -> Call:
    deadline = Deadline(trio.current_time() + 30, 30, Limit.DEFAULT)
    return Call(request(1), Caller(), deadline, LIMIT_BYTES)


class Told:
    """A witness that keeps what it is told."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.events: list[str] = []

    def saw(self, data: bytes) -> None:
        assert data
        self.pieces.append(data)

    def saw_event(self, data: str) -> None:
        self.events.append(data)


async def collected(made: Call, response: Response, *, decode_content: bool = True) -> bytes:
    answer = await collect(made, response, "http://h/", Told(), decode_content=decode_content)  # type: ignore[arg-type]
    return b"".join(map(bytes, answer.body))


def fault() -> TransportError:
    progress = Progress(phase=Phase.BODY, request_begun=True, response_started=True)
    return TransportError.at(progress, "h:80", "connection reset")


async def test_pieces_are_kept_as_they_come(autojump_clock):
    made = call()
    first, second = b"x" * 10, b"y" * 10
    told = Told()
    response = Response(first, second)
    answer = await collect(made, response, "http://h/", told, decode_content=True)  # type: ignore[arg-type]
    assert (told.pieces, told.events) == ([first, second], [])
    assert [piece is given for piece, given in zip(answer.body, (first, second), strict=True)] == [
        True,
        True,
    ]
    assert made.received_bytes == 20


async def test_the_limit_is_exact_and_what_is_behind_it_is_not_read(autojump_clock):
    assert len(await collected(call(), Response(b"x" * LIMIT_BYTES))) == LIMIT_BYTES
    response = Response(b"x" * LIMIT_BYTES, b"y", b"never read")
    with pytest.raises(AnswerTooLarge):
        await collected(call(), response)
    assert response.steps == [b"never read"]


async def test_the_limit_is_of_the_decoded_body(autojump_clock):
    gzipped = Response(gzip.compress(bytes(100_000)), headers=[(b"content-encoding", b"gzip")])
    with pytest.raises(AnswerTooLarge):
        await collected(call(), gzipped)


async def test_faults_pass_through(autojump_clock):
    with pytest.raises(TransportError):
        await collected(call(), Response(b"x", fault()))
    spoiled = Response(b"no gzip", headers=[(b"content-encoding", b"gzip")])
    with pytest.raises(BadContent):
        await collected(call(), spoiled)


async def test_done_ends_it_but_waits_a_moment_for_the_end(autojump_clock):
    made = call()
    response = Response(b"data: [DONE]\n\n", 100.0, headers=[EVENTS])
    assert await collected(made, response) == b"data: [DONE]\n\n"
    assert trio.current_time() < 0.01
    assert made.progress.completed


async def test_a_fault_behind_done_is_none(autojump_clock):
    response = Response(b"data: [DONE]\n\n", fault(), headers=[EVENTS])
    assert await collected(call(), response) == b"data: [DONE]\n\n"


async def test_done_in_a_compressed_stream(autojump_clock):
    body = gzip.compress(b"data: x\n\ndata: [DONE]\n\n")
    headers = [EVENTS, (b"content-encoding", b"gzip")]
    assert await collected(call(), Response(body, 50.0, headers=headers)) == (
        b"data: x\n\ndata: [DONE]\n\n"
    )
    assert trio.current_time() < 0.01


class Neighbour(trio.abc.Instrument):
    """Counts the turns of the event loop, in each of which every other caller is served."""

    def __init__(self) -> None:
        self.turns = 0

    def before_io_wait(self, timeout: float) -> None:
        self.turns += 1


async def turns_of(response: Response, limit_bytes: int = 1 << 24) -> int:
    deadline = Deadline(trio.current_time() + 30, 30, Limit.DEFAULT)
    made = Call(request(1), Caller(), deadline, limit_bytes)
    neighbour = Neighbour()
    trio.lowlevel.add_instrument(neighbour)
    try:
        await collected(made, response)
    finally:
        trio.lowlevel.remove_instrument(neighbour)
    return neighbour.turns


def encoded(body: bytes) -> Response:
    return Response(gzip.compress(body, 1), headers=[(b"content-encoding", b"gzip")])


async def test_others_get_a_turn_once_per_256_kib_decoded(autojump_clock):
    assert 32 <= await turns_of(encoded(bytes(8 << 20))) <= 36
    assert await turns_of(encoded(bytes(1000))) <= 3


async def test_others_get_a_turn_while_padding_between_codings_yields_nothing(autojump_clock):
    padded = gzip.compress(b"hi") + bytes(16 << 20)
    twice = Response(gzip.compress(padded, 1), headers=[(b"content-encoding", b"gzip, gzip")])
    assert 60 <= await turns_of(twice) <= 70


@pytest.mark.parametrize("line", [b"\r", b"data:\r\n\r\n"])
async def test_others_get_a_turn_once_per_16_kib_of_events(line, autojump_clock):
    stream = line * ((1 << 20) // len(line))
    assert 63 <= await turns_of(Response(stream, headers=[EVENTS])) <= 68


async def test_a_body_that_is_only_passed_on_costs_no_turns(autojump_clock):
    assert await turns_of(Response(bytes(8 << 20))) <= 3


async def test_the_deadline_strikes_in_the_middle_of_a_long_chunk(autojump_clock):
    class Received(Response):
        async def read_some(self) -> bytes:
            return self.steps.pop(0) if self.steps else b""  # type: ignore[return-value]

    whole = encoded(bytes(8 << 20))
    with trio.CancelScope() as scope:
        scope.cancel()
        await turns_of(Received(*whole.steps, headers=whole.headers))
    assert scope.cancelled_caught


async def test_discarding_reads_a_short_body_and_leaves_a_long_or_a_slow_one(autojump_clock):
    made = call()
    short = Response(b"moved", b"x")
    await discard(made, short)  # type: ignore[arg-type]
    assert short.steps == []
    assert made.received_bytes == 6
    long = Response(*[b"x" * 1000] * 100)
    await discard(made, long)  # type: ignore[arg-type]
    assert len(long.steps) > 20
    await discard(made, Response(fault()))  # type: ignore[arg-type]
    assert trio.current_time() == 0
    await discard(made, Response(b"x", 3600.0))  # type: ignore[arg-type]
    assert trio.current_time() < 1


async def test_a_witness_is_told_of_events_as_they_come(autojump_clock):
    told = Told()
    pieces = (b"data: a\n\nda", b"ta: b\n\ndata: [DONE]\n\ndata: c\n\n")
    response = Response(*pieces, headers=[EVENTS])
    await collect(call(), response, "http://h/", told, decode_content=True)  # type: ignore[arg-type]
    assert (told.pieces, told.events) == (list(pieces), ["a", "b"])
