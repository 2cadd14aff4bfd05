"""Request bodies in pieces through the whole runtime: exact, bounded, sent again while young."""

import base64
import json

import pytest
import trio
import trio.testing

from tests.support.held import check_nothing_is_held, check_sessions_are_idle
from tests.support.http_calls import NATIVE, ORIGIN, RAW_PORT, RAW_URL, json_of, native_payload
from tests.support.running import http_request, running
from tests.support.streaming import StreamCaller, streaming
from tests.support.upstream_bodies import Sink, chunked, counted
from vastar_client.wire import Disposition, ErrorClass, ExecuteResponse
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.config._policies import PoliciesConfig, RetryConfig
from vastar_runtime.transport.fake import Close, Wait

FAR_MORE = bytes(range(256)) * 20_000
"""Five times what the connection may hold."""


async def unary_upload(
    caller: StreamCaller, request_id: int, payload: object, data: bytes, **fields: object
) -> ExecuteResponse:
    """The answer to a call that is no stream, whose body is sent as the credit allows."""
    caller.opens_upload(request_id)
    await caller.send(http_request(request_id, payload, body_follows=True, **fields))
    await caller.upload(request_id, data)
    return await caller.answer(request_id)


def post(**more: object) -> dict[str, object]:
    return {"url": RAW_URL, "method": "POST", **more}


# --- what arrives -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("declared", [False, True])
async def test_a_body_arrives_as_it_was_sent_counted_or_in_chunks(size, declared, autojump_clock):
    body = FAR_MORE[:size]
    headers = {"Content-Length": str(size), "X-A": "b"} if declared else {"X-A": "b"}
    payload = {"url": f"{ORIGIN}/echo", "method": "POST", "headers": headers}
    async with running() as runtime:
        caller = await streaming(runtime)
        answer = await unary_upload(caller, 1, payload, body)
        told = json_of(answer)["body"]
        echoed = json.loads(told)
        assert base64.b64decode(echoed["body_b64"]) == body
        sent = {name.lower(): value for name, value in echoed["headers"]}
        assert sent["x-a"] == "b"
        if declared:
            assert sent["content-length"] == str(size)
            assert "transfer-encoding" not in sent
        else:
            assert sent["transfer-encoding"] == "chunked"
            assert "content-length" not in sent
        assert (answer.attempts, answer.disposition) == (1, Disposition.COMPLETED)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("declared", [False, True])
async def test_far_more_than_the_windows_goes_through(streams, declared, autojump_clock):
    size = len(FAR_MORE)
    payload = post(headers={"Content-Length": str(size)}) if declared else post()
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink()
        caller = await streaming(runtime)
        if streams:
            stream = await caller.begin(1, payload, body_follows=True)
            await caller.upload(1, FAR_MORE)
            await stream.ended()
            assert (stream.ok.attempts, stream.body) == (1, b"ok")
        else:
            answer = await unary_upload(caller, 1, payload, FAR_MORE)
            assert json_of(answer)["body"] == "ok"
        assert sink.bodies == [FAR_MORE]
        assert sink.whole == [True]
        check_nothing_is_held(runtime.runtime._around)
        check_sessions_are_idle(runtime.runtime)


async def test_each_piece_leaves_when_it_comes(autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink()
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        for number in range(1, 4):
            await caller.upload(1, b"piece", last=False)
            await sink.until(lambda number=number: sink.received_bytes == 5 * number)  # type: ignore[misc]
            assert trio.current_time() == (number - 1) * 7
            await trio.sleep(7)
        await caller.upload(1, b"")
        await stream.ended()
        assert (stream.end_at_s, stream.ok.total_bytes) == (21, 2)


async def test_single_bytes_arrive_too(autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(wait_s=0.001)
        caller = await streaming(runtime)
        answer = await unary_upload(caller, 1, post(), b"")
        assert json_of(answer)["body"] == "ok"
        caller.opens_upload(2)
        await caller.send(http_request(2, post(), body_follows=True))
        await caller.upload(2, FAR_MORE[:3000], piece_bytes=1)
        await caller.answer(2)
        assert sink.bodies == [b"", FAR_MORE[:3000]]


async def test_payloads_may_be_native_and_many_bodies_go_out_at_once(autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(wait_s=0.001)
        caller = await streaming(runtime)
        payload = native_payload(RAW_URL, "PUT")
        async with trio.open_nursery() as nursery:
            for number in range(1, 31):
                stream = await caller.begin(number, payload, body_follows=True, **NATIVE)
                nursery.start_soon(caller.upload, number, bytes([number]) * 150_000)
        for stream in caller.streams.values():
            await stream.ended()
            assert stream.ok.total_bytes == 2
        assert sorted(body[0] for body in sink.bodies) == list(range(1, 31))
        assert all(len(set(body)) == 1 and len(body) == 150_000 for body in sink.bodies)


async def test_an_upstream_that_takes_nothing_stops_its_own_caller_only(autojump_clock):
    async with running() as runtime:
        stuck = runtime.network.handlers[RAW_PORT] = Sink(reads=False)
        caller = await streaming(runtime)
        async with trio.open_nursery() as nursery:
            for number in range(1, 31):
                await caller.begin(number, post(), body_follows=True)
                nursery.start_soon(caller.upload, number, FAR_MORE[:300_000])
            await trio.sleep(5)
            most = 4 * 65_536  # its window, and what it has taken out of it
            assert all(caller.sent_bytes[number] <= most for number in range(1, 31))
            payload = {"url": f"{ORIGIN}/echo", "method": "POST"}
            answer = await unary_upload(caller, 99, payload, FAR_MORE[:1_500_000])
            assert json_of(answer)["status_code"] == 200
            assert trio.current_time() == 5
            stuck.resume()
        for number in range(1, 31):
            await caller.streams[number].ended()
            assert caller.streams[number].ok.attempts == 1


# --- what is asked wrongly ----------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (post(body="x"), "a body is given and `body_follows` is set; give one of the two"),
        (
            post(headers={"content-length": "five"}),
            "Invalid header 'content-length': give one number of bytes, or none",
        ),
        (
            post(headers={"transfer-encoding": "chunked"}),
            "Invalid header 'transfer-encoding': the runtime frames the body itself; leave it out",
        ),
    ],
)
async def test_a_bad_request_is_told_though_its_body_is_on_its_way(
    payload, words, fields, autojump_clock
):
    async with running() as runtime:
        caller = await streaming(runtime)
        caller.opens_upload(1)
        if fields:
            stream = await caller.begin(1, payload, body_follows=True)
            await caller.upload(1, FAR_MORE)
            await stream.ended()
            assert stream.failed(ErrorClass.INVALID_REQUEST) == words
        else:
            answer = await unary_upload(caller, 1, payload, FAR_MORE)
            assert (answer.error_class, answer.error_message) == (ErrorClass.INVALID_REQUEST, words)
        assert runtime.network.channels == []


@pytest.mark.parametrize(
    ("declared", "sent"), [(10, 9), (10, 0), (10, 11), (0, 1), (70_000, 80_000)]
)
async def test_a_body_of_another_length_than_declared_is_the_callers_fault(
    declared, sent, autojump_clock
):
    """And the upstream is never made to believe that it has it all."""
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink()
        caller = await streaming(runtime)
        payload = post(headers={"content-length": str(declared)})
        answer = await unary_upload(caller, 1, payload, FAR_MORE[:sent])
        assert answer.error_class is ErrorClass.INVALID_REQUEST
        longer = "is longer than the" if sent > declared else "ended short: "
        assert f"the request body {longer}" in (answer.error_message or "")
        assert answer.attempts <= 1
        await trio.testing.wait_all_tasks_blocked()
        assert not any(sink.whole) or declared == 0
        check_nothing_is_held(runtime.runtime._around)


# --- answers that come early --------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_an_upstream_that_refuses_early_is_heard_and_left(fields, autojump_clock):
    """Most of the body is never asked for; what is on its way is discarded."""
    async with running() as runtime:
        sink = Sink(counted(b"too large", status=413), after_bytes=100_000)
        runtime.network.handlers[RAW_PORT] = sink
        caller = await streaming(runtime)
        if fields:
            stream = await caller.begin(1, post(), body_follows=True)
            await caller.upload(1, FAR_MORE)
            await stream.ended()
            assert stream.head is not None
            assert (stream.head.status_code, stream.body) == (413, b"too large")
            assert stream.ok.attempts == 1
        else:
            answer = await unary_upload(caller, 1, post(), FAR_MORE)
            assert json_of(answer)["status_code"] == 413
        await trio.testing.wait_all_tasks_blocked()
        assert caller.sent_bytes[1] < 1_000_000
        assert len(sink.closed_at_s) == 1, "a connection whose body was cut is not used again"
        check_nothing_is_held(runtime.runtime._around)
        again = await unary_upload(caller, 2, {"url": f"{ORIGIN}/echo", "method": "POST"}, b"x")
        assert json_of(again)["status_code"] == 200


async def test_an_upstream_that_dies_in_the_middle_is_its_own_fault(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = Sink([Close()], after_bytes=100_000)
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        with trio.move_on_after(5):
            await caller.upload(1, FAR_MORE)
        end = await stream.ended()
        assert stream.failed(ErrorClass.TRANSIENT).startswith("HTTP request failed: ")
        assert end.disposition is Disposition.SENT_NO_RESPONSE


# --- again --------------------------------------------------------------------------------------

BUSY = counted(b"busy", "retry-after: 1", status=503)


@pytest.mark.parametrize("size", [0, 1, 30_000, 65_536])
async def test_a_young_body_is_sent_again_on_a_retry(size, autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(BUSY, BUSY, counted(b"ok"))
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        await caller.upload(1, FAR_MORE[:size], piece_bytes=20_000)
        await stream.ended()
        assert (stream.body, stream.ok.attempts) == (b"ok", 3)
        assert sink.bodies == [FAR_MORE[:size]] * 3


async def test_of_one_that_is_older_the_failure_is_the_answer(autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(BUSY, counted(b"ok"))
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        await caller.upload(1, FAR_MORE[:65_537])
        await stream.ended()
        assert stream.head is not None
        assert (stream.head.status_code, stream.body) == (503, b"busy")
        assert (stream.ok.attempts, stream.ok.retry_after_ms) == (1, 1000)
        assert sink.bodies == [FAR_MORE[:65_537]]


async def test_one_that_fails_early_is_sent_again_from_its_start_and_goes_on(autojump_clock):
    """The 503 came when 30,000 bytes were sent; the rest follows on the second attempt."""
    async with running() as runtime:
        sink = Sink(BUSY, counted(b"ok"), after_bytes=30_000)
        runtime.network.handlers[RAW_PORT] = sink
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        await caller.upload(1, FAR_MORE[:30_000], last=False)
        await sink.until(lambda: len(sink.heads) == 2)
        sink.takes_all()
        await caller.upload(1, FAR_MORE[30_000:500_000])
        await stream.ended()
        assert (stream.body, stream.ok.attempts) == (b"ok", 2)
        assert sink.bodies[1] == FAR_MORE[:500_000]


async def test_a_connection_that_breaks_is_made_anew_for_a_young_body(autojump_clock):
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink([Close()], counted(b"ok"))
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(method="PUT"), body_follows=True)
        await caller.upload(1, FAR_MORE[:50_000])
        await stream.ended()
        assert (stream.body, stream.ok.attempts) == (b"ok", 2)
        assert sink.bodies[1] == FAR_MORE[:50_000]


@pytest.mark.parametrize("status", [307, 308])
async def test_a_young_body_follows_a_redirect(status, autojump_clock):
    moved = counted(b"", "location: /there", status=status)
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(moved, counted(b"ok"))
        caller = await streaming(runtime)
        answer = await unary_upload(caller, 1, post(), FAR_MORE[:65_536])
        assert (json_of(answer)["body"], answer.attempts) == ("ok", 2)
        assert sink.bodies == [FAR_MORE[:65_536]] * 2
        assert sink.heads[1].startswith(b"POST /there ")


@pytest.mark.parametrize("status", [307, 308])
async def test_of_an_older_one_the_redirect_is_the_answer(status, autojump_clock):
    moved = counted(b"moved", "location: /there", status=status)
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(moved, counted(b"ok"))
        caller = await streaming(runtime)
        answer = await unary_upload(caller, 1, post(), FAR_MORE[:70_000])
        fields = json_of(answer)
        assert (fields["status_code"], fields["body"]) == (status, "moved")
        assert fields["headers"]["location"] == "/there"
        assert len(sink.bodies) == 1


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_drops_the_body_is_followed_whatever_its_age(status, autojump_clock):
    moved = counted(b"", "location: /there", status=status)
    async with running() as runtime:
        sink = runtime.network.handlers[RAW_PORT] = Sink(moved, counted(b"ok"))
        caller = await streaming(runtime)
        answer = await unary_upload(caller, 1, post(), FAR_MORE[:300_000])
        assert json_of(answer)["body"] == "ok"
        assert sink.heads[1].startswith(b"GET /there ")
        assert b"transfer-encoding" not in sink.heads[1].lower()
        assert sink.bodies[1] == b""


# --- times --------------------------------------------------------------------------------------


async def test_the_time_for_the_head_begins_when_the_body_has_been_sent(autojump_clock):
    """Neither a slow caller nor an upstream that takes its time over a long body uses it up."""
    async with running() as runtime:
        slow = [Wait(25), *chunked(b"x")]
        runtime.network.handlers[RAW_PORT] = Sink(slow, wait_s=2.0)
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        await caller.upload(1, bytes(100_000), last=False)
        await trio.sleep(100)
        await caller.upload(1, bytes(100_000))
        await stream.ended()
        assert stream.ok.total_bytes == 1
        assert stream.head_at_s > 150
        assert stream.keep_alives[:3] == [15, 30, 45]


async def test_it_ends_where_the_upstream_takes_no_byte_more(autojump_clock):
    async with running(one_attempt()) as runtime:
        runtime.network.handlers[RAW_PORT] = Sink(reads=False)
        caller = await streaming(runtime)
        stream = await caller.begin(1, post(), body_follows=True)
        await caller.upload(1, FAR_MORE[:300_000])
        await stream.ended()
        assert "no head of an answer for 60 s" in stream.failed(ErrorClass.TIMEOUT)
        assert stream.end_at_s == 60


async def test_a_body_may_take_longer_than_a_call(autojump_clock):
    """Where the caller names no deadline, also of one whose answer is no stream."""
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = Sink([Wait(45), *counted(b"ok")])
        caller = await streaming(runtime)
        caller.opens_upload(1)
        await caller.send(http_request(1, post(), body_follows=True))
        await caller.upload(1, bytes(100_000), last=False)
        await trio.sleep(200)
        await caller.upload(1, bytes(100_000))
        answer = await caller.answer(1)
        assert json_of(answer)["body"] == "ok"
        assert answer.duration_us >= 245_000_000


@pytest.mark.parametrize(("deadline_ms", "ends_at_s"), [(0, 60), (5000, 5), (90_000, 90)])
async def test_behind_the_body_its_answer_is_waited_for_no_longer_than_a_streams(
    deadline_ms, ends_at_s, autojump_clock
):
    async with running(one_attempt()) as runtime:
        runtime.network.handlers[RAW_PORT] = Sink([Wait(1000)])
        caller = await streaming(runtime)
        answer = await unary_upload(caller, 1, post(timeout_ms=deadline_ms), b"body")
        assert answer.error_class is ErrorClass.TIMEOUT
        assert trio.current_time() == ends_at_s


def one_attempt() -> RuntimeConfig:
    return RuntimeConfig(defaults=PoliciesConfig(retry=RetryConfig(mode="off")))
