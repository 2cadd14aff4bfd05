"""Limits on calls in a time: at every level, in order, and exact."""

import pytest
import trio
import trio.testing

from tests.support.layers import HOST, House, in_order, laid, make_call
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.transport.fake import Close, Refuse, Wait

ONCE = RetrySettings(mode=Mode.OFF)
LEVELS = {
    "limits": Scope.CREDENTIAL,
    "workspace_limits": Scope.WORKSPACE,
    "tenant_limits": Scope.TENANT,
    "origin_limits": Scope.ORIGIN,
}
OTHERS = ({"workspace": "second"}, {"tenant": "other"}, {"host": "other.test"})
SHARING = {
    # level -> whether these share it with the first call
    "limits": (False, False, False),
    "workspace_limits": (False, False, True),
    "tenant_limits": (True, False, True),
    "origin_limits": (True, True, False),
}


def per_s(
    limit: int, *, waiting: int = 1000, scope: Scope = Scope.CREDENTIAL, mode: Mode = Mode.ENFORCE
) -> LimitSettings:
    return LimitSettings(RateLimitSettings(limit, max_waiting=waiting, scope=scope, mode=mode))


def limiter(house: House, level: str = "limits") -> RateLimiter:
    machines, now_s = house.machines, trio.current_time()
    key = house.key()
    bundle = {
        "limits": lambda: machines.credentials.get(key, now_s),
        "workspace_limits": lambda: machines.workspaces.get(key[:2], now_s),
        "tenant_limits": lambda: machines.tenants.get(key.tenant, now_s),
        "origin_limits": lambda: machines.origins.get(key.origin, now_s),
    }[level]()
    assert bundle.limits.requests is not None
    return bundle.limits.requests.limiter


@pytest.mark.parametrize("level", LEVELS)
async def test_a_level_limits_its_own_and_nobody_else(level, autojump_clock):
    async with laid(**{level: per_s(1)}) as house:
        for host in (HOST, "other.test"):
            house.plan(answer(200), host=host)
        for others, is_shared in zip(OTHERS, SHARING[level], strict=True):
            assert (await house.ask()).call.queued_us == 0
            assert (await house.ask(**others)).call.queued_us == (10**6 if is_shared else 0)
            assert (await house.ask(time_s=5)).call.queued_us == 10**6
            await trio.sleep(5)


async def test_after_a_burst_one_by_one(autojump_clock):
    async with laid(limits=per_s(2)) as house:
        house.plan(answer(200))
        ends = await house.ask_many(4)
        assert [got.at_s for got in ends] == [0, 0, 0.5, 1.0]
        assert [got.call.queued_us for got in ends] == [0, 0, 500_000, 1_000_000]
        assert house.meters.of("waited") == [("rate_limit", 0.5), ("rate_limit", 1.0)]


@pytest.mark.parametrize("level", LEVELS)
async def test_where_a_wait_does_not_fit_it_is_refused_at_once(level, autojump_clock):
    async with laid(**{level: per_s(1, scope=LEVELS[level])}) as house:
        house.plan(answer(200))
        await house.ask()
        ends = []
        house.start(ends)
        await trio.testing.wait_all_tasks_blocked()
        got = await house.ask(time_s=1.9)
        assert got.failure is not None
        assert got.failure.kind is FailureKind.RATE_LIMITED
        scope = LEVELS[level].value
        assert (got.refused_by, got.call.retry_after_ms) == (f"rate_limit:{scope}", 2000)
        assert got.failure.message == (
            f"refused by the {scope}'s rate limit (http://api.test): "
            "the wait does not fit the deadline (1 per 1 s)"
        )
        assert (got.counts, got.at_s) == ((0, 0, 0), 0)
        assert got.call.disposition is Disposition.NOT_SENT
        assert house.meters.of("refused") == [("rate_limit", scope)]


async def test_who_came_first_goes_first(autojump_clock):
    async with laid(limits=per_s(1)) as house:
        house.plan(answer(200))
        ends = await in_order(*[house.ask] * 6)
        assert [got.at_s for got in ends] == [0, 1, 2, 3, 4, 5]
        assert limiter(house).waiting_count == 0


async def test_a_full_line_refuses(autojump_clock):
    async with laid(limits=per_s(1, waiting=2)) as house:
        house.plan(answer(200))
        ends = await house.ask_many(5)
        assert [got.at_s for got in ends] == [0, 0, 0, 1, 2]
        refused = [got for got in ends if got.failure]
        assert [got.call.retry_after_ms for got in refused] == [3000, 3000]


@pytest.mark.parametrize("level", LEVELS)
async def test_calls_at_once_never_spend_more_than_the_limit(level, autojump_clock):
    """Rule 6: check and charge are one step."""
    async with laid(**{level: per_s(3, waiting=0)}) as house:
        upstream = house.plan(answer(200, after_s=0.1))
        for _ in range(3):
            ends = await house.ask_many(5)
            assert len([got for got in ends if got.status == 200]) == 3
            assert len([got for got in ends if got.failure]) == 2
            await trio.sleep(0.9)
        assert len(upstream.times) == 9


async def test_over_any_time_the_rate_holds(autojump_clock):
    async with laid(limits=per_s(5)) as house:
        upstream = house.plan(answer(200))
        await house.ask_many(40, time_s=100)
        times = upstream.times
        assert all(
            later - earlier >= 1 - 1e-5 for earlier, later in zip(times, times[10:], strict=False)
        )
        assert times[-1] == pytest.approx(7.0)


async def test_a_call_that_another_level_refuses_costs_nothing(autojump_clock):
    """Rule 6, its other half."""
    narrow = per_s(1, waiting=0, scope=Scope.ORIGIN)
    async with laid(limits=per_s(5), workspace_limits=per_s(5), origin_limits=narrow) as house:
        house.plan(answer(200))
        await house.ask()
        for _ in range(9):
            assert (await house.ask()).refused_by == "rate_limit:origin"
        for level in ("limits", "workspace_limits"):
            assert limiter(house, level).available(trio.current_time()) == pytest.approx(4)


async def test_nor_does_one_that_a_circuit_refuses(autojump_clock):
    async with laid(limits=per_s(5), breaker=BreakerSettings(min_calls=1), retry=ONCE) as house:
        house.plan(answer(500))
        await house.ask()
        for _ in range(9):
            assert (await house.ask()).refused_by == "circuit_breaker:tenant"
        assert limiter(house).available(trio.current_time()) == pytest.approx(4)


async def test_nor_one_that_was_never_sent(autojump_clock):
    async with laid(limits=per_s(5), retry=ONCE) as house:
        house.network.add_host(HOST, Refuse())
        await house.ask()
        assert limiter(house).available(trio.current_time()) == pytest.approx(5)


async def test_one_that_was_sent_has_cost_however_it_ended(autojump_clock):
    async with laid(limits=per_s(5), retry=ONCE) as house:
        house.plan(answer(404), answer(500), [Close()], [Wait()])
        for _ in range(3):
            await house.ask(method="POST")
        assert limiter(house).available(trio.current_time()) == pytest.approx(2)
        with trio.move_on_after(0.01):
            await house.ask()
        assert limiter(house).available(trio.current_time()) == pytest.approx(1.05)


async def test_every_attempt_pays_for_itself(autojump_clock):
    async with laid(limits=per_s(2)) as house:
        upstream = house.plan(answer(503))
        got = await house.ask()
        assert upstream.times == [0, 0.025, 0.5]
        assert got.counts == (3, 425_000, 75_000)


async def test_who_leaves_the_line_costs_nothing_and_the_next_moves_up(autojump_clock):
    async with laid(limits=per_s(1)) as house:
        house.plan(answer(200))
        await house.ask()
        call, ends = make_call(), []
        with trio.move_on_after(0.4):
            house.nursery.start_soon(_soon, house, ends)
            await house.ask(call=call)
        assert (call.queued_us, call.attempts) == (400_000, 0)
        assert call.waiting_for == "waiting for its rate limit"
        await trio.sleep(3)
        assert [got.at_s for got in ends] == [1]


async def _soon(house: House, ends: list) -> None:
    await trio.sleep(0.1)
    ends.append(await house.ask())


async def test_who_gave_its_turn_back_lets_the_next_go_at_once(autojump_clock):
    async with laid(limits=per_s(1), retry=ONCE) as house:
        house.network.add_host("api.test", Refuse(after_s=0.2))
        first, second = await in_order(house.ask, house.ask)
        assert (first.at_s, second.at_s) == (0.2, 0.4)


async def test_who_has_waited_asks_the_circuit_as_it_is_then(autojump_clock):
    slow = LimitSettings(RateLimitSettings(1, period_s=9.0))
    async with laid(limits=slow, breaker=BreakerSettings(min_calls=1), retry=ONCE) as house:
        house.plan(answer(200), answer(500), answer(200))
        await house.ask()
        assert (await house.ask(workspace="second")).status == 500
        got = await house.ask()
        assert (got.status, got.at_s) == (200, 9), "the circuit was open for 3.75 s"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_a_limit_that_is_not_enforced_holds_nobody_up(mode, autojump_clock):
    for waiting in (0, 1000):
        async with laid(limits=per_s(1, waiting=waiting, mode=mode)) as house:
            house.plan(answer(200))
            ends = await house.ask_many(4)
            assert [(got.status, got.counts) for got in ends] == [(200, (1, 0, 0))] * 4
            gate = house.around.gates.of("rate_limit", mode)
            assert (gate.passed, gate.observed) == ((1, 3) if mode is Mode.OBSERVE else (0, 0))


async def test_one_level_may_be_enforced_beside_one_that_is_not(autojump_clock):
    async with laid(limits=per_s(1, mode=Mode.OBSERVE), tenant_limits=per_s(2)) as house:
        house.plan(answer(200))
        assert [got.at_s for got in await house.ask_many(3)] == [0, 0, 0.5]


async def test_a_limit_of_one_kind_is_none_of_the_other(autojump_clock):
    """A machine and a merge may know of different ones, until the machine is told."""
    tokens = LimitSettings(tokens=TokenLimitSettings.per_minute(10**6))
    for first, second in ((per_s(1), tokens), (tokens, per_s(1))):
        async with laid(limits=first) as house:
            house.plan(answer(200))
            await house.ask(method="POST", body=b"{}")
            house.book.set(limits=second)
            assert (await house.ask(method="POST", body=b"{}")).call.queued_us == 0


async def test_a_limit_that_the_call_s_own_merge_does_not_know_does_not_hold_it_up(autojump_clock):
    async with laid(limits=per_s(1)) as house:
        house.plan(answer(200))
        await house.ask()
        house.book.set(limits=LimitSettings())
        assert (await house.ask()).call.queued_us == 0
        house.book.set(limits=per_s(9), tenant_limits=per_s(9))
        assert (await house.ask()).call.queued_us == 10**6, "until the machine is told"
