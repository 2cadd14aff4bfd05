"""The machines that calls share: made when needed, kept while used, dropped when idle."""

import pytest
import trio
import trio.testing

from tests.support.layers import HOST, ORIGIN, Book, House, laid
from tests.support.planned import answer
from vastar_runtime.pipeline import Machines
from vastar_runtime.pipeline.policies import CallPolicies, LimitSettings
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
        for _ in range(2):
            await trio.sleep(501)
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
