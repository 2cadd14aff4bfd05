"""A circuit breaker: an upstream that fails is left alone for a while, then asked by one call.

Three states. CLOSED lets calls through and counts what became of them over a rolling window. OPEN
refuses until its time is over. HALF_OPEN lets `probes` calls through, each on a lease: if the
probe never reports (its task died, its answer takes for ever) the lease expires and the next call
becomes the probe, so nothing jams half-open (resilience4j #903). What leads from state to state is
`TRANSITIONS`, and nothing else does. A transition happens only within `admit` and `report`, is
returned as a value by the very call that made it, and never by looking (`state` is what it was).

An admission carries the generation of the state that gave it: a report from an older generation
changes nothing (sony/gobreaker), as it speaks about an upstream of another time. All leases of one
half-open state share a generation: the late success of a probe whose lease expired still closes.
With a lease of 30 s and answers that take 40 s nothing else ever would.

Outcomes are three: success, failure, and not evidence. Evidence refines them by what a rule needs
to know: whether there was an HTTP answer at all, and what is counted only when it is a probe's.
A call counts once, by its last attempt: a driver reports the attempts before with `Evidence.NONE`.
A probe's attempt is reported at once, whatever follows it.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs
from attrs.validators import ge, gt, le, optional

from vastar_runtime.policy.backoff import doubled_s
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.policy.window import RollingWindow

__all__ = [
    "TRANSITIONS",
    "Admission",
    "Breaker",
    "BreakerSettings",
    "Change",
    "Evidence",
    "Permit",
    "State",
    "Transition",
]


class State(Enum):
    """CLOSED passes traffic, as in everybody's words but one (linkerd's)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Change(Enum):
    """Why the state changes."""

    TRIPPED = auto()
    OPEN_TIME_OVER = auto()
    PROBE_SUCCEEDED = auto()
    PROBE_FAILED = auto()


TRANSITIONS: Final[Mapping[State, Mapping[Change, State]]] = MappingProxyType(
    {
        State.CLOSED: MappingProxyType({Change.TRIPPED: State.OPEN}),
        State.OPEN: MappingProxyType({Change.OPEN_TIME_OVER: State.HALF_OPEN}),
        State.HALF_OPEN: MappingProxyType(
            {Change.PROBE_SUCCEEDED: State.CLOSED, Change.PROBE_FAILED: State.OPEN}
        ),
    }
)
"""All there are; a change that its state does not list is a bug of ours (`KeyError`)."""


class Evidence(Enum):
    """What a result says about an upstream; `classify` says which result is which."""

    SUCCESS = auto()
    FAILURE = auto()
    """Failed, but with an HTTP answer, or a part of one."""
    NO_ANSWER = auto()
    """Failed without any HTTP answer."""
    ANSWERED = auto()
    """An answer that is nobody's success or failure (404): not counted, but the upstream lives, so
    it ends a run of calls without an answer, and a probe that gets it has succeeded."""
    THROTTLED = auto()
    """As `ANSWERED`, but it fails a probe: who sheds load has not recovered."""
    NONE = auto()
    """Not evidence: cancelled, refused by ourselves, not sent. Only gives the permit back."""


@attrs.frozen
class BreakerSettings:
    """When to open, for how long, and how to close again. DEFAULTS.md names the sources.

    Attributes:
        window_s, buckets: what is counted: the last `window_s`, forgotten in steps of a bucket.
        failure_ratio, min_calls: opens at this share of failures among at least so many calls.
        no_answer_run: opens at so many calls in a row that got no HTTP answer at all.
        open_s, open_max_s: time open; doubles with each failed probe up to the maximum. Half of it
            is jitter.
        probes: calls let through at once when half-open.
        probe_lease_s: how long one of them may take before another one is let through.
        successes_to_close: how many of them must succeed.
        slow_call_s: from here on a success counts as a failure; None is off.
    """

    mode: Mode = Mode.ENFORCE
    window_s: float = attrs.field(default=30.0, validator=gt(0))
    buckets: int = attrs.field(default=10, validator=ge(1))
    failure_ratio: float = attrs.field(default=0.5, validator=[gt(0), le(1)])
    min_calls: int = attrs.field(default=20, validator=ge(1))
    no_answer_run: int = attrs.field(default=5, validator=ge(1))
    open_s: float = attrs.field(default=5.0, validator=gt(0))
    open_max_s: float = attrs.field(default=300.0, validator=gt(0))
    probes: int = attrs.field(default=1, validator=ge(1))
    probe_lease_s: float = attrs.field(default=30.0, validator=gt(0))
    successes_to_close: int = attrs.field(default=1, validator=ge(1))
    slow_call_s: float | None = attrs.field(default=None, validator=optional(gt(0)))


@attrs.frozen
class Transition:
    """One change of state, to be logged and shown by whoever holds it.

    Attributes:
        open_s: how long the circuit stays open, where it opens.
    """

    before: State
    change: Change
    after: State
    open_s: float = 0.0


@attrs.frozen
class Permit:
    """Leave to make one attempt; comes back through `report`, exactly once.

    Attributes:
        lease: which probe this is, 0 for none.
        transition: what the admission changed.
    """

    generation: int
    lease: int = 0
    transition: Transition | None = None

    @property
    def is_probe(self) -> bool:
        """Whether the circuit waits for what becomes of this attempt."""
        return self.lease > 0


Admission: TypeAlias = Permit | Refused

# Looking up a member of an Enum costs more than the comparison it is for (Python 3.11).
_CLOSED: Final = State.CLOSED
_SUCCESS: Final = Evidence.SUCCESS
_NO_ANSWER: Final = Evidence.NO_ANSWER
_FAILED: Final = frozenset({Evidence.FAILURE, Evidence.NO_ANSWER})

# Of the many breakers that never open; shared, as there may be a hundred thousand.
_FIRST_PERMIT: Final = Permit(0)
_NO_LEASES: Final[dict[int, float]] = {}
"""Never written to: a lease goes into a dict of its own."""


@attrs.define(init=False, eq=False)
class Breaker:
    """One circuit. `now_s` is a monotonic clock, `random_ratio` uniform over [0, 1).

    Attributes:
        scope: whose calls share it, for refusals.
        state: where it stands; only `admit` and `report` change it.
        generation: how many transitions there have been.
        in_flight: permits that have not come back, of whatever generation.
    """

    scope: Scope
    state: State
    generation: int
    in_flight: int
    _settings: BreakerSettings
    _window: RollingWindow
    _closed_permit: Permit
    _no_answer_run: int
    _openings: int
    _open_until_s: float
    _lease_ends_s: dict[int, float]
    _leases_given: int
    _probe_successes: int

    def __init__(self, settings: BreakerSettings, scope: Scope = Scope.ORIGIN) -> None:
        self._settings = settings
        self.scope = scope
        self.state = State.CLOSED
        self.generation = self.in_flight = self._openings = self._leases_given = 0
        self._open_until_s = 0.0
        self._close()

    def configure(self, settings: BreakerSettings) -> None:
        """Go on in the same state under other settings; counts of other buckets are forgotten."""
        old, self._settings = self._settings, settings
        if (old.window_s, old.buckets) != (settings.window_s, settings.buckets):
            self._window = _empty_window(settings)

    def admit(self, now_s: float) -> Admission:
        """Whether an attempt may go out now. A permit must come back through `report`.

        A refusal's `retry_after_s` is when the next probe may pass, as far as is known now.
        """
        if self.state is _CLOSED:
            self.in_flight += 1
            return self._closed_permit
        transition = None
        if self.state is State.OPEN:
            if now_s < self._open_until_s:
                return self._refusal(self._open_until_s - now_s, "the circuit is open")
            transition = self._change(Change.OPEN_TIME_OVER)
            self._lease_ends_s, self._probe_successes = {}, 0
        return self._probe(now_s, transition)

    def report(
        self,
        permit: Permit,
        evidence: Evidence,
        now_s: float,
        random_ratio: float,
        took_s: float = 0.0,
    ) -> Transition | None:
        """Give a permit back with what its attempt showed; what that changed, if anything.

        Args:
            permit: what `admit` gave.
            evidence: what `classify` makes of the result.
            now_s: the same clock that `admit` was given.
            random_ratio: spreads the time open, should this open the circuit.
            took_s: time to response headers, for `slow_call_s`.
        """
        self.in_flight -= 1
        if permit.generation != self.generation:
            return None
        slow_s = self._settings.slow_call_s
        if slow_s is not None and took_s >= slow_s and evidence is _SUCCESS:
            evidence = Evidence.FAILURE
        if permit.lease:
            return self._judge_probe(permit.lease, evidence, now_s, random_ratio)
        if self._count(evidence, now_s):
            return self._open(Change.TRIPPED, now_s, random_ratio)
        return None

    def totals(self, now_s: float) -> tuple[int, int]:
        """Calls and failures that the window holds, for people."""
        return self._window.totals(now_s)

    def is_droppable(self, now_s: float) -> bool:
        """Whether a new breaker would do as well.

        One that opened is kept for as long again as a circuit can stay open: its doubled time is
        worth something until then, and what nobody asks for after that is not worth its memory.
        """
        if self.in_flight:
            return False
        if self.state is State.CLOSED:
            window = self._window
            return not window.failures or not window.totals(now_s)[1]
        return now_s >= self._open_until_s + self._settings.open_max_s

    def _count(self, evidence: Evidence, now_s: float) -> bool:
        """Count what a call showed while closed; whether that is enough to open."""
        window, settings = self._window, self._settings
        if evidence is _SUCCESS:
            self._no_answer_run = 0
            window.count_success(now_s)
        elif evidence in _FAILED:
            self._no_answer_run = self._no_answer_run + 1 if evidence is _NO_ANSWER else 0
            window.count_failure(now_s)
            if self._no_answer_run >= settings.no_answer_run:
                return True
        else:
            if evidence is not Evidence.NONE:
                self._no_answer_run = 0
            return False
        # After a success too: it may be the call that makes them enough to judge by.
        failures, calls = window.failures, window.calls
        return (
            failures > 0
            and calls >= settings.min_calls
            and failures / calls >= settings.failure_ratio
        )

    def _probe(self, now_s: float, transition: Transition | None) -> Admission:
        """Half-open: a lease where one is free or has expired."""
        leases = {nth: ends_s for nth, ends_s in self._lease_ends_s.items() if now_s < ends_s}
        self._lease_ends_s = leases
        if len(leases) >= self._settings.probes:
            wait_s = min(leases.values()) - now_s
            return self._refusal(wait_s, "the circuit is half-open, and its probe is under way")
        self._leases_given += 1
        leases[self._leases_given] = now_s + self._settings.probe_lease_s
        self.in_flight += 1
        return Permit(self.generation, self._leases_given, transition)

    def _refusal(self, wait_s: float, reason: str) -> Refused:
        return Refused("circuit_breaker", self.scope, wait_s, reason)

    def _judge_probe(
        self, lease: int, evidence: Evidence, now_s: float, random_ratio: float
    ) -> Transition | None:
        self._lease_ends_s.pop(lease, None)  # not there where it expired
        if evidence is Evidence.NONE:
            return None
        if evidence in _FAILED or evidence is Evidence.THROTTLED:
            return self._open(Change.PROBE_FAILED, now_s, random_ratio)
        self._probe_successes += 1
        if self._probe_successes < self._settings.successes_to_close:
            return None
        transition = self._change(Change.PROBE_SUCCEEDED)
        self._openings = 0
        self._close()
        return transition

    def _open(self, why: Change, now_s: float, random_ratio: float) -> Transition:
        settings = self._settings
        longest_s = doubled_s(settings.open_s, self._openings, settings.open_max_s)
        open_s = longest_s * (1 + random_ratio) / 2
        self._openings += 1
        self._open_until_s = now_s + open_s
        return self._change(why, open_s)

    def _close(self) -> None:
        """Start counting from nothing, in the generation that has just begun."""
        self._closed_permit = Permit(self.generation) if self.generation else _FIRST_PERMIT
        self._window = _empty_window(self._settings)
        self._no_answer_run = self._probe_successes = 0
        self._lease_ends_s = _NO_LEASES

    def _change(self, why: Change, open_s: float = 0.0) -> Transition:
        """The only place where the state changes."""
        before = self.state
        self.state = TRANSITIONS[before][why]
        self.generation += 1
        return Transition(before, why, self.state, open_s)


def _empty_window(settings: BreakerSettings) -> RollingWindow:
    return RollingWindow(settings.window_s / settings.buckets, settings.buckets)
