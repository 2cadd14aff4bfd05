"""One limiter's line in any order of calls, refunds, settlings, cancellations and new limits.

What must never happen is a lost wake-up: somebody who may go and sleeps on. So after every step,
once all tasks sleep, nobody's turn may have come, and the head of the line must have its alarm at
the very moment at which its turn will come.
"""

import math

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Waiting
from vastar_runtime.policy.verdicts import Refused

LIMIT = 4
MOST_COST = 4

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, MOST_COST)),
        st.tuples(st.just("call"), st.integers(1, MOST_COST)),
        st.tuples(st.just("crowd"), st.integers(2, 8)),
        st.tuples(st.just("time passes"), st.floats(0.0, 3.0)),
        st.tuples(st.just("settle"), st.integers(0, 100), st.integers(0, 2 * MOST_COST)),
        st.tuples(st.just("refund"), st.integers(0, 100)),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
        st.tuples(st.just("refund and cancel"), st.integers(0, 100), st.integers(0, 100)),
        st.tuples(st.just("change"), st.sampled_from([1, 2, 4, 9, 50]), st.none() | st.just(4)),
        st.tuples(st.just("lift")),
    ),
    max_size=40,
)


class CountsLooks(RateLimiter):
    looks = 0

    def grant_due(self, now_s: float) -> list[Waiting]:
        self.looks += 1
        return super().grant_due(now_s)


@attrs.define(eq=False)
class Sleeper:
    """A call that had to wait."""

    place: Waiting
    scope: trio.CancelScope


class World:
    """A pacer, and what has become of the calls."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.limiter = CountsLooks(RateLimitSettings(LIMIT, max_waiting=10**6))
        self.pacer = Pacer(self.limiter)
        self.sleepers: list[Sleeper] = []
        self.open: list[Allowed] = []
        self.waited = 0
        self.steps = 0

    def do(self, kind, *numbers):
        now_s = trio.current_time()
        self.steps += 1
        match kind, *numbers:
            case "call", cost:
                self.nursery.start_soon(self.call, cost)
            case "crowd", count:
                for _ in range(count):
                    self.nursery.start_soon(self.call, 1)
            case "settle", nth, used if self.open:
                self.pacer.settle(now_s, self.taken(nth), used)
            case "refund", nth if self.open:
                self.pacer.refund(now_s, self.taken(nth))
            case "cancel", nth if self.sleepers:
                self.sleepers[nth % len(self.sleepers)].scope.cancel()
            case "refund and cancel", nth, who if self.open and self.sleepers:
                self.sleepers[who % len(self.sleepers)].scope.cancel()
                self.pacer.refund(now_s, self.taken(nth))
            case "change", limit, burst:
                settings = RateLimitSettings(limit, burst=burst, max_waiting=10**6)
                self.pacer.change(now_s, settings)
            case "lift":
                self.pacer.lift(now_s)

    def taken(self, nth: int) -> Allowed:
        return self.open.pop(nth % len(self.open))

    async def call(self, cost: int) -> None:
        verdict = self.limiter.decide(trio.current_time(), cost)
        if isinstance(verdict, Allowed):
            self.open.append(verdict)
        elif isinstance(verdict, Waiting):
            await self.sleep(verdict)
        else:
            assert isinstance(verdict, Refused)
            assert cost > self.limiter.settings.max_cost

    async def sleep(self, place: Waiting) -> None:
        self.waited += 1
        with trio.CancelScope() as scope:
            sleeper = Sleeper(place, scope)
            self.sleepers.append(sleeper)
            try:
                permit = await self.pacer.wait(place)
                assert permit is place.permit
                assert all(other.place.has_left for other in self.before(sleeper)), "in order"
                self.open.append(permit)
            finally:
                self.sleepers.remove(sleeper)

    def before(self, sleeper: Sleeper) -> list[Sleeper]:
        return self.sleepers[: self.sleepers.index(sleeper)]

    def check(self) -> None:
        now_s = trio.current_time()
        places = [sleeper.place for sleeper in self.sleepers]
        assert list(self.pacer._bells) == places
        assert self.limiter.waiting_count == len(places)
        assert self.limiter.held == sum(permit.cost for permit in self.open)
        for place in places:
            next_at_s = self.limiter.next_at_s(now_s) if place is places[0] else math.inf
            assert self.pacer._bells[place].deadline == pytest.approx(next_at_s)
            # The alarm, not `next_at_s`: that is now already where only rounding is between them.
            assert self.pacer._bells[place].deadline > now_s, "it may go, and sleeps"
        assert self.limiter.looks <= 4 * self.waited + self.steps


async def run(steps) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for step in steps:
            if step[0] == "time passes":
                await trio.sleep(step[1])
            else:
                world.do(*step)
            await trio.testing.wait_all_tasks_blocked()
            world.check()
        # Left alone, all go: nothing else is needed than that time passes.
        await trio.sleep(1000)
        world.check()
        assert not world.sleepers


@given(STEPS)
def test_no_wake_up_is_lost(steps):
    trio.run(run, steps, clock=trio.testing.MockClock(autojump_threshold=0))
