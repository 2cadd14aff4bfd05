"""Every misbehaviour of the catalogue through the whole runtime: the answer it must be, and after.

In virtual time over memory; a sample again over real sockets.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from tests.support.running import PortNetwork, Running, http_request, running
from tests.support.upstream import Upstream
from tools.faults import CATALOGUE, WELL, HostileUpstream, Misbehaviour, serve_hostile
from vastar_client.wire import (
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HttpRequest,
    PayloadFormat,
    decode_http_response,
    encode_http_request,
)
from vastar_runtime.assembly import Runtime
from vastar_runtime.config import PoliciesConfig, RetryConfig, RuntimeConfig
from vastar_runtime.transport.channel import ChannelStream
from vastar_runtime.transport.memory import MemoryChannel

PORT = 4700
ONCE = RuntimeConfig(defaults=PoliciesConfig(retry=RetryConfig(mode="off")))
LEAST = 40
EACH = pytest.mark.parametrize("wrong", CATALOGUE.values(), ids=CATALOGUE)


def asked(wrong: Misbehaviour, port: int) -> ExecuteRequest:
    """The call that meets the misbehaviour, as its value says."""
    request = HttpRequest(
        f"http://127.0.0.1:{port}/",
        wrong.method,
        body=b"x" * wrong.body_bytes or None,
        timeout_ms=wrong.timeout_ms,
    )
    payload = b"".join(map(bytes, encode_http_request(request)))
    return http_request(1, payload, payload_format=PayloadFormat.NATIVE)


async def answered(runtime: Running, request: ExecuteRequest) -> ExecuteResponse:
    caller = runtime.caller()
    await caller.send(request)
    answer = await caller.receive()
    assert isinstance(answer, ExecuteResponse)
    await caller.close()
    return answer


def check(wrong: Misbehaviour, answer: ExecuteResponse) -> None:
    """The answer is the expected one."""
    expected = wrong.expected
    said = answer.error_message or ""
    assert answer.error_class is expected.error_class, said
    assert answer.disposition in expected.dispositions
    assert len(said) < 300
    if expected.error_class is ErrorClass.SUCCESS:
        response = decode_http_response(bytes(answer.payload))  # type: ignore[arg-type]
        assert response.status_code == (expected.status_code or 200)
        said = bytes(response.body or b"").decode()  # type: ignore[arg-type]
    else:
        assert answer.payload is None
    assert re.search(expected.message, said), said


async def check_next(runtime: Running, upstream: HostileUpstream, wrong: Misbehaviour) -> None:
    """The next call is answered, and on a connection of its own where it has to be."""
    opened = upstream.connections
    answer = await answered(runtime, http_request(1, {"url": f"http://127.0.0.1:{upstream.port}/"}))
    assert answer.error_class is ErrorClass.SUCCESS, answer.error_message
    assert upstream.connections == opened + (not wrong.expected.reusable)
    body = msgspec.json.decode(bytes(answer.payload))["body"]  # type: ignore[arg-type]
    assert body == WELL.rpartition(b"\r\n")[2].decode()


def placed(runtime: Running, wrong: Misbehaviour, times: float = 1) -> HostileUpstream:
    """The upstream at `PORT` of the network in memory."""
    upstream = HostileUpstream(wrong, times, port=PORT)

    async def serve(channel: MemoryChannel) -> None:
        await upstream.serve_stream(ChannelStream(channel), channel.reset)

    runtime.network.handlers[PORT] = serve
    return upstream


def test_the_catalogue_is_long_and_says_what_each_is():
    assert len(CATALOGUE) >= LEAST
    for wrong in CATALOGUE.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", wrong.name)
        assert 5 < len(wrong.about) < 90
        assert wrong.steps
        re.compile(wrong.expected.message)


@EACH
async def test_a_misbehaviour_is_answered_as_it_should_be(wrong, autojump_clock):
    async with running(ONCE) as runtime:
        upstream = placed(runtime, wrong)
        with trio.fail_after(wrong.timeout_ms / 1000 + 1):
            answer = await answered(runtime, asked(wrong, PORT))
        check(wrong, answer)
        assert answer.attempts == 1
        await trio.sleep(wrong.idle_s)
        await check_next(runtime, upstream, wrong)


@EACH
async def test_what_may_be_tried_again_is_with_the_policies_as_they_are(wrong, autojump_clock):
    """A GET that failed before its answer's head was whole is saved; one in its body is not."""
    async with running() as runtime:
        placed(runtime, wrong)
        answer = await answered(runtime, asked(wrong, PORT))
        expected = wrong.expected
        in_body = "reading the response body failed|the body|the [a-z]+ body"
        if expected.error_class is not ErrorClass.TRANSIENT or wrong.method != "GET":
            check(wrong, answer)
        elif answer.error_class is ErrorClass.TRANSIENT:
            check(wrong, answer)
            assert re.search(in_body, str(answer.error_message))
            assert answer.attempts == 1
        else:
            assert answer.error_class is ErrorClass.SUCCESS
            assert answer.attempts == 2


async def test_a_hostile_upstream_can_be_well_from_the_start(autojump_clock):
    async with running(ONCE) as runtime:
        wrong = CATALOGUE["ends-before-response"]
        upstream = placed(runtime, wrong, times=0)
        answer = await answered(runtime, asked(wrong, PORT))
        assert answer.error_class is ErrorClass.SUCCESS
        with pytest.raises(AssertionError):
            check(wrong, answer)
        assert upstream.connections == 1


# --- over real sockets --------------------------------------------------------------------------

SAMPLE = [
    "ends-before-response",
    "ends-in-body",
    "resets-before-response",
    "resets-in-body",
    "resets-in-upload",
    "stops-in-body",
    "lies-kept-alive-and-closed",
    "lies-speaks-unasked",
    "lies-two-answers",
    "lies-answers-before-body",
    "status-tls",
    "header-flood",
    "header-smuggled-chunks",
    "chunk-overflow",
    "interim-flood",
    "coding-bomb",
]


@asynccontextmanager
async def running_really() -> AsyncIterator[Running]:
    """As `running`, with the network of this host and its clock."""
    async with trio.open_nursery() as nursery:
        runtime = Runtime(ONCE)
        nursery.start_soon(runtime.run)
        yield Running(runtime, Upstream(), PortNetwork(nursery, {}), nursery)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", SAMPLE)
async def test_the_same_over_real_sockets(name):
    wrong = CATALOGUE[name]
    async with serve_hostile(wrong) as upstream, running_really() as runtime:
        check(wrong, await answered(runtime, asked(wrong, upstream.port)))
        await trio.sleep(wrong.idle_s)
        await check_next(runtime, upstream, wrong)


async def test_a_path_names_the_misbehaviour_where_none_is_given():
    async with serve_hostile() as upstream, running_really() as runtime:
        url = f"http://127.0.0.1:{upstream.port}"
        cut = await answered(runtime, http_request(1, {"url": f"{url}/ends-in-body"}))
        assert "5 of 10 bytes" in str(cut.error_message)
        bomb = await answered(runtime, http_request(1, {"url": f"{url}/coding-bomb?x"}))
        assert bomb.error_class is ErrorClass.PERMANENT
        for path in ("/", "/nothing-like-it"):
            fine = await answered(runtime, http_request(1, {"url": url + path}))
            assert fine.error_class is ErrorClass.SUCCESS
