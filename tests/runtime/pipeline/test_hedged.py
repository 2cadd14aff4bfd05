"""A second attempt beside a slow first one: when, for whom, and what becomes of the loser."""

import json

import attrs
import pytest
import trio
import trio.testing

from tests.support.layers import HOST, ORIGIN, Book, House, laid, make_call
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.hedging import HedgeSettings, Hedging
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.transport import Phase, TransportSettings
from vastar_runtime.transport.fake import Close, Refuse, Script, Send, Wait

ONCE = RetrySettings(mode=Mode.OFF)
ALWAYS = HedgeSettings(mode=Mode.ENFORCE, after_s=1.0, budget_ratio=1.0)
"""Every call may be hedged, after a second."""
NEVER_AGAIN = LimitSettings(RateLimitSettings(1, period_s=600.0, max_waiting=0))


def hedging(house: House) -> Hedging:
    now_s = trio.current_time()
    return house.machines.tenants_at_origins.get(("acme", ORIGIN), now_s).hedging


async def test_off_by_default_costs_no_attempt(autojump_clock):
    async with laid() as house:
        house.plan(answer(200, after_s=20))
        got = await house.ask()
        assert (got.at_s, got.counts) == (20, (1, 0, 0))
        assert not house.meters.of("hedged")


async def test_a_slow_attempt_gets_a_twin_and_the_quicker_answer_wins(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        upstream = house.plan([Wait()], answer(200, b"twin", after_s=1.0))
        got = await house.ask()
        assert (got.status, got.body, got.at_s) == (200, b"twin", 2)
        assert (got.counts, upstream.times) == ((2, 0, 0), [0, 1])
        assert got.call.disposition is Disposition.COMPLETED
        assert house.meters.of("hedged") == [("won",)]
        assert len(house.network.open_channels) == 1, "the loser's is closed at once"
        assert house.breakers()[0].totals(2.0) == (1, 0)


async def test_the_first_one_may_win_too(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan(answer(200, b"first", after_s=1.5), [Wait()])
        got = await house.ask()
        assert (got.body, got.at_s, got.counts) == (b"first", 1.5, (2, 0, 0))
        assert house.meters.of("hedged") == [("lost",)]
        assert len(house.network.open_channels) == 1


async def test_a_quick_one_gets_none(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        upstream = house.plan(answer(200, after_s=0.9), answer(503), answer(200))
        assert (await house.ask()).call.attempts == 1
        assert (await house.ask()).call.attempts == 2, "a retry, at once"
        assert upstream.times == [0, 0.9, 0.925]
        assert not house.meters.of("hedged")


async def test_nor_one_whose_answer_has_begun(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan([Send(b"HTTP/1.1 200 OK\r\n"), Wait(5), Send(b"Content-Length: 0\r\n\r\n")])
        got = await house.ask()
        assert (got.at_s, got.call.attempts) == (5, 1)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nor_a_method_that_may_change_something(method, autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan(answer(200, after_s=20))
        assert (await house.ask(method=method, replayable=True)).call.attempts == 1


async def test_nor_one_whose_deadline_is_too_near(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan([Wait()])
        assert (await house.ask(time_s=1)).call.attempts == 1


async def test_nor_one_that_waits_in_a_line_of_our_own(autojump_clock):
    one = TransportSettings(connections_per_key=1)
    async with laid(pool=one, hedging=ALWAYS) as house:
        house.plan(answer(200, after_s=0.9))
        ends = await house.ask_many(4)
        assert [got.call.attempts for got in ends] == [1] * 4
    a_second = LimitSettings(RateLimitSettings(1, period_s=3.0))
    async with laid(limits=a_second, hedging=ALWAYS) as house:
        house.plan(answer(200))
        assert [got.call.attempts for got in await house.ask_many(3)] == [1] * 3


async def test_only_as_many_as_the_budget_allows(autojump_clock):
    half = HedgeSettings(mode=Mode.ENFORCE, after_s=1.0, budget_ratio=0.5)
    async with laid(hedging=half) as house:
        house.plan(answer(200, after_s=2.0))
        assert [(await house.ask()).call.attempts for _ in range(6)] == [1, 2, 1, 2, 1, 2]


async def test_a_retry_gets_none(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        upstream = house.plan(answer(503), answer(200, after_s=5.0))
        assert (await house.ask()).call.attempts == 2
        assert upstream.times == [0, 0.025]
        assert hedging(house).budget == 1, "filled once a call"


@pytest.mark.parametrize("plan", [answer(503, after_s=0.5), [Wait(0.5), Close()]])
async def test_one_that_fails_beside_another_is_not_the_end(plan, autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan([Wait(1.5), *plan], answer(200, b"twin", after_s=3.0))
        got = await house.ask()
        assert (got.body, got.at_s, got.counts) == (b"twin", 4, (2, 0, 0))


@pytest.mark.parametrize("plan", [answer(503, after_s=0.5), [Wait(0.5), Close()]])
async def test_nor_is_a_twin_that_fails(plan, autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan(answer(200, b"first", after_s=4.0), plan)
        got = await house.ask()
        assert (got.body, got.at_s, got.counts) == (b"first", 4, (2, 0, 0))
        assert house.breakers()[1].totals(4.0) == (1, 0), "it counts by the answer it gave"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([Wait(3), Close()], answer(503, after_s=1.0)),
        (answer(503, after_s=3.0), [Wait(1), Close()]),
    ],
)
async def test_where_both_fail_the_better_failure_is_tried_again(first, second, autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        upstream = house.plan(first, second, answer(200))
        got = await house.ask()
        assert (got.status, got.counts) == (200, (3, 0, 25_000))
        assert upstream.times == [0, 1, 3.025]
        assert house.breakers()[1].totals(4.0) == (1, 0)


async def test_of_two_answers_that_are_not_final_one_stays(autojump_clock):
    async with laid(hedging=ALWAYS, retry=ONCE) as house:
        house.plan(answer(503, b"first", after_s=3.0), answer(502, b"twin", after_s=1.0))
        got = await house.ask()
        assert (got.status, got.body, got.at_s) == (502, b"twin", 3)


async def test_an_error_rather_than_a_refusal(autojump_clock):
    async with laid(hedging=ALWAYS, limits=NEVER_AGAIN, retry=ONCE) as house:
        house.plan([Wait(3), Close()])
        got = await house.ask()
        assert got.error is not None
        assert (got.at_s, got.call.attempts) == (3, 1)
        assert got.call.disposition is Disposition.SENT_NO_RESPONSE


async def test_a_twin_that_is_refused_gives_its_budget_back(autojump_clock):
    async with laid(hedging=ALWAYS, limits=NEVER_AGAIN) as house:
        house.plan(answer(200, after_s=3.0))
        got = await house.ask()
        assert (got.at_s, got.counts, got.refused_by) == (3, (1, 0, 0), None)
        assert hedging(house).budget == 1


async def test_a_refusal_of_the_first_is_the_end_where_it_stands_alone(autojump_clock):
    async with laid(hedging=ALWAYS, breaker=BreakerSettings(min_calls=1), retry=ONCE) as house:
        house.plan(answer(500))
        await house.ask()
        assert (await house.ask()).refused_by == "circuit_breaker:tenant"


async def test_both_pay_for_themselves(autojump_clock):
    limits = LimitSettings(RateLimitSettings(10, period_s=1000.0))
    async with laid(hedging=ALWAYS, limits=limits) as house:
        house.plan(answer(200, after_s=2.0))
        await house.ask()
        pacer = house.machines.credentials.get(house.key(), 0).limits.requests
        assert pacer is not None
        assert round(pacer.limiter.available(2.0)) == 8


@pytest.mark.parametrize("nth", range(5))  # in which order they end is left to chance
async def test_of_heads_at_one_moment_only_one_is_read_on(nth, autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        head, body = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), Send(b"abc")
        house.plan([Wait(2), head, Wait(5), body], [Wait(1), head, Wait(5), body])
        ends = []
        house.start(ends)
        await trio.sleep(3)
        assert len(house.network.open_channels) == 1
        await trio.sleep(9)
        assert [(got.body, got.at_s) for got in ends] == [(b"abc", 7)]


@pytest.mark.parametrize("nth", range(5))  # in which order they end is left to chance
async def test_answers_at_one_moment_leave_nothing_behind(nth, autojump_clock):
    """Tokens too: of the two that were reserved one is for the answer, one is settled at once."""
    limits = LimitSettings(tokens=TokenLimitSettings.per_minute(100_000))
    body = json.dumps({"prompt": "x" * 400, "max_tokens": 100}).encode()
    usage = json.dumps({"usage": {"prompt_tokens": 40, "completion_tokens": 2}}).encode()
    async with laid(hedging=ALWAYS, limits=limits) as house:
        house.plan(answer(200, usage, after_s=2.0), answer(200, usage, after_s=1.0))
        got = await house.ask(body=body)
        assert (got.status, got.body, got.at_s) == (200, usage, 2)


async def test_observe_counts_what_it_would_have_sent(autojump_clock):
    observed = HedgeSettings(mode=Mode.OBSERVE, after_s=1.0, budget_ratio=1.0)
    async with laid(hedging=observed) as house:
        house.plan(answer(200, after_s=3.0), answer(200))
        assert [(await house.ask()).call.attempts for _ in range(2)] == [1, 1]
        gate = house.around.gates.of("hedging", Mode.OBSERVE)
        assert (gate.passed, gate.applied, gate.observed) == (0, 0, 1)
        assert not house.meters.of("hedged")


async def test_cancelled_both_are_closed_at_once(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        house.plan([Wait()])
        got = await house.ask(time_s=3)
        assert (got.timed_out, got.call.attempts) == (True, 2)
        assert not house.network.open_channels


async def test_also_where_one_had_been_answered(autojump_clock):
    async with laid(hedging=ALWAYS) as house:
        head = Send(b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\n")
        house.plan([Wait(2), head, Wait()], [Wait()])
        got = await house.ask(time_s=3)
        assert got.timed_out
        assert got.call.disposition is Disposition.RESPONSE_STARTED
        assert not house.network.open_channels


async def test_how_far_it_got_is_how_far_either_got(autojump_clock):
    """The first had not got beyond connecting, and the twin was sent."""
    async with laid(hedging=ALWAYS, retry=ONCE) as house:
        steps = [Wait(1), Close()]
        house.network.add_host(HOST, Refuse(after_s=4.0))
        house.nursery.start_soon(_move_to, house, Script(steps))
        got = await house.ask()
        assert (got.at_s, got.call.attempts) == (4, 2)
        assert got.call.disposition is Disposition.SENT_NO_RESPONSE
        house.network.add_host(HOST, Refuse(after_s=40.0))
        house.nursery.start_soon(_move_to, house, Script([Wait()]))
        got = await house.ask(time_s=3)
        assert (got.timed_out, got.call.disposition) == (True, Disposition.SENT_NO_RESPONSE)


async def test_also_where_the_other_failed_first(autojump_clock):
    """Of two errors the first one is told, and that the second was sent all the same."""
    async with laid(hedging=ALWAYS, retry=ONCE) as house:
        house.network.add_host(HOST, Refuse(after_s=2.0))
        house.nursery.start_soon(_move_to, house, Script([Wait(3), Close()]))
        got = await house.ask()
        assert got.error is not None
        assert (got.at_s, got.error.phase) == (4, Phase.CONNECT)
        assert got.call.disposition is Disposition.SENT_NO_RESPONSE


async def _move_to(house: House, behaviour: Script) -> None:
    await trio.sleep(0.5)
    house.network.add_host(HOST, behaviour)


async def test_what_the_loser_waited_for_is_not_what_the_call_waits_for(autojump_clock):
    one_in_a_while = LimitSettings(RateLimitSettings(1, period_s=9.0))
    async with laid(hedging=ALWAYS, limits=one_in_a_while) as house:
        head = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        house.plan([Wait(2), head, Wait()])
        call = make_call(time_s=20)
        got = await house.ask(call=call)
        assert (got.timed_out, call.attempts, call.waiting_for) == (True, 1, "")
        assert call.queued_us == 10**6


@pytest.mark.parametrize(
    ("modes", "attempts"), [((Mode.OFF, Mode.ENFORCE), 2), ((Mode.ENFORCE, Mode.OFF), 1)]
)
async def test_the_mode_is_the_call_s_and_the_budget_the_tenant_s(modes, attempts, autojump_clock):
    of_tenant, of_workspace = (attrs.evolve(ALWAYS, mode=mode) for mode in modes)
    book = Book()
    book.set("acme", None, ORIGIN, hedging=of_tenant)
    book.set("acme", "main", ORIGIN, hedging=of_workspace)
    async with laid(book) as house:
        house.plan(answer(200, after_s=3.0))
        assert (await house.ask()).call.attempts == attempts
