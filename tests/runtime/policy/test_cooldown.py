"""The rest of a credential that was throttled."""

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.classify import AttemptResult, Fault, classify
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.verdicts import Refused, Scope

SETTINGS = CooldownSettings()
NO_JITTER = 1.0


def make(**changes: object) -> Cooldown:
    return Cooldown(attrs.evolve(SETTINGS, **changes))


def report(
    cooldown: Cooldown,
    round_: int,
    status: int = 429,
    *,
    now_s: float = 0.0,
    hint_s: float | None = None,
    random_ratio: float = NO_JITTER,
    fault: Fault | None = None,
) -> bool:
    result = AttemptResult(status, fault, retry_after_s=hint_s)
    meaning = classify("GET", result, has_idempotency_key=False)
    return cooldown.report(round_, meaning, now_s, random_ratio, hint_s)


def let(cooldown: Cooldown, now_s: float = 0.0) -> int:
    admission = cooldown.admit(now_s)
    assert isinstance(admission, int)
    return admission


def rests_s(cooldown: Cooldown, now_s: float = 0.0) -> float:
    refused = cooldown.admit(now_s)
    if isinstance(refused, int):
        cooldown.in_flight -= 1
        return 0.0
    assert (refused.policy, refused.scope) == ("cooldown", Scope.CREDENTIAL)
    assert refused.retry_after_s is not None
    return refused.retry_after_s


def test_429_opens_it_for_as_long_as_the_answer_asked():
    cooldown = make()
    assert report(cooldown, let(cooldown), hint_s=8.0, random_ratio=0.0)
    assert isinstance(cooldown.admit(7.9), Refused)
    assert isinstance(cooldown.admit(8.0), int)


def test_how_long_it_still_rests():
    cooldown = make()
    assert cooldown.rest_s(0.0) == 0.0
    assert report(cooldown, let(cooldown), hint_s=8.0, random_ratio=0.0)
    assert [cooldown.rest_s(at_s) for at_s in (0.0, 3.0, 8.0, 9.0)] == [8.0, 5.0, 0.0, 0.0]


def test_a_hint_gets_up_to_a_quarter_more_and_has_an_end():
    cooldown = make()
    report(cooldown, let(cooldown), hint_s=8.0)
    assert rests_s(cooldown) == 10.0
    report(cooldown, let(cooldown, 10.0), now_s=10.0, hint_s=86_400.0, random_ratio=0.0)
    assert rests_s(cooldown, 10.0) == 300.0


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500, 501, 503])
def test_nothing_else_opens_it(status: int):
    cooldown = make()
    assert not report(cooldown, let(cooldown), status, hint_s=8.0)
    assert rests_s(cooldown) == 0


def test_a_429_whose_body_broke_off_is_one_too():
    cooldown = make()
    assert report(cooldown, let(cooldown), fault=Fault.RESET)


def test_without_a_hint_it_doubles_round_by_round_to_a_maximum():
    cooldown, now_s, times_s = make(), 0.0, []
    for _ in range(70):
        report(cooldown, let(cooldown, now_s), now_s=now_s)
        times_s.append(rests_s(cooldown, now_s))
        now_s += times_s[-1]
    assert times_s[:7] == [1, 2, 4, 8, 16, 20, 20]
    assert set(times_s[7:]) == {20.0}


def test_half_of_it_is_jitter():
    cooldown = make()
    report(cooldown, let(cooldown), random_ratio=0.0)
    assert rests_s(cooldown) == 0.5


@pytest.mark.parametrize(("status", "next_s"), [(200, 1.0), (404, 1.0), (500, 2.0)])
def test_an_answer_after_it_ends_the_doubling_and_a_failure_does_not(status: int, next_s: float):
    cooldown = make()
    report(cooldown, let(cooldown))
    report(cooldown, let(cooldown, 5.0), status, now_s=5.0)
    report(cooldown, let(cooldown, 5.0), now_s=5.0)
    assert rests_s(cooldown, 5.0) == next_s


def test_calls_that_were_under_way_together_count_once():
    cooldown = make()
    rounds = [let(cooldown) for _ in range(50)]
    opened = [report(cooldown, round_) for round_ in rounds]
    assert opened == [True] + [False] * 49
    assert rests_s(cooldown) == 1.0


def test_a_success_from_before_it_does_not_end_the_doubling():
    cooldown = make()
    early, late = let(cooldown), let(cooldown)
    report(cooldown, early)
    report(cooldown, late, 200)
    report(cooldown, let(cooldown, 1.0), now_s=1.0)
    assert rests_s(cooldown, 1.0) == 2.0


@pytest.mark.parametrize(("hint_s", "lengthens"), [(2.0, False), (9.0, True)])
def test_a_hint_of_the_same_round_lengthens_but_never_shortens(hint_s: float, lengthens: bool):
    cooldown = make()
    first, second = let(cooldown), let(cooldown)
    report(cooldown, first, hint_s=5.0, random_ratio=0.0)
    assert report(cooldown, second, hint_s=hint_s, random_ratio=0.0) is lengthens
    assert rests_s(cooldown) == max(5.0, hint_s)


def test_a_hint_is_not_used_again_for_the_next_429():
    cooldown = make()
    report(cooldown, let(cooldown), hint_s=100.0)
    report(cooldown, let(cooldown, 125.0), now_s=125.0)
    assert rests_s(cooldown, 125.0) == 2.0


def test_what_may_be_forgotten():
    cooldown = make()
    assert cooldown.is_droppable(0.0)
    round_ = let(cooldown)
    assert not cooldown.is_droppable(1e9), "a call is in flight"
    report(cooldown, round_, hint_s=4.0)
    assert not cooldown.is_droppable(24.9)
    assert cooldown.is_droppable(25.0)


def test_other_settings_hold_from_the_next_429_on():
    cooldown = make()
    report(cooldown, let(cooldown))
    cooldown.configure(attrs.evolve(SETTINGS, base_s=3.0))
    assert rests_s(cooldown) == 1.0
    report(cooldown, let(cooldown, 1.0), now_s=1.0)
    assert rests_s(cooldown, 1.0) == 6.0


@given(st.lists(st.tuples(st.sampled_from([200, 404, 429, 500]), st.none() | st.floats(0.1, 1e6))))
def test_it_always_ends(answers: list[tuple[int, float | None]]):
    cooldown, now_s = make(), 0.0
    for status, hint_s in answers:
        round_ = let(cooldown, now_s)
        report(cooldown, round_, status, now_s=now_s, hint_s=hint_s)
        wait_s = rests_s(cooldown, now_s)
        assert 0 <= wait_s <= 375.0 + 1e-6
        now_s = math.nextafter(now_s + wait_s, math.inf)


@pytest.mark.parametrize("name", ["base_s", "unhinted_max_s", "hinted_max_s", "jitter_ratio"])
def test_settings_that_make_no_sense_are_refused_by_name(name: str):
    with pytest.raises(ValueError, match=name):
        make(**{name: -1.0})


def test_how_long_it_rests_is_told_without_asking_for_leave():
    cooldown = make()
    assert cooldown.rest_s(0.0) == 0
    report(cooldown, let(cooldown), hint_s=4.0, random_ratio=0.0)
    assert (cooldown.rests_until_s, cooldown.rest_s(1.0), cooldown.rest_s(9.0)) == (4.0, 3.0, 0.0)
    assert cooldown.in_flight == 0
