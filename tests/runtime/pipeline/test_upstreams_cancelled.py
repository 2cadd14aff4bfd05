"""A call cancelled at any of its await points holds nothing afterwards, whichever policy it was in.

All policies are on in every scenario, and in each the call waits for another one of them. It is
run once for every await point of its own task, and once for every step of any task that it has
begun: a hedge runs in a task of its own.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.http_cancel import cancelled_at
from tests.support.layers import HOST, House, laid, make_call, make_request
from tests.support.planned import answer, events
from vastar_runtime.outcomes import Failure
from vastar_runtime.pipeline.policies import LimitSettings
from vastar_runtime.policy.admission import AdmissionSettings
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.breaker import BreakerSettings
from vastar_runtime.policy.concurrency import ConcurrencySettings
from vastar_runtime.policy.hedging import HedgeSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.transport import TransportSettings
from vastar_runtime.transport.fake import Close, Refuse, Send, Wait

BODY = b'{"prompt": "hello", "max_tokens": 100}'
USAGE = b'{"usage": {"prompt_tokens": 40, "completion_tokens": 2}}'
USED = answer(200, USAGE)
PLENTY = LimitSettings(RateLimitSettings(1000), TokenLimitSettings.per_minute(10**6))
ONE = LimitSettings(RateLimitSettings(1))
ONE_IN_TWO_S = LimitSettings(RateLimitSettings(1, period_s=2.0))
LONG_S = 99_999.0
"""Nobody's deadline comes first."""
EVERYTHING = {
    "admission": AdmissionSettings(ConcurrencySettings(adaptive=AimdSettings())),
    "hedging": HedgeSettings(mode=Mode.ENFORCE, after_s=1.0, budget_ratio=1.0),
    "limits": PLENTY,
    "workspace_limits": PLENTY,
    "tenant_limits": PLENTY,
    "origin_limits": PLENTY,
    "attempt_timeout_s": 5.0,
}

CallMaker = Callable[[], Awaitable[object]]
Setup = Callable[[House], Awaitable[CallMaker]]
SCENARIOS: dict[str, tuple[Setup, dict[str, Any], tuple[str, ...]]] = {}


def scenario(*told: str, **changes: Any) -> Callable[[Setup], Setup]:
    """A scenario, what differs in it from `EVERYTHING`, and what it is to tell the meters."""

    def add(setup: Setup) -> Setup:
        SCENARIOS[setup.__name__] = (setup, {**EVERYTHING, **changes}, told)
        return setup

    return add


def ask(house: House, **fields: Any) -> CallMaker:
    return lambda: house.ask(**{"body": BODY, "time_s": LONG_S, **fields})


def begin(house: House, count: int = 1, **fields: Any) -> None:
    """Calls that are under way when the scenario's begins."""
    for _ in range(count):
        house.start([], **{"body": BODY, "time_s": LONG_S, "method": "POST", **fields})


@scenario()
async def fresh(house: House) -> CallMaker:
    house.plan(answer(200, USAGE, after_s=0.1), after_s=0.1)
    return ask(house, method="POST")


@scenario()
async def of_events(house: House) -> CallMaker:
    [head, *data, close] = events("a", USAGE.decode())
    house.plan([Wait(0.1), head, Wait(0.1), *data, Wait(0.1), close])
    return ask(house)


@scenario("waited queue", admission=AdmissionSettings(ConcurrencySettings(max_per_tenant=1)))
async def in_line_for_a_place(house: House) -> CallMaker:
    house.plan(answer(200, USAGE, after_s=3.0))
    begin(house, 2)
    return ask(house)


@scenario("waited rate_limit", limits=ONE, tenant_limits=ONE)
async def in_two_lines_for_calls(house: House) -> CallMaker:
    house.plan(USED)
    begin(house, 2)
    return ask(house)


@scenario(
    "waited token_limit",
    workspace_limits=LimitSettings(tokens=TokenLimitSettings.per_minute(300)),
    origin_limits=LimitSettings(tokens=TokenLimitSettings.per_minute(200)),
)
async def in_two_lines_for_tokens(house: House) -> CallMaker:
    house.plan(answer(200, USAGE, after_s=3.0))
    begin(house, 3)
    return ask(house)


@scenario("waited learned_limit")
async def in_line_for_the_upstream_s_own_limit(house: House) -> CallMaker:
    house.plan(
        answer(200, USAGE, "RateLimit-Limit: 9", "RateLimit-Remaining: 0\r\nRateLimit-Reset: 4")
    )
    await house.ask(body=BODY)
    begin(house, 2)
    return ask(house)


@scenario(pool=TransportSettings(connections_per_key=1))
async def in_line_for_a_connection(house: House) -> CallMaker:
    house.plan(answer(200, USAGE, after_s=2.0))
    begin(house, 2)
    return ask(house)


@scenario("waited backoff", "retried transient", "retried throttled")
async def trying_again(house: House) -> CallMaker:
    slow = [Send(b"HTTP/1.1 503 X\r\nContent-Length: 2\r\nRetry-After: 2\r\n\r\na"), Wait(1)]
    house.plan([*slow, Send(b"b")], answer(429, USAGE), USED)
    return ask(house)


@scenario("waited backoff", limits=LimitSettings(RateLimitSettings(1, max_waiting=0)))
async def refused_to_try_again(house: House) -> CallMaker:
    house.plan(answer(503, b"down"))
    return ask(house)


@scenario("retried transient")
async def after_silence_and_a_broken_connection(house: House) -> CallMaker:
    house.plan([Wait()], [Wait(0.1), Close()], USED)
    return ask(house, method="PUT")


@scenario("gave_up attempts_spent")
async def without_a_connection(house: House) -> CallMaker:
    house.network.add_host(HOST, Refuse(after_s=0.1), lookup_s=0.1)
    return ask(house)


@scenario("hedged won")
async def beside_a_twin_that_wins(house: House) -> CallMaker:
    house.plan([Wait()], answer(200, USAGE, after_s=1.0))
    return ask(house)


@scenario("hedged lost")
async def beside_a_twin_that_loses(house: House) -> CallMaker:
    house.plan(answer(200, USAGE, after_s=2.0), answer(503, after_s=0.5))
    return ask(house)


@scenario("hedged lost", "waited rate_limit", origin_limits=ONE_IN_TWO_S)
async def beside_a_twin_in_line(house: House) -> CallMaker:
    house.plan(answer(200, USAGE, after_s=4.0))
    return ask(house)


@scenario("breaker_changed tenant", breaker=BreakerSettings(min_calls=1))
async def probing(house: House) -> CallMaker:
    house.plan(answer(500), answer(200, USAGE, after_s=0.5))
    await house.ask(method="POST", body=BODY)
    await trio.sleep(3.75)
    return ask(house)


@scenario()
async def redirected(house: House) -> CallMaker:
    house.plan(answer(307, after_s=0.1))
    house.plan(answer(200, USAGE, after_s=0.1), host="other.test")

    async def call() -> None:
        call = make_call(time_s=LONG_S)
        with house.layers.lease(call) as lease:
            for host in (HOST, "other.test"):
                response = await lease.request(make_request(host, method="POST", body=BODY))
                assert not isinstance(response, Failure)
                async with response:
                    lease.saw(await response.read_all())
                call.next_hop()

    return call


@asynccontextmanager
async def set_up(name: str) -> AsyncIterator[tuple[House, CallMaker]]:
    """The scenario in a house of its own, which must be empty and working in the end."""
    setup, policies, _ = SCENARIOS[name]
    async with laid(**policies) as house:
        call = await setup(house)
        await trio.testing.wait_all_tasks_blocked()
        house.meters.told.clear()
        yield house, call
        await trio.sleep(1000)  # whoever else called has ended
        house.check_nothing_is_left()
        house.plan(USED, host="afterwards.test")
        assert (await house.ask("afterwards.test", body=BODY)).status == 200


def check_it_was_what_it_says(name: str, house: House) -> None:
    told = {" ".join(map(str, each[:2])) for each in house.meters.told}
    assert told >= {*SCENARIOS[name][2]}, told


@pytest.mark.parametrize("name", SCENARIOS)
async def test_cancelled_at_every_await_point_of_its_own_task(name, autojump_clock):
    step, was_cancelled = 0, True
    while was_cancelled:
        step += 1
        async with set_up(name) as (house, call):

            async def as_coroutine(call: CallMaker = call) -> None:
                await call()

            was_cancelled = await cancelled_at(step, as_coroutine())
            if not was_cancelled:
                check_it_was_what_it_says(name, house)
    assert step > 2, "the scenario never waited"


class _After(trio.abc.Instrument):
    """Cancels a scope before the k-th step that a task makes from now on."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._steps = steps
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if not self._steps:
            self._scope.cancel()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_cancelled_at_every_step_of_any_task(name, autojump_clock):
    steps, was_cancelled = 0, True
    while was_cancelled:
        steps += 1
        async with set_up(name) as (house, call):
            with trio.CancelScope() as scope:
                instrument = _After(steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await call()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            was_cancelled = scope.cancel_called
            if not was_cancelled:
                check_it_was_what_it_says(name, house)
    assert steps > 5
