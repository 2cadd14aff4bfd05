"""What becomes of an answer that a retry is about to replace, and what comes where none does."""

import attrs
import pytest
import trio

from tests.support.layers import HOST, ORIGIN, House, laid
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.pipeline import retrying
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.breaker import BreakerSettings, State
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.transport import FaultKind, TransportSettings
from vastar_runtime.transport.fake import Close, Refuse, Send, Wait

KEPT = 256 * 1024
LATER = "Retry-After: 8"
ONE = LimitSettings(RateLimitSettings(1, period_s=60.0, max_waiting=0))
"""One attempt in a minute, and none waits: whatever is tried again is refused."""
TOUCHY = BreakerSettings(min_calls=1, open_s=60.0)


async def shut(house: House) -> None:
    """Open the tenant's circuit by another call, which fails for good."""
    assert (await house.ask(method="POST")).status == 500
    assert house.breakers()[1].state is State.OPEN


async def test_a_retry_that_a_circuit_refuses_gives_the_answer_before_it(autojump_clock):
    async with laid(breaker=TOUCHY) as house:
        house.plan(answer(503, b"x" * KEPT, LATER), answer(500))
        ends = []
        house.start(ends)
        await trio.sleep(2)
        await shut(house)
        await trio.sleep(10)
        [got] = ends
        assert (got.status, got.body, got.failure) == (503, b"x" * KEPT, None)
        assert (got.at_s, got.counts) == (9, (1, 0, 9_000_000))
        assert got.refused_by == "circuit_breaker:tenant"
        assert got.call.retry_after_ms == 45_000 - 7_000
        assert got.call.disposition is Disposition.COMPLETED
        assert got.call.progress.completed, "it tells of the answer that is given"
        assert not house.meters.of("refused"), "the call was not"
        quota = house.machines.tenants_at_origins.get(("acme", ORIGIN), 0).quota
        assert (quota.tokens, quota.outstanding) == (500, 0)


async def test_and_one_that_a_rate_limit_refuses(autojump_clock):
    async with laid(limits=ONE) as house:
        house.plan(answer(503, b"down"))
        got = await house.ask()
        assert (got.status, got.body, got.counts) == (503, b"down", (1, 0, 25_000))
        assert got.refused_by == "rate_limit:origin"
        assert got.call.retry_after_ms == 60_000 - 25


async def test_what_that_answer_asked_for_and_was_waited_for_is_not_told_again(autojump_clock):
    """Rule 4. What is told is when the limit lets somebody go."""
    ten = LimitSettings(RateLimitSettings(1, period_s=10.0, max_waiting=0))
    async with laid(limits=ten) as house:
        house.plan(answer(503, b"", LATER))
        got = await house.ask()
        assert (got.status, got.at_s, got.refused_by) == (503, 9, "rate_limit:origin")
        assert got.call.retry_after_ms == 1000


async def test_and_so_for_an_error(autojump_clock):
    async with laid(limits=ONE) as house:
        house.plan([Close()])
        got = await house.ask()
        assert got.error is not None
        assert (got.error.kind, got.counts) == (FaultKind.RESET, (1, 0, 25_000))
        assert got.refused_by == "rate_limit:origin"
        assert got.call.disposition is Disposition.SENT_NO_RESPONSE


async def test_an_attempt_that_was_not_sent_pays_nothing(autojump_clock):
    async with laid(limits=ONE) as house:
        house.network.add_host(HOST, Refuse())
        got = await house.ask()
        assert (got.call.attempts, got.refused_by) == (3, None)
        assert got.call.disposition is Disposition.NOT_SENT


async def test_the_third_attempt_refused_gives_the_second_answer(autojump_clock):
    two = LimitSettings(attrs.evolve(ONE.requests, limit=2))
    async with laid(limits=two) as house:
        house.plan(answer(503, b"first"), answer(502, b"second"))
        got = await house.ask()
        assert (got.status, got.body, got.call.attempts) == (502, b"second", 2)


async def test_an_answer_that_is_kept_leaves_its_connection_to_the_retry(autojump_clock):
    async with laid() as house:
        house.plan(answer(503, b"x" * KEPT), answer(200))
        assert (await house.ask()).status == 200
        assert len(house.network.connected) == 1


@pytest.mark.parametrize(
    "plan",
    [
        answer(503, b"x" * (KEPT + 1)),
        [Send(b"HTTP/1.1 503 X\r\nContent-Length: 99999999\r\n\r\n"), Wait()],
        [Send(b"HTTP/1.1 503 X\r\n\r\n" + b"x" * (KEPT + 1)), Wait()],
    ],
    ids=["sent", "announced", "without an end"],
)
async def test_a_body_that_is_too_long_holds_nothing_up(plan, autojump_clock):
    async with laid() as house:
        upstream = house.plan(plan, answer(200, b"ok"))
        got = await house.ask()
        assert (got.body, got.call.attempts, upstream.times) == (b"ok", 2, [0, 0.025])
        assert len(house.network.connected) == 2, "a half-read connection is closed"


@pytest.mark.parametrize(
    "plan",
    [
        [Send(b"HTTP/1.1 503 X\r\nContent-Length: 10\r\n\r\nabc"), Wait()],
        [Send(b"HTTP/1.1 503 X\r\n\r\nabc"), Wait()],
    ],
)
async def test_a_body_that_takes_too_long_holds_nothing_up(plan, autojump_clock):
    async with laid() as house:
        upstream = house.plan(plan, answer(200, b"ok"))
        got = await house.ask()
        waited_s = max(0.025, retrying._KEEP_S)  # a backoff of half of 50 ms
        assert (got.body, got.counts) == (b"ok", (2, 0, 25_000))
        assert upstream.times == [0, waited_s]
        assert len(house.network.open_channels) == 1


async def test_nor_does_its_connection(autojump_clock):
    """Else the retry would wait for the only connection, which the body before it holds."""
    async with laid(pool=TransportSettings(connections_per_key=1)) as house:
        house.plan([Send(b"HTTP/1.1 503 X\r\n\r\nabc"), Wait()], answer(200, b"ok"))
        got = await house.ask()
        assert (got.body, got.call.attempts, got.call.queued_us) == (b"ok", 2, 0)


async def test_a_slow_body_is_part_of_the_backoff(autojump_clock):
    async with laid() as house:
        slow = [Send(b"HTTP/1.1 503 X\r\nContent-Length: 2\r\nRetry-After: 2\r\n\r\na"), Wait(0.9)]
        upstream = house.plan([*slow, Send(b"b")], answer(200))
        assert (await house.ask()).call.backoff_us == 2_250_000
        assert upstream.times == [0, 2.25]


@pytest.mark.parametrize(
    "plan",
    [
        answer(503, b"x" * (KEPT + 1)),
        [Send(b"HTTP/1.1 503 X\r\nContent-Length: 10\r\n\r\nabc"), Wait()],
    ],
    ids=["long", "slow"],
)
async def test_where_it_was_let_go_the_refusal_is_the_answer(plan, autojump_clock):
    async with laid(limits=ONE) as house:
        house.plan(plan)
        got = await house.ask()
        assert got.failure is not None
        assert (got.failure.kind, got.call.attempts) == (FailureKind.RATE_LIMITED, 1)
        assert got.refused_by == "rate_limit:origin"
        assert got.call.disposition is Disposition.RESPONSE_STARTED
        assert house.meters.of("refused") == [("rate_limit", "origin")]


async def test_a_body_that_breaks_off_is_given_as_far_as_it_came(autojump_clock):
    async with laid(limits=ONE) as house:
        house.plan([Send(b"HTTP/1.1 503 X\r\nContent-Length: 10\r\n\r\nabc"), Close()])
        got = await house.ask()
        assert (got.status, got.body) == (503, b"abc")
        assert got.error is not None
        assert got.refused_by == "rate_limit:origin"


async def test_what_a_cut_off_backoff_was_reading_is_closed(autojump_clock):
    async with laid() as house:
        house.plan([Send(b"HTTP/1.1 503 X\r\nRetry-After: 9\r\n\r\nabc"), Wait()])
        with trio.move_on_after(0.5):
            await house.ask()
        assert not house.network.open_channels


async def test_the_last_answer_is_not_waited_for(autojump_clock):
    """Nothing of it was read: it streams to the caller as any other."""
    async with laid() as house:
        slow = [Send(b"HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\na"), Wait(5), Send(b"bc")]
        house.plan(answer(503), answer(503), slow)
        got = await house.ask()
        assert (got.status, got.body, got.counts) == (503, b"abc", (3, 0, 75_000))
