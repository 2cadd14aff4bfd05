"""Limits on bytes: charged by the request, settled by the answer, given back where due."""

import pytest
import trio

from tests.support.layers import HOST, House, laid
from tests.support.planned import answer
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.hedging import HedgeSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.transport.fake import Close, Refuse, Send, Wait

ONCE = RetrySettings(mode=Mode.OFF)
LEVELS = ("limits", "workspace_limits", "tenant_limits", "origin_limits")
BODY = b"x" * 200


def per_hour(limit: int = 1000, *, waiting: int = 1000, mode: Mode = Mode.ENFORCE) -> LimitSettings:
    return LimitSettings(
        volume=RateLimitSettings(
            limit,
            period_s=3600.0,
            max_waiting=waiting,
            scope=Scope.TENANT,
            policy="byte_limit",
            mode=mode,
            max_debt_s=7200.0,
        )
    )


def spent(house: House, level: str = "limits") -> int:
    machines, now_s, key = house.machines, trio.current_time(), house.key()
    bundle = {
        "limits": lambda: machines.credentials.get(key, now_s),
        "workspace_limits": lambda: machines.workspaces.get(key[:2], now_s),
        "tenant_limits": lambda: machines.tenants.get(key.tenant, now_s),
        "origin_limits": lambda: machines.origins.get(key.origin, now_s),
    }[level]()
    pacer = bundle.limits.volume
    assert pacer is not None
    assert pacer.limiter.held == 0
    return round(pacer.limiter.settings.max_cost - pacer.limiter.available(now_s))


async def post(house: House, **fields):
    return await house.ask(**{"method": "POST", "body": BODY, **fields})


@pytest.mark.parametrize("level", LEVELS)
async def test_a_call_costs_what_it_sent_and_received(level, autojump_clock):
    async with laid(**{level: per_hour()}) as house:
        house.plan(answer(200, b"y" * 300))
        await post(house)
        assert spent(house, level) == 500


@pytest.mark.parametrize(
    ("plan", "cost"),
    [
        (answer(200), 200),
        (answer(404, b"y" * 300), 500),
        (answer(500, b"y" * 300), 500),
        ([Close()], 200),
        ([Send(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n1234"), Close()], 204),
    ],
)
async def test_every_end_of_a_call_has_its_price(plan, cost, autojump_clock):
    async with laid(limits=per_hour(), retry=ONCE) as house:
        house.plan(plan)
        await post(house)
        assert spent(house) == cost


async def test_what_was_not_sent_costs_nothing(autojump_clock):
    async with laid(limits=per_hour(), retry=ONCE) as house:
        house.network.add_host(HOST, Refuse())
        assert (await post(house)).error is not None
        assert spent(house) == 0


@pytest.mark.parametrize(
    ("plan", "cost"),
    [([Send(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 40), Wait()], 240), ([Wait()], 200)],
)
async def test_cut_off_it_costs_what_came(plan, cost, autojump_clock):
    async with laid(limits=per_hour()) as house:
        house.plan(plan)
        assert (await post(house, time_s=1)).timed_out
        assert spent(house) == cost


async def test_every_attempt_pays_for_itself_and_the_body_that_is_read_is_paid_once(autojump_clock):
    async with laid(limits=per_hour(10_000)) as house:
        house.plan(answer(503, b"z" * 900), answer(503, b"z" * 900), answer(200, b"y" * 30))
        got = await post(house, replayable=True)
        assert (got.status, got.call.attempts) == (200, 3)
        assert spent(house) == 630


async def test_an_answer_that_is_kept_over_a_later_attempt_is_paid(autojump_clock):
    """The second attempt is refused by the limit, so the answer of the first is told."""
    async with laid(limits=per_hour(300, waiting=0)) as house:
        house.plan(answer(503, b"y" * 30))
        got = await post(house, replayable=True)
        assert (got.status, got.body) == (503, b"y" * 30)
        assert house.meters.of("retried") == [("transient",)]
        assert spent(house) == 230


async def test_a_hedge_pays_too(autojump_clock):
    hedging = HedgeSettings(mode=Mode.ENFORCE, after_s=1.0, budget_ratio=1.0)
    async with laid(limits=per_hour(), hedging=hedging) as house:
        house.plan(answer(200, b"a" * 10, after_s=5.0), answer(200, b"b" * 30))
        got = await house.ask()
        assert got.body == b"b" * 30
        assert spent(house) == 1 + 1 + 30


async def test_who_is_in_debt_waits_and_is_told_how_long(autojump_clock):
    async with laid(tenant_limits=per_hour(3600, waiting=1)) as house:
        house.plan(answer(200, b"y" * 5399))
        await house.ask()
        # In debt by half an hour; a request without a body is no way around it.
        got = await house.ask()
        assert got.refused_by == "byte_limit:tenant"
        assert isinstance(got.failure, Failure)
        assert got.failure.kind is FailureKind.RATE_LIMITED
        assert got.call.retry_after_ms == pytest.approx(1801_000, abs=1000)
        patient = await house.ask(time_s=9999)
        assert patient.status == 200
        assert patient.at_s == pytest.approx(1801, abs=1)
        assert house.meters.of("waited")[0][0] == "byte_limit"


async def test_what_never_fits_is_refused_for_good(autojump_clock):
    async with laid(tenant_limits=per_hour(100)) as house:
        house.plan(answer(200))
        got = await post(house)
        assert (got.refused_by, got.call.retry_after_ms) == ("byte_limit:tenant", 0)
        assert spent(house, "tenant_limits") == 0


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_observed_or_off_it_refuses_nobody(mode, autojump_clock):
    async with laid(tenant_limits=per_hour(100, mode=mode)) as house:
        house.plan(answer(200))
        for _ in range(3):
            assert (await post(house)).status == 200
        gate = house.around.gates.of("byte_limit", mode)
        assert gate.observed == (3 if mode is Mode.OBSERVE else 0)


async def test_one_limit_that_refuses_gives_back_what_others_were_charged(autojump_clock):
    tight = per_hour(100)
    async with laid(limits=per_hour(), workspace_limits=per_hour(), tenant_limits=tight) as house:
        house.plan(answer(200))
        assert (await post(house)).refused_by == "byte_limit:tenant"
        assert spent(house) == spent(house, "workspace_limits") == 0


async def test_limits_of_bytes_and_of_calls_stand_side_by_side(autojump_clock):
    """A level may have the one and not the other."""
    calls = LimitSettings(RateLimitSettings(1, period_s=10.0, scope=Scope.WORKSPACE))
    async with laid(limits=per_hour(), workspace_limits=calls) as house:
        house.plan(answer(200))
        assert [got.at_s for got in await house.ask_many(2)] == [0, 10]
        assert spent(house) == 1  # time has brought back the other one
