"""Admission against a plain model: counts, no place idle while someone could take it, fairness."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vastar_runtime.policy.admission import Admission, AdmissionSettings, Admitted, Queued
from vastar_runtime.policy.concurrency import ConcurrencySettings, Key
from vastar_runtime.policy.verdicts import Refused

KEYS = tuple(Key(t, w, o) for t in "abc" for w in "wx" for o in "op")
LIMITS = st.builds(
    AdmissionSettings,
    st.builds(ConcurrencySettings, st.integers(1, 8), st.integers(1, 5), st.integers(1, 3)),
    max_waiting_per_tenant=st.integers(0, 6),
)


class AdmissionMachine(RuleBasedStateMachine):
    @initialize(limits=LIMITS)
    def begin(self, limits):
        self.limits = limits
        self.admission = Admission(limits)
        self.permits: list[Admitted] = []
        self.line: list[Queued] = []
        self.to_wake: list[Queued] = []

    def is_held_up(self, key, is_stream):
        held = [permit.key for permit in self.permits if permit.is_stream == is_stream]
        limits = self.limits.concurrency
        return (
            len(held) >= limits.max_in_runtime
            or sum(other.tenant == key.tenant for other in held) >= limits.max_per_tenant
            or held.count(key) >= limits.max_per_origin
        )

    def collect(self, woken):
        for queued in woken:
            earlier = self.line[: self.line.index(queued)]
            assert not any(
                (other.key, other.is_stream) == (queued.key, queued.is_stream) for other in earlier
            ), "calls of one kind to one place go in order"
            self.line.remove(queued)
            self.permits.append(queued.permit)
            self.to_wake.append(queued)

    @rule(key=st.sampled_from(KEYS), is_stream=st.booleans())
    def call(self, key, is_stream):
        held_up = self.is_held_up(key, is_stream)
        same_line = [
            other
            for other in self.line
            if other.key.tenant == key.tenant and other.is_stream == is_stream
        ]
        decision = self.admission.try_admit(0.0, key, is_stream)
        if isinstance(decision, Admitted):
            assert not held_up
            self.permits.append(decision)
        elif isinstance(decision, Queued):
            assert held_up
            assert len(same_line) < self.limits.max_waiting_per_tenant
            self.line.append(decision)
        else:
            assert isinstance(decision, Refused)
            assert held_up
            assert len(same_line) >= self.limits.max_waiting_per_tenant
            assert decision.retry_after_s > 0

    @precondition(lambda self: self.permits)
    @rule(data=st.data())
    def release(self, data):
        permit = data.draw(st.sampled_from(self.permits))
        self.permits.remove(permit)
        self.collect(self.admission.release(0.0, permit))
        assert self.admission.release(0.0, permit) == []

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def withdraw_from_the_line(self, data):
        queued = data.draw(st.sampled_from(self.line))
        self.line.remove(queued)
        assert self.admission.withdraw(0.0, queued) == []

    @precondition(lambda self: self.to_wake)
    @rule(data=st.data())
    def cancelled_between_wake_and_run(self, data):
        queued = data.draw(st.sampled_from(self.to_wake))
        self.to_wake.remove(queued)
        if queued.permit in self.permits:
            self.permits.remove(queued.permit)
            self.collect(self.admission.withdraw(0.0, queued))
        else:
            assert self.admission.withdraw(0.0, queued) == []

    @rule(limits=LIMITS)
    def change(self, limits):
        self.limits = limits
        self.collect(self.admission.change(0.0, limits))

    @invariant()
    def whoever_waits_is_held_up_by_something_full(self):
        for queued in self.line:
            assert self.is_held_up(queued.key, queued.is_stream)

    @invariant()
    def counts_are_right(self):
        for streams in (False, True):
            held = Counter(permit.key for permit in self.permits if permit.is_stream == streams)
            waiting = [queued for queued in self.line if queued.is_stream == streams]
            assert self.admission.in_flight(streams=streams) == sum(held.values())
            assert self.admission.waiting(streams=streams) == len(waiting)
            for key in KEYS:
                assert self.admission.in_flight_of(key, streams=streams) == held[key]

    def teardown(self):
        """Whatever happened: once all have gone, nothing is left."""
        if hasattr(self, "admission"):
            while self.permits:
                self.collect(self.admission.release(0.0, self.permits.pop()))
            assert not self.line
            for streams in (False, True):
                assert self.admission.in_flight(streams=streams) == 0
                assert self.admission.waiting(streams=streams) == 0


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(stateful_step_count=50)
