"""The connector alone: what becomes of what its upstreams do, with scripted upstreams."""

from contextlib import suppress
from typing import Self

import pytest
import trio

from tests.support.running import http_request
from vastar_client.wire import LocalProtocolError
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.http import HttpConnector, HttpSettings, connector
from vastar_runtime.outcomes import Failure, FailureKind, Outcome
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.transport import Phase, Progress, TransportError, UpstreamRequest


class Failing:
    """Upstreams of which none can be reached."""

    def __init__(self, error: Exception | Failure) -> None:
        self.error = error
        self.requests: list[UpstreamRequest] = []
        self.calls: list[Call] = []
        self.leases_open = 0

    def lease(self, call: Call) -> "Failing":
        self.calls.append(call)
        return self

    def __enter__(self) -> Self:
        self.leases_open += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.leases_open -= 1

    def saw(self, data: bytes) -> None:
        pytest.fail("there is no answer")

    def saw_event(self, data: str) -> None:
        pytest.fail("there is no answer")

    async def request(self, request: UpstreamRequest):
        await trio.lowlevel.checkpoint()
        assert self.leases_open == 1
        self.requests.append(request)
        if isinstance(self.error, Failure):
            return self.error
        raise self.error


def failed(*, timed_out: bool = False) -> TransportError:
    progress = Progress(phase=Phase.CONNECT)
    return TransportError.at(progress, "h.test:80", "no way", timed_out=timed_out)


async def execute(
    upstreams: Failing, settings: HttpSettings | None = None, **fields: object
) -> Outcome:
    deadline = Deadline(trio.current_time() + 30, 30, Limit.DEFAULT)
    message = http_request(1, {"url": "http://h.test/a", "body": "12345"}, **fields)
    call = Call(message, Caller(), deadline, 10_000)
    made = HttpConnector(upstreams, settings or HttpSettings(), lambda: 1)
    outcome = await made.execute(call)
    assert call.sent_bytes == 5
    return outcome


async def test_a_transport_error_is_transient_unless_time_ran_out(autojump_clock):
    words = "HTTP request failed: connect failed for h.test:80: no way"
    assert await execute(Failing(failed())) == Failure(FailureKind.UPSTREAM, words)
    assert await execute(Failing(failed(timed_out=True))) == Failure(FailureKind.TIMEOUT, words)


async def test_a_refusal_of_a_policy_is_the_outcome_as_it_is(autojump_clock):
    refusal = Failure(FailureKind.CIRCUIT_OPEN, "refused", 500, "circuit_breaker:origin")
    upstreams = Failing(refusal)
    assert await execute(upstreams) is refusal
    assert upstreams.leases_open == 0


async def test_what_the_call_holds_is_given_back_whatever_happens(autojump_clock):
    for error in (failed(), ZeroDivisionError()):
        upstreams = Failing(error)
        with suppress(ZeroDivisionError):
            await execute(upstreams)
        assert (len(upstreams.calls), upstreams.leases_open) == (1, 0)


async def test_a_configured_accept_encoding_is_sent_where_the_caller_has_none(autojump_clock):
    upstreams = Failing(failed())
    await execute(upstreams, HttpSettings(accept_encoding="gzip, br"))
    assert (b"accept-encoding", b"gzip, br") in upstreams.requests[0].headers
    assert upstreams.requests[0].headers[-1][0] == b"host"
    own = {"url": "http://h.test/a", "body": "12345", "headers": {"Accept-Encoding": "own"}}
    deadline = Deadline(trio.current_time() + 30, 30, Limit.DEFAULT)
    call = Call(http_request(1, own), Caller(), deadline, 10_000)
    made = HttpConnector(upstreams, HttpSettings(accept_encoding="gzip"), lambda: 1)
    await made.execute(call)
    sent = [value for name, value in upstreams.requests[1].headers if name == b"accept-encoding"]
    assert sent == [b"own"]


@pytest.mark.parametrize("key", [None, "", "k"])
async def test_only_a_key_that_is_sent_makes_a_request_safe_to_repeat(key, autojump_clock):
    upstreams = Failing(failed())
    await execute(upstreams, idempotency_key=key)
    (request,) = upstreams.requests
    assert request.replayable is bool(key)
    assert ((b"idempotency-key", b"k") in request.headers) is bool(key)


async def test_an_answer_that_cannot_be_written_is_told(autojump_clock, monkeypatch):
    async def unspeakable(*args: object) -> None:
        await trio.lowlevel.checkpoint()
        raise LocalProtocolError("no room for it")

    monkeypatch.setattr(connector.HttpConnector, "_follow", unspeakable)
    deadline = Deadline(trio.current_time() + 30, 30, Limit.DEFAULT)
    call = Call(http_request(1, {"url": "http://h.test/"}), Caller(), deadline, 10_000)
    call.origin = "http://h.test"
    made = HttpConnector(Failing(failed()), HttpSettings(), lambda: 1)
    assert await made.execute(call) == Failure(
        FailureKind.UPSTREAM_PERMANENT,
        "the response of http://h.test cannot be handed on: no room for it",
    )


async def test_a_bug_is_not_made_an_outcome_here(autojump_clock):
    with pytest.raises(ZeroDivisionError):
        await execute(Failing(ZeroDivisionError()))
