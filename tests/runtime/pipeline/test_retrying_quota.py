"""The retry quota: what retries may cost a tenant at an origin, and what they get back."""

import pytest
import trio

from tests.support.layers import ORIGIN, Book, House, laid
from tests.support.planned import answer
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.transport.fake import Refuse, Send, Wait

NO_BREAKER = BreakerSettings(mode=Mode.OFF)
PAID = 500 // 14
"""Retries that a full quota pays for."""


def tokens(house: House, tenant: str = "acme") -> int:
    return house.machines.tenants_at_origins.get((tenant, ORIGIN), trio.current_time()).quota.tokens


async def test_with_an_upstream_down_attempts_stay_within_the_quota(autojump_clock):
    """Rule 5: one call after another, and many at once."""
    for at_once in (1, 50):
        async with laid(breaker=NO_BREAKER) as house:
            upstream = house.plan(answer(503, b"down"))
            ends = []
            for _ in range(200 // at_once):
                ends += await house.ask_many(at_once)
            assert len(upstream.times) == 200 + PAID
            assert tokens(house) == 500 - PAID * 14
            assert all((got.status, got.body) == (503, b"down") for got in ends)
            refused = [got for got in ends if got.refused_by]
            assert {got.refused_by for got in refused} == {"retry_quota:tenant"}
            assert house.meters.of("gave_up").count(("quota_spent",)) == len(refused) > 150


async def test_without_an_answer_too(autojump_clock):
    async with laid(breaker=NO_BREAKER) as house:
        house.network.add_host("api.test", Refuse())
        ends = [await house.ask(method="POST") for _ in range(100)]
        assert sum(got.call.attempts for got in ends) == 100 + PAID
        assert ends[-1].error is not None
        assert ends[-1].refused_by == "retry_quota:tenant"


async def test_a_refusal_tells_what_the_answer_asked_for(autojump_clock):
    async with laid(retry_quota=QuotaSettings(most_tokens=13)) as house:
        house.plan(answer(503, b"down", "Retry-After: 7"))
        got = await house.ask()
        assert (got.status, got.body, got.counts) == (503, b"down", (1, 0, 0))
        assert (got.refused_by, got.call.retry_after_ms) == ("retry_quota:tenant", 7000)


async def test_another_tenant_pays_for_itself(autojump_clock):
    async with laid(breaker=NO_BREAKER) as house:
        house.plan(answer(503))
        for _ in range(50):
            await house.ask()
        assert (await house.ask()).call.attempts == 1
        assert (await house.ask(tenant="other")).call.attempts == 3


async def test_a_retry_that_succeeds_gets_its_cost_back(autojump_clock):
    async with laid() as house:
        house.plan(answer(503), answer(503), answer(200))
        assert (await house.ask()).status == 200
        assert tokens(house) == 500 - 14
        await house.ask()
        assert tokens(house) == 500 - 13, "a clean first attempt earns one"


@pytest.mark.parametrize("plan", [answer(404), answer(501), answer(503), [Send(b"junk\r\n\r\n")]])
async def test_one_that_does_not_has_spent_it(plan, autojump_clock):
    async with laid(retry=RetrySettings(attempts=2)) as house:
        house.plan(answer(503), plan)
        assert (await house.ask()).call.attempts == 2
        assert tokens(house) == 500 - 14


async def test_throttling_costs_less(autojump_clock):
    async with laid(cooldown=CooldownSettings(mode=Mode.OFF)) as house:
        house.plan(answer(429))
        await house.ask()
        assert tokens(house) == 500 - 2 * 5


async def test_what_is_neither_clean_nor_retried_neither_earns_nor_costs(autojump_clock):
    async with laid() as house:
        house.plan(answer(503), answer(503), answer(404))
        await house.ask(method="POST")
        await house.ask(method="POST")
        assert tokens(house) == 500
        await house.ask()
        assert tokens(house) == 500


async def test_a_backoff_that_was_cut_off_costs_nothing(autojump_clock):
    async with laid() as house:
        house.plan(answer(503, b"", "Retry-After: 9"))
        with trio.move_on_after(1):
            await house.ask()
        assert tokens(house) == 500


async def test_a_retry_that_was_cut_off_under_way_has_spent_its_cost(autojump_clock):
    """Rule 5: an upstream that fails fast once and then hangs is down too."""
    async with laid(breaker=NO_BREAKER) as house:
        upstream = house.plan(*[answer(503), [Wait()]] * 100)
        ends = [await house.ask(time_s=1) for _ in range(100)]
        assert all(got.timed_out or got.status == 503 for got in ends)
        assert len(upstream.times) <= 100 + PAID
        assert tokens(house) < 14


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_a_quota_that_is_not_enforced_refuses_nothing(mode, autojump_clock):
    async with laid(
        breaker=NO_BREAKER, retry_quota=QuotaSettings(mode=mode, most_tokens=20)
    ) as house:
        house.plan(answer(503))
        for _ in range(3):
            got = await house.ask()
            assert (got.call.attempts, got.refused_by) == (3, None)
        observed = house.around.gates.of("retry_quota", mode).observed
        assert observed == (5 if mode is Mode.OBSERVE else 0)


async def test_retries_that_are_only_observed_cost_nothing_and_tell_nothing(autojump_clock):
    async with laid(
        retry=RetrySettings(mode=Mode.OBSERVE), retry_quota=QuotaSettings(most_tokens=20)
    ) as house:
        house.plan(answer(503))
        await house.ask()
        assert tokens(house) == 20
        assert house.meters.of("retried") == [("transient",)]


async def test_nor_is_anybody_told_of_a_refusal_that_changed_nothing(autojump_clock):
    async with laid(
        retry=RetrySettings(mode=Mode.OBSERVE), retry_quota=QuotaSettings(most_tokens=13)
    ) as house:
        house.plan(answer(503, b"", "Retry-After: 2"))
        got = await house.ask()
        assert (got.refused_by, got.call.retry_after_ms) == (None, 2000), (
            "as the answer itself says"
        )
        assert house.meters.of("gave_up") == [("quota_spent",)]


async def test_the_mode_is_the_call_s_and_the_purse_the_tenant_s(autojump_clock):
    book = Book(CallPolicies(breaker=NO_BREAKER))
    book.set("acme", None, ORIGIN, retry_quota=QuotaSettings(most_tokens=28))
    book.set("acme", "free", ORIGIN, retry_quota=QuotaSettings(mode=Mode.OFF))
    async with laid(book) as house:
        house.plan(answer(503))
        assert [(await house.ask()).call.attempts for _ in range(3)] == [3, 1, 1]
        assert (await house.ask(workspace="free")).call.attempts == 3
