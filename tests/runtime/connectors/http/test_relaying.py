"""A response handed on piece by piece: read no faster than it is taken, witnessed on the way."""

import gzip
import random
from collections.abc import Sequence

import attrs
import pytest
import trio
import trio.testing

from tests.support.layers import make_call
from vastar_client.wire import LocalProtocolError, Message, StreamChunk, StreamStart
from vastar_client.wire.limits import MAX_HEADER_PAIRS
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.decoding import BadContent
from vastar_runtime.connectors.http.relaying import relay
from vastar_runtime.outcomes import Streamed
from vastar_runtime.streams import AnswerStream, ConnectionCredit
from vastar_runtime.transport import TransportError
from vastar_runtime.transport.messages import Headers

Step = bytes | float


@attrs.define(eq=False)
class Response:
    """What the connector is given by the transport: steps are pieces, and seconds of silence."""

    steps: list[Step]
    headers: Headers = attrs.field(factory=list)
    trailers: Headers = attrs.field(factory=list)
    status: int = 200
    reads: int = 0

    async def read_some(self) -> bytes:
        self.reads += 1
        await trio.lowlevel.checkpoint()
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, bytes):
                return step
            await trio.sleep(step)
        return b""


@attrs.define(eq=False)
class Counting:
    """Who is told of the body."""

    wants_events: bool = False
    seen: list[bytes] = attrs.field(factory=list)
    events: list[str] = attrs.field(factory=list)

    def saw(self, data: bytes) -> None:
        self.seen.append(data)

    def saw_event(self, data: str) -> None:
        self.events.append(data)


@attrs.define(eq=False)
class Relayed:
    """A relay, and what came of it."""

    call: Call
    sent: list[Message] = attrs.field(factory=list)
    counting: Counting = attrs.field(factory=Counting)
    outcome: Streamed | None = None

    @classmethod
    def made(cls, **counting: bool) -> "Relayed":
        relayed = cls(make_call(time_s=1e9), counting=Counting(**counting))
        relayed.call.stream = AnswerStream(1, ConnectionCredit(), relayed.put)
        return relayed

    async def put(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def chunks(self) -> list[bytes]:
        return [bytes(m.data or b"") for m in self.sent if isinstance(m, StreamChunk)]

    @property
    def head(self) -> StreamStart:
        head = self.sent[0]
        assert isinstance(head, StreamStart)
        return head

    async def run(
        self, response: Response, *, decode: bool = True, idle_timeout_s: float = 300.0
    ) -> None:
        self.outcome = await relay(
            self.call,
            response,  # type: ignore[arg-type]
            self.counting,
            decode_content=decode,
            idle_timeout_s=idle_timeout_s,
        )


async def relayed(
    steps: Sequence[Step], *headers: tuple[bytes, bytes], **counting: bool
) -> Relayed:
    made = Relayed.made(**counting)
    await made.run(Response([*steps], [*headers]))
    return made


SSE = (b"content-type", b"text/event-stream; charset=utf-8")
GZIP = (b"content-encoding", b"gzip")


async def test_head_pieces_and_trailers(autojump_clock):
    made = Relayed.made()
    response = Response([b"one", b"two"], [(b"x", b"\xe9"), (b"x", b"y")], [(b"t", b"z")], 404)
    await made.run(response)
    assert made.head == StreamStart(1, 404, [("x", "é"), ("x", "y")], False)
    assert made.chunks == [b"one", b"two"]
    assert made.outcome == Streamed(404, [("t", "z")])
    assert made.call.received_bytes == 6
    assert made.counting.seen == [b"one", b"two"]


async def test_a_piece_is_sent_before_the_next_is_read(autojump_clock):
    made = Relayed.made()
    response = Response([bytes(65_536), b"next", b"last"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run, response)
        await trio.testing.wait_all_tasks_blocked()
        assert (response.reads, len(made.chunks)) == (2, 1)
        assert response.steps == [b"last"]
        assert made.call.stream is not None
        made.call.stream.grant(2)
        await trio.testing.wait_all_tasks_blocked()
        assert (response.reads, made.chunks[1:]) == (2, [b"ne"])
        made.call.stream.grant(100)
    assert b"".join(made.chunks[1:]) == b"nextlast"


async def test_silence_of_the_upstream_is_bounded_and_that_of_the_caller_is_not(autojump_clock):
    made = Relayed.made()
    response = Response([bytes(70_000), 9.0, b"x", 11.0, b"y"])
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(TransportError) as raised:
                await made.run(response, idle_timeout_s=10.0)
            assert raised.value.timed_out
            assert raised.value.cause == "no byte for 10 s"

        nursery.start_soon(run)
        await trio.sleep(1000)
        assert made.call.stream is not None
        made.call.stream.grant(10_000)
    assert trio.current_time() == 1000 + 9 + 10
    assert made.chunks[-1] == b"x"


async def test_a_coded_body_is_decoded_and_its_head_says_so(autojump_clock):
    body = bytes(range(256)) * 40
    coded = gzip.compress(body, mtime=0)
    headers = [GZIP, (b"content-length", b"%d" % len(coded)), (b"etag", b"1")]
    made = await relayed([coded[i : i + 7] for i in range(0, len(coded), 7)], *headers)
    assert b"".join(made.chunks) == body
    assert list(made.head.headers or ()) == [("etag", "1")]
    assert made.call.received_bytes == len(coded)
    assert b"".join(made.counting.seen) == body


@pytest.mark.parametrize("coding", [b"zstd", b"identity", b"gzip, nonsense"])
async def test_a_coding_that_is_unknown_is_left_as_it_is(coding, autojump_clock):
    made = await relayed([b"data"], (b"content-encoding", coding))
    assert made.chunks == [b"data"]
    assert list(made.head.headers or ()) == [("content-encoding", coding.decode())]


async def test_and_so_is_one_that_the_caller_wants(autojump_clock):
    made = Relayed.made()
    await made.run(Response([b"coded"], [GZIP]), decode=False)
    assert (made.chunks, made.head.headers) == ([b"coded"], [("content-encoding", "gzip")])


async def test_what_does_not_decode_ends_behind_what_did(autojump_clock):
    coded = gzip.compress(b"a" * 1000, mtime=0)
    made = Relayed.made()
    with pytest.raises(BadContent, match="ends before its end"):
        await made.run(Response([coded[:-9]], [GZIP]))
    assert b"".join(made.chunks) == b"a" * 1000


async def test_a_bomb_is_decoded_no_faster_than_it_is_taken(autojump_clock):
    made = Relayed.made()
    coded = gzip.compress(bytes(50_000_000), mtime=0)
    with trio.move_on_after(5):
        await made.run(Response([coded], [GZIP]))
    assert sum(map(len, made.chunks)) == 65_536
    assert sum(map(len, made.counting.seen)) <= 2 * 65_536


class AtOnce(Response):
    """One whose pieces are all there already."""

    async def read_some(self) -> bytes:
        return self.steps.pop(0) if self.steps else b""  # type: ignore[return-value]


@pytest.mark.parametrize("times", [1, 2])
async def test_others_have_their_turn_while_a_body_is_decoded(times, autojump_clock):
    """Also where most of the work gives nothing to hand on, as one coding inside another does."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def put(_message: Message) -> None:
        return

    size = 8 << 20
    # Compresses a hundredfold; what does a thousandfold is refused.
    chance = random.Random(1)
    coded = b"".join(chance.randbytes(64) + bytes(8128) for _ in range(size // 8192))
    for _ in range(times):
        coded = gzip.compress(coded, mtime=0)
    made = Relayed.made()
    made.call.stream = AnswerStream(1, ConnectionCredit(), put)
    made.call.stream._shared.grant(size)
    made.call.stream.grant(size)
    coding = (b"content-encoding", b", ".join([b"gzip"] * times))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await made.run(AtOnce([coded], [coding]))
        nursery.cancel_scope.cancel()
    assert turns >= size // (256 * 1024) - 4


# --- events -------------------------------------------------------------------------------------

EVENTS = b"data: a\n\ndata: b\ndata: c\n\ndata: [DONE]\n\ndata: unfinished"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_are_read_for_who_counts_them(size, autojump_clock):
    cut = [EVENTS[i : i + size] for i in range(0, len(EVENTS), size)]
    made = await relayed(cut, SSE, wants_events=True)
    assert made.counting.events == ["a", "b\nc", "[DONE]"]
    assert made.chunks == cut
    assert made.head.is_sse


@pytest.mark.parametrize(
    ("headers", "wants"), [([SSE], False), ([(b"content-type", b"text/plain")], True), ([], True)]
)
async def test_and_for_nobody_else(headers, wants, autojump_clock):
    made = await relayed([EVENTS], *headers, wants_events=wants)
    assert (made.counting.events, made.counting.seen) == ([], [EVENTS])


async def test_what_is_no_such_stream_is_handed_on_and_read_no_further(autojump_clock):
    made = Relayed.made(wants_events=True)
    assert made.call.stream is not None
    made.call.stream.grant(1 << 30)
    pieces = [b"data: a\n\n", *[b"x" * 65_536] * 20, b"\n\ndata: b\n\n"]
    with trio.move_on_after(1):
        await made.run(Response([*pieces], [SSE]))
    assert made.counting.events == ["a"]
    assert sum(map(len, made.chunks)) <= sum(map(len, pieces))


# --- what no frame can hold -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [[(b"a", b"b")] * (MAX_HEADER_PAIRS + 1), [(b"a", b"\xe9" * 4_000_000)]]
)
async def test_a_head_that_fits_into_no_frame_is_refused_before_anything_is_sent(
    headers, autojump_clock
):
    made = Relayed.made()
    with pytest.raises(LocalProtocolError, match="more than a frame may hold"):
        await made.run(Response([b"x"], headers))
    assert made.sent == []


async def test_trailers_that_fit_into_no_frame_are_refused_behind_the_body(autojump_clock):
    made = Relayed.made()
    trailers = [(b"a", b"b")] * (MAX_HEADER_PAIRS + 1)
    with pytest.raises(LocalProtocolError, match="more than a frame may hold"):
        await made.run(Response([b"x"], trailers=trailers))
    assert made.chunks == [b"x"]
