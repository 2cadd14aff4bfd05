"""The machines that calls share: made when needed, kept while used, dropped when idle."""

import pytest
import trio
import trio.testing

from tests.support.layers import HOST, ORIGIN, Book, House, in_order, laid
from tests.support.planned import answer
from vastar_runtime.pipeline import Machines
from vastar_runtime.pipeline.policies import NO_LIMITS, CallPolicies, LimitSettings
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.breaker import BreakerSettings, State
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.header_learning import HeaderSettings
from vastar_runtime.policy.hedging import HedgeSettings, Hedging
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.transport.fake import Wait

ONCE = RetrySettings(mode=Mode.OFF)
LEVELS = ("limits", "workspace_limits", "tenant_limits", "origin_limits")


def rate(limit: int, period_s: float = 1.0) -> LimitSettings:
    return LimitSettings(RateLimitSettings(limit, period_s=period_s))


def bundles(machines: Machines) -> dict[str, object]:
    """One of each kind, made if need be."""
    return {
        "origin": machines.origins.get(ORIGIN, 0.0),
        "tenant_at_origin": machines.tenants_at_origins.get(("acme", ORIGIN), 0.0),
        "credential": machines.credentials.get(Key("acme", "main", ORIGIN), 0.0),
        "workspace": machines.workspaces.get(("acme", "main"), 0.0),
        "tenant": machines.tenants.get("acme", 0.0),
    }


async def test_the_numbers_of_each_come_from_the_merge_of_its_own_key(autojump_clock):
    """Whatever the call's merge says: what others share is not bent by one of them."""
    book = Book()
    book.set(None, None, ORIGIN, origin_limits=rate(1), breaker=BreakerSettings(min_calls=1))
    book.set("acme", None, ORIGIN, breaker=BreakerSettings(min_calls=2))
    book.set("acme", "main", ORIGIN, limits=rate(3), breaker=BreakerSettings(min_calls=3))
    book.set("acme", "main", None, workspace_limits=rate(4))
    book.set("acme", None, None, tenant_limits=rate(5))
    machines = Machines(book)
    made = bundles(machines)
    assert made["origin"].breaker._settings.min_calls == 1
    assert made["tenant_at_origin"].breaker._settings.min_calls == 2
    limits = {
        name: made[name].limits.requests.limiter.settings.limit
        for name in ("origin", "credential", "workspace", "tenant")
    }
    assert limits == {"origin": 1, "credential": 3, "workspace": 4, "tenant": 5}
    assert made["origin"].breaker.scope is Scope.ORIGIN
    assert made["tenant_at_origin"].breaker.scope is Scope.TENANT
    assert len(machines) == 5
    assert bundles(machines) == made, "the same ones, every time"


async def test_all_settings_reach_their_machines(autojump_clock):
    policies = CallPolicies(
        retry_quota=QuotaSettings(most_tokens=7),
        hedging=HedgeSettings(after_s=7.0),
        cooldown=CooldownSettings(base_s=7.0),
        header_learning=HeaderSettings(max_wait_s=7.0),
        breaker=BreakerSettings(open_s=7.0),
    )
    for machines in (Machines(Book(policies)), Machines(Book())):
        made = bundles(machines)
        made["tenant_at_origin"].hedging = Hedging(HedgeSettings())
        machines.reconfigure(Book(policies), 0.0)
        of_tenant, credential = made["tenant_at_origin"], made["credential"]
        assert of_tenant.quota.tokens == 7
        assert of_tenant.hedging._settings.after_s == 7
        assert of_tenant.breaker._settings.open_s == made["origin"].breaker._settings.open_s == 7
        assert credential.cooldown._settings.base_s == 7
        assert credential.learning._settings.max_wait_s == 7
        newcomer = machines.origins.get("http://new.test", 0.0)
        assert newcomer.breaker._settings.open_s == 7


# Dropped when idle.


async def test_what_idles_is_dropped_after_a_while(autojump_clock):
    async with laid(workspace_limits=rate(9), tenant_limits=rate(9)) as house:
        house.plan(answer(200))
        house.nursery.start_soon(house.machines.run)
        await house.ask()
        assert len(house.machines) == 5
        await trio.sleep(59)
        assert len(house.machines) == 5
        await trio.sleep(70)
        assert len(house.machines) == 0
        await trio.sleep(3600)
        await house.ask()
        assert len(house.machines) == 5, "and made anew"
        await trio.sleep(130)
        assert len(house.machines) == 0, "and dropped again"
        house.nursery.cancel_scope.cancel()


async def test_however_many_there_are_they_melt_in_minutes(autojump_clock):
    async with laid() as house:
        for number in range(100):
            house.machines.origins.get(f"http://{number}.test", 0.0)
        house.nursery.start_soon(house.machines.run)
        await trio.sleep(59)
        assert len(house.machines) == 100
        await trio.sleep(61)
        assert len(house.machines) < 50
        await trio.sleep(240)
        assert len(house.machines) == 0
        house.nursery.cancel_scope.cancel()


async def test_while_there_is_nothing_it_sleeps(autojump_clock):
    async with laid() as house:
        house.nursery.start_soon(house.machines.run)
        await trio.sleep(100)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        house.plan(answer(200))
        await house.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline <= 5
        house.nursery.cancel_scope.cancel()


def sweep(house: House) -> None:
    machines = house.machines
    for store in machines._stores():
        store.sweep(trio.current_time())


async def test_whoever_is_under_way_keeps_its_machines(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, after_s=500))
        before = bundles(house.machines)
        house.start([], time_s=1000)
        await trio.sleep(400)
        sweep(house)
        after = bundles(house.machines)
        for kind in ("origin", "tenant_at_origin", "credential"):
            assert after[kind] is before[kind]
        assert after["workspace"] is not before["workspace"], "it owes nothing"


@pytest.mark.parametrize("level", LEVELS)
async def test_nor_goes_one_that_somebody_waits_for(level, autojump_clock):
    async with laid(**{level: rate(1, period_s=600.0)}) as house:
        house.plan(answer(200))
        ends = []
        await house.ask()
        house.start(ends, time_s=1000)
        await trio.sleep(400)
        sweep(house)
        await trio.sleep(400)
        assert [got.at_s for got in ends] == [600]


def opened(house: House) -> bool:
    breaker = house.machines.tenants_at_origins.peek(("acme", ORIGIN))
    return breaker is not None and breaker.breaker.state is State.OPEN


async def test_nor_one_that_is_open_in_debt_or_resting(autojump_clock):
    async with laid(
        retry=ONCE, breaker=BreakerSettings(min_calls=1, open_s=200.0), tenant_limits=rate(1, 900.0)
    ) as house:
        house.plan(answer(500))
        house.plan(answer(429, b"", "Retry-After: 200"), host="throttled.test")
        await house.ask()
        await house.ask("throttled.test", tenant="other")
        throttled = house.key("other", host="throttled.test")
        for at_s in (100, 140):
            await trio.sleep(at_s - trio.current_time())
            sweep(house)
            assert opened(house)
            assert house.machines.credentials.peek(throttled) is not None
            assert house.machines.tenants.peek("acme") is not None
            assert house.machines.credentials.peek(house.key()) is None, "it owes nothing"
        await trio.sleep(2000)
        sweep(house)
        assert len(house.machines) == 0


async def test_nor_one_whose_quota_is_drawn_on(autojump_clock):
    async with laid() as house:
        house.plan(answer(503))
        await house.ask()
        await trio.sleep(100)
        sweep(house)
        assert house.machines.tenants_at_origins.peek(("acme", ORIGIN)) is not None
        await trio.sleep(600)
        sweep(house)
        assert len(house.machines) == 0


# Under other settings.


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
    limits = rate(1, period_s=9000.0)
    if kind == "tokens":
        slow = RateLimitSettings(100, period_s=9000.0, policy="token_limit")
        limits = LimitSettings(tokens=TokenLimitSettings(slow))
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
async def test_who_waits_goes_in_order_under_the_new_rate(level, autojump_clock):
    async with laid(**{level: rate(1, period_s=1000.0)}) as house:
        house.plan(answer(200))
        calls = [lambda: house.ask(time_s=99999)] * 4

        async def change() -> None:
            await trio.sleep(1)
            house.machines.reconfigure(Book(CallPolicies(**{level: rate(1)})), trio.current_time())

        ends = await in_order(*calls, change)
        times = [got.at_s for got in ends[:4]]
        assert times == pytest.approx([0, 1.999, 2.999, 3.999])


@pytest.mark.parametrize("level", LEVELS)
async def test_limits_that_are_new_hold_from_now_on(level, autojump_clock):
    token_limits = LimitSettings(RateLimitSettings(1), TokenLimitSettings.per_minute(1000))
    async with laid() as house:
        house.plan(answer(200))
        bundles(house.machines)
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


async def test_how_many_wait_for_limits(autojump_clock):
    both = LimitSettings(RateLimitSettings(2), TokenLimitSettings.per_minute(100))
    async with laid(limits=both) as house:
        house.plan(answer(200))
        for method, count in (("GET", 3), ("POST", 2)):
            for _ in range(count):
                house.start([], method=method, body=b'{"max_tokens": 60}')
        await trio.testing.wait_all_tasks_blocked()
        limits = house.machines.credentials.get(house.key(), 0).limits
        assert limits.requests is not None
        assert limits.tokens is not None
        expected = limits.requests.limiter.waiting_count + limits.tokens.limiter.waiting_count
        assert limits.waiting == expected > 0
        house.nursery.cancel_scope.cancel()


async def test_hosts_do_not_share(autojump_clock):
    async with laid(retry=ONCE, breaker=BreakerSettings(min_calls=1)) as house:
        house.plan(answer(500))
        house.plan(answer(200), host="other.test")
        await house.ask()
        assert (await house.ask("other.test")).status == 200
        assert (await house.ask(HOST)).refused_by == "circuit_breaker:tenant"
