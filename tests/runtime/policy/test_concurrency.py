"""The bulkhead: three counts, taken together or not at all."""

import pytest

from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.concurrency import Bulkhead, ConcurrencySettings, Key
from vastar_runtime.policy.verdicts import Scope

A = Key("a", "w", "o")
LIMITS = ConcurrencySettings(max_in_runtime=4, max_per_tenant=3, max_per_origin=2)
FEELING = ConcurrencySettings(
    max_per_origin=4, adaptive=AimdSettings(decrease_ratio=0.5, increase_ratio=0.5, forget_s=60)
)


def test_the_narrowest_that_is_full_is_named_and_a_refusal_takes_nothing():
    bulkhead = Bulkhead(4)
    other_origin, other_tenant = Key("a", "w", "p"), Key("b", "w", "o")
    assert [bulkhead.try_acquire(A, LIMITS) for _ in range(3)] == [None, None, Scope.CREDENTIAL]
    assert [bulkhead.try_acquire(other_origin, LIMITS) for _ in range(2)] == [None, Scope.TENANT]
    assert [bulkhead.try_acquire(other_tenant, LIMITS) for _ in range(2)] == [None, Scope.RUNTIME]
    assert bulkhead.in_flight == 4
    assert bulkhead.in_flight_of(A) == 2
    assert bulkhead.in_flight_of_tenant("a") == 3


def test_what_idles_leaves_nothing_behind():
    bulkhead = Bulkhead(10)
    for n in range(100):
        key = Key(f"tenant {n}", "w", "o")
        assert bulkhead.try_acquire(key, LIMITS) is None
        assert bulkhead.try_acquire(key, LIMITS) is None
        bulkhead.release(key)
        bulkhead.release(key)
    assert bulkhead.in_flight == 0
    assert not bulkhead._tenants
    assert not bulkhead._origins


def test_adaptive_is_off_by_default():
    bulkhead = Bulkhead(10)
    bulkhead.overloaded(0.0, A, LIMITS)
    bulkhead.succeeded(A)
    assert bulkhead.limit_of(A, LIMITS) == 2


def test_adaptive_lowers_the_limit_of_that_key_alone_and_raises_it_again():
    bulkhead = Bulkhead(10)
    for second in range(20):
        bulkhead.overloaded(second * 2.0, A, FEELING)
    assert bulkhead.limit_of(A, FEELING) == 1
    assert bulkhead.limit_of(A, LIMITS) == 2, "where it is switched off it holds nothing back"
    assert bulkhead.limit_of(Key("b", "w", "o"), FEELING) == 4
    assert [bulkhead.try_acquire(A, FEELING) for _ in range(2)] == [None, Scope.CREDENTIAL]
    bulkhead.succeeded(A)
    assert bulkhead.limit_of(A, FEELING) == 2
    bulkhead.succeeded(A)
    assert bulkhead.limit_of(A, FEELING) == 4
    assert not bulkhead._adaptive


def test_old_feelings_are_forgotten_as_new_ones_come():
    bulkhead = Bulkhead(10)
    for second in range(1000):
        bulkhead.overloaded(float(second), Key(f"t{second}", "w", "o"), FEELING)
    # Two are looked at for each that comes: at most twice those of the last 60 s are kept.
    assert len(bulkhead._adaptive) <= 122


@pytest.mark.parametrize("field", ["max_in_runtime", "max_per_tenant", "max_per_origin"])
@pytest.mark.parametrize("value", [0, -1, 10**7])
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        ConcurrencySettings(**{field: value})
