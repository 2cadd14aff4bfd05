"""Event streams for callers that did not ask to stream: one answer, as soon as it is over."""

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
from vastar_client.wire import Disposition, ErrorClass
from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES
from vastar_runtime.transport.fake import Send, Wait

TOO_LONG = "response exceeds the frame limit of 10485760 bytes: use streaming"


async def test_the_answer_comes_at_done_though_the_stream_is_held_open(autojump_clock):
    async with running() as runtime:
        started_s = trio.current_time()
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse?n=3&gap=100&hold=20000"}))
        took_s = trio.current_time() - started_s
        assert 0.3 <= took_s < 0.32
        assert fields["is_streaming"] is True
        assert fields["body"].endswith("data: [DONE]\n\n")
        assert fields["body"].count("data: ") == 4
        await runtime.upstream.wait_for("client_closed_while_busy")
        assert trio.current_time() - started_s < 0.32
        assert not runtime.upstream.seen("sse_end")


async def test_a_stream_that_ends_behind_done_leaves_its_connection_for_the_next_call(
    autojump_clock,
):
    async with running() as runtime:
        for _ in range(3):
            json_of(await runtime.http({"url": f"{ORIGIN}/sse?n=1"}))
        assert len(runtime.upstream.seen("conn_open")) == 1


async def test_without_done_the_answer_comes_at_the_end(autojump_clock):
    async with running() as runtime:
        started_s = trio.current_time()
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse?n=2&done=0&hold=5000"}))
        assert trio.current_time() - started_s >= 5
        assert "[DONE]" not in fields["body"]
        assert fields["is_streaming"] is True


async def test_done_inside_an_event_is_not_the_end(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse_fake"}))
        assert fields["body"].endswith("data: two\n\n")
        assert "the [DONE] word" in fields["body"]


@pytest.mark.parametrize(
    "middle",
    [
        "data: [DONE] not yet",
        "data: x\ndata: [DONE]",
        ": [DONE]",
        "event: [DONE]\ndata: x",
        "id: [DONE]\ndata: x",
        "[DONE]",
        "data: [done]",
    ],
)
async def test_nor_is_what_only_looks_like_it(middle, autojump_clock):
    body = f"data: one\n\n{middle}\n\ndata: two\n\n".encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(
            head, *(Send(body[i : i + 1]) for i in range(len(body)))
        )
        assert json_of(await runtime.http({"url": RAW_URL}))["body"].encode() == body


@pytest.mark.parametrize(
    "end",
    [
        b"data: [DONE]\n\n",
        b"data:[DONE]\r\n\r\n",
        b"data: [DONE]\r\r",
        b"event: end\ndata: [DONE]\n\n",
        b"data:  [DONE] \n\n",
    ],
)
@pytest.mark.parametrize("piece_bytes", [None, 1, 3])
async def test_every_form_of_done_is_the_end_however_it_is_cut(end, piece_bytes, autojump_clock):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n"
    body = b"data: \xc3\xa9\n\n" + end
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head, Send(body, piece_bytes), Wait())
        answer = await runtime.http({"url": RAW_URL})
        # A CR ends the event: the LF of a CRLF may not have arrived yet.
        assert json_of(answer)["body"].encode() in {body, body.removesuffix(b"\n")}
        assert answer.duration_us < 100_000
        assert answer.disposition is Disposition.COMPLETED


async def test_a_stream_cut_into_single_bytes(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse_split"}))
        assert "é中\N{GRINNING FACE}" in fields["body"]
        assert fields["body"].endswith("data: [DONE]\n\n")
        assert "body_base64" not in fields


async def test_a_stream_cut_off_in_the_middle_is_a_fault(autojump_clock):
    async with running() as runtime:
        answer = await runtime.http({"url": f"{ORIGIN}/sse?n=3&done=0&cut=1"})
        assert answer.error_class is ErrorClass.TRANSIENT
        assert answer.disposition is Disposition.RESPONSE_STARTED
        assert (answer.error_message or "").startswith(
            "HTTP request failed: reading the response body failed for 127.0.0.1:4600: "
            "response cut short: "
        )
        assert answer.payload is None


async def test_what_was_cut_off_behind_done_is_whole(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse?n=1&cut=1"}))
        assert fields["body"].endswith("data: [DONE]\n\n")


async def test_a_stream_over_the_frame_limit_is_refused_and_its_upstream_closed(autojump_clock):
    async with running() as runtime:
        answer = await runtime.http({"url": f"{ORIGIN}/sse_big?mb=12"})
        assert answer.error_class is ErrorClass.PERMANENT
        assert answer.error_message == TOO_LONG
        assert answer.disposition is Disposition.RESPONSE_STARTED
        await trio.testing.wait_all_tasks_blocked()
        assert not runtime.upstream.seen("sse_big_end")
        assert runtime.upstream.seen("conn_close")


async def test_a_line_longer_than_an_event_may_be_is_collected_all_the_same(autojump_clock):
    body = b"data: " + b"x" * 5_000_000 + b"\n\ndata: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head + body)
        assert len(json_of(await runtime.http({"url": RAW_URL}))["body"]) == len(body)


async def test_the_native_form_is_collected_too(autojump_clock):
    async with running() as runtime:
        url = f"{ORIGIN}/sse?n=2&hold=60000"
        response = native_of(await runtime.http(native_payload(url), **NATIVE))
        assert bytes(response.body).endswith(b"data: [DONE]\n\n")


async def test_another_content_type_is_no_stream(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse?ct=text/plain&n=1&hold=3000"}))
        assert fields["is_streaming"] is False


async def test_an_error_status_with_events_is_one_answer_too(autojump_clock):
    async with running() as runtime:
        fields = json_of(await runtime.http({"url": f"{ORIGIN}/sse?st=429&n=1"}))
        assert (fields["status_code"], fields["is_streaming"]) == (429, True)


# --- other bodies over the limit ----------------------------------------------------------------


@pytest.mark.parametrize("over", [1, 1_000_000])
@pytest.mark.parametrize("fields", [{}, NATIVE])
async def test_a_body_over_the_limit(fields, over, autojump_clock):
    """One that is far over is not read to its end: its upstream is left at once."""
    url = f"{ORIGIN}/big?n={MAX_ANSWER_FRAME_BYTES + over}"
    payload = native_payload(url) if fields else {"url": url}
    async with running() as runtime:
        answer = await runtime.http(payload, **fields)
        assert (answer.error_class, answer.error_message) == (ErrorClass.PERMANENT, TOO_LONG)
        await trio.testing.wait_all_tasks_blocked()
        assert over == 1 or runtime.upstream.seen("conn_close")


async def test_a_body_that_fits_but_for_its_json_is_over_the_limit_as_encoded(autojump_clock):
    size = 6_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = raw(head + b"\xff" * size)
        answer = await runtime.http({"url": RAW_URL})
        assert (answer.error_class, answer.error_message) == (ErrorClass.PERMANENT, TOO_LONG)
        response = native_of(await runtime.http(native_payload(RAW_URL), **NATIVE))
        assert len(response.body) == size


@pytest.mark.parametrize("below", [1000, 520])
async def test_a_native_body_just_below_the_limit_fits(below, autojump_clock):
    size = MAX_ANSWER_FRAME_BYTES - below
    async with running() as runtime:
        url = f"{ORIGIN}/big?n={size}"
        assert len(native_of(await runtime.http(native_payload(url), **NATIVE)).body) == size
