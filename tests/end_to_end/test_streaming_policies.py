"""Streams behind the policies: retried before the first byte only, and counted apart."""

import gzip

import msgspec
import pytest
import trio
import trio.testing

from tests.support.held import check_nothing_is_held, check_sessions_are_idle
from tests.support.http_calls import ORIGIN, RAW_PORT, RAW_URL
from tests.support.running import Running, http_request, running
from tests.support.streaming import StreamCaller, streaming
from tests.support.upstream_bodies import SSE, chunked, counted, pieces
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime.config import HttpConfig, PoolConfig, RuntimeConfig
from vastar_runtime.config._policies import (
    AttemptConfig,
    BulkheadConfig,
    PoliciesConfig,
    QueueConfig,
    RateLimitConfig,
    RetryConfig,
    TokenLimitConfig,
)
from vastar_runtime.transport.fake import Close, Reset, Send, Wait


def policies(**changed: object) -> RuntimeConfig:
    return RuntimeConfig(defaults=PoliciesConfig(**changed))  # type: ignore[arg-type]


# --- retries ------------------------------------------------------------------------------------

BUSY = counted(b"busy", "retry-after: 2", status=503)
STREAM = chunked(1.0, b"data: a\n\n", 1.0, b"data: b\n\n", headers=[SSE])


async def test_a_503_is_asked_again_and_the_stream_is_the_second_answer(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(BUSY, STREAM)
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL, "method": "POST"})
        end = await stream.ended()
        assert stream.head is not None
        assert (stream.head.status_code, stream.head_at_s) == (200, 2.25)
        assert [at_s for at_s, _ in stream.chunks] == [3.25, 4.25]
        assert (stream.ok.attempts, end.retry_after_ms) == (2, 0)


async def test_when_retries_are_used_up_the_last_error_is_the_stream(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(BUSY, BUSY, BUSY)
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL, "method": "POST"})
        await stream.ended()
        assert stream.head is not None
        assert (stream.head.status_code, stream.body) == (503, b"busy")
        assert (stream.ok.attempts, stream.ok.retry_after_ms) == (3, 2000)


async def test_a_connection_that_breaks_before_the_head_is_asked_again(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/flaky?how=close&fail=1"})
        await stream.ended()
        assert (stream.body, stream.ok.attempts) == (b'{"attempt": 2}', 2)


@pytest.mark.parametrize("ending", [Close(), Reset()])
async def test_nothing_is_asked_again_once_the_head_went_out(ending, autojump_clock):
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces([Send(head), Wait(1), ending])
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        assert stream.failed(ErrorClass.TRANSIENT)
        assert (end.attempts, end.total_bytes) == (1, 0)
        assert end.disposition is Disposition.RESPONSE_STARTED
        assert len(runtime.network.channels) == 1


# --- redirects ----------------------------------------------------------------------------------


async def test_redirects_are_followed_and_the_last_answer_is_the_stream(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/redir?to=/loop%3Fmax%3D3"})
        await stream.ended()
        assert stream.head is not None
        assert (stream.head.status_code, stream.ok.attempts) == (200, 6)
        assert stream.body == b'{"ok": true, "msg": "hello world"}'


async def test_a_redirect_that_is_not_followed_is_the_stream(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        payload = {"url": f"{ORIGIN}/redir", "follow_redirects": False}
        stream = await caller.begin(1, payload)
        await stream.ended()
        assert stream.head is not None
        assert (stream.head.status_code, stream.body, stream.ok.attempts) == (302, b"moved", 1)


async def test_too_many_redirects_are_an_end_alone(autojump_clock):
    async with running() as runtime:
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": f"{ORIGIN}/loop"})
        await stream.ended()
        assert stream.head is None
        assert "more than 10 redirects" in stream.failed(ErrorClass.PERMANENT)


# --- the time until the head --------------------------------------------------------------------


async def test_time_in_our_own_lines_is_not_the_upstreams(autojump_clock):
    """A stream that waited long for its turn has all of the time for its head."""
    one_at_a_time = policies(bulkhead=BulkheadConfig(max_per_origin=1))
    async with running(one_at_a_time) as runtime:
        runtime.network.handlers[RAW_PORT] = pieces([Wait(50), *counted(b"x")] * 2)
        caller = await streaming(runtime)
        first, second = [
            await caller.begin(number, {"url": RAW_URL, "method": "POST"}) for number in (1, 2)
        ]
        await first.ended()
        await second.ended()
        assert (first.ok.attempts, second.ok.attempts) == (1, 1)
        assert second.head_at_s == 100


async def test_a_backoff_that_was_begun_leads_to_an_attempt(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(
            counted(b"", "retry-after: 80", status=503), STREAM
        )
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL, "method": "POST"})
        await stream.ended()
        assert stream.ok.attempts == 2
        assert stream.head_at_s == 90


async def test_an_attempt_without_a_head_is_made_again_where_that_does_no_harm(autojump_clock):
    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(*[[Wait(100)]] * 3)
        caller = await streaming(runtime)
        stream = await caller.begin(1, {"url": RAW_URL})
        end = await stream.ended()
        words = stream.failed(ErrorClass.TIMEOUT)
        assert words.startswith(
            "HTTP request failed: waiting for the response failed for 127.0.0.1:4700: "
        )
        assert (end.attempts, end.disposition) == (3, Disposition.SENT_NO_RESPONSE)


# --- places, connections, rates -----------------------------------------------------------------


async def under_way(runtime: Running, caller: StreamCaller, *ids: int) -> None:
    for request_id in ids:
        await caller.begin(request_id, {"url": f"{ORIGIN}/sse?n=100&gap=1000&tag={request_id}"})
    await runtime.upstream.wait_for("sse_start", count=len(ids))


async def test_streams_have_places_of_their_own(autojump_clock):
    config = policies(
        bulkhead=BulkheadConfig(max_per_origin=1), queue=QueueConfig(max_waiting_per_tenant=0)
    )
    async with running(config) as runtime:
        caller = await streaming(runtime)
        await under_way(runtime, caller, 1)
        refused = await caller.begin(2, {"url": f"{ORIGIN}/small"})
        end = await refused.ended()
        assert "bulkhead" in refused.failed(ErrorClass.TRANSIENT)
        assert end.retry_after_ms > 0
        assert end.disposition is Disposition.NOT_SENT
        await caller.send(http_request(3, {"url": f"{ORIGIN}/small"}))
        assert (await caller.answer(3)).error_class is ErrorClass.SUCCESS
        await caller.streams[1].ended()
        check_nothing_is_held(runtime.runtime._around)


async def test_a_stream_holds_its_place_and_its_connection_until_its_end(autojump_clock):
    config = RuntimeConfig(http=HttpConfig(pool=PoolConfig(max_connections_per_key=1)))
    async with running(config) as runtime:
        caller = await streaming(runtime)
        await under_way(runtime, caller, 1)
        await caller.send(http_request(2, {"url": f"{ORIGIN}/small", "timeout_ms": 200_000}))
        admission = runtime.runtime._around.machines.admission
        await trio.sleep(50)
        assert admission.in_flight(streams=True) == 1
        assert not caller.answers
        await caller.answer(2)
        assert trio.current_time() == 100
        assert caller.streams[1].ok.attempts == 1
        await trio.testing.wait_all_tasks_blocked()
        check_nothing_is_held(runtime.runtime._around)
        check_sessions_are_idle(runtime.runtime)


async def test_a_rate_limit_holds_for_streams_too(autojump_clock):
    config = policies(rate_limit=RateLimitConfig(limit=1, period_s=10.0))
    async with running(config) as runtime:
        caller = await streaming(runtime)
        streams = [await caller.begin(number, {"url": f"{ORIGIN}/small"}) for number in range(1, 4)]
        for stream in streams:
            await stream.ended()
            assert stream.ok.attempts == 1
        assert sorted(stream.end_at_s for stream in streams) == [0, 10, 20]


async def test_the_limit_on_one_attempt_ends_with_the_head(autojump_clock):
    config = policies(attempt=AttemptConfig(timeout_s=5.0))
    async with running(config) as runtime:
        caller = await streaming(runtime)
        await under_way(runtime, caller, 1)
        await caller.streams[1].ended()
        assert caller.streams[1].ok.attempts == 1


# --- tokens -------------------------------------------------------------------------------------

BODY = {"messages": [{"role": "user", "content": "12345678"}], "max_tokens": 500}
ASKED = {"url": RAW_URL, "method": "POST", "body": BODY}
TOKENS = policies(
    retry=RetryConfig(mode="off"), token_limit=TokenLimitConfig(limit=1000, period_s=1e7)
)
TEXT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":60}}\n\n'


def used_tokens(runtime: Running) -> float:
    """What is used of the one limit that there is."""
    ((_, credential),) = runtime.runtime._around.machines.credentials.items()
    assert credential.limits.tokens is not None
    left: float = credential.limits.tokens.limiter.available(trio.current_time())
    return round(1000 - left, 1)


async def test_tokens_are_settled_by_the_events_that_pass(autojump_clock):
    """Held while the stream lasts, and then what the upstream says."""
    async with running(TOKENS) as runtime:
        events = chunked(TEXT[:20], 1.0, TEXT[20:], USAGE, 1.0, b"data: [DONE]\n\n", headers=[SSE])
        runtime.network.handlers[RAW_PORT] = pieces(events)
        caller = await streaming(runtime)
        stream = await caller.begin(1, ASKED)
        await stream.has(len(TEXT))
        assert used_tokens(runtime) == 503
        await stream.ended()
        assert stream.ok.attempts == 1
        await trio.testing.wait_all_tasks_blocked()
        assert used_tokens(runtime) == 100
        check_nothing_is_held(runtime.runtime._around)


async def test_tokens_of_a_coded_stream_are_read_behind_the_decoder(autojump_clock):
    async with running(TOKENS) as runtime:
        coded = gzip.compress(TEXT + USAGE, mtime=0)
        headers = (SSE, "content-encoding: gzip")
        runtime.network.handlers[RAW_PORT] = pieces(counted(coded, *headers))
        caller = await streaming(runtime)
        stream = await caller.begin(1, ASKED)
        await stream.ended()
        assert stream.body == TEXT + USAGE
        await trio.testing.wait_all_tasks_blocked()
        assert used_tokens(runtime) == 100


@pytest.mark.parametrize("way", ["cancel", "hang up", "cut"])
async def test_tokens_of_a_stream_that_was_left_are_settled_by_what_came(way, autojump_clock):
    async with running(TOKENS) as runtime:
        events = [*chunked(TEXT * 4, headers=[SSE])[:-1], Wait(100 if way != "cut" else 1)]
        runtime.network.handlers[RAW_PORT] = pieces(events)
        caller = await streaming(runtime)
        stream = await caller.begin(1, ASKED)
        await stream.has(4 * len(TEXT))
        await trio.sleep(1)
        if way == "cancel":
            await stream.cancel()
        elif way == "hang up":
            await caller.close()
        await trio.testing.wait_all_tasks_blocked()
        assert used_tokens(runtime) == 3 + len(TEXT)
        check_nothing_is_held(runtime.runtime._around)


async def test_a_json_answer_that_is_streamed_is_settled_by_its_usage(autojump_clock):
    answer = b'{"usage": {"prompt_tokens": 30, "completion_tokens": 7}}'
    async with running(TOKENS) as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(counted(answer))
        caller = await streaming(runtime)
        stream = await caller.begin(1, ASKED)
        await stream.ended()
        assert stream.body == answer
        await trio.testing.wait_all_tasks_blocked()
        assert used_tokens(runtime) == 37


async def test_a_stream_with_lines_longer_than_events_are_is_handed_on_all_the_same(autojump_clock):
    body = b"data: " + b"x" * 5_000_000 + b"\n\n"
    async with running(TOKENS) as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(counted(body, SSE))
        caller = await streaming(runtime)
        stream = await caller.begin(1, ASKED)
        await stream.ended()
        assert stream.ok.total_bytes == len(body)
        await trio.testing.wait_all_tasks_blocked()
        assert used_tokens(runtime) == 503, "what came was worth more than was held"


@pytest.mark.parametrize(("headers", "held"), [({}, 1000), ({"content-length": "68"}, 1000)])
async def test_a_body_that_follows_is_no_way_around_a_token_limit(headers, held, autojump_clock):
    """Nobody can read it before it is sent: so a guess is held, and the answer's usage counts."""
    async with running(TOKENS) as runtime:
        runtime.network.handlers[RAW_PORT] = pieces(chunked(1.0, TEXT, USAGE, headers=[SSE]))
        caller = await streaming(runtime)
        payload = {"url": RAW_URL, "method": "POST", "headers": headers}
        stream = await caller.begin(1, payload, body_follows=True)
        await caller.upload(1, msgspec.json.encode(BODY))
        await stream.started()
        assert used_tokens(runtime) == held
        await stream.ended()
        assert stream.ok.attempts == 1
        await trio.testing.wait_all_tasks_blocked()
        assert used_tokens(runtime) == 100
        check_nothing_is_held(runtime.runtime._around)
