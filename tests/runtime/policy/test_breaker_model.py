"""The breaker against a dumb model: a list of all that ended, counted anew each time."""

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vastar_runtime.policy.breaker import Breaker, BreakerSettings, Evidence, Permit, State

BUCKET_S = 2.0
FAILED = (Evidence.FAILURE, Evidence.NO_ANSWER)
evidences = st.sampled_from(list(Evidence))


class Circuits(RuleBasedStateMachine):
    """All numbers small, so that every rule is met often; times are exact in floats."""

    @initialize(probes=st.integers(1, 2), to_close=st.integers(1, 2))
    def start(self, probes: int, to_close: int) -> None:
        self.settings = BreakerSettings(
            window_s=3 * BUCKET_S,
            buckets=3,
            failure_ratio=0.5,
            min_calls=4,
            no_answer_run=3,
            open_s=4.0,
            open_max_s=16.0,
            probes=probes,
            probe_lease_s=6.0,
            successes_to_close=to_close,
        )
        self.breaker = Breaker(self.settings)
        self.now_s = 0.0
        self.state = State.CLOSED
        self.generation = 0
        self.ended: list[tuple[float, Evidence]] = []
        self.openings = 0
        self.open_until_s = 0.0
        self.leases: dict[int, float] = {}
        self.probe_successes = 0
        self.permits: list[tuple[Permit, int]] = []

    # The model.

    def moves_to(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self.ended, self.leases, self.probe_successes = [], {}, 0

    def opens(self, random_ratio: float) -> None:
        open_s = min(16.0, 4.0 * 2**self.openings)
        self.open_until_s = self.now_s + open_s / 2 + open_s / 2 * random_ratio
        self.openings += 1
        self.moves_to(State.OPEN)

    def should_trip(self) -> bool:
        bucket = self.now_s // BUCKET_S
        counted = [
            evidence
            for at_s, evidence in self.ended
            if at_s // BUCKET_S > bucket - 3 and evidence in (Evidence.SUCCESS, *FAILED)
        ]
        failed = sum(evidence in FAILED for evidence in counted)
        run = [evidence for _, evidence in self.ended][-3:]
        return (len(counted) >= 4 and failed * 2 >= len(counted)) or run == [Evidence.NO_ANSWER] * 3

    # What may happen.

    @rule(by_s=st.sampled_from([0.25, 1.0, 2.0, 4.0, 6.0, 16.0]))
    def wait(self, by_s: float) -> None:
        self.now_s += by_s

    @rule()
    def admit(self) -> None:
        admission = self.breaker.admit(self.now_s)
        if self.state is State.OPEN and self.now_s >= self.open_until_s:
            self.moves_to(State.HALF_OPEN)
            assert isinstance(admission, Permit)
            assert admission.transition is not None
        lease = 0
        if self.state is State.HALF_OPEN:
            self.leases = {n: ends_s for n, ends_s in self.leases.items() if ends_s > self.now_s}
            if passes := len(self.leases) < self.settings.probes:
                lease = admission.lease if isinstance(admission, Permit) else -1
                self.leases[lease] = self.now_s + 6.0
        else:
            passes = self.state is State.CLOSED
        assert isinstance(admission, Permit) is passes
        if isinstance(admission, Permit):
            assert admission.generation == self.generation
            assert admission.is_probe is (self.state is State.HALF_OPEN)
            self.permits.append((admission, self.generation))
        else:
            assert admission.retry_after_s is not None
            assert admission.retry_after_s > 0

    @precondition(lambda self: self.permits)
    @rule(which=st.integers(0), evidence=evidences, random_ratio=st.sampled_from([0.0, 0.5, 0.75]))
    def report(self, which: int, evidence: Evidence, random_ratio: float) -> None:
        permit, generation = self.permits.pop(which % len(self.permits))
        before = self.state
        transition = self.breaker.report(permit, evidence, self.now_s, random_ratio)
        if generation == self.generation:
            self.learn(permit, evidence, random_ratio)
        if self.state is before:
            assert transition is None
        else:
            assert transition is not None
            assert (transition.before, transition.after) == (before, self.state)

    def learn(self, permit: Permit, evidence: Evidence, random_ratio: float) -> None:
        self.leases.pop(permit.lease, None)
        if evidence is Evidence.NONE:
            return
        if self.state is State.CLOSED:
            self.ended.append((self.now_s, evidence))
            is_counted = evidence in (Evidence.SUCCESS, *FAILED)
            if is_counted and self.should_trip():
                self.opens(random_ratio)
        elif evidence in (*FAILED, Evidence.THROTTLED):
            self.opens(random_ratio)
        else:
            self.probe_successes += 1
            if self.probe_successes >= self.settings.successes_to_close:
                self.moves_to(State.CLOSED)
                self.openings = 0

    @rule(evidence=evidences, times=st.integers(1, 6))
    def several_calls(self, evidence: Evidence, times: int) -> None:
        for _ in range(times):
            self.admit()
            if self.permits:
                self.report(len(self.permits) - 1, evidence, 0.5)

    # What always holds.

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "breaker"):
            return
        assert (self.breaker.state, self.breaker.generation) == (self.state, self.generation)
        assert self.breaker.in_flight == len(self.permits)

    @invariant()
    def nothing_with_calls_in_flight_or_open_is_droppable(self) -> None:
        if hasattr(self, "breaker") and self.breaker.is_droppable(self.now_s):
            assert not self.permits
            assert self.state is State.CLOSED or self.now_s >= self.open_until_s + 16.0


TestCircuits = Circuits.TestCase


@pytest.mark.parametrize("opening", range(1, 20))
def test_nothing_jams(opening: int):
    """However often it opened, and whatever became of the probes, a good call closes it again."""
    breaker = Breaker(BreakerSettings(no_answer_run=1))
    now_s = 0.0
    for nth in range(opening):
        permit = breaker.admit(now_s)
        assert isinstance(permit, Permit)
        if nth % 3 < 2:  # each third probe never reports
            breaker.report(permit, Evidence.NO_ANSWER, now_s, 0.5)
        now_s = math.nextafter(now_s + 300.0, math.inf)
    permit = breaker.admit(now_s)
    assert isinstance(permit, Permit)
    breaker.report(permit, Evidence.SUCCESS, now_s, 0.5)
    assert breaker.state is State.CLOSED
