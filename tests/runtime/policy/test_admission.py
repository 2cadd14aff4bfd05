"""Admission: places, lines, and that whoever waits is held up by something full."""

from collections import Counter

import attrs
import pytest

from vastar_runtime.policy.admission import Admission, AdmissionSettings, Admitted, Queued
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.concurrency import ConcurrencySettings, Key
from vastar_runtime.policy.verdicts import Refused, Scope

SMALL = AdmissionSettings(
    ConcurrencySettings(max_in_runtime=4, max_per_tenant=3, max_per_origin=2),
    max_waiting_per_tenant=5,
)
A = Key("a", "w", "https://one.example")
A2 = Key("a", "w", "https://two.example")
A3 = Key("a", "x", "https://one.example")
B = Key("b", "w", "https://one.example")
C = Key("c", "w", "https://one.example")


def admit(admission, key, is_stream=False, settings=None) -> Admitted:
    decision = admission.try_admit(0.0, key, is_stream, settings)
    assert isinstance(decision, Admitted)
    return decision


def queue(admission, key, is_stream=False, settings=None) -> Queued:
    decision = admission.try_admit(0.0, key, is_stream, settings)
    assert isinstance(decision, Queued)
    return decision


def test_the_defaults_are_those_of_the_document():
    settings = AdmissionSettings()
    assert settings.concurrency == ConcurrencySettings(1000, 500, 256, None)
    assert settings.max_waiting_per_tenant == 1000


def test_each_level_has_its_bound():
    admission = Admission(SMALL)
    admit(admission, A)
    admit(admission, A)
    queue(admission, A)  # two per origin
    admit(admission, A2)
    queue(admission, A3)  # three per tenant
    admit(admission, B)
    queue(admission, C)  # four in all
    assert admission.in_flight(streams=False) == 4
    assert admission.in_flight_of(A, streams=False) == 2
    assert admission.waiting(streams=False) == 3
    assert admission.waiting_of("a", streams=False) == 2


def test_streams_are_counted_apart_with_the_same_numbers():
    admission = Admission(SMALL)
    for is_stream in (False, True):
        admit(admission, A, is_stream)
        admit(admission, A, is_stream)
        queue(admission, A, is_stream)
    assert admission.in_flight(streams=True) == 2
    assert admission.in_flight_of(A, streams=True) == 2
    assert admission.waiting(streams=True) == 1
    assert admission.waiting_of("a", streams=True) == 1


def test_a_release_lets_the_next_through_with_its_place_taken():
    admission = Admission(SMALL)
    held = [admit(admission, A) for _ in range(2)]
    first, second = queue(admission, A), queue(admission, A)
    assert admission.release(1.0, held[0]) == [first]
    assert first.permit is not None
    assert admission.in_flight(streams=False) == 2  # nobody can slip in before it runs
    assert admission.release(1.0, held[0]) == []  # once is enough
    assert admission.release(1.0, held[1]) == [second]


def test_a_full_origin_holds_up_nobody_else():
    admission = Admission(SMALL)
    permit = admit(admission, A)
    admit(admission, A)
    slow = queue(admission, A)
    admit(admission, A2)
    last = admit(admission, B)
    waiting_c = queue(admission, C)
    # The head of the queue cannot go, so it is passed over, and goes when its own origin frees.
    assert admission.release(0.0, last) == [waiting_c]
    assert admission.release(0.0, permit) == [slow]


def test_the_quiet_tenant_goes_within_one_round_beside_a_flooding_one():
    settings = AdmissionSettings(
        ConcurrencySettings(max_in_runtime=2, max_per_tenant=2, max_per_origin=2)
    )
    admission = Admission(settings)
    permits = [admit(admission, A) for _ in range(2)]
    for _ in range(1000):
        queue(admission, A)
    quiet = queue(admission, B)
    woken = [admission.release(0.0, permit)[0] for permit in permits]
    assert quiet in woken
    # From then on they share: half of what goes is the quiet one's, for as long as it asks.
    shares = Counter()
    for _ in range(100):
        queue(admission, B)
        (next_one,) = admission.release(0.0, woken.pop(0).permit)
        shares[next_one.key.tenant] += 1
        woken.append(next_one)
    assert shares == {"a": 50, "b": 50}


def test_a_full_line_refuses_by_name_and_costs_nothing():
    admission = Admission(SMALL)
    for _ in range(2):
        admit(admission, A)
    for _ in range(5):
        queue(admission, A)
    refused = admission.try_admit(0.0, A, False)
    assert refused == Refused(
        "queue",
        Scope.TENANT,
        1.0,
        "the origin of this workspace has as many calls as it may, and 5 of the tenant are in line",
    )
    assert admission.in_flight(streams=False) == 2
    assert admission.waiting(streams=False) == 5
    admit(admission, B)  # the other tenant has a line of its own


@pytest.mark.parametrize(
    ("held", "key", "scope", "who"),
    [
        ([A, A], A, Scope.CREDENTIAL, "the origin of this workspace"),
        ([A, A, A2], A3, Scope.TENANT, "the tenant"),
        ([A, A, A2, B], C, Scope.RUNTIME, "the runtime"),
    ],
)
def test_with_no_line_it_refuses_at_once_and_says_what_is_full(held, key, scope, who):
    settings = attrs.evolve(SMALL, max_waiting_per_tenant=0, first_retry_after_s=2.5)
    admission = Admission(settings)
    for other in held:
        admit(admission, other, is_stream=True)
    refused = admission.try_admit(0.0, key, True)
    assert refused == Refused("bulkhead", scope, 2.5, f"{who} has as many streams as it may")


def test_when_to_come_back_follows_how_fast_the_line_goes():
    settings = AdmissionSettings(ConcurrencySettings(max_in_runtime=1), max_waiting_per_tenant=10)
    admission = Admission(settings)
    permit = admit(admission, A)
    for _ in range(10):
        queue(admission, A)
    for second in range(1, 6):
        (woken,) = admission.release(second * 2.0, permit)
        permit = woken.permit
        queue(admission, A)
    refused = admission.try_admit(10.0, A, False)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == pytest.approx(20.0)


def test_withdrawing_from_the_line_wakes_nobody_and_the_rest_keeps_its_order():
    admission = Admission(SMALL)
    permit = admit(admission, A)
    admit(admission, A)
    first, second, third = (queue(admission, A) for _ in range(3))
    assert admission.withdraw(0.0, second) == []
    assert admission.withdraw(0.0, second) == []
    assert admission.waiting(streams=False) == 2
    assert admission.release(0.0, permit) == [first]
    assert admission.release(0.0, first.permit) == [third]


def test_withdrawing_what_was_let_through_meanwhile_hands_its_place_on():
    admission = Admission(SMALL)
    permit = admit(admission, A)
    admit(admission, A)
    first, second = queue(admission, A), queue(admission, A)
    assert admission.release(0.0, permit) == [first]
    assert admission.withdraw(0.0, first) == [second]
    assert admission.withdraw(0.0, first) == []


def test_larger_limits_let_those_in_line_through_and_smaller_ones_take_no_place_away():
    admission = Admission(SMALL)
    permits = [admit(admission, A) for _ in range(2)]
    waiting = [queue(admission, A) for _ in range(3)]
    assert admission.change(0.0, AdmissionSettings()) == waiting
    permits += [place.permit for place in waiting]
    assert admission.change(0.0, SMALL) == []
    later = queue(admission, A)
    for permit in permits[:3]:
        assert admission.release(0.0, permit) == []
    assert admission.release(0.0, permits[3]) == [later]


def test_settings_of_a_key_hold_for_it_alone():
    narrow = AdmissionSettings(ConcurrencySettings(max_per_origin=1))
    admission = Admission(AdmissionSettings())
    permit = admit(admission, A, settings=narrow)
    waiting = queue(admission, A, settings=narrow)
    admit(admission, A2)
    admit(admission, A2)
    two = AdmissionSettings(ConcurrencySettings(max_per_origin=2))
    assert admission.change(0.0, AdmissionSettings(), lambda key: two if key == A else narrow) == [
        waiting
    ]
    admission.release(0.0, permit)


def test_another_weight_holds_for_those_in_line_too():
    one_place = AdmissionSettings(ConcurrencySettings(max_in_runtime=1))
    heavy = attrs.evolve(one_place, tenant_weight=3)
    admission = Admission(one_place)
    permit = admit(admission, C)
    for _ in range(4):
        queue(admission, A)
        queue(admission, B)
    assert admission.change(0.0, one_place, lambda key: heavy if key == A else one_place) == []
    turns = []
    for _ in range(8):
        (woken,) = admission.release(0.0, permit)
        turns.append(woken.key.tenant)
        permit = woken.permit
    assert turns == ["a", "a", "a", "b", "a", "b", "b", "b"]


def test_adaptive_places_shrink_when_the_upstream_has_too_much_and_come_back():
    feeling = AimdSettings(decrease_ratio=0.5, increase_ratio=0.5, hold_s=1.0)
    settings = AdmissionSettings(ConcurrencySettings(max_per_origin=4, adaptive=feeling))
    admission = Admission(settings)
    permits = [admit(admission, A) for _ in range(4)]
    admission.overloaded(0.0, permits[0], settings)
    assert admission.release(0.0, permits[0]) == []
    assert admission.release(0.0, permits[1]) == []
    waiting = queue(admission, A)  # two of four is what it bears
    assert admission.succeeded(1.0, permits[2]) == [waiting]
    assert admission.succeeded(1.0, permits[2]) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_waiting_per_tenant", -1), ("tenant_weight", 0), ("first_retry_after_s", 0.0)],
)
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        AdmissionSettings(**{field: value})
