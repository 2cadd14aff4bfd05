"""The limiter against plain models, in any order of calls, waits, refunds and late settlings.

The upper model is a list of the calls that were really made, with what they used: in no window may
they exceed the burst and what the window brings. The lower model is a bucket that never gives
anything back: the limiter must never be worse than that.
"""

import math

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Waiting
from vastar_runtime.policy.verdicts import Refused

SLACK = 0.01
"""Less than one call: rounding, and the limiter's own tolerance for it."""


@attrs.define(eq=False)
class Made:
    """A call that was let through, at worst for all its cost."""

    at_s: float
    uses: int
    permit: Allowed


class LimiterMachine(RuleBasedStateMachine):
    @initialize(
        limit=st.integers(1, 20),
        burst=st.none() | st.integers(1, 20),
        period_s=st.sampled_from([0.1, 1.0, 60.0]),
        max_waiting=st.integers(0, 5),
        start_s=st.sampled_from([0.0, 1000.0, 1e6]),
    )
    def begin(self, limit, burst, period_s, max_waiting, start_s):
        self.settings = RateLimitSettings(
            limit=limit, period_s=period_s, burst=burst, max_waiting=max_waiting
        )
        self.limiter = RateLimiter(self.settings)
        self.now_s = start_s
        self.made: list[Made] = []
        self.open: list[Made] = []
        self.line: list[Waiting] = []
        self.lower_s = start_s

    def charge_lower(self, cost):
        self.lower_s = max(self.lower_s, self.now_s) + cost * self.settings.interval_s

    def let_through(self, permit):
        made = Made(self.now_s, permit.cost, permit)
        self.made.append(made)
        self.open.append(made)
        self.charge_lower(permit.cost)

    def collect(self, granted):
        for place in granted:
            assert place is self.line.pop(0), "the line is served in order"
            self.let_through(place.permit)

    @rule(intervals=st.floats(0, 5) | st.floats(0, 40))
    def time_passes(self, intervals):
        self.now_s += intervals * self.settings.interval_s

    @rule(cost=st.integers(0, 8), patience=st.sampled_from([0.0, 3.0, math.inf]))
    def call(self, cost, patience):
        before = self.limiter.available(self.now_s)
        give_up_at_s = self.now_s + patience * self.settings.interval_s
        verdict = self.limiter.decide(self.now_s, cost, give_up_at_s)
        if isinstance(verdict, Allowed):
            assert verdict.cost == cost
            assert not cost or not self.line, "nobody overtakes the line"
            self.let_through(verdict)
        elif isinstance(verdict, Waiting):
            assert cost <= self.settings.max_cost
            assert verdict.at_s <= give_up_at_s
            ahead = sum(place.cost for place in self.line) + cost - before
            told_after = (verdict.at_s - self.now_s) / self.settings.interval_s
            assert abs(told_after - max(ahead, 0)) < SLACK
            self.line.append(verdict)
            assert len(self.line) <= self.settings.max_waiting
        else:
            assert isinstance(verdict, Refused)
            assert (verdict.retry_after_s is None) == (cost > self.settings.max_cost)
            assert verdict.retry_after_s is None or verdict.retry_after_s >= 0
            lower_has = self.settings.max_cost - (
                max(self.lower_s - self.now_s, 0) / self.settings.interval_s
            )
            assert self.line or cost > lower_has - SLACK, "refused what anyone would let through"
        if not isinstance(verdict, Allowed):
            assert self.limiter.available(self.now_s) == before, "only a permit costs"

    @precondition(lambda self: self.line)
    @rule()
    def sleep_until_the_head_goes(self):
        self.now_s = max(self.line[0].at_s, self.limiter.next_at_s(self.now_s))
        granted = self.limiter.grant_due(self.now_s)
        assert granted, "who comes when told to goes"
        self.collect(granted)

    @precondition(lambda self: self.line)
    @rule()
    def look(self):
        self.collect(self.limiter.grant_due(self.now_s))
        assert self.limiter.first_in_line is (self.line[0] if self.line else None)
        assert not self.line or self.limiter.next_at_s(self.now_s) > self.now_s

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def withdraw(self, data):
        place = data.draw(st.sampled_from(self.line))
        before = self.limiter.available(self.now_s)
        self.line.remove(place)
        self.limiter.withdraw(self.now_s, place)
        assert self.limiter.available(self.now_s) == before

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data):
        made = data.draw(st.sampled_from(self.open))
        used = data.draw(st.integers(0, made.permit.cost) | st.none())
        self.open.remove(made)
        made.uses = made.permit.cost if used is None else used
        self.limiter.settle(self.now_s, made.permit, used)
        self.limiter.settle(self.now_s, made.permit, 0)  # once is enough

    @precondition(lambda self: not self.line)
    @rule(cost=st.integers(1, 8))
    def refused_elsewhere(self, cost):
        """A call that gives back in the same instant leaves everything as it was."""
        before = self.limiter.available(self.now_s)
        verdict = self.limiter.decide(self.now_s, cost)
        if isinstance(verdict, Allowed):
            self.limiter.refund(self.now_s, verdict)
        elif isinstance(verdict, Waiting):
            self.limiter.withdraw(self.now_s, verdict)
        assert abs(self.limiter.available(self.now_s) - before) < SLACK

    @invariant()
    def no_window_holds_more_than_the_limit(self):
        for begin in {made.at_s for made in self.made}:
            used = 0
            for made in self.made:
                if made.at_s >= begin:
                    used += made.uses
                    grown = (made.at_s - begin) / self.settings.interval_s
                    assert used <= self.settings.max_cost + grown + SLACK

    @invariant()
    def never_worse_than_giving_nothing_back(self):
        debt = max(self.lower_s - self.now_s, 0) / self.settings.interval_s
        lower = self.settings.max_cost - debt
        assert lower - SLACK <= self.limiter.available(self.now_s)
        assert self.limiter.available(self.now_s) <= self.settings.max_cost

    @invariant()
    def counts_are_right(self):
        assert self.limiter.held == sum(made.permit.cost for made in self.open)
        assert self.limiter.waiting_count == len(self.line)
        if self.limiter.is_droppable(self.now_s):
            assert not self.line
            assert not self.limiter.held
            assert self.limiter.available(self.now_s) == self.settings.max_cost


TestLimiter = LimiterMachine.TestCase
TestLimiter.settings = settings(stateful_step_count=40)
