"""The lease of one call: what it holds while it lasts."""

import msgspec
import pytest
import trio

from tests.support.layers import HOST, ORIGIN, House, laid, make_call, make_request
from tests.support.planned import answer
from vastar_runtime.pipeline import Upstreams
from vastar_runtime.pipeline.attempt import Attempt, Ended
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.egress import EgressRules, EgressSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.transport import UpstreamResponse
from vastar_runtime.transport.fake import Refuse, Wait


async def test_a_request_is_the_first_attempt_of_a_hop_of_its_call(autojump_clock):
    async with laid() as house:
        seen: list[Attempt] = []

        async def note(attempt: Attempt) -> Ended:
            await trio.lowlevel.checkpoint()
            seen.append(attempt)
            return Ended.by_refusal(Refused("queue", Scope.TENANT, None, "no"))

        call = make_call(workspace=None)
        with Upstreams(lambda _: note, house.around).lease(call) as lease:
            for host in (HOST, "other.test"):
                await lease.request(make_request(host))
        assert [attempt.number for attempt in seen] == [1, 1]
        assert [attempt.progress is call.progress for attempt in seen] == [True, True]
        assert [attempt.hop.key for attempt in seen] == [
            Key("acme", "", ORIGIN),
            Key("acme", "", "http://other.test"),
        ]
        assert seen[0].hop.holdings is seen[1].hop.holdings, "the call's own"
        assert seen[0].hop.policies is house.book.of()


def users(house: House) -> list[int]:
    machines, now_s = house.machines, trio.current_time()
    return [
        machines.origins.get(ORIGIN, now_s).users,
        machines.tenants_at_origins.get(("acme", ORIGIN), now_s).users,
        machines.credentials.get(house.key(), now_s).users,
    ]


async def test_while_a_request_lasts_its_machines_have_a_user(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, b"abc", after_s=2.0))
        house.start([])
        house.start([])
        await trio.sleep(1)
        assert users(house) == [2, 2, 2]
        await trio.sleep(2)
        assert users(house) == [0, 0, 0]


@pytest.mark.parametrize("how", ["error", "deadline", "bug"])
async def test_however_it_ends(how, autojump_clock):
    async with laid() as house:
        if how == "error":
            house.network.add_host(HOST, Refuse())
            assert (await house.ask()).error is not None
        elif how == "deadline":
            house.plan([Wait()])
            assert (await house.ask(time_s=1)).timed_out
        else:

            async def broken(attempt: Attempt) -> Ended:
                await trio.lowlevel.checkpoint()
                raise ZeroDivisionError

            lease = Upstreams(lambda _: broken, house.around).lease(make_call())
            with pytest.raises(ZeroDivisionError), lease:
                await lease.request(make_request())
        assert users(house) == [0, 0, 0]


async def test_a_response_that_is_left_in_the_middle_leaves_nothing(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, b"x" * 300_000))
        with house.layers.lease(make_call()) as lease:
            response = await lease.request(make_request())
            assert isinstance(response, UpstreamResponse)
            async with response:
                await response.read_some()
        assert not house.network.open_channels


async def test_a_lease_without_a_request_holds_nothing(autojump_clock):
    async with laid() as house:
        with house.layers.lease(make_call()) as lease:
            lease.saw(b"nothing is counted")
            lease.saw_event("nothing is counted")
        assert len(house.machines) == 0


async def test_the_caller_is_told_when_to_come_back_whatever_the_policies_do(autojump_clock):
    """As the answer asks, also where it is not tried again, and not while the credential rests."""
    for retry in (RetrySettings(mode=Mode.OFF), RetrySettings(attempts=1), RetrySettings()):
        async with laid(retry=retry) as house:
            house.plan(answer(500, b"", "Retry-After: 9"))
            assert (await house.ask(method="POST")).call.retry_after_ms == 9000
        async with laid(retry=retry) as house:
            house.plan(answer(429))
            got = await house.ask(time_s=0.5)
            resting = await house.ask()
            assert got.call.retry_after_ms == resting.call.retry_after_ms == 750
            assert resting.refused_by == "cooldown:credential"


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_rules_about_names_hold_for_the_site_that_is_asked_for(mode, autojump_clock):
    egress = EgressRules(EgressSettings(mode=mode, deny_hosts=("evil.test",)))
    async with laid(egress=egress) as house:
        house.plan(answer(), answer())
        for site, is_fine in ((b"other.test", True), (b"evil.test", mode is Mode.OBSERVE)):
            request = msgspec.structs.replace(make_request(), headers=[(b"host", site)])
            call = make_call()
            with house.layers.lease(call) as lease:
                got = await lease.request(request)
                if isinstance(got, UpstreamResponse):
                    await got.aclose()
            assert isinstance(got, UpstreamResponse) is is_fine
            assert call.refused_by == (None if is_fine else "egress_guard:tenant")
