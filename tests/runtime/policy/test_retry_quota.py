"""The retry quota: a purse that retries empty and successes fill, against a plain sum."""

import math

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota

SETTINGS = QuotaSettings()


def make(**changes: object) -> RetryQuota:
    return RetryQuota(attrs.evolve(SETTINGS, **changes))


def test_the_defaults():
    quota = make()
    assert quota.tokens == 500
    assert quota.reserve(0.0, is_throttled=False) == 14
    assert quota.reserve(0.0, is_throttled=True) == 5
    assert quota.tokens == 481
    quota.earn(0.0)
    assert quota.tokens == 482


def test_what_lacks_a_token_is_refused_and_costs_nothing():
    quota = make(most_tokens=13)
    assert quota.reserve(0.0, is_throttled=False) is None
    assert (quota.tokens, quota.outstanding) == (13, 0)
    assert quota.reserve(0.0, is_throttled=True) == 5


def test_exactly_enough_is_enough():
    quota = make(most_tokens=14)
    assert quota.reserve(0.0, is_throttled=False) == 14
    assert quota.tokens == 0


def test_no_tokens_at_all_is_a_setting():
    assert make(most_tokens=0).reserve(0.0, is_throttled=True) is None


def test_after_long_without_use_it_is_full_again():
    quota = make()
    quota.reserve(0.0, is_throttled=False)
    quota.spend(1.0)
    assert not quota.is_droppable(600.9)
    assert quota.is_droppable(601.0)
    assert quota.reserve(601.0, is_throttled=False) == 14
    assert quota.tokens == 486


def test_use_keeps_it_from_being_forgotten():
    quota = make(most_tokens=20)
    quota.reserve(0.0, is_throttled=False)
    for nth in range(10):
        assert quota.reserve(nth * 599.0, is_throttled=False) is None


def test_what_is_outstanding_is_never_dropped():
    quota = make()
    cost = quota.reserve_nothing(0.0)
    assert cost == 0
    assert not quota.is_droppable(1e9)
    quota.refund(cost, 0.0)
    assert quota.is_droppable(0.0)


def test_other_settings_leave_missing_what_is_missing():
    quota = make()
    quota.reserve(0.0, is_throttled=False)
    quota.configure(attrs.evolve(SETTINGS, most_tokens=100))
    assert quota.tokens == 86
    quota.configure(attrs.evolve(SETTINGS, most_tokens=10))
    assert quota.tokens == 0
    assert quota.most_tokens == 10
    quota.configure(SETTINGS)
    assert (quota.tokens, quota.most_tokens) == (490, 500)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("most_tokens", -1),
        ("transient_cost", 0),
        ("throttled_cost", 0),
        ("earned_per_success", -1),
        ("forget_after_s", math.nan),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name: str, bad: float):
    with pytest.raises(ValueError, match=name):
        make(**{name: bad})


class Purse(RuleBasedStateMachine):
    """Against one number, and the retries that are out."""

    @initialize(most=st.integers(0, 60))
    def start(self, most: int) -> None:
        self.most = self.tokens = most
        self.quota = make(most_tokens=most, forget_after_s=100.0)
        self.now_s = self.used_at_s = 0.0
        self.out: list[int] = []

    def use(self, plus: int) -> None:
        if self.now_s - self.used_at_s >= 100.0:
            self.tokens = self.most
        self.used_at_s = self.now_s
        self.tokens = min(self.most, self.tokens + plus)

    @rule(by_s=st.sampled_from([1.0, 40.0, 99.0, 100.0]))
    def wait(self, by_s: float) -> None:
        self.now_s += by_s

    @rule(is_throttled=st.booleans())
    def reserve(self, is_throttled: bool) -> None:
        self.use(0)
        cost = 5 if is_throttled else 14
        found = self.quota.reserve(self.now_s, is_throttled=is_throttled)
        if cost > self.tokens:
            assert found is None
        else:
            assert found == cost
            self.tokens -= cost
            self.out.append(cost)

    @precondition(lambda self: self.out)
    @rule(succeeded=st.booleans(), which=st.integers(0))
    def settle(self, succeeded: bool, which: int) -> None:
        cost = self.out.pop(which % len(self.out))
        self.use(cost if succeeded else 0)
        if succeeded:
            self.quota.refund(cost, self.now_s)
        else:
            self.quota.spend(self.now_s)

    @rule()
    def earn(self) -> None:
        self.use(1)
        self.quota.earn(self.now_s)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "quota"):
            return
        assert 0 <= self.quota.tokens <= self.most
        assert (self.quota.tokens, self.quota.outstanding) == (self.tokens, len(self.out))
        is_idle = self.now_s - self.used_at_s >= 100.0
        is_as_new = not self.out and (self.tokens == self.most or is_idle)
        assert self.quota.is_droppable(self.now_s) is is_as_new


TestPurse = Purse.TestCase
