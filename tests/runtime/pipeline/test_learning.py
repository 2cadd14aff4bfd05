"""What an upstream tells of its own limits: calls wait for it, and the configured rate follows."""

import json

import pytest
import trio
import trio.testing

from tests.support.layers import HOST, House, in_order, laid, make_call, make_request
from tests.support.planned import answer
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.machines import OfCredential
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.header_learning import HeaderLearning, HeaderSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.transport import TransportSettings
from vastar_runtime.transport.fake import Close, Refuse, Wait

ONCE = RetrySettings(mode=Mode.OFF)
NO_REST = CooldownSettings(mode=Mode.OFF)


def openai(remaining: int, reset: str, limit: int = 60, unit: str = "requests") -> str:
    told = {"limit": limit, "remaining": remaining, "reset": reset}
    return "\r\n".join(f"x-ratelimit-{name}-{unit}: {value}" for name, value in told.items())


def ietf(remaining: int, reset_s: int) -> str:
    return f'RateLimit-Policy: "default";q=60\r\nRateLimit: "default";r={remaining};t={reset_s}'


def credential(house: House) -> OfCredential:
    return house.machines.credentials.get(house.key(), trio.current_time())


def learning(house: House) -> HeaderLearning:
    return credential(house).learning


async def test_who_has_nothing_left_waits_for_what_grows_back(autojump_clock):
    async with laid() as house:
        upstream = house.plan(answer(200, b"", openai(0, "6s")), answer(200))
        await house.ask()
        ends = await house.ask_many(3)
        assert upstream.times == pytest.approx([0, 0.1, 0.2, 0.3])
        assert [got.call.queued_us for got in ends] == [100_000, 200_000, 300_000]
        assert all(policy == "learned_limit" for policy, _ in house.meters.of("waited"))


async def test_or_until_the_window_begins_anew(autojump_clock):
    async with laid() as house:
        upstream = house.plan(answer(200, b"", ietf(1, 5)), answer(200))
        await house.ask()
        await house.ask_many(3)
        assert upstream.times == [0, 0, 5, 5]


async def test_it_is_the_credential_s_own(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, b"", ietf(0, 5)), answer(200))
        house.plan(answer(200), host="other.test")
        await house.ask()
        assert (await house.ask(workspace="second")).call.queued_us == 0
        assert (await house.ask("other.test")).call.queued_us == 0
        assert (await house.ask()).call.queued_us == 5 * 10**6


@pytest.mark.parametrize(("reset_s", "time_s"), [(31, 30), (130, 500)])
async def test_a_wait_that_is_too_long_is_refused(reset_s, time_s, autojump_clock):
    async with laid() as house:
        house.plan(answer(200, b"", ietf(0, reset_s)), answer(200))
        await house.ask()
        got = await house.ask(time_s=time_s)
        assert got.failure is not None
        assert got.failure.kind is FailureKind.RATE_LIMITED
        assert got.refused_by == "learned_limit:credential"
        assert (got.call.retry_after_ms, got.counts, got.at_s) == (reset_s * 1000, (0, 0, 0), 0)
        assert got.failure.message == (
            "refused by the credential's learned limit (http://api.test): "
            f"the upstream has too few requests left for {reset_s} s"
        )


async def _after(seconds: float, house: House, **fields):
    await trio.sleep(seconds)
    return await house.ask(**fields)


async def test_an_answer_that_knows_better_lets_the_waiting_go(autojump_clock):
    async with laid() as house:
        house.plan(
            answer(200, b"", ietf(0, 20), after_s=1.0),
            answer(200, b"", ietf(9, 20), after_s=3.0),
            answer(200),
        )
        first, better, held_up = await in_order(
            house.ask, house.ask, lambda: _after(2, house, time_s=100)
        )
        assert (first.at_s, better.at_s, held_up.at_s) == (1, 3, 3)
        assert held_up.call.queued_us == 10**6


async def test_who_has_waited_asks_the_circuit_as_it_is_then(autojump_clock):
    async with laid(breaker=BreakerSettings(min_calls=1), retry=ONCE) as house:
        house.plan(answer(200, b"", ietf(0, 9)), answer(500), answer(200))
        await house.ask()
        assert (await house.ask(workspace="second")).status == 500
        got = await house.ask()
        assert (got.status, got.at_s) == (200, 9), "the circuit was open for 3.75 s"


async def test_who_leaves_while_waiting_has_used_nothing(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, b"", ietf(1, 5)), answer(200))
        await house.ask()
        assert (await house.ask(time_s=0.5)).status == 200
        call = make_call()
        with trio.move_on_after(1):
            await house.ask(call=call)
        assert call.waiting_for == "waiting for the upstream's own rate limit"
        assert call.queued_us == 10**6
        assert learning(house).remaining(trio.current_time()) == {"requests": 0}


async def test_what_was_not_sent_is_still_there(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan(answer(200, b"", "Connection: close", ietf(1, 20)), answer(200))
        await house.ask()
        house.network.add_host(HOST, Refuse(after_s=1.0))
        refused, next_one = await in_order(house.ask, house.ask)
        assert (refused.at_s, next_one.at_s) == (1, 2), "the second goes where the first did not"
        assert learning(house).remaining(trio.current_time()) == {"requests": 1}


async def test_nor_by_who_was_cut_off_on_the_way_out(autojump_clock):
    async with laid(pool=TransportSettings(connections_per_key=1)) as house:
        house.plan(answer(200, b"", ietf(2, 20)), answer(200, after_s=5.0))
        await house.ask()
        house.start([])
        await trio.testing.wait_all_tasks_blocked()
        assert (await house.ask(time_s=1)).timed_out
        assert learning(house).remaining(trio.current_time()) == {"requests": 1}


async def test_who_comes_as_the_line_is_rung_stands_behind_it(autojump_clock):
    async with laid() as house:
        house.plan(
            answer(200, b"", ietf(0, 20), after_s=1.0),
            answer(200, b"", ietf(9, 20), after_s=3.0),
            answer(200),
        )
        house.start([])
        await trio.testing.wait_all_tasks_blocked()
        ends, call = [], make_call()
        house.nursery.start_soon(_later, house, ends)
        with house.layers.lease(call) as lease:
            response = await lease.request(make_request())
            assert not isinstance(response, Failure)
            async with response:
                await house.ask()  # in the very step in which the line was rung
        assert [got.at_s for got in ends] == [3]
        assert learning(house).remaining(3.0) == {"requests": 7}, "both were counted"


async def _later(house: House, ends: list) -> None:
    ends.append(await _after(2, house))


async def test_nor_is_it_used_by_what_another_policy_refuses(autojump_clock):
    async with laid(retry=ONCE, breaker=BreakerSettings(min_calls=1)) as house:
        house.plan(answer(500, b"", ietf(1, 20)))
        await house.ask()
        for _ in range(5):
            assert (await house.ask()).refused_by == "circuit_breaker:tenant"
        assert learning(house).remaining(0.0) == {"requests": 1}


@pytest.mark.parametrize("plan", [[Close()], [Wait()]])
async def test_but_by_what_was_sent_without_an_answer(plan, autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan(answer(200, b"", "Connection: close", ietf(3, 20)), plan)
        await house.ask()
        await house.ask(time_s=1)
        assert learning(house).remaining(trio.current_time()) == {"requests": 2}


async def test_tokens_too_where_they_are_limited(autojump_clock):
    limits = LimitSettings(tokens=TokenLimitSettings.per_minute(100_000))
    body = json.dumps({"prompt": "x" * 400, "max_tokens": 100}).encode()
    for settings, queued_us in ((limits, 10**6), (LimitSettings(), 0)):
        async with laid(limits=settings) as house:
            house.plan(answer(200, b"", openai(100, "9s", 1000, "tokens")), answer(200))
            await house.ask(method="POST", body=body)
            got = await house.ask(method="POST", body=body)
            assert got.call.queued_us == queued_us
            assert (await house.ask()).call.queued_us == 0, "without a body there are none"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_where_it_is_not_enforced_nobody_waits(mode, autojump_clock):
    async with laid(header_learning=HeaderSettings(mode=mode)) as house:
        house.plan(answer(200, b"", ietf(0, 5)), answer(200))
        ends = [await house.ask() for _ in range(3)]
        assert [got.counts for got in ends] == [(1, 0, 0)] * 3
        gate = house.around.gates.of("learned_limit", mode)
        assert (gate.passed, gate.observed) == ((1, 2) if mode is Mode.OBSERVE else (0, 0))


# The configured rate follows what the upstream bears.

AIMD = AimdSettings(decrease_ratio=0.5, increase_ratio=0.25)
TEN = LimitSettings(RateLimitSettings(10))


def limiter(house: House) -> RateLimiter:
    pacer = credential(house).limits.requests
    assert pacer is not None
    return pacer.limiter


def per_second(house: House) -> float:
    settings = limiter(house).settings
    return round(settings.limit / settings.period_s, 6)


async def test_a_429_lowers_the_configured_rate_and_answers_raise_it_again(autojump_clock):
    learned = HeaderSettings(aimd=AIMD)
    async with laid(limits=TEN, header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429), answer(200))
        rates = []
        for _ in range(4):
            await house.ask()
            rates.append((per_second(house), limiter(house).settings.max_cost))
            await trio.sleep(10)
        assert rates == [(5, 5), (7.5, 8), (10, 10), (10, 10)]


async def test_also_below_one_call_in_its_time(autojump_clock):
    least = HeaderSettings(aimd=AimdSettings(decrease_ratio=0.01, least_ratio=0.01))
    one = LimitSettings(RateLimitSettings(1))
    async with laid(limits=one, header_learning=least, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429))
        await house.ask()
        assert per_second(house) == 0.05, "a twentieth is the least"
        assert limiter(house).settings.max_cost == 1


async def test_what_may_go_at_once_shrinks_with_it(autojump_clock):
    limits = LimitSettings(RateLimitSettings(10, burst=3))
    learned = HeaderSettings(aimd=AIMD)
    async with laid(limits=limits, header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429))
        await house.ask()
        assert (per_second(house), limiter(house).settings.max_cost) == (5, 2)


async def test_a_limit_on_tokens_follows_too(autojump_clock):
    limits = LimitSettings(tokens=TokenLimitSettings.per_minute(6000))
    learned = HeaderSettings(aimd=AIMD)
    async with laid(limits=limits, header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429))
        await house.ask(method="POST", body=b"{}")
        pacer = credential(house).limits.tokens
        assert pacer is not None
        assert pacer.limiter.settings.interval_s == 2 * 60 / 6000


async def test_a_reload_keeps_to_what_the_upstream_bears(autojump_clock):
    learned = HeaderSettings(aimd=AIMD)
    async with laid(limits=TEN, header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429))
        await house.ask()
        hundred = LimitSettings(RateLimitSettings(100))
        limits = credential(house).limits
        assert limits.configured(hundred, trio.current_time(), 0.5) is limits
        assert per_second(house) == 50


async def test_those_in_line_go_by_the_new_rate(autojump_clock):
    learned, two = HeaderSettings(aimd=AIMD), LimitSettings(RateLimitSettings(2))
    async with laid(limits=two, header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        upstream = house.plan(answer(429, after_s=0.1), answer(200, after_s=9))
        await in_order(*[house.ask] * 4)
        assert upstream.times[:2] == [0, 0]
        assert upstream.times[2] > 0.5, "the third would have gone at half a second"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_where_learning_is_not_enforced_the_configured_rate_stays(mode, autojump_clock):
    learned = HeaderSettings(aimd=AIMD, mode=mode)
    async with laid(limits=TEN, header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429))
        await house.ask()
        assert per_second(house) == 10


async def test_without_a_configured_rate_there_is_nothing_to_lower(autojump_clock):
    learned = HeaderSettings(aimd=AIMD)
    async with laid(header_learning=learned, cooldown=NO_REST, retry=ONCE) as house:
        house.plan(answer(429), answer(200))
        await house.ask()
        assert learning(house).rate_ratio == 0.5
        assert (await house.ask()).call.queued_us == 0
