"""Streamed answers through the whole runtime: each piece at the instant at which it comes."""

import gzip
import zlib

import pytest
import trio
import trio.testing

from tests.support.http_calls import NATIVE, ORIGIN, RAW_PORT, RAW_URL, json_of, native_payload
from tests.support.running import http_request, running
from tests.support.sessions import WALL_START_MS
from tests.support.streaming import streaming
from tests.support.upstream_bodies import SSE, chunked, counted, pieces
from vastar_client.wire import Disposition, ErrorClass, ExecuteResponse, StreamEnd
from vastar_client.wire.limits import MAX_HEADER_PAIRS
from vastar_runtime.config import HttpConfig, RuntimeConfig
from vastar_runtime.transport.fake import Close, Reset, Send, Wait

# --- what comes, and when -----------------------------------------------------------------------


async def test_each_event_is_handed_on_at_the_instant_at_which_it_comes(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            chunked(2.0, b"data: a\n\n", 1.5, b"data: b\n\n", 7.0, b"data: c\n\n", headers=[SSE])
        )
        caller = await streaming(runtime)
        stream = await caller.begin(7, {"url": RAW_URL})
        head = await stream.started()
        assert (stream.head_at_s, head.status_code, head.is_sse) == (0, 200, True)
        assert list(head.headers or ()) == [
            ("content-type", "text/event-stream"),
            ("transfer-encoding", "chunked"),
        ]
        end = await stream.ended()
        assert stream.chunks == [
            (2.0, b"data: a\n\n"),
            (3.5, b"data: b\n\n"),
            (10.5, b"data: c\n\n"),
        ]
        assert (stream.end_at_s, list(end.trailers or ())) == (10.5, [])
        assert stream.ok is end
        assert (end.duration_us, end.attempts, end.total_bytes) == (10_500_000, 1, 27)
        assert end.retry_after_ms == 0


async def test_the_head_goes_out_before_the_body_has_begun(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces([Wait(3), *chunked(20.0, b"late")])
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        await stream.started()
        assert stream.head_at_s == 3
        await stream.ended()
        assert stream.chunks == [(23.0, b"late")]


async def test_single_bytes_are_handed_on_one_by_one(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            chunked(*(part for byte in b"hello" for part in (0.001, bytes([byte]))))
        )
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        await stream.ended()
        assert [data for _, data in stream.chunks] == [b"h", b"e", b"l", b"l", b"o"]


async def test_trailers_come_with_the_end(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            chunked(b"ab", end=b"X-Sum: 7\r\nx-l: caf\xe9\r\nX-Sum: 8\r\n")
        )
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        assert list(end.trailers or ()) == [("x-sum", "7"), ("x-l", "café"), ("x-sum", "8")]
        assert stream.ok.total_bytes == 2


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000])
async def test_a_body_of_any_length_is_the_same_at_the_other_end(size, autojump_clock):
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(counted(body))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        assert stream.body == body
        assert stream.ok.total_bytes == size
        assert stream.head is not None
        assert list(stream.head.headers or ()) == [("content-length", str(size))]
        assert end.duration_us == 0


@pytest.mark.parametrize("status", [204, 304, 404, 500])
async def test_every_status_is_a_success_with_its_number(status, autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        payload = {"url": f"{ORIGIN}/status/{status}", "method": "POST"}
        stream = await caller.begin(1, payload)
        await stream.ended()
        assert stream.head is not None
        assert (stream.head.status_code, stream.head.is_sse) == (status, False)
        assert stream.ok.attempts == 1


async def test_head_requests_have_no_body(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/gzip", "method": "HEAD"})
        await stream.ended()
        assert stream.ok.total_bytes == 0


async def test_payloads_may_be_native_and_many_streams_run_at_once(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        streams = [
            await caller.begin(
                number, native_payload(f"{ORIGIN}/sse?n={number}&gap=1000&done=0"), **NATIVE
            )
            for number in range(1, 40)
        ]
        for number, stream in enumerate(streams, 1):
            await stream.ended()
            assert [at_s for at_s, _ in stream.chunks] == list(range(number))
            assert stream.body.count(b"data: ") == number
            assert stream.end_at_s == number
            assert stream.ok.attempts == 1
        # All of them have ended, so their ids are free.
        again = await caller.begin(1, {"url": f"{ORIGIN}/small"})
        caller.streams[1] = again
        await again.ended()
        assert again.body == b'{"ok": true, "msg": "hello world"}'


async def test_streams_leave_their_connections_for_the_next_call(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        for request_id in range(1, 6):
            stream = await caller.begin(request_id, {"url": f"{ORIGIN}/sse?n=2"})
            await stream.ended()
            assert stream.body.endswith(b"data: [DONE]\n\n")
        assert len(runtime.upstream.seen("conn_open")) == 1


async def test_what_comes_behind_done_is_handed_on_too(autojump_clock):
    """The runtime reads no events for a caller that asked to stream."""
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/sse?n=1&hold=5000&tail=1"})
        await stream.ended()
        assert stream.body.endswith(b"data: [DONE]\n\ndata: after-done\n\n")
        assert stream.chunks[-1][0] == pytest.approx(5.02)


# --- codings ------------------------------------------------------------------------------------


async def test_a_gzip_body_is_decoded_on_the_way(autojump_clock):
    """Each event that the upstream flushed comes out when it came in."""
    encoder = zlib.compressobj(wbits=31)
    events = [b"data: one\n\n", b"data: two\n\n"]
    flushed = [encoder.compress(event) + encoder.flush(zlib.Z_SYNC_FLUSH) for event in events]
    gzipped = [SSE, "content-encoding: gzip", "x-a: b"]
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            chunked(1.0, flushed[0], 2.0, flushed[1], 3.0, encoder.flush(), headers=gzipped)
        )
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        await stream.ended()
        assert stream.chunks == [(1.0, events[0]), (3.0, events[1])]
        assert (stream.end_at_s, stream.ok.total_bytes) == (6.0, 22)
        assert stream.head is not None
        assert [name for name, _ in stream.head.headers or ()] == [
            "content-type",
            "x-a",
            "transfer-encoding",
        ]


@pytest.mark.parametrize(
    "payload", [{"decode_content": False}, {"headers": {"Accept-Encoding": "gzip"}}]
)
async def test_who_wants_the_coding_has_it(payload, autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/gzip", **payload})
        head = await stream.started()
        await stream.ended()
        assert gzip.decompress(stream.body) == b'{"gz":true}'
        assert dict(head.headers or ())["content-length"] == str(len(stream.body))


async def test_a_small_body_that_decodes_to_a_large_one_waits_for_credit(autojump_clock):
    body = bytes(20_000_000)
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            counted(gzip.compress(body, 1, mtime=0), "content-encoding: gzip")
        )
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL}, reads=False)
        await trio.sleep(10)
        assert stream.total_bytes == 65_536
        await stream.read()
        await stream.ended()
        assert stream.ok.total_bytes == len(body)


@pytest.mark.parametrize("cut", [1, 9, 200])
async def test_a_body_that_does_not_decode_ends_as_a_fault(cut, autojump_clock):
    data = bytearray(gzip.compress(bytes(range(256)) * 40, mtime=0))
    if cut == 200:
        data[200:] = b"\xff" * 100
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            counted(bytes(data[: -cut if cut < 100 else None]), "content-encoding: gzip")
        )
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        await stream.ended()
        words = stream.failed(ErrorClass.TRANSIENT)
        assert words.startswith(f"HTTP request failed: {RAW_URL}: the ")
        assert "gzip" in words


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Close(), Reset()])
async def test_a_body_cut_short_is_a_fault_behind_what_came(ending, autojump_clock):
    steps = [Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"), Wait(2), ending]
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(steps)
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        assert (stream.body, stream.end_at_s) == (b"12345", 2)
        words = stream.failed(ErrorClass.TRANSIENT)
        assert words.startswith(
            "HTTP request failed: reading the response body failed for 127.0.0.1:4700: "
        )
        assert (end.disposition, end.attempts) == (Disposition.RESPONSE_STARTED, 1)


async def test_a_failure_before_the_head_is_an_end_alone(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": "http://127.0.0.1:1/", "method": "POST"})
        end = await stream.ended()
        assert stream.head is None
        assert "connection refused" in stream.failed(ErrorClass.TRANSIENT)
        assert (end.disposition, end.total_bytes) == (Disposition.NOT_SENT, 0)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({}, "Missing required field: url"),
        (b"{", "Invalid HTTP params: "),
        ({"url": "ftp://h/"}, "Invalid URL"),
    ],
)
async def test_a_bad_request_is_an_end_alone(payload, words, autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, payload)
        end = await stream.ended()
        assert words.lower() in stream.failed(ErrorClass.INVALID_REQUEST).lower()
        assert end.disposition is Disposition.NOT_SENT


async def test_a_head_that_cannot_be_handed_on_ends_its_stream_only(autojump_clock):
    """A caller that got chunks without a head would have to give up the connection."""
    many = "\r\n".join("a: b" for _ in range(MAX_HEADER_PAIRS + 1))
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(counted(b"body", many))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        assert stream.head is None
        words = stream.failed(ErrorClass.PERMANENT)
        assert words.startswith(f"the response of {RAW_URL} cannot be handed on: ")
        assert end.disposition is Disposition.COMPLETED, "the upstream's part is done"


async def test_trailers_that_cannot_be_handed_on_do_not_cost_the_end(autojump_clock):
    many = b"a: b\r\n" * (MAX_HEADER_PAIRS + 1)
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(chunked(b"body", end=many))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        await stream.ended()
        assert stream.body == b"body"
        words = stream.failed(ErrorClass.PERMANENT)
        assert words.startswith(f"the response of {RAW_URL} cannot be handed on: ")


# --- those who did not ask ----------------------------------------------------------------------


async def test_calls_without_the_flag_get_one_answer_on_the_same_connection(autojump_clock):
    """A legacy caller's event stream is collected, beside streams of the same connection."""
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/sse?n=3&gap=1000&done=0"})
        await caller.send(http_request(2, {"url": f"{ORIGIN}/sse?n=2&gap=1000&hold=9000"}))
        answer = await caller.answer(2)
        assert trio.current_time() == pytest.approx(2, abs=0.02)
        fields = json_of(answer)
        assert fields["is_streaming"] is True
        assert fields["body"].endswith("data: [DONE]\n\n")
        await stream.ended()
        assert stream.end_at_s == 3
        assert len(caller.answers) == 1


async def test_on_a_connection_without_the_flag_nothing_new_is_ever_sent(autojump_clock):
    async with running() as runtime:
        caller = runtime.caller()
        for request_id in (1, 2):
            await caller.send(http_request(request_id, {"url": f"{ORIGIN}/sse?n=20&gap=1000"}))
            answer = await caller.receive()
            assert isinstance(answer, ExecuteResponse)
            assert json_of(answer)["body"].count("data: ") == 21
        with trio.move_on_after(1000):
            pytest.fail(f"unasked: {await caller.receive()}")
        await caller.close()


# --- times --------------------------------------------------------------------------------------


def timeouts(**seconds: float) -> RuntimeConfig:
    return RuntimeConfig(http=HttpConfig(**seconds))


async def test_a_head_that_does_not_come_in_its_time(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/hang?s=500", "method": "POST"})
        end = await stream.ended()
        assert stream.end_at_s == 60
        assert stream.failed(ErrorClass.TIMEOUT).startswith("HTTP request failed: ")
        assert end.disposition is Disposition.SENT_NO_RESPONSE
        assert runtime.upstream.seen("client_closed_while_busy", t=60)


async def test_silence_within_the_body(autojump_clock):
    async with running(timeouts(stream_idle_timeout_s=40.0)) as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(chunked(39.0, b"a", 39.0, b"b", 41.0, b"c"))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        assert (stream.body, stream.end_at_s) == (b"ab", 118)
        assert "no byte for 40 s" in stream.failed(ErrorClass.TIMEOUT)
        assert end.disposition is Disposition.RESPONSE_STARTED
        assert runtime.network.channels[-1].closed


async def test_the_time_that_the_caller_takes_is_no_silence_of_the_upstream(autojump_clock):
    async with running(timeouts(stream_idle_timeout_s=40.0)) as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(counted(bytes(200_000)))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL}, reads=False)
        await trio.sleep(500)
        assert stream.end is None
        await stream.read()
        await stream.ended()
        assert stream.ok.total_bytes == 200_000


@pytest.mark.parametrize(
    ("fields", "payload", "limit_s", "words"),
    [
        ({}, {}, 600, "default timeout of 600000 ms"),
        ({"deadline_at_ms": WALL_START_MS + 700_000}, {}, 700, "deadline of 700000 ms"),
        ({}, {"timeout_ms": 12_500}, 12.5, "timeout_ms of 12500 ms"),
    ],
)
async def test_the_total_time_ends_a_stream_in_the_middle(
    fields, payload, limit_s, words, autojump_clock
):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(chunked(*[b"x", 10.0] * 1000))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL, **payload}, **fields)
        end = await stream.ended()
        assert stream.end_at_s == limit_s
        assert stream.failed(ErrorClass.TIMEOUT) == (
            f"timed out: the {words} passed while reading the response body ({RAW_URL})"
        )
        assert end.disposition is Disposition.RESPONSE_STARTED
        assert end.total_bytes == limit_s // 10 + (limit_s % 10 > 0)
        assert isinstance(end, StreamEnd)
