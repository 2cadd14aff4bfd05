"""Work that is not HTTP meets the same policies."""

import trio

from tests.support.layers import laid, make_call
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.pipeline.working import LAYERS, Works
from vastar_runtime.policy.classify import AttemptResult, Fault, Reached, classify
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.verdicts import Scope

ORIGIN = "postgres://db:5432"
FINE = classify("GET", AttemptResult(200), has_idempotency_key=False), None


def lost(reached: Reached, *, is_safe: bool = False):
    result = AttemptResult(0, Fault.RESET, reached)
    return classify("POST", result, has_idempotency_key=is_safe), result


def scripted(*ends):
    left = list(ends)

    async def work(progress):
        await trio.lowlevel.checkpoint()
        return left.pop(0)

    return work, left


async def test_the_layers_and_one_attempt(autojump_clock):
    assert [each.name for each in LAYERS] == [
        "admission",
        "retry",
        "rate_limit",
        "circuit_breaker",
    ]
    async with laid() as house:
        call = make_call()
        work, left = scripted(FINE)
        with Works(house.around).lease(call) as lease:
            assert await lease.run(ORIGIN, work) is None
        assert (call.origin, call.attempts, left) == (ORIGIN, 1, [])


async def test_what_was_not_sent_is_tried_again_and_what_was_is_not(autojump_clock):
    async with laid() as house:
        for end, attempts in ((lost(Reached.NOT_SENT), 2), (lost(Reached.SENT_NO_RESPONSE), 1)):
            call = make_call()
            work, _ = scripted(end, FINE)
            with Works(house.around).lease(call) as lease:
                assert await lease.run(ORIGIN, work) is None
            assert call.attempts == attempts


async def test_a_circuit_opens_and_refuses(autojump_clock):
    async with laid() as house:
        works = Works(house.around)
        for _ in range(5):
            work, _ = scripted(lost(Reached.SENT_NO_RESPONSE))
            with works.lease(make_call()) as lease:
                assert await lease.run(ORIGIN, work) is None
        call = make_call()
        work, left = scripted(FINE)
        with works.lease(call) as lease:
            refused = await lease.run(ORIGIN, work)
        assert isinstance(refused, Failure)
        assert refused.kind is FailureKind.CIRCUIT_OPEN
        assert refused.refused_by == "circuit_breaker:origin"
        assert left == [FINE]


async def test_a_limit_on_bytes_is_charged_and_settled(autojump_clock):
    limits = LimitSettings(
        volume=RateLimitSettings(
            1000,
            period_s=3600.0,
            scope=Scope.TENANT,
            policy="byte_limit",
            max_debt_s=7200.0,
        )
    )
    async with laid(tenant_limits=limits) as house:
        works, call = Works(house.around), make_call()

        async def work(progress):
            progress.request_begun = True
            await trio.lowlevel.checkpoint()
            return FINE

        with works.lease(call) as lease:
            assert await lease.run(ORIGIN, work) is None
            call.received_bytes = 300
        pacer = house.machines.tenants.get("acme", trio.current_time()).limits.volume
        assert pacer is not None
        assert pacer.limiter.held == 0
        assert pacer.limiter.available(trio.current_time()) < 1000
