"""A 429 has one credential rest, and nobody else."""

import pytest
import trio

from tests.support.layers import House, laid
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.transport.fake import Wait

ONCE = RetrySettings(mode=Mode.OFF)


def cooldown(house: House) -> Cooldown:
    return house.machines.credentials.get(house.key(), trio.current_time()).cooldown


async def test_a_throttled_credential_is_refused_and_told_until_when(autojump_clock):
    async with laid(retry=ONCE) as house:
        upstream = house.plan(answer(429, b"slow down", "Retry-After: 8"), answer(200))
        got = await house.ask(method="POST")
        assert (got.status, got.body, got.refused_by) == (429, b"slow down", None)
        await trio.sleep(1)
        got = await house.ask(method="POST")
        assert got.failure is not None
        assert got.failure.kind is FailureKind.RATE_LIMITED
        assert got.refused_by == "cooldown:credential"
        assert got.call.retry_after_ms == 8000
        assert got.failure.message == (
            "refused by the credential's cooldown (http://api.test): "
            "the upstream throttles this credential (429)"
        )
        assert (got.counts, got.call.disposition) == ((0, 0, 0), Disposition.NOT_SENT)
        assert house.meters.of("refused") == [("cooldown", "credential")]
        await trio.sleep(8)
        assert (await house.ask()).status == 200
        assert upstream.times == [0, 9]


async def test_other_workspaces_tenants_and_origins_go_on(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan(answer(429), answer(200))
        house.plan(answer(200), host="other.test")
        await house.ask()
        assert (await house.ask()).refused_by == "cooldown:credential"
        assert (await house.ask(workspace="second")).status == 200
        assert (await house.ask(workspace=None)).status == 200
        assert (await house.ask(tenant="other")).status == 200
        assert (await house.ask("other.test")).status == 200
        assert [state.state.value for state in house.breakers()] == ["closed", "closed"]


async def test_without_a_hint_rests_double_until_an_answer_comes(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan(answer(429), answer(429), answer(200), answer(429))
        rests_s = []
        for _ in range(4):
            await house.ask()
            rests_s.append(cooldown(house).rest_s(trio.current_time()))
            await trio.sleep(rests_s[-1])
        assert rests_s == [0.75, 1.5, 0, 0.75]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_one_that_is_not_enforced_refuses_nobody(mode, autojump_clock):
    async with laid(retry=ONCE, cooldown=CooldownSettings(mode=mode)) as house:
        house.plan(answer(429))
        assert [(await house.ask()).status for _ in range(3)] == [429] * 3
        gate = house.around.gates.of("cooldown", mode)
        observed = (1, 2) if mode is Mode.OBSERVE else (0, 0)
        assert (gate.passed, gate.observed) == observed
        assert (cooldown(house).rest_s(trio.current_time()) > 0) is (mode is Mode.OBSERVE)


async def test_whoever_does_not_get_as_far_counts_for_nothing(autojump_clock):
    async with laid(retry=ONCE, breaker=BreakerSettings(min_calls=1)) as house:
        house.plan([Wait()], answer(500))
        assert (await house.ask(time_s=1)).timed_out
        assert (await house.ask()).status == 500
        assert (await house.ask()).refused_by == "circuit_breaker:tenant"
        assert (cooldown(house).in_flight, cooldown(house).round) == (0, 0)


async def test_it_works_without_a_breaker(autojump_clock):
    async with laid(retry=ONCE, breaker=BreakerSettings(mode=Mode.OFF)) as house:
        house.plan(answer(429))
        await house.ask()
        assert (await house.ask()).refused_by == "cooldown:credential"


async def test_answers_of_one_round_count_once(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan(answer(429, after_s=1.0))
        assert [got.status for got in await house.ask_many(5)] == [429] * 5
        assert (cooldown(house).round, cooldown(house).rest_s(1.0)) == (1, 0.75)
