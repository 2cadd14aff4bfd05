"""Admission as a call meets it: places, the line, and what it says."""

from itertools import groupby

import pytest
import trio
import trio.testing

from tests.support.layers import HOST, House, in_order, laid, make_call, make_request
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition, Failure, FailureKind
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.admission import AdmissionSettings
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.concurrency import ConcurrencySettings
from vastar_runtime.policy.header_learning import HeaderSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.transport.fake import Send, Wait

ONCE = RetrySettings(mode=Mode.OFF)
SLOW = answer(200, b"ok", after_s=1.0)


def places(**limits) -> ConcurrencySettings:
    return ConcurrencySettings(**limits)


def admission(mode: Mode = Mode.ENFORCE, waiting: int = 1000, **limits) -> AdmissionSettings:
    return AdmissionSettings(
        concurrency=places(**limits), max_waiting_per_tenant=waiting, mode=mode
    )


ONE = admission(max_per_origin=1)
UNLEARNED = HeaderSettings(mode=Mode.OFF)


@pytest.mark.parametrize(
    ("limit", "others"),
    [
        ("max_per_origin", {"workspace": "second"}),
        ("max_per_tenant", {"tenant": "other"}),
    ],
)
async def test_a_level_holds_up_its_own_and_nobody_else(limit, others, autojump_clock):
    async with laid(admission=admission(**{limit: 2})) as house:
        house.plan(SLOW)
        ends = await house.ask_many(5)
        assert [got.at_s for got in ends] == [1, 1, 2, 2, 3]
        assert sorted(got.call.queued_us for got in ends) == [0, 0, 10**6, 10**6, 2 * 10**6]
        held = []
        for _ in range(2):
            house.start(held)
        await trio.testing.wait_all_tasks_blocked()
        got = await house.ask(**others)
        assert (got.call.queued_us, got.at_s) == (0, 4)


async def test_the_runtime_s_own_places_are_for_all(autojump_clock):
    async with laid(admission=admission(max_in_runtime=2)) as house:
        house.plan(SLOW)
        ends = await in_order(
            *(lambda tenant=tenant: house.ask(tenant=tenant) for tenant in ("a", "b", "c"))
        )
        assert [(got.at_s, got.call.queued_us) for got in ends] == [(1, 0), (1, 0), (2, 10**6)]
        assert sorted(house.meters.of("waited")) == [("queue", 1.0)]


async def test_streams_have_places_of_their_own(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(SLOW)
        [call, stream, second] = await in_order(
            house.ask,
            lambda: house.ask(stream=True),
            lambda: house.ask(stream=True),
        )
        assert [got.at_s for got in (call, stream, second)] == [1, 1, 2]


async def test_tenants_take_turns_however_long_their_lines_are(autojump_clock):
    async with laid(admission=admission(max_in_runtime=1)) as house:
        house.plan(SLOW)
        ends = []
        for tenant in ("loud", *["loud"] * 6, "quiet", "quiet"):
            house.start(ends, tenant=tenant)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(20)
        order = [got.call.request.tenant_id for got in ends]
        assert order[:5] == ["loud", "loud", "quiet", "loud", "quiet"]
        assert [len([*turn]) for _, turn in groupby(order)][-1] == 4


async def test_within_a_line_the_first_goes_first(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(SLOW)
        ends = await in_order(*[house.ask] * 6)
        assert [got.at_s for got in ends] == [1, 2, 3, 4, 5, 6]


async def test_a_full_line_refuses_and_tells_when_it_may_have_gone(autojump_clock):
    async with laid(admission=admission(waiting=1, max_per_tenant=1)) as house:
        house.plan(SLOW)
        ends = []
        house.start(ends)
        house.start(ends)
        await trio.testing.wait_all_tasks_blocked()
        got = await house.ask()
        assert got.failure is not None
        assert got.failure.kind is FailureKind.OVERLOADED
        assert (got.refused_by, got.call.retry_after_ms) == ("queue:tenant", 1000)
        assert got.failure.message == (
            "refused by the tenant's queue (http://api.test): "
            "the tenant has as many calls as it may, and 1 of the tenant are in line"
        )
        assert (got.counts, got.at_s) == ((0, 0, 0), 0)
        assert got.call.disposition is Disposition.NOT_SENT
        assert house.meters.of("refused") == [("queue", "tenant")]


async def test_where_nobody_may_wait_the_full_level_refuses(autojump_clock):
    for limit, scope in (
        ("max_per_origin", "credential"),
        ("max_per_tenant", "tenant"),
        ("max_in_runtime", "runtime"),
    ):
        async with laid(admission=admission(waiting=0, **{limit: 1})) as house:
            house.plan(SLOW)
            house.start([])
            await trio.testing.wait_all_tasks_blocked()
            got = await house.ask()
            assert got.failure is not None
            assert got.refused_by == f"bulkhead:{scope}"
            assert got.failure.message.startswith(f"refused by the {scope}'s bulkhead (")


class _Connector:
    """Makes one request of each call; what the deadline's layer is put around."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def execute(self, call):
        with self._house.layers.lease(call) as lease:
            call.origin = f"http://{HOST}"
            response = await lease.request(make_request())
            assert not isinstance(response, Failure)
            async with response:
                await response.read_all()


async def test_a_wait_lasts_until_the_deadline_and_says_what_for(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(answer(200, after_s=60.0))
        house.start([], time_s=100)
        await trio.testing.wait_all_tasks_blocked()
        call = make_call(time_s=2)
        outcome = await Pipeline({"http": _Connector(house)}).run(call)
        assert outcome == Failure(
            FailureKind.TIMEOUT,
            "timed out: the default timeout of 2000 ms passed while waiting in line for a place "
            "(http://api.test)",
        )
        assert (call.attempts, call.queued_us, trio.current_time()) == (0, 2 * 10**6, 2)
        assert house.meters.of("waited") == [("queue", 2.0)]


async def test_who_goes_in_waits_for_nothing_any_more(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(SLOW, answer(200, after_s=9))
        house.start([])
        await trio.testing.wait_all_tasks_blocked()
        call = make_call(time_s=3)
        outcome = await Pipeline({"http": _Connector(house)}).run(call)
        assert isinstance(outcome, Failure)
        assert outcome.message.endswith("passed while waiting for the response (http://api.test)")


async def test_who_has_waited_is_judged_by_the_time_that_it_is_then(autojump_clock):
    """A limit that was used up, and a circuit that was open, when it came to the line."""
    once_in_five_s = LimitSettings(RateLimitSettings(1, period_s=5.0))
    async with laid(admission=ONE, limits=once_in_five_s, header_learning=UNLEARNED) as house:
        house.plan(answer(200, after_s=6.0), answer(200))
        first, second = await in_order(house.ask, house.ask)
        assert (first.at_s, second.at_s, second.call.queued_us) == (6, 6, 6 * 10**6)
    breaker = BreakerSettings(min_calls=1)
    async with laid(admission=ONE, retry=ONCE, breaker=breaker) as house:
        begun_s = trio.current_time()
        house.plan(answer(200, after_s=9.0), answer(500), answer(200))
        first = make_call()
        house.start([], call=first)
        await trio.testing.wait_all_tasks_blocked()
        assert (await house.ask(workspace="second")).status == 500
        assert (await house.ask(workspace="second")).refused_by == "circuit_breaker:tenant"
        assert (await house.ask()).status == 200, "the probe"
        assert trio.current_time() - begun_s == 9


async def test_a_place_is_held_until_the_body_has_ended(autojump_clock):
    async with laid(admission=ONE) as house:
        head = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        house.plan([head, Wait(3), Send(b"cd")])
        first, second = await in_order(house.ask, house.ask)
        assert (first.at_s, second.call.queued_us) == (3, 3 * 10**6)


async def test_and_over_all_attempts_and_what_is_between_them(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(answer(503, b"", "Retry-After: 4"), answer(200))
        first, second = await in_order(house.ask, house.ask)
        assert (first.call.attempts, first.at_s, second.call.queued_us) == (2, 4.5, 4_500_000)


async def test_a_chain_of_redirects_is_admitted_once(autojump_clock):
    """By its first origin, of which it holds the one place until the last body has ended."""
    async with laid(admission=ONE) as house:
        house.plan(answer(302, b"over there"))
        house.plan(answer(200, b"here", after_s=1.0), host="other.test")
        machine, call = house.machines.admission, make_call()
        with house.layers.lease(call) as lease:
            for host in (HOST, "other.test"):
                call.origin = f"http://{host}"
                response = await lease.request(make_request(host))
                assert not isinstance(response, Failure)
                async with response:
                    await response.read_all()
                assert machine.in_flight(streams=False) == 1
                assert machine.in_flight_of(house.key(), streams=False) == 1
                call.next_hop()
        assert machine.in_flight(streams=False) == 0


async def test_who_leaves_the_line_leaves_no_trace_and_the_next_moves_up(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(SLOW)
        ends = []
        house.start(ends)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as gone:
            house.nursery.start_soon(_later, house, ends)
            await house.ask()
        assert gone.cancelled_caught
        await trio.sleep(5)
        assert [got.at_s for got in ends] == [1, 2]


async def _later(house: House, ends: list) -> None:
    await trio.sleep(0.1)
    ends.append(await house.ask())


async def test_who_is_let_through_as_it_is_cancelled_gives_its_place_back(autojump_clock):
    async with laid(admission=ONE) as house:
        house.plan(SLOW)
        ends = []
        house.start(ends)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await house.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert house.machines.admission.in_flight(streams=False) == 0


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
async def test_where_it_is_not_enforced_nobody_waits(mode, autojump_clock):
    async with laid(admission=admission(mode, waiting=1, max_per_origin=1)) as house:
        house.plan(SLOW)
        ends = await house.ask_many(4)
        assert [got.counts for got in ends] == [(1, 0, 0)] * 4
        gate = house.around.gates.of("bulkhead", mode)
        assert (gate.passed, gate.observed) == ((1, 3) if mode is Mode.OBSERVE else (0, 0))


async def test_one_that_only_observes_would_have_refused(autojump_clock):
    async with laid(admission=admission(Mode.OBSERVE, waiting=0, max_per_origin=1)) as house:
        house.plan(SLOW)
        assert [got.status for got in await house.ask_many(3)] == [200] * 3
        assert house.around.gates.of("bulkhead", Mode.OBSERVE).observed == 2


def adaptive() -> AdmissionSettings:
    aimd = AimdSettings(decrease_ratio=0.5, increase_ratio=0.25)
    return admission(max_per_origin=4, adaptive=aimd)


async def limit_after(house: House, **fields) -> int:
    """How many may be under way after one more call."""
    await house.ask(**fields)
    bulkhead = house.machines.admission._calls.bulkhead
    return bulkhead.limit_of(house.key(), house.book.of().admission.concurrency)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("plan", [answer(503), answer(429), answer(500), [Wait()]])
async def test_an_adaptive_one_gives_an_upstream_that_has_too_much_less(
    method, plan, autojump_clock
):
    async with laid(admission=adaptive(), retry=ONCE, attempt_timeout_s=1.0) as house:
        house.plan(plan, answer(200))
        assert await limit_after(house, method=method) == 2
        await trio.sleep(5)
        assert [await limit_after(house) for _ in range(2)] == [3, 4]


@pytest.mark.parametrize("plan", [answer(404), answer(501)])
async def test_and_as_much_where_the_answer_says_nothing_of_it(plan, autojump_clock):
    async with laid(admission=adaptive(), retry=ONCE) as house:
        house.plan(plan)
        assert await limit_after(house) == 4
        assert await limit_after(house, host="unknown.test") == 4


async def test_a_line_moves_up_when_more_may_go(autojump_clock):
    aimd = AimdSettings(decrease_ratio=0.25, increase_ratio=0.75)
    one_more = admission(max_per_origin=2, adaptive=aimd)
    async with laid(admission=one_more, retry=ONCE) as house:
        head = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
        house.plan(answer(503), [head, Wait(5), Send(b"x")], answer(200))
        assert await limit_after(house) == 1
        first, second = await in_order(house.ask, house.ask)
        assert (first.at_s, second.at_s) == (5, 0), "the head of the first let the second in"


async def test_a_call_that_only_an_observer_let_in_is_not_felt(autojump_clock):
    settings = admission(Mode.OBSERVE, max_per_origin=1, adaptive=AimdSettings(least_ratio=0.5))
    async with laid(admission=settings, retry=ONCE) as house:
        house.plan(answer(200, after_s=5.0), answer(503))
        house.start([])
        await trio.testing.wait_all_tasks_blocked()
        assert (await house.ask()).status == 503, "without a place"
        assert not house.machines.admission._calls.bulkhead._adaptive
