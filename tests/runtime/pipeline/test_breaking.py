"""Circuits as a call meets them: who opens them for whom, and what it is told."""

import pytest
import trio

from tests.support.layers import HOST, ORIGIN, Book, House, laid
from tests.support.log_lines import log_lines
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.pipeline.policies import CallPolicies, LimitSettings
from vastar_runtime.policy.breaker import BreakerSettings, State
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.transport import TransportSettings
from vastar_runtime.transport.fake import Refuse, Send, Wait

ONCE = RetrySettings(mode=Mode.OFF)
FIRST = BreakerSettings(min_calls=1)
"""The first failure opens."""
OPEN_S = 5.0 * 0.75
"""With the dice at one half."""


async def down(house: House, count: int = 5, **fields) -> None:
    """That many calls that get no connection."""
    for _ in range(count):
        assert (await house.ask(**fields)).error is not None


def states(house: House, tenant: str = "acme") -> tuple[State, State]:
    return tuple(breaker.state for breaker in house.breakers(tenant))  # type: ignore[return-value]


async def test_five_calls_without_an_answer_open_the_host_for_all(autojump_clock):
    async with laid() as house:
        house.network.add_host(HOST, Refuse())
        await down(house, 4)
        assert states(house) == (State.CLOSED, State.CLOSED)
        await down(house, 1)
        assert states(house) == (State.OPEN, State.CLOSED)
        assert len(house.network.lookups) == 5 * 3
        for tenant in ("acme", "other"):
            got = await house.ask(tenant=tenant)
            assert got.failure is not None
            assert got.failure.kind is FailureKind.CIRCUIT_OPEN
            assert got.refused_by == "circuit_breaker:origin"
            assert got.call.retry_after_ms == 3750
            assert got.failure.message == (
                "refused by the origin's circuit breaker (http://api.test): the circuit is open"
            )
            assert (got.counts, got.call.disposition) == ((0, 0, 0), Disposition.NOT_SENT)
        assert len(house.network.lookups) == 5 * 3, "what is refused costs no connection"
        assert house.meters.of("refused") == [("circuit_breaker", "origin")] * 2
        assert house.meters.of("breaker_changed") == [("origin", "open")]


async def test_one_tenant_s_errors_do_not_shut_the_host_for_others(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan(answer(500))
        for _ in range(20):
            assert (await house.ask()).status == 500
        assert states(house) == (State.CLOSED, State.OPEN)
        got = await house.ask(workspace="another of its")
        assert (got.refused_by, got.call.retry_after_ms) == ("circuit_breaker:tenant", 3750)
        assert got.failure is not None
        assert got.failure.message.startswith("refused by the tenant's circuit breaker (")
        assert (await house.ask(tenant="other")).status == 500


async def test_half_of_twenty_open_and_less_do_not(autojump_clock):
    for failures, after in ((9, State.CLOSED), (10, State.OPEN)):
        async with laid(retry=ONCE) as house:
            house.plan(*[answer(500)] * failures, answer(200))
            for _ in range(20):
                await house.ask()
            assert states(house) == (State.CLOSED, after)


async def test_a_call_counts_once_by_its_last_attempt(autojump_clock):
    async with laid() as house:
        house.plan(*[answer(503), answer(503), answer(200)] * 20, answer(200))
        for _ in range(20):
            assert (await house.ask()).call.attempts == 3
        [origin, tenant] = house.breakers()
        assert tenant.totals(trio.current_time()) == (20, 0)
        assert origin.totals(trio.current_time()) == (20, 0)


async def test_the_last_one_counts_where_the_next_was_refused_or_cut_off(autojump_clock):
    one = LimitSettings(RateLimitSettings(1, period_s=60.0, max_waiting=0))
    async with laid(limits=one) as house:
        house.plan(answer(503))
        assert (await house.ask()).status == 503
        assert house.breakers()[1].totals(trio.current_time()) == (1, 1)
    async with laid() as house:
        house.plan(answer(503), [Wait()])
        assert (await house.ask(time_s=1)).timed_out
        assert house.breakers()[1].totals(trio.current_time()) == (1, 1)
    async with laid() as house:
        house.plan(answer(503, b"", "Retry-After: 9"))
        with trio.move_on_after(1):
            await house.ask()
        assert house.breakers()[1].totals(trio.current_time()) == (1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_cancelled_call_is_no_evidence(method, autojump_clock):
    async with laid(breaker=FIRST) as house:
        house.plan([Wait()])
        for _ in range(10):
            assert (await house.ask(method=method, time_s=1)).timed_out
        assert states(house) == (State.CLOSED, State.CLOSED)
        assert all(each.totals(trio.current_time()) == (0, 0) for each in house.breakers())


@pytest.mark.parametrize("status", [404, 429, 501])
async def test_what_is_no_failure_does_not_open(status, autojump_clock):
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(status))
        assert (await house.ask()).status == status
        assert states(house) == (State.CLOSED, State.CLOSED)


async def test_silence_for_the_tenant_alone(autojump_clock):
    async with laid(retry=ONCE, attempt_timeout_s=1.0) as house:
        house.plan([Wait()])
        await down(house)
        assert states(house) == (State.CLOSED, State.OPEN)


async def test_junk_is_a_failure_of_the_tenant_s_and_no_silence(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan([Send(b"junk\r\n\r\n")])
        await down(house, 19)
        assert states(house) == (State.CLOSED, State.CLOSED)
        await down(house, 1)
        assert states(house) == (State.CLOSED, State.OPEN)


async def test_after_the_open_time_one_probes_and_closes(autojump_clock):
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(500), answer(200, after_s=1.0))
        await house.ask()
        assert (await house.ask()).call.retry_after_ms == 3750
        await trio.sleep(OPEN_S - 0.001)
        assert (await house.ask()).call.retry_after_ms == 1
        await trio.sleep(0.001)
        ends = []
        house.start(ends)
        await trio.sleep(0.5)
        assert states(house)[1] is State.HALF_OPEN
        refused = await house.ask()
        assert (refused.refused_by, refused.call.retry_after_ms) == (
            "circuit_breaker:tenant",
            29_500,
        )
        await trio.sleep(1)
        assert [got.status for got in ends] == [200]
        assert states(house)[1] is State.CLOSED
        assert (await house.ask()).status == 200
        assert house.meters.of("breaker_changed") == [
            ("tenant", "open"),
            ("tenant", "half_open"),
            ("tenant", "closed"),
        ]


async def test_a_probe_that_fails_opens_for_longer_and_is_not_tried_again(autojump_clock):
    async with laid(breaker=FIRST) as house:
        house.plan(answer(500, b"first"), answer(500, b"probe"))
        got = await house.ask(method="POST")
        await trio.sleep(OPEN_S)
        got = await house.ask()
        assert (got.status, got.body, got.call.attempts) == (500, b"probe", 1)
        assert got.refused_by == "circuit_breaker:tenant"
        assert got.call.retry_after_ms == 2 * 3750 - 25
        assert house.meters.of("breaker_changed")[-1] == ("tenant", "open")


@pytest.mark.parametrize("status", [429, 404])
async def test_a_probe_that_is_throttled_fails_and_one_that_is_answered_succeeds(
    status, autojump_clock
):
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(500), answer(status))
        await house.ask()
        await trio.sleep(OPEN_S)
        assert (await house.ask()).status == status
        assert states(house)[1] is (State.OPEN if status == 429 else State.CLOSED)


async def test_a_probe_that_is_cut_off_gives_its_lease_back(autojump_clock):
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(500), [Wait()], answer(200))
        await house.ask()
        await trio.sleep(OPEN_S)
        assert (await house.ask(time_s=1)).timed_out
        assert states(house)[1] is State.HALF_OPEN
        assert (await house.ask()).status == 200, "the next one probes at once"


async def test_a_probe_that_hangs_does_not_jam_it(autojump_clock):
    """Rule 2: its lease expires by itself."""
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(500), [Wait()], answer(200))
        await house.ask()
        await trio.sleep(OPEN_S)
        ends = []
        house.start(ends, time_s=100)
        await trio.sleep(29.9)
        assert (await house.ask()).refused_by == "circuit_breaker:tenant"
        await trio.sleep(0.1)
        assert (await house.ask()).status == 200


async def test_who_is_refused_by_the_host_gives_the_tenant_s_probe_back(autojump_clock):
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(500), answer(200))
        await house.ask()
        origin, tenant = house.breakers()
        await trio.sleep(OPEN_S / 2)
        house.network.add_host(HOST, Refuse())
        house.network.channels[0].abort()
        await down(house, 1, tenant="other")
        assert (origin.state, tenant.state) == (State.OPEN, State.OPEN)
        await trio.sleep(OPEN_S / 2)
        assert (await house.ask()).refused_by == "circuit_breaker:origin"
        assert (origin.state, tenant.state) == (State.OPEN, State.HALF_OPEN)
        assert tenant.in_flight == origin.in_flight == 0
        house.plan(answer(200))
        await trio.sleep(OPEN_S / 2)
        assert (await house.ask()).status == 200
        assert states(house) == (State.CLOSED, State.CLOSED)


async def test_of_two_open_circuits_the_narrower_one_refuses(autojump_clock):
    async with laid(retry=ONCE, breaker=FIRST) as house:
        house.plan(answer(500, b"", "Connection: close"))
        await house.ask()
        house.network.add_host(HOST, Refuse())
        await down(house, 1, tenant="other")
        assert states(house) == (State.OPEN, State.OPEN)
        assert (await house.ask()).refused_by == "circuit_breaker:tenant"


async def test_slow_answers_open_the_tenant_s_circuit_and_not_the_host_s(autojump_clock):
    slow = BreakerSettings(min_calls=2, slow_call_s=3.0)
    async with laid(
        retry=ONCE, breaker=slow, pool=TransportSettings(connections_per_key=1)
    ) as house:
        house.plan(answer(200, after_s=2.0))
        ends = await house.ask_many(4)
        assert [got.at_s for got in ends] == [2, 4, 6, 8], "a wait for a connection is not slow"
        assert states(house) == (State.CLOSED, State.CLOSED)
        house.plan(answer(200, after_s=3.0), host="slow.test")
        for _ in range(2):
            assert (await house.ask("slow.test")).status == 200
        assert [each.state for each in house.breakers(host="slow.test")] == [
            State.CLOSED,
            State.OPEN,
        ]


async def test_the_numbers_are_the_machine_s_own_and_the_mode_the_call_s(autojump_clock):
    book = Book(CallPolicies(retry=ONCE))
    book.set("acme", None, ORIGIN, breaker=FIRST)
    book.set("acme", "free", ORIGIN, breaker=BreakerSettings(mode=Mode.OFF))
    book.set("acme", "seen", ORIGIN, breaker=BreakerSettings(mode=Mode.OBSERVE))
    async with laid(book) as house:
        house.plan(answer(500))
        assert (await house.ask()).status == 500
        assert (await house.ask()).refused_by == "circuit_breaker:tenant"
        assert (await house.ask(workspace="free")).status == 500
        assert (await house.ask(workspace="seen")).status == 500
        gate = house.around.gates.of("circuit_breaker", Mode.OBSERVE)
        assert (gate.passed, gate.applied, gate.observed) == (0, 0, 1)


async def test_an_observed_circuit_opens_and_closes_and_refuses_nobody(autojump_clock):
    async with laid(retry=ONCE, breaker=BreakerSettings(Mode.OBSERVE, min_calls=1)) as house:
        house.plan(answer(500), answer(500), answer(200))
        ends = [await house.ask() for _ in range(2)]
        await trio.sleep(OPEN_S)
        ends.append(await house.ask())
        assert [got.status for got in ends] == [500, 500, 200]
        assert states(house)[1] is State.CLOSED
        assert [state for _, state in house.meters.of("breaker_changed")] == [
            "open",
            "half_open",
            "closed",
        ]
        gate = house.around.gates.of("circuit_breaker", Mode.OBSERVE)
        assert (gate.passed, gate.observed) == (2, 1)
        assert house.breakers()[0].totals(trio.current_time()) == (3, 0), "the other one counts on"


async def test_off_counts_nothing(autojump_clock):
    async with laid(breaker=BreakerSettings(Mode.OFF, min_calls=1)) as house:
        house.plan(answer(500))
        for _ in range(3):
            assert (await house.ask()).call.attempts == 3
        assert house.breakers()[1].totals(trio.current_time()) == (0, 0)


async def test_transitions_are_logged_with_whom_they_concern(tmp_path, autojump_clock):
    with log_lines(tmp_path) as lines:
        async with laid(retry=ONCE, breaker=FIRST) as house:
            house.plan(answer(500), answer(200))
            await house.ask()
            await trio.sleep(OPEN_S)
            await house.ask()
            house.network.add_host("down.test", Refuse())
            await down(house, 1, host="down.test")
        told = [
            {name: line[name] for name in line.keys() - {"timestamp", "component"}}
            for line in lines()
        ]
    tenants = {"event": "circuit breaker", "scope": "tenant", "origin": ORIGIN, "tenant": "acme"}
    assert told == [
        {**tenants, "level": "warning", "before": "closed", "after": "open", "why": "tripped",
         "open_s": 3.75},
        {**tenants, "level": "info", "before": "open", "after": "half_open",
         "why": "open_time_over", "open_s": 0.0},
        {**tenants, "level": "info", "before": "half_open", "after": "closed",
         "why": "probe_succeeded", "open_s": 0.0},
        {"event": "circuit breaker", "scope": "origin", "origin": "http://down.test",
         "level": "warning", "before": "closed", "after": "open", "why": "tripped",
         "open_s": 3.75},
    ]  # fmt: skip
