"""How many calls (or tokens) may go out in a time: GCRA, with reservations and a queue.

GCRA keeps one point in time, the *theoretical arrival time*: when the bucket will be full again.
A spend moves it on by its cost; it may not lie further ahead than the burst. Over every window
that lets through at most `burst + window x limit / period_s`, with no seam between windows.

**Reservations.** What a call costs may be known later (tokens), or turn out to be nothing (another
policy refused). So `decide` charges at once, in the step that checks, and `settle` or `refund`
gives back what was not used. Giving back is where limiters leak: a bucket that would have been full
without the call would have spilled, and what was spilled cannot come back. How much that is depends
on which of the calls under way will turn out to be real, and in which order; so it is bounded by
three arrival times. `_granted_s` is charged when a call is let through. The other two are of the
settled calls alone, as if nothing were under way, and hold what is true between them: `_spent_s` is
charged whole when a call settles, which is too late, so it never lies too early; `_least_s` is
charged only what has not run over since the call began, as then it was this call's to use, so it
never lies too late. While `_least_s` lies in the past the bucket spills; what it spilled since a
call began, or what `_spent_s` says that all under way have lost, if that is less, is taken off what
the call gives back. So whatever is given back in whatever order, the calls that were really made
keep to the bound, a call that gives back at once gives back all, and a step is O(1) on a few
numbers.

**Waiting.** A call that does not fit may wait in line. It is charged when it is let through, not
when it queues, so a waiter that leaves costs nothing and those behind it move up. Nobody overtakes
the line, else a flood of small calls would starve a large one.

The machine decides, a driver sleeps. Nobody goes before the head, so one alarm is enough: when
anybody came, left or gave something back, and when the alarm rings, `grant_due` lets through whose
turn has come, and `next_at_s` says what to set the alarm to.
"""

import math
from collections import OrderedDict
from typing import Final, TypeAlias

import attrs
from attrs.validators import ge, gt, instance_of, le, optional

from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused, Scope

__all__ = ["Allowed", "RateLimitSettings", "RateLimiter", "Verdict", "Waiting"]

_TOLERANCE_RATIO: Final = 1e-3
_MAX_TOLERANCE_S: Final = 1e-6
"""Rounding must not turn the last call of a burst away; never as much as one call's interval."""


@attrs.frozen
class RateLimitSettings:
    """One limit: `limit` per `period_s`, such as 60 per 60 s.

    Attributes:
        limit: calls (or tokens) per period.
        period_s: the period in seconds.
        burst: how many may go at once after a pause; None = as many as `limit`.
        max_waiting: how many may wait in line; 0 = none waits.
        scope: whose limit it is, for refusals.
        policy: how refusals name it.
        mode: how far its verdicts reach; for the driver, the machine itself does not ask.
        max_debt_s: how long a call that used more than it was charged may keep others out; never
            less than one more burst.

    Raises:
        ValueError: a number is out of range; the message names it.
    """

    limit: int = attrs.field(validator=[instance_of(int), ge(1), le(10**12)])
    period_s: float = attrs.field(default=1.0, validator=[gt(0.0), le(366 * 24 * 3600.0)])
    burst: int | None = attrs.field(
        default=None, validator=optional([instance_of(int), ge(1), le(10**12)])
    )
    max_waiting: int = attrs.field(default=1000, validator=[instance_of(int), ge(0)])
    scope: Scope = attrs.field(default=Scope.ORIGIN, validator=instance_of(Scope))
    policy: str = "rate_limit"
    mode: Mode = Mode.ENFORCE
    max_debt_s: float = attrs.field(default=0.0, validator=ge(0.0))
    interval_s: float = attrs.field(init=False)
    burst_s: float = attrs.field(init=False)
    tolerance_s: float = attrs.field(init=False)

    @interval_s.default
    def _one_unit(self) -> float:
        return self.period_s / max(self.limit, 1)  # validators run after this

    @burst_s.default
    def _whole_burst(self) -> float:
        return self.max_cost * self.interval_s

    @tolerance_s.default
    def _rounding(self) -> float:
        return min(self.interval_s * _TOLERANCE_RATIO, _MAX_TOLERANCE_S)

    @property
    def max_cost(self) -> int:
        """The most that one call can ever cost."""
        return self.limit if self.burst is None else self.burst


@attrs.define(eq=False)
class Allowed:
    """The permit of a call that was let through and charged. Settle or refund it, once.

    Attributes:
        cost: what was charged.
        spilled_s: what the bucket had spilled until then; the limiter's own.
        is_settled: whether it was settled or refunded; the limiter sets it.
    """

    cost: int
    spilled_s: float = 0.0
    is_settled: bool = False


@attrs.define(eq=False)
class Waiting:
    """A place in line. It is let through in its turn, or withdrawn.

    Attributes:
        cost: what it will be charged.
        at_s: when it goes if nothing changes meanwhile, as of when it came; a driver keeps it up
            to date for the head.
        permit: set once it is let through; the limiter sets it.
        has_left: whether it left the line, either way; the limiter sets it.
    """

    cost: int
    at_s: float
    permit: Allowed | None = None
    has_left: bool = False


Verdict: TypeAlias = Allowed | Waiting | Refused


class RateLimiter:
    """The limiter of one key. `now_s` is a monotonic clock: it never goes back, nor below zero."""

    __slots__ = (
        "_granted_s", "_held", "_least_s", "_line", "_queued", "_settings", "_spent_s",
        "_spilled_s",
    )  # fmt: skip

    def __init__(self, settings: RateLimitSettings) -> None:
        self._settings = settings
        self._granted_s = 0.0
        self._spent_s = 0.0
        self._least_s = 0.0
        self._spilled_s = 0.0
        self._held = 0
        self._queued = 0
        self._line: OrderedDict[Waiting, None] | None = None

    @property
    def settings(self) -> RateLimitSettings:
        """What holds now."""
        return self._settings

    @property
    def held(self) -> int:
        """What calls under way were charged and have not settled."""
        return self._held

    @property
    def waiting_count(self) -> int:
        """Calls in line."""
        return len(self._line) if self._line else 0

    @property
    def first_in_line(self) -> Waiting | None:
        """Whose turn is next; None where nobody waits."""
        return next(iter(self._line)) if self._line else None

    def available(self, now_s: float) -> float:
        """What could be spent at once; negative when in debt. Looking changes nothing."""
        debt_s = max(self._granted_s - now_s, 0.0)
        return self._settings.max_cost - debt_s / self._settings.interval_s

    def is_droppable(self, now_s: float) -> bool:
        """Whether a new machine would decide the same: not in debt, none under way or in line."""
        return self._granted_s <= now_s and not self._held and not self._line

    def decide(self, now_s: float, cost: int = 1, give_up_at_s: float = math.inf) -> Verdict:
        """Charge a call, put it in line, or refuse it, in one step.

        Args:
            now_s: the monotonic clock.
            cost: what to charge, at least 0; a cost of 0 never waits.
            give_up_at_s: it is refused rather than put in line where its turn comes later.
        """
        assert cost >= 0, "a call cannot cost less than nothing"
        settings = self._settings
        granted_s = self._granted_s
        charge_s = cost * settings.interval_s
        # Not max(): calling it takes a fifth of this step.
        charged_s = granted_s + charge_s if granted_s > now_s else now_s + charge_s
        if not self._line and charged_s - now_s <= settings.burst_s + settings.tolerance_s:
            if self._least_s < now_s:
                self._spill(now_s)
            self._granted_s = charged_s
            self._held += cost
            return Allowed(cost, self._spilled_s)
        if not cost:
            return Allowed(0, self._spilled_s)
        return self._line_up(now_s, cost, give_up_at_s)

    def grant_due(self, now_s: float) -> list[Waiting]:
        """Let through, in order, all whose turn has come; each has its `permit` now."""
        granted: list[Waiting] = []
        while self._line:
            head = next(iter(self._line))
            if self._head_at_s(now_s) > now_s:
                break
            self._let_go(now_s, head)
            granted.append(head)
        return granted

    def next_at_s(self, now_s: float) -> float | None:
        """When the first in line can go, at least `now_s`; None where nobody waits."""
        return self._head_at_s(now_s) if self._line else None

    def withdraw(self, now_s: float, waiting: Waiting) -> None:
        """Give up a place in line; what it was charged meanwhile is refunded. Once is enough."""
        if waiting.permit is not None:
            self.refund(now_s, waiting.permit)
        elif not waiting.has_left:
            self._leave_line(waiting)

    def refund(self, now_s: float, permit: Allowed) -> None:
        """Give back all that a call was charged: it was never made."""
        self.settle(now_s, permit, 0)

    def settle(self, now_s: float, permit: Allowed, used: int | None = None) -> None:
        """End a reservation: `used` was spent (None = all of it), the rest comes back.

        More than was reserved is charged on top, as debt, up to one more burst or `max_debt_s`: a
        wrong answer from an upstream must not shut a caller out for ever. Settling twice changes
        nothing.
        """
        if permit.is_settled:
            return
        permit.is_settled = True
        settings = self._settings
        interval_s = settings.interval_s
        cost = permit.cost
        used = cost if used is None else max(used, 0)
        self._spill(now_s)
        ran_over_s = self._spilled_s - permit.spilled_s
        granted_s, spent_s = max(self._granted_s, now_s), max(self._spent_s, now_s)
        if used > cost:
            deepest_s = max(granted_s, self._deepest_s(now_s))
            granted_s = min(granted_s + (used - cost) * interval_s, deepest_s)
        elif used < cost:
            # What is held but could not all come back any more, and this call's part in that.
            lost_s = self._held * interval_s - (granted_s - spent_s)
            lost_s = max(min(lost_s, ran_over_s), 0.0)
            granted_s -= max((cost - used) * interval_s - lost_s, 0.0)
        self._held -= cost
        self._granted_s = granted_s
        used_s = used * interval_s
        self._spent_s = min(spent_s + used_s, granted_s)
        self._least_s = min(self._least_s + max(used_s - ran_over_s, 0.0), granted_s)

    def charge_more(self, now_s: float, permit: Allowed, more: int) -> None:
        """A call under way turns out to use `more` than it was charged: it is charged that too.

        It may become debt, as in `settle`, which must follow. Nothing is changed once it has.
        """
        if permit.is_settled:
            return
        self._spill(now_s)
        granted_s = max(self._granted_s, now_s)
        self._granted_s = min(
            granted_s + more * self._settings.interval_s, max(granted_s, self._deepest_s(now_s))
        )
        self._held += more
        permit.cost += more

    def _deepest_s(self, now_s: float) -> float:
        """How far debt may go."""
        settings = self._settings
        return now_s + settings.burst_s + max(settings.burst_s, settings.max_debt_s)

    def change(self, now_s: float, settings: RateLimitSettings) -> None:
        """Go on under other settings: what was spent stays spent, those in line stay in line."""
        self._rescale(now_s, settings.interval_s / self._settings.interval_s)
        self._settings = settings

    def _rescale(self, now_s: float, scale: float) -> None:
        """Let what was spent be worth `scale` times as much time."""
        self._granted_s = now_s + max(self._granted_s - now_s, 0.0) * scale
        self._spill(now_s)
        self._spent_s = now_s + max(self._spent_s - now_s, 0.0) * scale
        self._least_s = now_s + (self._least_s - now_s) * scale

    def _spill(self, now_s: float) -> None:
        """Bring the least that was spent up to `now_s`, and count what ran over."""
        if self._least_s < now_s:
            self._spilled_s += now_s - self._least_s
            self._least_s = now_s

    def _line_up(self, now_s: float, cost: int, give_up_at_s: float) -> Waiting | Refused:
        settings = self._settings
        if cost > settings.max_cost:
            return self._refused(None, f"{cost} at once is more than the {settings.max_cost} ever")
        ahead_s = (self._queued + cost) * settings.interval_s - settings.burst_s
        at_s = max(max(self._granted_s, now_s) + ahead_s, now_s)
        if at_s > give_up_at_s:
            return self._refused(at_s - now_s, "the wait does not fit the deadline")
        if (in_line := self._in_line()) >= settings.max_waiting:
            return self._refused(at_s - now_s, f"the line is full, {in_line} waiting")
        waiting = Waiting(cost, at_s)
        if self._line is None:
            self._line = OrderedDict()
        self._line[waiting] = None
        self._queued += cost
        return waiting

    def _refused(self, retry_after_s: float | None, reason: str) -> Refused:
        settings = self._settings
        rate = f"{settings.limit} per {settings.period_s:g} s"
        return Refused(settings.policy, settings.scope, retry_after_s, f"{reason} ({rate})")

    def _in_line(self) -> int:
        """How many stand in the line that `max_waiting` bounds."""
        return self.waiting_count

    def _let_go(self, now_s: float, head: Waiting) -> None:
        """Charge the head of the line, whose turn has come."""
        self._leave_line(head)
        self._spill(now_s)
        charge_s = head.cost * self._settings.interval_s
        self._granted_s = max(self._granted_s, now_s) + charge_s
        self._held += head.cost
        head.permit = Allowed(head.cost, self._spilled_s)

    def _leave_line(self, waiting: Waiting) -> None:
        assert self._line is not None
        del self._line[waiting]
        waiting.has_left = True
        self._queued -= waiting.cost
        if not self._line:
            self._line = None

    def _head_at_s(self, now_s: float) -> float:
        assert self._line
        settings = self._settings
        # A limit that was made smaller meanwhile lets the head go once everything is there.
        charge_s = min(next(iter(self._line)).cost * settings.interval_s, settings.burst_s)
        at_s = max(self._granted_s, now_s) + charge_s - settings.burst_s
        return at_s if at_s > now_s + settings.tolerance_s else now_s
