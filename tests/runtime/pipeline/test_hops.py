"""One hop through its layers: its machines while it lasts, and how a refusal of it reads."""

import pytest
import trio

from tests.support.layers import ORIGIN, House, laid, make_call, make_request
from vastar_runtime.outcomes import Disposition, Failure, FailureKind
from vastar_runtime.pipeline.attempt import Attempt, Ended, Holdings, Hop
from vastar_runtime.pipeline.hops import REFUSAL_KINDS, carry, make_hop, refuse
from vastar_runtime.policy.verdicts import Refused, Scope

KINDS = {
    "egress_guard": FailureKind.INVALID_REQUEST,
    "bulkhead": FailureKind.OVERLOADED,
    "queue": FailureKind.OVERLOADED,
    "circuit_breaker": FailureKind.CIRCUIT_OPEN,
    "cooldown": FailureKind.RATE_LIMITED,
    "learned_limit": FailureKind.RATE_LIMITED,
    "rate_limit": FailureKind.RATE_LIMITED,
    "token_limit": FailureKind.RATE_LIMITED,
    "byte_limit": FailureKind.RATE_LIMITED,
}
NO = Refused("queue", Scope.TENANT, None, "no")


def test_every_policy_that_refuses_has_its_kind():
    assert dict(REFUSAL_KINDS) == KINDS


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("policy", KINDS)
async def test_a_refusal_tells_who_why_and_for_how_long(policy, scope, autojump_clock):
    """Rule 9."""
    async with laid() as house:
        call = make_call()
        call.origin = ORIGIN
        failure = refuse(call, Refused(policy, scope, 1.2341, "there is no more"), house.around)
        words = policy.replace("_", " ")
        assert failure == Failure(
            KINDS[policy],
            f"refused by the {scope.value}'s {words} (http://api.test): there is no more",
            retry_after_ms=1235,
            refused_by=f"{policy}:{scope.value}",
        )
        assert (call.refused_by, call.retry_after_ms) == (f"{policy}:{scope.value}", 1235)
        assert call.disposition is Disposition.NOT_SENT
        assert house.meters.of("refused") == [(policy, scope.value)]


async def test_one_that_waiting_does_not_help(autojump_clock):
    async with laid() as house:
        refused = Refused("token_limit", Scope.TENANT, None, "too much")
        assert refuse(make_call(), refused, house.around).retry_after_ms == 0


def made(house: House) -> Hop:
    key, policies = house.key(), house.book.of()
    return make_hop(
        make_call(), make_request(), key, policies, Holdings(), house.around, trio.current_time()
    )


def users(hop: Hop) -> list[int]:
    return [hop.of_origin.users, hop.of_tenant.users, hop.of_credential.users]


async def test_a_hop_has_the_machines_of_its_key(autojump_clock):
    async with laid() as house:
        hop, other, now_s = made(house), made(house), trio.current_time()
        assert hop.of_origin is other.of_origin is house.machines.origins.get(ORIGIN, now_s)
        assert hop.of_tenant is house.machines.tenants_at_origins.get(("acme", ORIGIN), now_s)
        assert hop.of_credential is house.machines.credentials.get(house.key(), now_s)


@pytest.mark.parametrize("how", ["answer", "bug", "cancelled"])
async def test_its_machines_have_a_user_while_it_lasts_however_it_ends(how, autojump_clock):
    async with laid() as house:
        hop = made(house)
        seen: list[list[int]] = []

        async def layers(attempt: Attempt) -> Ended:
            seen.append(users(hop))
            if how == "bug":
                raise ZeroDivisionError
            await trio.sleep(1)
            return Ended.by_refusal(NO)

        with trio.move_on_after(0.5 if how == "cancelled" else 5) as scope:
            if how == "bug":
                with pytest.raises(ZeroDivisionError):
                    await carry(hop, layers, house.around, trio.current_time())
            else:
                ended = await carry(hop, layers, house.around, trio.current_time())
                assert ended.refused is NO
        assert scope.cancelled_caught is (how == "cancelled")
        assert seen == [[1, 1, 1]]
        assert users(hop) == [0, 0, 0]
