"""Work that is not HTTP meets the same policies."""

import pytest
import trio

from tests.support.layers import laid, make_call
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.guarding import Forbidden
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.pipeline.working import LAYERS, Works, named_addresses
from vastar_runtime.policy.classify import AttemptResult, Fault, Reached, classify
from vastar_runtime.policy.egress import EgressRefusal, EgressRules, EgressSettings
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.transport import HttpTransport, Origin, TransportSettings
from vastar_runtime.transport.fake import FakeNetwork, Refuse

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


async def test_a_server_that_is_denied_costs_nothing_and_an_address_ends_the_attempt(
    autojump_clock,
):
    server = Origin("postgres", "db", 5432)
    async with laid(egress=EgressRules(EgressSettings(deny_hosts=("db",)))) as house:
        call = make_call()
        work, left = scripted(FINE)
        with Works(house.around).lease(call) as lease:
            refused = await lease.run(ORIGIN, work, server)
        assert isinstance(refused, Failure)
        assert (refused.refused_by, call.attempts, len(left)) == ("egress_guard:tenant", 0, 1)
    async with laid() as house:

        async def forbidden(progress):
            await trio.lowlevel.checkpoint()
            raise Forbidden(EgressRefusal("deny_ranges", "rule deny_ranges: no"), "10.0.0.1")

        call = make_call()
        with Works(house.around).lease(call) as lease:
            refused = await lease.run(ORIGIN, forbidden, server)
        assert isinstance(refused, Failure)
        assert (refused.refused_by, call.attempts) == ("egress_guard:tenant", 1)
        assert refused.kind is FailureKind.INVALID_REQUEST


async def test_addresses_of_servers_are_looked_up_behind_the_guard(autojump_clock):
    rules = EgressRules(EgressSettings(deny_ranges=("192.0.2.1/32",)))
    async with laid(egress=rules) as house, trio.open_nursery() as nursery:
        network = FakeNetwork(nursery)
        denied, allowed = network.add_host("db", Refuse(), Refuse())
        transport = HttpTransport(TransportSettings(), network)
        look_up = named_addresses(house.around.guard, transport)
        assert denied == "192.0.2.1"
        assert await look_up("acme", Origin("postgres", "db", 5432)) == [allowed]
        with pytest.raises(Forbidden, match="deny_ranges"):
            await look_up("acme", Origin("postgres", denied, 5432))
        with pytest.raises(OSError, match="not known"):
            await look_up("acme", Origin("postgres", "nobody", 5432))
