"""Every misbehaviour of an upstream and every limit of time: class, words, disposition."""

import gzip
import tracemalloc

import pytest
import trio
import trio.testing

from tests.support.http_calls import (
    NATIVE,
    ORIGIN,
    RAW_PORT,
    RAW_URL,
    json_of,
    native_of,
    native_payload,
    raw,
)
from tests.support.running import running
from tests.support.sessions import WALL_START_MS
from tests.support.streaming import streaming
from tests.support.upstream_bodies import counted, pieces
from vastar_client.wire import Disposition, ErrorClass, ExecuteResponse
from vastar_runtime.config import HttpConfig, RuntimeConfig
from vastar_runtime.transport.fake import Reset, Send, Wait
from vastar_runtime.transport.memory import MemoryChannel

HEAD = "HTTP request failed: waiting for the response failed for 127.0.0.1:4600: "
BODY = "HTTP request failed: reading the response body failed for 127.0.0.1:4600: "


def check(answer: ExecuteResponse, error_class: ErrorClass, message: str, how: Disposition) -> None:
    assert (answer.error_class, answer.error_message) == (error_class, message)
    assert answer.disposition is how
    assert answer.payload is None
    assert (answer.retry_after_ms, answer.refused_by) == (0, None)


@pytest.mark.parametrize(
    ("path", "message", "disposition"),
    [
        (
            "/short",
            BODY + "response cut short: 9 of 100 bytes",
            Disposition.RESPONSE_STARTED,
        ),
        ("/garbage", HEAD + "invalid HTTP: no HTTP/1.x status line", Disposition.RESPONSE_STARTED),
        ("/reset", HEAD + "connection reset", Disposition.SENT_NO_RESPONSE),
        ("/closenow", HEAD + "closed before the response", Disposition.SENT_NO_RESPONSE),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_the_upstream_did_wrong(method, path, message, disposition, autojump_clock):
    async with running() as runtime:
        answer = await runtime.http({"url": ORIGIN + path, "method": method})
        check(answer, ErrorClass.TRANSIENT, message, disposition)
        # Nothing is broken for the next one.
        assert json_of(await runtime.http({"url": f"{ORIGIN}/small"}))["status_code"] == 200


RAW_BODY = BODY.replace("4600", "4700")
RAW_HEAD = HEAD.replace("4600", "4700")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "steps", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", (), RAW_HEAD + "closed inside the response head"),
        (b"HTTP/1.1 103 Early\r\n\r\n", (), RAW_HEAD + "closed inside the response head"),
        (b"HTTP/1.1 200 OK\r\nX: y", (Reset(),), RAW_HEAD + "connection reset"),
        (CHUNKED + b"5\r\nhello\r\n", (), RAW_BODY + "response cut short: 5 bytes"),
        (CHUNKED + b"5\r\nhel", (Reset(),), RAW_BODY + "connection reset"),
        (b"HTTP/2 200\r\n\r\n", (), None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", (), None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", (), None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", (), None),
        (CHUNKED + b"zz\r\n", (), None),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", (), None),
        (b"\x16\x03\x01\x02\x00", (), None),
    ],
)
async def test_answers_that_are_not_http(data, steps, message, autojump_clock):
    async with running() as runtime:
        # Wait a moment, so that head and fault do not arrive as one.
        runtime.network.handlers[RAW_PORT] = raw(data, Wait(0.01), *steps)
        answer = await runtime.http({"url": RAW_URL})
        said = answer.error_message or ""
        if message is None:
            assert said.startswith((RAW_HEAD, RAW_BODY))
            assert len(said) < 250
            message = said
        check(answer, ErrorClass.TRANSIENT, message, Disposition.RESPONSE_STARTED)


async def test_a_refused_connection(autojump_clock):
    async with running() as runtime:
        answer = await runtime.http({"url": "http://127.0.0.1:1/"})
        check(
            answer,
            ErrorClass.TRANSIENT,
            "HTTP request failed: connect failed for 127.0.0.1:1: connection refused",
            Disposition.NOT_SENT,
        )


async def test_a_connection_that_never_opens(autojump_clock):
    async with running() as runtime:

        async def never(address: object) -> None:
            await trio.sleep_forever()

        runtime.network.connect = never  # type: ignore[method-assign, assignment]
        answer = await runtime.http({"url": ORIGIN})
        check(
            answer,
            ErrorClass.TIMEOUT,
            "HTTP request failed: connect failed for 127.0.0.1:4600: timed out after 5 s",
            Disposition.NOT_SENT,
        )
        assert (answer.attempts, answer.backoff_us) == (3, 25_000 + 50_000)
        assert answer.duration_us == 3 * 5_000_000 + answer.backoff_us
        answer = await runtime.http({"url": ORIGIN}, deadline_at_ms=WALL_START_MS + 16_075)
        check(
            answer,
            ErrorClass.TIMEOUT,
            f"timed out: the deadline of 1000 ms passed while connecting ({ORIGIN})",
            Disposition.NOT_SENT,
        )


# --- time ---------------------------------------------------------------------------------------


async def test_a_deadline_that_has_passed_leaves_the_upstream_alone(autojump_clock):
    async with running() as runtime:
        for at_ms in (WALL_START_MS - 1500, WALL_START_MS, 1):
            answer = await runtime.http({"url": ORIGIN}, deadline_at_ms=at_ms)
            late_ms = WALL_START_MS - at_ms
            message = f"the deadline had passed {late_ms} ms before the call arrived"
            check(answer, ErrorClass.TIMEOUT, message, Disposition.NOT_SENT)
            assert (answer.duration_us, answer.attempts) == (0, 0)
        assert runtime.upstream.events == []


@pytest.mark.parametrize(
    ("timeout_ms", "deadline_ms", "binds", "after_ms"),
    [
        (None, None, "default timeout", 30_000),
        (0, 0, "default timeout", 30_000),
        (200, None, "timeout_ms", 200),
        (45_000, None, "timeout_ms", 45_000),
        (None, 300, "deadline", 300),
        (0, 300, "deadline", 300),
        (None, 50_000, "deadline", 50_000),
        (200, 300, "timeout_ms", 200),
        (300, 200, "deadline", 200),
        (2**63, 200, "deadline", 200),
    ],
)
async def test_the_limit_that_binds_is_named_and_kept(
    timeout_ms, deadline_ms, binds, after_ms, autojump_clock
):
    async with running() as runtime:
        payload = {"url": f"{ORIGIN}/sleep?ms=3600000", "timeout_ms": timeout_ms}
        at_ms = WALL_START_MS + deadline_ms if deadline_ms else 0
        answer = await runtime.http(payload, deadline_at_ms=at_ms)
        check(
            answer,
            ErrorClass.TIMEOUT,
            f"timed out: the {binds} of {after_ms} ms passed while waiting for the response "
            f"({ORIGIN})",
            Disposition.SENT_NO_RESPONSE,
        )
        assert answer.duration_us == after_ms * 1000
        await runtime.upstream.wait_for("client_closed_while_busy")
        assert trio.current_time() == pytest.approx(after_ms / 1000, abs=0.01)


async def test_the_default_is_the_configured_one(autojump_clock):
    config = RuntimeConfig(http=HttpConfig(default_timeout_s=1.5))
    async with running(config) as runtime:
        answer = await runtime.http({"url": f"{ORIGIN}/hang"})
        assert "the default timeout of 1500 ms passed" in str(answer.error_message)


async def test_a_timeout_in_the_body_says_so(autojump_clock):
    async with running() as runtime:
        payload = {"url": f"{ORIGIN}/drip?n=100&gap=100", "timeout_ms": 450}
        check(
            await runtime.http(payload),
            ErrorClass.TIMEOUT,
            "timed out: the timeout_ms of 450 ms passed while reading the response body "
            f"({ORIGIN})",
            Disposition.RESPONSE_STARTED,
        )
        await runtime.upstream.wait_for("client_closed_while_busy")


async def test_a_timeout_while_the_upstream_takes_no_bytes_says_so(autojump_clock):
    async def deaf(channel: MemoryChannel) -> None:
        await trio.sleep_forever()

    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = deaf
        answer = await runtime.http(
            native_payload(RAW_URL, "POST", body=b"x" * 1_000_000, timeout_ms=100), **NATIVE
        )
        check(
            answer,
            ErrorClass.TIMEOUT,
            f"timed out: the timeout_ms of 100 ms passed while sending the request ({RAW_URL})",
            Disposition.SENT_NO_RESPONSE,
        )


async def test_a_body_that_arrives_just_in_time_is_an_answer(autojump_clock):
    async with running() as runtime:
        payload = {"url": f"{ORIGIN}/sleep?ms=999", "timeout_ms": 1000}
        assert json_of(await runtime.http(payload))["status_code"] == 200


# --- bombs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, NATIVE])
async def test_a_bomb_stops_at_the_frame_limit_in_bounded_memory(fields, autojump_clock):
    """A body that decodes to two hundred times its size, and is sent without end."""
    bomb = gzip.compress(bytes(64 << 20), 1)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head, Send(bomb, 1024), Wait())
        payload = native_payload(RAW_URL) if fields else {"url": RAW_URL}
        tracemalloc.start()
        try:
            answer = await runtime.http(payload, **fields)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
        assert answer.error_class is ErrorClass.PERMANENT
        assert answer.error_message == (
            "response exceeds the frame limit of 10485760 bytes: use streaming"
        )
        await trio.testing.wait_all_tasks_blocked()
        assert all(channel.closed for channel in runtime.network.channels)


@pytest.mark.parametrize("fields", [{}, NATIVE])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_bomb_is_refused_for_its_ratio(fields, times, autojump_clock):
    """It breaks off after a few mebibytes, and is not worth a retry."""
    bomb = bytes(64 << 20)
    for _ in range(times):
        bomb = gzip.compress(bomb)
    codings = ", ".join(["gzip"] * times)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {codings}\r\n\r\n".encode()
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head, Send(bomb, 1024), Wait())
        payload = native_payload(RAW_URL) if fields else {"url": RAW_URL}
        tracemalloc.start()
        try:
            answer = await runtime.http(payload, **fields)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        assert answer.error_class is ErrorClass.PERMANENT
        assert answer.error_message.endswith(
            f"the body ({codings}) decodes to more than 1000 times its length, "
            "as a decompression bomb does"
        )
        await trio.testing.wait_all_tasks_blocked()
        assert all(channel.closed for channel in runtime.network.channels)


async def test_a_bomb_breaks_off_and_holds_no_more_than_a_window(autojump_clock):
    bomb = gzip.compress(gzip.compress(bytes(200_000_000), mtime=0), mtime=0)
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(counted(bomb, "content-encoding: gzip, gzip"))
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL}, reads=False)
        await trio.sleep(10)
        assert stream.total_bytes == 65_536
        await stream.read()
        await stream.ended()
        assert stream.total_bytes < 2_000_000
        words = stream.failed(ErrorClass.PERMANENT)
        assert words.endswith("more than 1000 times its length, as a decompression bomb does")


async def test_the_same_bomb_is_handed_on_raw_where_that_was_asked(autojump_clock):
    bomb = gzip.compress(bytes(64 << 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head + bomb)
        payload = native_payload(RAW_URL, decode_content=False)
        assert bytes(native_of(await runtime.http(payload, **NATIVE)).body) == bomb
