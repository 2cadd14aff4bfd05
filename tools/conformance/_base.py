"""The rules of the published protocol: framing, ids, answers, HTTP payloads, opening words."""

from itertools import count
from typing import Final

from tools.conformance._peer import calling, http_call, json_of
from tools.conformance._rules import must, rule
from tools.conformance._world import World
from vastar_client.wire import END_OF_STREAM, ErrorClass
from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES

_LONG_BYTES: Final = 9_000_000
_IDS: Final = (0, 1, 2**31, 2**53 + 1, 2**64 - 1)


def _framed(message_type: int, data: bytes) -> bytes:
    return (len(data) + 1).to_bytes(4) + bytes((message_type,)) + data


@rule(base=True)
async def framing_whole(world: World) -> None:
    """A call in one write is answered."""
    async with calling(world) as peer:
        fields = json_of(await peer.call(http_call(1, {"url": world.url()})))
        must(fields["status_code"] == 200, f"status {fields['status_code']}")  # noqa: PLR2004 - HTTP's


@rule(base=True)
async def framing_byte_by_byte(world: World) -> None:
    """A call that arrives in single bytes is answered."""
    async with calling(world) as peer:
        for byte in peer.encoded(http_call(2, {"url": world.url()})):
            await peer.send_bytes(bytes((byte,)))
        json_of(await peer.answer())


@rule(base=True)
async def framing_three_writes(world: World) -> None:
    """Length, type and table in three writes, as Go sends them, are one frame."""
    async with calling(world) as peer:
        frame = peer.encoded(http_call(3, {"url": world.url()}))
        for piece in (frame[:4], frame[4:5], frame[5:]):
            await peer.send_bytes(piece)
        json_of(await peer.answer())


@rule(base=True)
async def framing_pipelined(world: World) -> None:
    """Calls in one write are each answered once, in any order."""
    async with calling(world) as peer:
        wanted = set(range(10, 20))
        calls = [http_call(number, {"url": world.url()}) for number in wanted]
        await peer.send(*calls)
        for _ in calls:
            answer = await peer.answer()
            json_of(answer)
            must(answer.request_id in wanted, f"the id {answer.request_id} twice, or of no call")
            wanted.remove(answer.request_id)
        await peer.silent()


@rule(base=True)
async def framing_trailing_bytes(world: World) -> None:
    """Bytes behind the FlatBuffer inside a frame are tolerated."""
    async with calling(world) as peer:
        frame = peer.encoded(http_call(4, {"url": world.url()}))
        await peer.send_bytes(_framed(0, frame[5:] + bytes(64)))
        json_of(await peer.answer())


@rule(base=True)
async def framing_long_request(world: World) -> None:
    """A call of nine megabytes arrives whole."""
    async with calling(world) as peer:
        asked = {"url": world.url("/length"), "method": "POST", "body": "x" * _LONG_BYTES}
        fields = json_of(await peer.call(http_call(5, asked)))
        must(fields["body"] == str(_LONG_BYTES), f"{fields['body']} bytes reached the upstream")


@rule(base=True)
async def framing_long_answer(world: World) -> None:
    """An answer of nine megabytes arrives whole."""
    async with calling(world) as peer:
        asked = {"url": world.url(f"/big?n={_LONG_BYTES}")}
        fields = json_of(await peer.call(http_call(6, asked)))
        body = str(fields["body"])
        must(len(body) == _LONG_BYTES, f"{len(body)} bytes came")


@rule(base=True)
async def framing_answer_limit(world: World) -> None:
    """No answer is longer than 10,485,760 bytes: what does not fit fails, and is not cut."""
    async with calling(world) as peer:
        asked = {"url": world.url(f"/big?n={MAX_ANSWER_FRAME_BYTES + 1000}")}
        answer = await peer.call(http_call(7, asked))
        must(answer.error_class is ErrorClass.PERMANENT, f"{answer.error_class.name}")
        await peer.lives(world)


@rule(base=True)
async def framing_zero_length(world: World) -> None:
    """A frame of length 0 closes the connection."""
    async with calling(world) as peer:
        await peer.send_bytes(bytes(4))
        await peer.closed()


@rule(base=True)
async def framing_cut_short(world: World) -> None:
    """The end of the stream inside a frame closes the connection, and nothing is executed."""
    async with calling(world) as peer:
        frame = peer.encoded(http_call(8, {"url": world.url("/small?cut")}))
        await peer.send_bytes(frame[:-1])
        await peer.half_close()
        await peer.closed()
        must(not world.upstream.began["/small?cut"], "the half frame was executed")


@rule(base=True)
async def framing_bad_table(world: World) -> None:
    """A FlatBuffer that is none is InvalidRequest, and the connection lives."""
    async with calling(world) as peer:
        for data in (b"", b"\xff" * 40, b"\x04\x00\x00\x00", bytes(16)):
            await peer.send_bytes(_framed(0, data))
            await peer.refused("Invalid FlatBuffers message")
        await peer.lives(world)


@rule(base=True)
async def framing_half_close(world: World) -> None:
    """After the last answer to a caller that ended its half, the connection ends."""
    async with calling(world) as peer:
        await peer.send(http_call(9, {"url": world.url("/sleep?ms=100&tag=half")}))
        await peer.half_close()
        json_of(await peer.answer())
        event = await peer.receive()
        must(event is END_OF_STREAM, f"{event!r} behind the last answer")


@rule(base=True)
async def ids_echoed(world: World) -> None:
    """Ids come back exactly, up to 2^64-1."""
    async with calling(world) as peer:
        for number in _IDS:
            json_of(await peer.call(http_call(number, {"url": world.url()})))


@rule(base=True)
async def ids_of_failures(world: World) -> None:
    """Failures carry the id of their call as well."""
    async with calling(world) as peer:
        for number in _IDS:
            answer = await peer.call(http_call(number, {}))
            must(answer.error_class is ErrorClass.INVALID_REQUEST, answer.error_class.name)


@rule(base=True)
async def ids_twice(world: World) -> None:
    """Two calls with one id are each answered."""
    async with calling(world) as peer:
        call = http_call(5, {"url": world.url("/sleep?ms=50&tag=twice")})
        await peer.send(call, call)
        for _ in range(2):
            answer = await peer.answer()
            must(answer.request_id == 5, f"the id {answer.request_id}")  # noqa: PLR2004 - as above
            json_of(answer)
        await peer.silent()


@rule(base=True)
async def answers_unasked(world: World) -> None:
    """Nothing comes that was not asked for: not at first, and not behind an answer."""
    async with calling(world) as peer:
        await peer.silent()
        await peer.call(http_call(1, {"url": world.url()}))
        await peer.silent()


@rule(base=True)
async def errors_opening_words(world: World) -> None:
    """Wrong calls are InvalidRequest with the opening words that SDKs know."""
    cases = (
        (http_call(1, {"method": "GET"}), "Missing required field: url"),
        (http_call(2, b"[]"), "Missing required field: url"),
        (http_call(3, b"{"), "Invalid HTTP params: "),
        (http_call(4, {}, connector_name="no-such"), "Unknown connector: no-such"),
    )
    async with calling(world) as peer:
        for call, words in cases:
            await peer.send(call)
            await peer.refused(words, call.request_id)
        await peer.lives(world)


@rule(base=True)
async def errors_refused_connection(world: World) -> None:
    """An upstream that refuses connections is Transient."""
    async with calling(world) as peer:
        answer = await peer.call(http_call(1, {"url": "http://127.0.0.1:1/"}))
        must(answer.error_class is ErrorClass.TRANSIENT, answer.error_class.name)


@rule(base=True)
async def http_statuses(world: World) -> None:
    """Every HTTP status is a success with its status_code."""
    async with calling(world) as peer:
        for number, status in zip(count(1), (201, 400, 404, 418, 429, 500)):
            # A tenant for each: a rest after a 429 is no concern of the others.
            call = http_call(
                number, {"url": world.url(f"/status/{status}")}, tenant_id=f"status-{status}"
            )
            fields = json_of(await peer.call(call))
            must(fields["status_code"] == status, f"{fields['status_code']} for {status}")
            must(fields["body"] == f"status body {status}", f"the body {fields['body']!r}")


@rule(base=True)
async def http_header_names(world: World) -> None:
    """Names of headers come in lower case, their values as strings."""
    async with calling(world) as peer:
        fields = json_of(await peer.call(http_call(1, {"url": world.url("/echo")})))
        headers = fields["headers"]
        must(isinstance(headers, dict), f"headers are a {type(headers).__name__}")
        assert isinstance(headers, dict)
        must(all(name == name.lower() for name in headers), f"names {sorted(headers)}")
        must(all(isinstance(value, str) for value in headers.values()), "a value is no string")
        must(headers.get("x-mixed-case") == "A b C", "X-Mixed-Case is lost")


@rule(base=True)
async def http_methods(world: World) -> None:
    """Methods are sent in upper case; none is GET."""
    async with calling(world) as peer:
        cases = ((None, "GET"), ("post", "POST"), ("Put", "PUT"), ("delete", "DELETE"))
        for number, (method, sent) in enumerate(cases):
            asked = {"url": world.url("/echo"), **({"method": method} if method else {})}
            fields = json_of(await peer.call(http_call(number, asked)))
            must(f'"method": "{sent}"' in str(fields["body"]), f"{method} became another method")


@rule(base=True)
async def http_redirects(world: World) -> None:
    """302 is followed as GET, 307 with the method and body it had."""
    async with calling(world) as peer:
        for number, (status, method) in enumerate(((302, "GET"), (303, "GET"), (307, "POST"))):
            url = world.url(f"/redirect?st={status}&to=/echo")
            asked = {"url": url, "method": "POST", "body": "text"}
            body = str(json_of(await peer.call(http_call(number, asked)))["body"])
            must(f'"method": "{method}"' in body, f"{status} did not become {method}")
            kept = '"body": "text"' in body
            must(kept == (method == "POST"), f"the body after {status}: kept is {kept}")


@rule(base=True)
async def http_events_until_done(world: World) -> None:
    """An event stream is one answer, given as soon as [DONE] came, with is_streaming."""
    async with calling(world) as peer:
        asked = {"url": world.url("/sse?n=2&gap=10&hold=60")}
        fields = json_of(await peer.call(http_call(1, asked)))
        must(fields["is_streaming"] is True, "is_streaming is not true")
        must(str(fields["body"]).endswith("data: [DONE]\n\n"), "the events are not all there")
