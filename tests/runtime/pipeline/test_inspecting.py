"""What people and metrics are told of the policies, against what the machines hold."""

import trio
import trio.testing

from tests.support.layers import HOST, ORIGIN, House, laid
from tests.support.planned import answer
from vastar_runtime.metrics import BreakerRow, LimiterRow, QuotaRow, Snapshot
from vastar_runtime.pipeline import DESCRIPTOR
from vastar_runtime.pipeline.inspecting import describe, pools, snapshot
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.breaker import BreakerSettings, State
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.transport.fake import Refuse, Wait

ONCE = RetrySettings(mode=Mode.OFF)
TOUCHY = BreakerSettings(min_calls=1, open_s=60.0)


def taken(house: House) -> Snapshot:
    state = RuntimeState(0.0, calls_in_flight=3, connections=2, draining=True)
    return snapshot(house.around, state)


async def test_of_a_runtime_that_did_nothing_there_is_nothing_to_tell(autojump_clock):
    async with laid() as house:
        assert taken(house) == Snapshot(
            calls_in_flight=3,
            connections=2,
            draining=True,
            closed_unlisted={"origin": 0, "tenant": 0},
        )
        told = describe(house.around)
        assert told["pipeline"] == list(DESCRIPTOR)
        assert (told["policies"], told["breakers"], told["limits"]) == ([], [], [])
        nobody = dict.fromkeys(("in_flight", "waiting", "streams", "waiting_streams"), 0)
        assert (told["admission"], told["keys"]) == (nobody, 0)


async def test_the_state_of_a_circuit_is_told_with_the_transition_itself(autojump_clock):
    """Rule 3."""
    async with laid(breaker=TOUCHY, retry=ONCE) as house:
        house.plan(answer(500))
        await house.ask()
        assert taken(house).breakers == (
            BreakerRow("origin", "", ORIGIN, State.CLOSED),
            BreakerRow("tenant", "acme", ORIGIN, State.OPEN),
        )
        assert describe(house.around)["breakers"] == [
            {"scope": "tenant", "tenant": "acme", "origin": ORIGIN, "state": "open"}
        ]


async def test_a_circuit_that_all_share_names_no_tenant(autojump_clock):
    async with laid(breaker=BreakerSettings(no_answer_run=1), retry=ONCE) as house:
        house.network.add_host(HOST, Refuse())
        await house.ask()
        assert describe(house.around)["breakers"] == [
            {"scope": "origin", "origin": ORIGIN, "state": "open"}
        ]


async def test_what_a_retry_has_cost(autojump_clock):
    async with laid() as house:
        house.plan(answer(503))
        await house.ask()
        assert taken(house).quotas == (QuotaRow("acme", ORIGIN, 500 - 28, 500),)


async def test_who_holds_a_place_who_waits_and_for_what(autojump_clock):
    limits = LimitSettings(
        RateLimitSettings(1, period_s=10.0),
        TokenLimitSettings.per_minute(1000),
        RateLimitSettings(500, period_s=60.0, policy="byte_limit"),
    )
    async with laid(tenant_limits=limits, workspace_limits=limits, origin_limits=limits) as house:
        house.plan([Wait()])
        for _ in range(3):
            house.start([])
        await trio.testing.wait_all_tasks_blocked()
        now = taken(house)
        assert (now.admitted_calls, now.waiting_calls, now.admitted_streams) == (3, 0, 0)
        assert LimiterRow("rate_limit", "workspace", 2) in now.limiters
        assert [(pool.tenant, pool.busy) for pool in now.pools] == [("acme", 1)]
        rows = {(row["policy"], row["scope"]): row for row in describe(house.around)["limits"]}
        assert set(rows) == {
            (policy, scope)
            for policy in ("rate_limit", "token_limit", "byte_limit")
            for scope in ("workspace", "tenant", "origin")
        }
        waited_for = rows["rate_limit", "workspace"]
        assert (waited_for["waiting"], waited_for["available"]) == (2, 0)
        assert rows["rate_limit", "origin"]["of"] == ORIGIN
        assert rows["byte_limit", "tenant"]["available"] == 499  # one call is out, of one byte
        house.nursery.cancel_scope.cancel()


async def test_verdicts_are_told_by_policy_and_mode(autojump_clock):
    watched = BreakerSettings(min_calls=1, open_s=60.0, mode=Mode.OBSERVE)
    async with laid(breaker=watched, retry=ONCE) as house:
        house.plan(answer(500))
        await house.ask()
        await house.ask()
        rows = {(row.policy, row.mode): row for row in taken(house).verdicts}
        observed = rows["circuit_breaker", Mode.OBSERVE]
        assert (observed.passed, observed.applied, observed.observed) == (1, 0, 1)
        assert rows["bulkhead", Mode.ENFORCE].passed == 2
        assert {
            "policy": "circuit_breaker",
            "mode": "observe",
            "passed": 1,
            "applied": 0,
            "observed": 1,
        } in describe(house.around)["policies"]


async def test_connections_are_told_by_key(autojump_clock):
    async with laid() as house:
        assert pools(house.around) == []
        house.plan(answer(200, b"ok"))
        await house.ask()
        (row,) = pools(house.around)
        assert (row["tenant"], row["origin"]) == ("acme", ORIGIN)
        assert (row["idle"], row["active"], row["waiting"]) == (1, 0, 0)
