"""Machines under a new configuration: nothing that happened is forgotten, nobody waits in vain."""

import pytest
import trio
import trio.testing

from tests.support.layers import ORIGIN, Book, in_order, laid
from tests.support.planned import answer
from vastar_runtime.pipeline.machines import Limiters
from vastar_runtime.pipeline.policies import NO_LIMITS, CallPolicies, LimitSettings
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.header_learning import HeaderSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.transport.fake import Wait

ONCE = RetrySettings(mode=Mode.OFF)
LEVELS = ("limits", "workspace_limits", "tenant_limits", "origin_limits")


def rate(limit: int, period_s: float = 1.0) -> LimitSettings:
    return LimitSettings(RateLimitSettings(limit, period_s=period_s))


def token_rate(period_s: float = 1.0) -> LimitSettings:
    """One call's tokens in that time."""
    slow = RateLimitSettings(100, period_s=period_s, policy="token_limit")
    return LimitSettings(tokens=TokenLimitSettings(slow))


async def test_debts_stay(autojump_clock):
    async with laid(limits=rate(10, period_s=100.0)) as house:
        house.plan(answer(200))
        await house.ask_many(10)
        house.machines.reconfigure(Book(CallPolicies(limits=rate(20, period_s=100.0))), 0.0)
        ends = await house.ask_many(12)
        assert [got.at_s for got in ends] == pytest.approx([0] * 10 + [5, 10])


async def test_open_circuits_and_rests_stay(autojump_clock):
    async with laid(retry=ONCE, breaker=BreakerSettings(min_calls=1, open_s=60.0)) as house:
        house.plan(answer(500))
        house.plan(answer(429, b"", "Retry-After: 20"), host="throttled.test")
        await house.ask()
        await house.ask("throttled.test")
        house.machines.reconfigure(Book(CallPolicies(retry=ONCE)), trio.current_time())
        assert (await house.ask()).refused_by == "circuit_breaker:tenant"
        assert (await house.ask("throttled.test")).refused_by == "cooldown:credential"


async def test_a_smaller_purse_is_as_empty_as_the_larger_one_was(autojump_clock):
    async with laid() as house:
        house.plan(answer(503))
        await house.ask()
        smaller = CallPolicies(retry_quota=QuotaSettings(most_tokens=41))
        house.machines.reconfigure(Book(smaller), trio.current_time())
        assert house.machines.tenants_at_origins.get(("acme", ORIGIN), 0).quota.tokens == 41 - 28


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["requests", "tokens"])
async def test_who_waits_for_a_limit_that_is_gone_goes(level, kind, autojump_clock):
    limits = rate(1, period_s=9000.0) if kind == "requests" else token_rate(9000.0)
    async with laid(**{level: limits}) as house:
        usage = b'{"usage": {"prompt_tokens": 1, "completion_tokens": 90}}'
        house.plan(answer(200, usage, after_s=1.0))
        ends = []
        for _ in range(4):
            body = b'{"prompt": "x", "max_tokens": 90}'
            house.start(ends, time_s=9999999, method="POST", body=body)
        await trio.sleep(3)
        assert len(ends) == 1
        house.machines.reconfigure(Book(), trio.current_time())
        house.book.set(**{level: NO_LIMITS})
        await trio.sleep(2)
        assert [got.status for got in ends] == [200] * 4
        assert (await house.ask()).call.queued_us == 0


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["requests", "tokens"])
async def test_who_waits_goes_in_order_under_the_new_rate(level, kind, autojump_clock):
    slow, quick = (
        rate(1, seconds) if kind == "requests" else token_rate(seconds) for seconds in (1000.0, 1.0)
    )
    async with laid(**{level: slow}) as house:
        usage = b'{"usage": {"prompt_tokens": 10, "completion_tokens": 90}}'
        house.plan(answer(200, usage))
        body = b'{"prompt": "", "max_tokens": 100}'
        calls = [lambda: house.ask(time_s=99999, method="POST", body=body)] * 4

        async def change() -> None:
            await trio.sleep(1)
            house.machines.reconfigure(Book(CallPolicies(**{level: quick})), trio.current_time())

        ends = await in_order(*calls, change)
        times = [got.at_s for got in ends[:4]]
        assert times == pytest.approx([0, 1.999, 2.999, 3.999])


@pytest.mark.parametrize("level", LEVELS)
async def test_limits_that_are_new_hold_from_now_on(level, autojump_clock):
    token_limits = LimitSettings(RateLimitSettings(1), TokenLimitSettings.per_minute(1000))
    async with laid() as house:
        house.plan(answer(200))
        machines = house.machines
        for make, key in (
            (machines.origins, ORIGIN),
            (machines.credentials, house.key()),
            (machines.workspaces, ("acme", "main")),
            (machines.tenants, "acme"),
        ):
            make.get(key, 0.0)  # before there was a limit
        house.book.set(**{level: token_limits})
        house.machines.reconfigure(house.book, trio.current_time())
        ends = await in_order(*[lambda: house.ask(method="POST", body=b"{}")] * 2)
        assert [got.at_s for got in ends] == [0, 1]
        store = {
            "limits": lambda: house.machines.credentials.get(house.key(), 0),
            "workspace_limits": lambda: house.machines.workspaces.get(("acme", "main"), 0),
            "tenant_limits": lambda: house.machines.tenants.get("acme", 0),
            "origin_limits": lambda: house.machines.origins.get(ORIGIN, 0),
        }[level]()
        assert store.limits.tokens is not None
        assert store.limits.waiting == 0


async def test_a_token_limit_changes_under_its_calls(autojump_clock):
    async with laid(limits=LimitSettings(tokens=TokenLimitSettings.per_minute(1000))) as house:
        house.plan(answer(200))
        await house.ask(method="POST", body=b"{}")
        other = LimitSettings(
            tokens=TokenLimitSettings(RateLimitSettings(50), default_max_tokens=20)
        )
        house.machines.reconfigure(Book(CallPolicies(limits=other)), trio.current_time())
        limiter = house.machines.credentials.get(house.key(), 0).limits.tokens.limiter
        assert (limiter.settings.limit, limiter._default_max_tokens) == (50, 20)


async def test_what_the_upstream_bears_holds_for_the_new_rate_too(autojump_clock):
    learned = HeaderSettings(aimd=AimdSettings(decrease_ratio=0.5))
    policies = {
        "header_learning": learned,
        "retry": ONCE,
        "cooldown": CooldownSettings(mode=Mode.OFF),
    }
    async with laid(limits=rate(10), **policies) as house:
        house.plan(answer(429), answer(200, after_s=0.01), [Wait()])
        await house.ask()
        house.book.set(limits=rate(100))
        house.machines.reconfigure(house.book, trio.current_time())
        limiter = house.machines.credentials.get(house.key(), 0).limits.requests.limiter
        assert limiter.settings.interval_s == pytest.approx(0.02)
        assert limiter.settings.max_cost == 50


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_unless_that_is_no_longer_to_be_felt_for(mode, autojump_clock):
    learned = HeaderSettings(aimd=AimdSettings(decrease_ratio=0.5))
    policies = {"retry": ONCE, "cooldown": CooldownSettings(mode=Mode.OFF)}
    async with laid(limits=rate(10), header_learning=learned, **policies) as house:
        house.plan(answer(429), answer(200))
        await house.ask()
        limiter = house.machines.credentials.get(house.key(), 0).limits.requests.limiter
        assert limiter.settings.interval_s == pytest.approx(0.2)
        house.book.set(header_learning=HeaderSettings(mode=mode))
        house.machines.reconfigure(house.book, trio.current_time())
        assert limiter.settings.interval_s == pytest.approx(0.1)
        house.book.set(header_learning=learned)
        house.machines.reconfigure(house.book, trio.current_time())
        await house.ask()
        assert limiter.settings.interval_s == pytest.approx(0.1 / 0.55)


def test_each_of_two_limits_comes_and_goes_on_its_own():
    calls, tokens = rate(1), token_rate()
    limiters = Limiters.of(calls)
    assert limiters.requests is not None
    for settings in (tokens, calls, NO_LIMITS, tokens):
        assert limiters.configured(settings, 0.0) is limiters
        assert (limiters.requests is None) is (settings.requests is None)
        assert (limiters.tokens is None) is (settings.tokens is None)


def test_who_has_no_limits_shares_what_is_none_and_gets_its_own_when_it_has_some():
    none = Limiters.of(NO_LIMITS)
    assert none is Limiters.of(LimitSettings())
    assert none.configured(NO_LIMITS, 0.0, 0.5) is none
    some = none.configured(rate(10), 0.0, 0.5)
    assert some is not none
    assert some.requests is not None
    assert some.requests.limiter.settings.interval_s == 0.2, "at the part that holds now"
    assert none.requests is None
