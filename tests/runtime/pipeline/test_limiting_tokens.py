"""Limits on LLM tokens: reserved by the request, settled by the answer, given back where due."""

import json

import pytest
import trio
import trio.testing

from tests.support.layers import HOST, House, in_order, laid, make_call, make_request
from tests.support.planned import answer, events
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.transport.fake import Close, Refuse, Reset, Send, Wait

ONCE = RetrySettings(mode=Mode.OFF)
LEVELS = ("limits", "workspace_limits", "tenant_limits", "origin_limits")
LIMIT = 1000
PROMPT = 101
RESERVED = PROMPT + 100


def prompt(max_tokens: int = 100) -> bytes:
    """A request of 404 bytes of text, which are taken for 101 tokens."""
    message = {"role": "user", "content": "x" * 400}
    return json.dumps({"messages": [message], "max_tokens": max_tokens}).encode()


def used(tokens: int, text: str = "hi") -> bytes:
    usage = {"prompt_tokens": tokens - 10, "completion_tokens": 10}
    return json.dumps({"text": text, "usage": usage}).encode()


def per_hour(
    limit: int = LIMIT, *, waiting: int = 1000, mode: Mode = Mode.ENFORCE
) -> LimitSettings:
    rate = RateLimitSettings(
        limit,
        period_s=3600.0,
        max_waiting=waiting,
        scope=Scope.TENANT,
        policy="token_limit",
        mode=mode,
    )
    return LimitSettings(tokens=TokenLimitSettings(rate))


def spent(house: House, level: str = "limits") -> int:
    """Tokens that are not to be had now; time has brought some back."""
    machines, now_s, key = house.machines, trio.current_time(), house.key()
    bundle = {
        "limits": lambda: machines.credentials.get(key, now_s),
        "workspace_limits": lambda: machines.workspaces.get(key[:2], now_s),
        "tenant_limits": lambda: machines.tenants.get(key.tenant, now_s),
        "origin_limits": lambda: machines.origins.get(key.origin, now_s),
    }[level]()
    pacer = bundle.limits.tokens
    assert pacer is not None
    whole = pacer.limiter.settings.max_cost
    return round(whole - pacer.limiter.available(now_s))


async def post(house: House, **fields):
    return await house.ask(**{"method": "POST", "body": prompt(), **fields})


@pytest.mark.parametrize("level", LEVELS)
async def test_what_an_answer_used_is_spent_and_the_rest_comes_back(level, autojump_clock):
    async with laid(**{level: per_hour()}) as house:
        house.plan(answer(200, used(50), after_s=1.0))
        house.start([], method="POST", body=prompt())
        await trio.sleep(0.5)
        assert spent(house, level) == RESERVED
        await trio.sleep(1)
        assert spent(house, level) == 50


@pytest.mark.parametrize(
    ("plan", "tokens"),
    [
        (answer(200, used(50)), 50),
        (answer(200, used(500)), 500),
        (answer(200, used(10)), 10),
        (answer(200, b"x" * 40), PROMPT + 10),
        (answer(200, b"x" * 4000), RESERVED),
        (answer(200), PROMPT),
        (events('{"x": 1}', '{"usage": {"prompt_tokens": 60, "completion_tokens": 9}}'), 69),
        (events("x" * 32), PROMPT + 10),
        (answer(400, used(50)), 0),
        (answer(404), 0),
        (answer(429), 0),
        (answer(500, used(50)), PROMPT),
        (answer(503), PROMPT),
        ([Close()], PROMPT),
        ([Reset()], PROMPT),
        ([Send(b"junk\r\n\r\n")], PROMPT),
        ([Send(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n1234"), Close()], PROMPT + 1),
    ],
)
async def test_every_end_of_a_call_has_its_price(plan, tokens, autojump_clock):
    async with laid(limits=per_hour(), retry=ONCE) as house:
        house.plan(plan)
        got = await post(house)
        assert got.call.attempts == 1
        assert spent(house) == tokens


async def test_what_was_not_sent_costs_nothing(autojump_clock):
    async with laid(limits=per_hour(), retry=ONCE) as house:
        house.network.add_host(HOST, Refuse())
        assert (await post(house)).error is not None
        assert spent(house) == 0


async def test_cut_off_before_the_head_it_costs_its_prompt(autojump_clock):
    async with laid(limits=per_hour()) as house:
        house.plan([Wait()])
        assert (await post(house, time_s=1)).timed_out
        assert spent(house) == PROMPT


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_cut_off_in_the_body_it_costs_what_came(kind, autojump_clock):
    async with laid(limits=per_hour()) as house:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n" % kind
        house.plan([Send(head + b"data: " + b"x" * 34), Wait()])
        got = await post(house, time_s=1)
        assert (got.timed_out, len(got.body)) == (True, 40)
        assert spent(house) == PROMPT + 10


async def test_a_call_that_is_never_let_out_costs_nothing(autojump_clock):
    async with laid(limits=per_hour(), breaker=BreakerSettings(min_calls=1), retry=ONCE) as house:
        house.plan(answer(500))
        await post(house)
        for _ in range(9):
            assert (await post(house)).refused_by == "circuit_breaker:tenant"
        assert spent(house) == PROMPT


async def test_every_attempt_pays_for_itself(autojump_clock):
    async with laid(limits=per_hour()) as house:
        house.plan(answer(503), answer(429), answer(200, used(50)))
        got = await post(house, replayable=True)
        assert (got.status, got.call.attempts) == (200, 3)
        assert spent(house) == PROMPT + 0 + 50


async def test_calls_at_once_never_reserve_more_than_there_is(autojump_clock):
    """Rule 6."""
    for level in LEVELS:
        async with laid(**{level: per_hour(3 * RESERVED, waiting=0)}) as house:
            upstream = house.plan(answer(200, used(RESERVED), after_s=1.0))
            ends = await house.ask_many(5, method="POST", body=prompt())
            assert len(upstream.times) == 3
            refused = [got for got in ends if got.failure]
            assert {got.refused_by for got in refused} == {"token_limit:tenant"}
            assert spent(house, level) == 3 * RESERVED


async def test_what_does_not_fit_waits_until_somebody_gives_back(autojump_clock):
    async with laid(limits=per_hour(300)) as house:
        house.plan(answer(200, used(50), after_s=1.0))
        first, second = await in_order(lambda: post(house), lambda: post(house, time_s=3000))
        assert (first.at_s, second.at_s) == (1, 2)
        assert second.call.queued_us == 10**6
        assert house.meters.of("waited") == [("token_limit", 1.0)]


async def test_a_wait_that_does_not_fit_is_refused(autojump_clock):
    async with laid(limits=per_hour(300)) as house:
        house.plan(answer(200, used(201)))
        await post(house)
        got = await post(house)
        assert got.failure is not None
        assert got.failure.kind is FailureKind.RATE_LIMITED
        assert got.refused_by == "token_limit:tenant"
        assert got.call.retry_after_ms == 102 * 12_000
        assert got.failure.message.startswith("refused by the tenant's token limit (http://api.te")
        got = await post(house, body=prompt(max_tokens=5000))
        assert (got.refused_by, got.call.retry_after_ms) == ("token_limit:tenant", 0)
        assert "5101 at once is more than the 300 ever" in str(got.failure)


async def test_who_leaves_the_line_leaves_no_trace(autojump_clock):
    async with laid(limits=per_hour(300)) as house:
        house.plan(answer(200, used(200), after_s=1.0))
        house.start([], method="POST", body=prompt())
        await trio.testing.wait_all_tasks_blocked()
        call = make_call(time_s=3000)
        with trio.move_on_after(5):
            await post(house, call=call)
        assert (call.attempts, call.waiting_for) == (0, "waiting for its token limit")
        assert spent(house) == 200


async def test_requests_and_tokens_beside_each_other(autojump_clock):
    both = LimitSettings(RateLimitSettings(9, max_waiting=0), per_hour(300, waiting=0).tokens)
    async with laid(limits=both) as house:
        house.plan(answer(200, used(200)))
        await post(house)
        assert (await post(house)).refused_by == "token_limit:tenant"
        credential = house.machines.credentials.get(house.key(), trio.current_time())
        assert credential.limits.requests is not None
        assert credential.limits.requests.limiter.available(trio.current_time()) == 8
        assert (await house.ask()).status == 200, "without a body there are no tokens"


async def test_a_body_in_parts_is_read_whole(autojump_clock):
    async with laid(limits=per_hour()) as house:
        house.plan(answer(200))
        body = prompt()
        await post(house, body=[body[:9], memoryview(body)[9:]])
        assert spent(house) == PROMPT


async def test_what_is_no_json_is_prompt_from_end_to_end(autojump_clock):
    async with laid(limits=per_hour()) as house:
        house.plan(answer(500))
        await post(house, body=b"x" * 400)
        assert spent(house) == 100


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_a_limit_that_is_not_enforced_holds_nobody_up(mode, autojump_clock):
    async with laid(limits=per_hour(300, mode=mode)) as house:
        house.plan(answer(200, used(200)))
        assert [(await post(house)).counts for _ in range(3)] == [(1, 0, 0)] * 3
        gate = house.around.gates.of("token_limit", mode)
        assert (gate.passed, gate.observed) == ((1, 2) if mode is Mode.OBSERVE else (0, 0))


async def test_a_chain_of_redirects_holds_for_one_answer_at_a_time(autojump_clock):
    async with laid(tenant_limits=per_hour()) as house:
        house.plan(answer(307))
        house.plan(answer(200, used(50)), host="other.test")
        call = make_call()
        with house.layers.lease(call) as lease:
            for host, then_spent in ((HOST, RESERVED), ("other.test", PROMPT + RESERVED)):
                request = make_request(host, method="POST", body=prompt())
                response = await lease.request(request)
                assert not isinstance(response, Failure)
                async with response:
                    assert spent(house, "tenant_limits") == then_spent
                    lease.saw(await response.read_all())
                call.next_hop()
        assert spent(house, "tenant_limits") == PROMPT + 50


async def test_what_comes_behind_a_redirect_is_no_price_of_the_redirect(autojump_clock):
    """Also where the next request has no body, as behind a 303."""
    async with laid(tenant_limits=per_hour()) as house:
        house.plan(answer(303))
        house.plan(answer(200, used(500)), host="other.test")
        call = make_call()
        with house.layers.lease(call) as lease:
            for host, body in ((HOST, prompt()), ("other.test", None)):
                response = await lease.request(make_request(host, body=body))
                assert not isinstance(response, Failure)
                async with response:
                    lease.saw(await response.read_all())
                call.next_hop()
        assert spent(house, "tenant_limits") == PROMPT


async def test_without_limits_nothing_is_read(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, used(50)))
        call = make_call()
        with house.layers.lease(call) as lease:
            response = await lease.request(make_request(method="POST", body=prompt()))
            assert not isinstance(response, Failure)
            async with response:
                lease.saw(await response.read_all())
            assert lease._holdings.tokens is None


@pytest.mark.parametrize("is_limited", [True, False])
async def test_events_are_wanted_where_somebody_counts_their_tokens(is_limited, autojump_clock):
    async with laid(**({"limits": per_hour()} if is_limited else {})) as house:
        house.plan(events("[DONE]"))
        with house.layers.lease(make_call()) as lease:
            response = await lease.request(make_request(method="POST", body=prompt()))
            assert not isinstance(response, Failure)
            assert lease.wants_events is is_limited
            await response.read_all()
