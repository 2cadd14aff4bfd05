"""One attempt's end: what it means to whom, whatever it was."""

import json

import pytest
import trio

from tests.support.layers import ORIGIN, Book, House, laid, make_call, make_request
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition
from vastar_runtime.pipeline import Machines
from vastar_runtime.pipeline.attempt import NO_EVIDENCE, Ended, Holdings, Hop
from vastar_runtime.pipeline.policies import CallPolicies, LimitSettings
from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import AttemptResult, Fault, Reached, Retry
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.transport import (
    FaultKind,
    Phase,
    StreamedBody,
    TransportError,
    UpstreamResponse,
)

TOKENS = LimitSettings(tokens=TokenLimitSettings.per_minute(1000))


def make_hop(policies: CallPolicies | None = None, **fields) -> Hop:
    machines, key = Machines(Book(policies)), Key("acme", "main", ORIGIN)
    return Hop(
        make_call(),
        make_request(**fields),
        key,
        machines.book.of(*key),
        Holdings(),
        machines.origins.get(ORIGIN, 0.0),
        machines.tenants_at_origins.get(("acme", ORIGIN), 0.0),
        machines.credentials.get(key, 0.0),
    )


async def response_of(house: House, status: int) -> UpstreamResponse:
    house.plan(answer(status), host=f"{status}.test")
    call = make_call()
    with house.layers.lease(call) as lease:
        response = await lease.request(make_request(f"{status}.test", method="POST"))
    assert isinstance(response, UpstreamResponse)
    return response


@pytest.mark.parametrize("status", [200, 204, 304, 307, 399])
async def test_an_answer_that_is_no_error_is_fine_for_everybody(status, autojump_clock):
    async with laid() as house:
        response = await response_of(house, status)
        ended = Ended.with_response(make_hop(), 7.0, response, None)
        assert (ended.response, ended.error, ended.refused, ended.at_s) == (
            response,
            None,
            None,
            7.0,
        )
        assert ended.result is None
        meaning = ended.meaning
        assert (meaning.retry, meaning.host, meaning.tenant) == (
            Retry.NEVER,
            Evidence.SUCCESS,
            Evidence.SUCCESS,
        )
        assert meaning.is_clean


@pytest.mark.parametrize(
    ("status", "method", "retry", "tenant"),
    [
        (404, "GET", Retry.NEVER, Evidence.ANSWERED),
        (429, "POST", Retry.THROTTLED, Evidence.THROTTLED),
        (500, "GET", Retry.TRANSIENT, Evidence.FAILURE),
        (500, "POST", Retry.NEVER, Evidence.FAILURE),
        (503, "POST", Retry.TRANSIENT, Evidence.FAILURE),
        (999, "GET", Retry.NEVER, Evidence.FAILURE),
    ],
)
async def test_an_error_means_what_it_says(status, method, retry, tenant, autojump_clock):
    async with laid() as house:
        response = await response_of(house, status)
        ended = Ended.with_response(make_hop(method=method), 7.0, response, 2.5)
        assert ended.result == AttemptResult(status, None, Reached.RESPONSE_STARTED, 2.5)
        assert (ended.meaning.retry, ended.meaning.tenant) == (retry, tenant)
        assert (ended.meaning.host, ended.meaning.is_clean) == (Evidence.SUCCESS, False)
        assert ended.meaning.cools_down is (status == 429)


def failure(kind: FaultKind, phase: Phase, disposition: Disposition) -> TransportError:
    return TransportError(phase, "h.test:80", "no way", disposition, kind=kind, timed_out=False)


NOT_SENT, SENT = Disposition.NOT_SENT, Disposition.SENT_NO_RESPONSE


@pytest.mark.parametrize(
    ("kind", "phase", "reached", "fault"),
    [
        (FaultKind.LOOKUP, Phase.DNS, NOT_SENT, Fault.LOOKUP),
        (FaultKind.CONNECT, Phase.CONNECT, NOT_SENT, Fault.CONNECT),
        (FaultKind.CONNECT, Phase.PROXY, NOT_SENT, Fault.PROXY),
        (FaultKind.LOCAL, Phase.PROXY, NOT_SENT, Fault.LOCAL_ERROR),
        (FaultKind.TLS, Phase.TLS, NOT_SENT, Fault.TLS),
        (FaultKind.UNTRUSTED, Phase.TLS, NOT_SENT, Fault.UNTRUSTED),
        (FaultKind.RESET, Phase.HEAD, SENT, Fault.RESET),
        (FaultKind.GARBLED, Phase.HEAD, Disposition.RESPONSE_STARTED, Fault.GARBLED),
        (FaultKind.LOCAL, Phase.POOL, NOT_SENT, Fault.LOCAL_ERROR),
    ],
)
async def test_every_kind_of_error_is_a_fault(kind, phase, reached, fault, autojump_clock):
    error = failure(kind, phase, reached)
    ended = Ended.with_error(make_hop(), error)
    assert (ended.error, ended.response, ended.refused) == (error, None, None)
    assert ended.result == AttemptResult(0, fault, Reached(int(reached)))
    assert ended.at_s == trio.current_time()


async def test_no_kind_of_error_is_without_a_fault(autojump_clock):
    for kind in FaultKind:
        Ended.with_error(make_hop(), failure(kind, Phase.CONNECT, NOT_SENT))


async def test_a_limit_on_the_attempt_is_told_from_what_it_broke_off(autojump_clock):
    error = failure(FaultKind.RESET, Phase.HEAD, SENT)
    ended = Ended.with_error(make_hop(), error, Fault.ATTEMPT_TIMEOUT)
    assert ended.result == AttemptResult(0, Fault.ATTEMPT_TIMEOUT, Reached.SENT_NO_RESPONSE)
    assert (ended.meaning.host, ended.meaning.tenant) == (Evidence.NONE, Evidence.NO_ANSWER)


@pytest.mark.parametrize(
    ("method", "replayable", "reached", "retry"),
    [
        ("GET", False, SENT, Retry.TRANSIENT),
        ("POST", False, SENT, Retry.NEVER),
        ("POST", True, SENT, Retry.TRANSIENT),
        ("POST", False, NOT_SENT, Retry.TRANSIENT),
        ("get", False, SENT, Retry.NEVER),
    ],
)
async def test_what_it_means_depends_on_the_request(
    method, replayable, reached, retry, autojump_clock
):
    hop = make_hop(method=method, replayable=replayable)
    error = failure(FaultKind.RESET, Phase.HEAD, reached)
    assert Ended.with_error(hop, error).meaning.retry is retry


async def test_a_refusal_means_nothing_to_anybody(autojump_clock):
    refused = Refused("queue", Scope.TENANT, 1.0, "no")
    ended = Ended.by_refusal(refused)
    assert (ended.refused, ended.meaning, ended.result) == (refused, NO_EVIDENCE, None)
    assert (NO_EVIDENCE.host, NO_EVIDENCE.tenant) == (Evidence.NONE, Evidence.NONE)
    assert (NO_EVIDENCE.retry, NO_EVIDENCE.is_clean) == (Retry.NEVER, False)


async def test_a_hop_is_a_user_of_its_machines_while_it_is_used(autojump_clock):
    hop = make_hop()
    machines = (hop.of_origin, hop.of_tenant, hop.of_credential)
    hop.begin_use()
    assert [each.users for each in machines] == [1, 1, 1]
    hop.end_use()
    assert [each.users for each in machines] == [0, 0, 0]


async def test_hops_share_nothing_by_accident(autojump_clock):
    one, other = make_hop(), make_hop()
    one.shown.append(None)
    assert other.shown == []


async def test_a_method_that_is_no_text_is_none_that_policies_know(autojump_clock):
    hop = make_hop()
    assert hop.method == "GET"
    strange = make_hop(method="BR\N{LATIN SMALL LETTER U WITH DIAERESIS}")
    assert strange.method.startswith("BR")
    assert Ended.with_error(
        strange, failure(FaultKind.RESET, Phase.HEAD, SENT)
    ).meaning.retry is Retry.NEVER  # fmt: skip


async def test_a_body_is_read_for_tokens_once_and_only_where_they_are_limited(autojump_clock):
    body = json.dumps({"prompt": "x" * 40, "max_tokens": 7}).encode()
    limited = CallPolicies(tenant_limits=TOKENS)
    assert make_hop(body=body).llm_request() is None
    assert make_hop(limited).llm_request() is None
    for parts in (body, [body[:9], memoryview(body)[9:]], bytearray(body)):
        hop = make_hop(limited, body=parts)
        request = hop.llm_request()
        assert request is not None
        assert (request.prompt_bytes, request.max_tokens) == (40, 7)
        assert hop.llm_request() is request


@pytest.mark.parametrize(("length_bytes", "prompt_bytes"), [(900, 900), (None, 0)])
async def test_a_body_that_comes_in_pieces_costs_its_length(
    length_bytes, prompt_bytes, autojump_clock
):
    async def never() -> bytes:
        raise AssertionError

    hop = make_hop(
        CallPolicies(tenant_limits=TOKENS), body=StreamedBody(never, length_bytes=length_bytes)
    )
    request = hop.llm_request()
    assert request is not None
    assert (request.prompt_bytes, request.max_tokens) == (prompt_bytes, None)
