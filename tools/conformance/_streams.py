"""The rules of streams: order, credit in both directions, request bodies in pieces, keepalive."""

import json
from typing import Final

import attrs
import trio

from tools.conformance._peer import Peer, calling, http_call, json_of
from tools.conformance._rules import BrokenRuleError, NotSupportedError, must, rule
from tools.conformance._world import World
from vastar_client.wire import (
    Cancel,
    CreditUpdate,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    KeepAlive,
    Message,
    RequestChunk,
    Signal,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_client.wire.limits import (
    INITIAL_CONNECTION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
    KEEP_ALIVE_INTERVAL_S,
)

_QUIET_S: Final = 0.5
_LONG_BYTES: Final = 300_000
_STREAMS: Final = 24
_UPLOADED_BYTES: Final = 200_000
_PIECE_BYTES: Final = 20_000


@attrs.define
class _Seen:
    """A stream as it comes; `take` holds it to the order."""

    request_id: int
    start: StreamStart | None = None
    end: StreamEnd | None = None
    chunks: int = 0
    data: bytearray = attrs.field(factory=bytearray)
    keep_alives: int = 0

    def take(self, frame: Message | Signal) -> None:
        """Check and keep the next frame of it."""
        must(self.end is None, f"{frame!r} behind the end of its stream")
        match frame:
            case StreamStart():
                must(self.start is None, "a second StreamStart")
                self.start = frame
            case StreamChunk():
                must(self.start is not None, "a StreamChunk before the StreamStart")
                must(frame.sequence == self.chunks, f"{frame.sequence} where {self.chunks} was due")
                self.chunks += 1
                self.data += frame.data or b""
            case KeepAlive():
                self.keep_alives += 1
            case StreamEnd():
                self.end = frame
                is_success = frame.error_class is ErrorClass.SUCCESS
                must(self.start or not is_success, "a success without a StreamStart")
                total, came = frame.total_bytes, len(self.data)
                must(total == came, f"total_bytes {total} of {came} that came")
                words = "a failure without a message"
                must(is_success or frame.error_message, words)
            case ExecuteResponse() if frame.error_class is ErrorClass.SUCCESS:
                raise NotSupportedError("a call with `stream` is answered as a plain one")
            case _:
                raise BrokenRuleError(f"{frame!r} in a stream")


async def _read(peer: Peer, seen: _Seen, *, grants: bool = True) -> StreamEnd:
    """All of a stream, whose bytes are granted anew as they come."""
    while seen.end is None:
        frame = await peer.receive()
        seen.take(frame)
        if grants and isinstance(frame, StreamChunk):
            size = len(frame.data or b"")
            await peer.send(CreditUpdate(size, 0, frame.request_id, size))
    return seen.end


async def _succeeds(peer: Peer, seen: _Seen) -> _Seen:
    end = await _read(peer, seen)
    must(end.error_class is ErrorClass.SUCCESS, f"{end.error_class.name} {end.error_message!r}")
    return seen


def _stream(world: World, request_id: int, path: str, **fields: object) -> ExecuteRequest:
    return http_call(request_id, {"url": world.url(path)}, stream=True, **fields)


@rule()
async def streams_order(world: World) -> None:
    """A stream is StreamStart, StreamChunks counted from 0, StreamEnd with total_bytes."""
    async with calling(world) as peer:
        await peer.send(_stream(world, 1, "/sse?n=3&gap=10"))
        seen = await _succeeds(peer, _Seen(1))
        must(seen.start and seen.start.is_sse, "is_sse is not set")
        must(seen.data.endswith(b"data: [DONE]\n\n"), "the events are not all there")
        await peer.silent()
        await peer.lives(world)


@rule()
async def streams_live(world: World) -> None:
    """What the upstream sends is handed on before its answer is over."""
    target = "/sse?n=2&gap=10&hold=60"
    async with calling(world) as peer:
        await peer.send(_stream(world, 1, target))
        seen = _Seen(1)
        while b"delta" not in seen.data:
            seen.take(await peer.receive())
        must(seen.end is None, "nothing came before the end")
        await peer.send(Cancel(1))
        await _read(peer, seen)
        await world.upstream.wait(lambda: world.upstream.gone[target] > 0)


@rule()
async def streams_statuses(world: World) -> None:
    """Every HTTP status is the status_code of a StreamStart; headers come in lower case."""
    async with calling(world) as peer:
        await peer.send(_stream(world, 3, "/status/404"))
        seen = await _succeeds(peer, _Seen(3))
        assert seen.start is not None
        must(seen.start.status_code == 404, f"status {seen.start.status_code}")  # noqa: PLR2004 - HTTP's
        must(("x-s", "404") in list(seen.start.headers or ()), f"headers {seen.start.headers}")


@rule()
async def streams_failure(world: World) -> None:
    """A failure before the head is a StreamEnd alone."""
    async with calling(world) as peer:
        await peer.send(http_call(1, {"url": "http://127.0.0.1:1/"}, stream=True))
        end = await peer.expect(StreamEnd)
        must(end.error_class is ErrorClass.TRANSIENT, end.error_class.name)
        must(end.error_message, "a failure without a message")
        await peer.lives(world)


@rule()
async def streams_ids(world: World) -> None:
    """A stream with id 0, or one that is in flight, is InvalidRequest."""
    async with calling(world) as peer:
        await peer.send(_stream(world, 0, "/small"))
        end = await _final(peer)
        must(end.error_class is ErrorClass.INVALID_REQUEST, f"id 0: {end.error_class.name}")
        first = _stream(world, 5, "/hang?stream-ids")
        await peer.send(first, first)
        end = await _final(peer)
        must(end.error_class is ErrorClass.INVALID_REQUEST, f"in flight: {end.error_class.name}")


async def _final(peer: Peer) -> StreamEnd | ExecuteResponse:
    """The next frame, which must be final."""
    frame = await peer.receive()
    if isinstance(frame, ExecuteResponse) and frame.error_class is ErrorClass.SUCCESS:
        raise NotSupportedError("a call with `stream` is answered as a plain one")
    if not isinstance(frame, StreamEnd | ExecuteResponse):
        raise BrokenRuleError(f"{frame!r} where a final frame was due")
    return frame


async def _until_quiet(peer: Peer, streams: dict[int, _Seen]) -> int:
    """Read until nothing comes any more; the bytes that came in all."""
    while True:
        frame = None
        with trio.move_on_after(_QUIET_S):
            frame = await peer.receive()
        if frame is None:
            return sum(len(seen.data) for seen in streams.values())
        request_id = getattr(frame, "request_id", None)
        seen = streams.get(request_id) if request_id is not None else None
        if seen is None:
            raise BrokenRuleError(f"{frame!r} came unasked")
        seen.take(frame)


@rule()
async def streams_window(world: World) -> None:
    """Without credit a stream stops at 65,536 bytes, and goes on when it is granted more."""
    async with calling(world) as peer:
        await peer.send(_stream(world, 1, f"/big?n={_LONG_BYTES}"))
        seen = _Seen(1)
        came = await _until_quiet(peer, {1: seen})
        must(came == INITIAL_STREAM_WINDOW_BYTES, f"{came} bytes came")
        await peer.send(CreditUpdate(credit_delta=1000, request_id=1))
        more = await _until_quiet(peer, {1: seen}) - came
        must(more == 1000, f"{more} bytes came for a credit of 1000")  # noqa: PLR2004 - granted above
        await peer.send(CreditUpdate(credit_delta=_LONG_BYTES, request_id=1))
        await _succeeds(peer, seen)
        must(len(seen.data) == _LONG_BYTES, f"{len(seen.data)} bytes came")


@rule()
async def streams_connection_window(world: World) -> None:
    """All streams of a connection stop at 1,048,576 bytes without credit for it."""
    async with calling(world) as peer:
        streams = {number: _Seen(number) for number in range(1, _STREAMS + 1)}
        await peer.send(*(_stream(world, number, f"/big?n={_LONG_BYTES}") for number in streams))
        came = await _until_quiet(peer, streams)
        must(came == INITIAL_CONNECTION_WINDOW_BYTES, f"{came} bytes came")


@rule()
async def streams_beside_calls(world: World) -> None:
    """A stream that is not read stops neither calls nor other streams of its connection."""
    async with calling(world) as peer:
        await peer.send(_stream(world, 1, f"/big?n={_LONG_BYTES}"))
        stalled = _Seen(1)
        await _until_quiet(peer, {1: stalled})
        await peer.lives(world)
        await peer.send(_stream(world, 2, "/small"))
        await _succeeds(peer, _Seen(2))


@rule()
async def cancel_of_a_stream(world: World) -> None:
    """Cancel ends a stream with one StreamEnd, Permanent, and its upstream connection."""
    target = "/sse?n=1000&gap=50&cancel"
    async with calling(world) as peer:
        await peer.send(_stream(world, 9, target))
        seen = _Seen(9)
        while not seen.data:
            seen.take(await peer.receive())
        await peer.send(Cancel(9))
        end = await _read(peer, seen, grants=False)
        must(end.error_class is ErrorClass.PERMANENT, end.error_class.name)
        await world.upstream.wait(lambda: world.upstream.gone[target] > 0)
        await peer.silent()


@rule(limit_s=KEEP_ALIVE_INTERVAL_S + 15, is_slow=True)
async def streams_keepalive(world: World) -> None:
    """A stream that is silent for 15 s says that it is alive."""
    async with calling(world) as peer:
        await peer.send(_stream(world, 1, f"/quiet?s={KEEP_ALIVE_INTERVAL_S + 3}"))
        seen = await _succeeds(peer, _Seen(1))
        must(seen.keep_alives, "no KeepAlive came")


def _upload(world: World, request_id: int) -> ExecuteRequest:
    asked = {"url": world.url("/echo"), "method": "POST"}
    return http_call(request_id, asked, body_follows=True)


async def _granted(peer: Peer) -> ExecuteResponse | CreditUpdate:
    """The next frame of an upload.

    Raises:
        NotSupportedError: the call was made without waiting for its body.
    """
    frame = await peer.receive()
    if isinstance(frame, ExecuteResponse):
        if frame.error_class is ErrorClass.INVALID_REQUEST and not frame.request_id:
            raise NotSupportedError(f"a RequestChunk is refused: {frame.error_message}")
        return frame
    if not isinstance(frame, CreditUpdate):
        raise BrokenRuleError(f"{frame!r} in an upload")
    return frame


@rule()
async def uploads_in_pieces(world: World) -> None:
    """RequestChunks bring a body of any length, under credit that is granted as it is taken."""
    body = bytes(index % 251 for index in range(_UPLOADED_BYTES))
    async with calling(world) as peer:
        await peer.send(_upload(world, 4))
        credit = INITIAL_STREAM_WINDOW_BYTES
        for number, start in enumerate(range(0, len(body), _PIECE_BYTES)):
            while credit < _PIECE_BYTES:
                frame = await _granted(peer)
                if isinstance(frame, ExecuteResponse):
                    raise BrokenRuleError("answered before its body was whole")
                credit += frame.credit_delta if frame.request_id == 4 else 0  # noqa: PLR2004 - its id
            credit -= _PIECE_BYTES
            last = start + _PIECE_BYTES >= len(body)
            piece = body[start : start + _PIECE_BYTES]
            await peer.send(RequestChunk(4, number, piece, last))
        while not isinstance(answer := await _granted(peer), ExecuteResponse):
            pass
        echoed = json.loads(str(json_of(answer)["body"]))
        must(echoed["len"] == len(body), f"{echoed['len']} bytes reached the upstream")


@rule()
async def uploads_out_of_order(world: World) -> None:
    """A RequestChunk that is not the next one fails its call, and no other."""
    async with calling(world) as peer:
        await peer.send(_upload(world, 4), RequestChunk(4, 1, b"second", last=True))
        while not isinstance(answer := await _granted(peer), ExecuteResponse):
            pass
        if answer.error_class is ErrorClass.SUCCESS:
            raise NotSupportedError("the call was made without its body")
        must(answer.error_class is ErrorClass.INVALID_REQUEST, answer.error_class.name)
        await peer.lives(world)


@rule()
async def uploads_behind_the_end(world: World) -> None:
    """A RequestChunk of no call is discarded."""
    async with calling(world) as peer:
        await peer.send(RequestChunk(77, 0, b"late", last=True))
        await peer.silent()
        await peer.lives(world)


@rule()
async def uploads_window(world: World) -> None:
    """More of a request body than was granted closes the connection."""
    async with calling(world) as peer:
        call = http_call(4, {"url": world.url("/echo"), "method": "POST"}, body_follows=True)
        piece = bytes(INITIAL_STREAM_WINDOW_BYTES + 1)
        await peer.send(call, RequestChunk(4, 0, piece))
        for _ in range(5):
            frame = await peer.receive()
            if isinstance(frame, Signal):
                return
            if isinstance(frame, ExecuteResponse) and frame.error_class is ErrorClass.SUCCESS:
                raise NotSupportedError("the call was made without its body")
        raise BrokenRuleError("the connection goes on")
