"""The guard in the way of calls: names before anything is asked, addresses from within."""

from typing import Any

import attrs
import pytest

from tests.support.layers import HOST, House, laid, make_call, make_request
from tests.support.planned import answer
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.guarding import Forbidden
from vastar_runtime.policy.egress import EgressRules, EgressSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.transport import TransportError

METADATA = "169.254.169.254"


def rules(**settings: Any) -> EgressRules:
    return EgressRules(EgressSettings(**settings))


def forbid(house: House, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Have the upstream be at an address that may not be reached, as the dialer would find."""
    refusal = rules().refusal_of_address(address)
    assert refusal is not None

    async def exchange(place: Any, _request: Any, progress: Any) -> None:
        place.take()
        cause = Forbidden(refusal, address)
        raise TransportError.at(progress, HOST, str(cause)) from cause

    monkeypatch.setattr(house.transport, "exchange", exchange)
    monkeypatch.setattr(house.transport, "acquire", _acquire)
    monkeypatch.setattr(house.transport, "release", lambda _: None)


@attrs.define
class _Place:
    def take(self) -> None:
        """Nothing is held."""


async def _acquire(*_: Any) -> _Place:
    return _Place()


async def test_a_name_is_refused_before_anything_is_asked(autojump_clock):
    async with laid(egress=rules(deny_hosts=(HOST,))) as house:
        house.plan(answer(200))
        got = await house.ask()
        assert got.failure is not None
        assert (got.failure.kind, got.failure.refused_by) == (
            FailureKind.INVALID_REQUEST,
            "egress_guard:tenant",
        )
        assert (got.call.attempts, house.network.connected) == (0, [])
        assert house.meters.of("refused") == [("egress_guard", "tenant")]
        assert not len(house.machines)


async def test_the_host_header_names_no_other_site(autojump_clock):
    async with laid(egress=rules(deny_hosts=("secret.test",))) as house:
        house.plan(answer(200))
        asked = make_request()
        other = type(asked)(
            method=b"GET",
            origin=asked.origin,
            target=b"/",
            headers=[(b"host", b"secret.test")],
            body=None,
            replayable=False,
        )
        call = make_call()
        with call.scope, house.layers.lease(call) as lease:
            refused = await lease.request(other)
            assert isinstance(refused, Failure)
            response = await lease.request(asked)
            assert not isinstance(response, Failure)
            await response.read_all()


async def test_an_address_that_is_found_on_the_way_shows_nothing(autojump_clock, monkeypatch):
    async with laid() as house:
        forbid(house, monkeypatch, METADATA)
        for _ in range(10):
            got = await house.ask()
            assert got.failure is not None
            assert got.failure.refused_by == "egress_guard:runtime"
        assert [each.in_flight for each in house.breakers()] == [0, 0]
        assert house.breakers()[0].totals(0.0) == (0, 0)


async def test_where_names_are_only_observed_calls_go(autojump_clock):
    async with laid(egress=rules(deny_hosts=(HOST,), mode=Mode.OBSERVE)) as house:
        house.plan(answer(200))
        assert (await house.ask()).status == 200
