"""The guard between rules, counts and transport; the calls are in `end_to_end/test_egress`."""

import pytest

from vastar_client.wire import ExecuteRequest
from vastar_runtime.calls import Call, Caller
from vastar_runtime.config import PoliciesConfig, RuntimeConfig, merge
from vastar_runtime.pipeline.guarding import POLICY, EgressGuard, Forbidden
from vastar_runtime.pipeline.machines import Machines
from vastar_runtime.pipeline.policies import Gates
from vastar_runtime.policy.deadline import Deadline
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy_book import PolicyBook
from vastar_runtime.transport import Origin, TransportSettings

SCOPE = ("acme", "prod")
METADATA = "169.254.169.254"
pytestmark = pytest.mark.trio


class Made:
    """A guard, and what it stands on."""

    def __init__(self, own: str = "", **egress: object) -> None:
        defaults = merge(PoliciesConfig(), [{"egress": egress}])
        self.book = PolicyBook(RuntimeConfig(defaults=defaults))
        self.gates = Gates()
        self.guard = EgressGuard(Machines(self.book), self.gates, lambda ip: ip == own)

    def counts(self, mode: Mode) -> tuple[int, int, int]:
        gate = self.gates.of(POLICY, mode)
        return gate.passed, gate.applied, gate.observed

    def refused(self, host: str) -> str | None:
        call = Call(
            ExecuteRequest(
                1, tenant_id="acme", connector_name="http", operation="request", payload=b""
            ),
            Caller(),
            Deadline.arrive(0.0, 0.0, 0, 30.0),
            1 << 20,
        )
        found = self.guard.refuses(call, self.book.of().egress, Origin("http", host, 80))
        return None if found is None else f"{found.policy}:{found.scope.value}"

    def forbidden(self, ip: str, host: str = "h.test") -> Forbidden | None:
        try:
            self.guard.check_address(SCOPE, Origin("http", host, 80), ip)
        except Forbidden as error:
            return error
        return None


async def test_names_are_counted_whether_they_pass_or_not() -> None:
    made = Made(deny_hosts=("bad.test",))
    assert made.refused("good.test") is None
    assert made.refused("bad.test") == "egress_guard:tenant"
    assert made.refused("metadata.google.internal") == "egress_guard:runtime"
    assert made.counts(Mode.ENFORCE) == (1, 2, 0)


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_other_modes_refuse_metadata_alone(mode: str) -> None:
    made = Made(mode=mode, addresses="public", deny_hosts=("bad.test",))
    assert made.refused("bad.test") is None
    assert made.forbidden("10.0.0.1") is None
    assert made.refused(METADATA) == "egress_guard:runtime"
    assert made.forbidden(METADATA) is not None
    assert made.counts(Mode.ENFORCE) == (0, 2, 0)
    assert made.counts(Mode.OBSERVE)[2] == (2 if mode == "observe" else 0)


async def test_a_literal_address_is_observed_once() -> None:
    made = Made(mode="observe", addresses="public")
    assert made.refused("10.0.0.1") is None
    assert made.forbidden("10.0.0.1", "10.0.0.1") is None
    assert made.counts(Mode.OBSERVE) == (0, 0, 1)


async def test_what_is_forbidden_tells_the_rule_and_keeps_the_address() -> None:
    found = Made(addresses="public").forbidden("10.0.0.1")
    assert found is not None
    assert (found.rule, found.address) == ("private", "10.0.0.1")
    assert (
        str(found)
        == found.refused.reason
        == ("rule private: the address is not one of the Internet")
    )


async def test_own_addresses_are_asked_for_only_where_that_matters() -> None:
    assert Made(own="8.8.8.8").forbidden("8.8.8.8") is None
    made = Made(own="8.8.8.8", addresses="public")
    found = made.forbidden("8.8.8.8")
    assert found is not None
    assert found.rule == "own"
    assert made.forbidden("8.8.4.4") is None
    allowed = Made(own="8.8.8.8", addresses="public", allow_ranges=("8.8.8.8",))
    assert allowed.forbidden("8.8.8.8") is None


async def test_proxies_may_be_anywhere_but_at_metadata() -> None:
    made = Made(addresses="public")
    made.guard.check_proxy_address(SCOPE, "10.0.0.1")
    with pytest.raises(Forbidden, match="metadata"):
        made.guard.check_proxy_address(SCOPE, METADATA)
    assert made.counts(Mode.ENFORCE) == (0, 1, 0)


async def test_without_a_network_of_its_own_it_knows_this_host() -> None:
    defaults = merge(PoliciesConfig(), [{"egress": {"addresses": "public"}}])
    machines = Machines(PolicyBook(RuntimeConfig(defaults=defaults)))
    guard, transport = EgressGuard.before(TransportSettings(), None, machines, Gates())
    assert guard._is_own_address("127.0.0.1")
    await transport.aclose()


async def test_servers_that_the_configuration_names_are_judged_by_what_is_denied() -> None:
    made = Made(own="10.9.9.9", addresses="public", deny_ranges=("192.168.0.0/16",))
    server = Origin("postgres", "db.test", 5432)
    for ip in ("127.0.0.1", "10.9.9.9", "1.1.1.1"):
        made.guard.check_named_address("acme", server, ip)
    for ip, rule in (("192.168.1.1", "deny_ranges"), (METADATA, "metadata")):
        with pytest.raises(Forbidden) as caught:
            made.guard.check_named_address("acme", server, ip)
        assert caught.value.rule == rule
