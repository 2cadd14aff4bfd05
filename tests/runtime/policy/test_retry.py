"""Whether and when to try again."""

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.classify import AttemptResult, Fault, Meaning, Reached, classify
from vastar_runtime.policy.modes import Gate, Mode
from vastar_runtime.policy.retry import (
    GiveUp,
    Reason,
    RetryAt,
    RetrySettings,
    Verdict,
    decide,
    settle,
)
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota

NOW_S = 1000.0
UNAVAILABLE = AttemptResult(status=503)
THROTTLED = AttemptResult(status=429)
SETTINGS = RetrySettings()


def meaning_of(result: AttemptResult, method: str = "GET") -> Meaning:
    return classify(method, result, has_idempotency_key=False)


def full(tokens: int = 500) -> RetryQuota:
    return RetryQuota(QuotaSettings(most_tokens=tokens))


def ask(
    result: AttemptResult,
    *,
    quota: RetryQuota | None = None,
    gate: Gate | None = None,
    settings: RetrySettings = SETTINGS,
    **changes: object,
) -> Verdict:
    given_ = {
        "now_s": NOW_S,
        "attempts_made": 1,
        "expires_at_s": NOW_S + 30.0,
        "is_committed": False,
        "random_ratio": 0.5,
    }
    quota, gate = quota or full(), gate or Gate()
    return decide(settings, result, meaning_of(result), quota, gate, **{**given_, **changes})


def test_a_transient_fault_is_retried_after_a_jittered_backoff():
    quota = full()
    verdict = ask(UNAVAILABLE, quota=quota)
    assert verdict == RetryAt(at_s=NOW_S + 0.025, wait_s=0.025, cost_tokens=14)
    assert (quota.tokens, quota.outstanding) == (486, 1)


def test_throttling_waits_longer_and_costs_less():
    assert ask(THROTTLED, attempts_made=2) == RetryAt(NOW_S + 1.0, 1.0, 5)


@pytest.mark.parametrize(
    ("result", "changes", "reason"),
    [
        (AttemptResult(status=200), {}, Reason.NOT_RETRYABLE),
        (AttemptResult(status=404), {}, Reason.NOT_RETRYABLE),
        (AttemptResult(fault=Fault.CANCELLED), {}, Reason.NOT_RETRYABLE),
        (AttemptResult(fault=Fault.LOCAL_REFUSAL), {}, Reason.NOT_RETRYABLE),
        (UNAVAILABLE, {"is_committed": True}, Reason.COMMITTED),
        (UNAVAILABLE, {"attempts_made": 3}, Reason.ATTEMPTS_SPENT),
        (UNAVAILABLE, {"expires_at_s": NOW_S + 0.025}, Reason.PAST_DEADLINE),
        (UNAVAILABLE, {"expires_at_s": NOW_S - 1}, Reason.PAST_DEADLINE),
        (UNAVAILABLE, {"quota": full(13)}, Reason.QUOTA_SPENT),
        (THROTTLED, {"quota": full(4)}, Reason.QUOTA_SPENT),
    ],
)
def test_every_reason_to_give_up_and_that_it_costs_nothing(result, changes, reason):
    changes = {"quota": full(), **changes}
    before = changes["quota"].tokens
    assert ask(result, **changes) == GiveUp(reason)
    assert (changes["quota"].tokens, changes["quota"].outstanding) == (before, 0)


def test_three_attempts_in_all():
    verdicts = [ask(UNAVAILABLE, attempts_made=made) for made in (1, 2, 3)]
    assert [isinstance(verdict, RetryAt) for verdict in verdicts] == [True, True, False]


def test_one_attempt_is_no_retry():
    verdict = ask(UNAVAILABLE, settings=RetrySettings(attempts=1))
    assert verdict == GiveUp(Reason.ATTEMPTS_SPENT)


# Retry-After.


@pytest.mark.parametrize(
    ("random_ratio", "wait_s"), [(0.0, 8.0), (0.5, 9.0), (math.nextafter(1, 0), 10.0)]
)
def test_a_hint_is_a_floor_with_up_to_a_quarter_of_jitter(random_ratio: float, wait_s: float):
    hinted = attrs.evolve(UNAVAILABLE, retry_after_s=8.0)
    verdict = ask(hinted, random_ratio=random_ratio)
    assert isinstance(verdict, RetryAt)
    assert verdict.wait_s == pytest.approx(wait_s)


def test_a_backoff_that_is_longer_than_the_hint_stays():
    verdict = ask(attrs.evolve(THROTTLED, retry_after_s=0.1))
    assert isinstance(verdict, RetryAt)
    assert verdict.wait_s == 0.5


@pytest.mark.parametrize(
    ("hint_s", "expires_in_s", "reason"),
    [
        (30.0, 30.0, Reason.PAST_DEADLINE),
        (31.0, 30.0, Reason.PAST_DEADLINE),
        (120.1, 1000.0, Reason.RETRY_AFTER_TOO_LONG),
        (1e9, 30.0, Reason.RETRY_AFTER_TOO_LONG),
    ],
)
def test_a_hint_past_the_deadline_or_two_minutes_ends_the_call_now(hint_s, expires_in_s, reason):
    quota = full()
    hinted = attrs.evolve(UNAVAILABLE, retry_after_s=hint_s)
    verdict = ask(hinted, quota=quota, expires_at_s=NOW_S + expires_in_s)
    assert verdict == GiveUp(reason, hint_s), "the caller is told what the answer asked for"
    assert quota.tokens == 500


def test_two_minutes_exactly_are_waited_where_there_is_time():
    hinted = attrs.evolve(UNAVAILABLE, retry_after_s=120.0)
    assert isinstance(ask(hinted, expires_at_s=NOW_S + 200), RetryAt)


def test_the_rest_of_the_credential_is_a_floor_too():
    """Who asked earlier would be refused by our own cooldown."""
    verdict = ask(THROTTLED, rest_s=8.0)
    assert isinstance(verdict, RetryAt)
    assert verdict.wait_s == 9.0
    hinted = attrs.evolve(THROTTLED, retry_after_s=4.0)
    verdict = ask(hinted, rest_s=8.0)
    assert isinstance(verdict, RetryAt)
    assert verdict.wait_s == 9.0
    verdict = ask(hinted, rest_s=1.0)
    assert isinstance(verdict, RetryAt)
    assert verdict.wait_s == 4.5


@pytest.mark.parametrize(
    ("rest_s", "expires_in_s", "reason"),
    [(30.0, 30.0, Reason.PAST_DEADLINE), (150.1, 1000.0, Reason.RETRY_AFTER_TOO_LONG)],
)
def test_a_rest_that_is_too_long_ends_the_call_now(rest_s, expires_in_s, reason):
    limits = {"rest_s": rest_s, "expires_at_s": NOW_S + expires_in_s}
    assert ask(UNAVAILABLE, **limits) == GiveUp(reason, rest_s)
    hinted = attrs.evolve(UNAVAILABLE, retry_after_s=7.0)
    assert ask(hinted, **limits) == GiveUp(reason, 7.0), "the answer's own word goes first"


def test_two_minutes_and_their_jitter_are_waited_where_there_is_time():
    hinted = attrs.evolve(THROTTLED, retry_after_s=120.0)
    assert isinstance(ask(hinted, rest_s=150.0, expires_at_s=NOW_S + 200), RetryAt)


@given(
    hint_s=st.none() | st.floats(1e-6, 200),
    left_s=st.floats(-1, 300),
    random_ratio=st.floats(0, 1, exclude_max=True),
    made=st.integers(1, 3),
    result=st.sampled_from([UNAVAILABLE, THROTTLED, AttemptResult(fault=Fault.RESET)]),
)
def test_a_retry_is_after_the_floor_and_before_the_deadline(
    hint_s: float | None, left_s: float, random_ratio: float, made: int, result: AttemptResult
):
    verdict = ask(
        attrs.evolve(result, retry_after_s=hint_s),
        expires_at_s=NOW_S + left_s,
        random_ratio=random_ratio,
        attempts_made=made,
    )
    if isinstance(verdict, RetryAt):
        assert NOW_S <= verdict.at_s < NOW_S + left_s
        assert verdict.wait_s >= (hint_s or 0)
    elif verdict.reason is Reason.PAST_DEADLINE:
        assert left_s <= max(hint_s or 0, 20.0) + 1e-6


@given(st.floats(0.1, 100), st.floats(0, 1, exclude_max=True))
def test_chance_alone_never_misses_a_deadline_that_the_floor_meets(
    hint_s: float, random_ratio: float
):
    hinted = AttemptResult(status=503, retry_after_s=hint_s)
    settings = attrs.evolve(
        SETTINGS, backoff=attrs.evolve(SETTINGS.backoff, base_s=1e-6, cap_s=1e-6)
    )
    verdict = ask(
        hinted, settings=settings, expires_at_s=NOW_S + hint_s + 0.01, random_ratio=random_ratio
    )
    assert isinstance(verdict, RetryAt)


# The quota's mode and the settling.


@pytest.mark.parametrize(
    ("mode", "tokens", "cost", "counts"),
    [
        (Mode.OBSERVE, 500, 14, (1, 0, 0)),
        (Mode.OBSERVE, 13, 0, (0, 0, 1)),
        (Mode.OFF, 500, 0, (0, 0, 0)),
        (Mode.OFF, 13, 0, (0, 0, 0)),
    ],
)
def test_a_quota_that_only_observes_refuses_nothing_and_one_that_is_off_charges_nothing(
    mode: Mode, tokens: int, cost: int, counts: tuple[int, int, int]
):
    quota, gate = full(tokens), Gate(mode)
    verdict = ask(UNAVAILABLE, quota=quota, gate=gate)
    assert isinstance(verdict, RetryAt)
    assert verdict.cost_tokens == cost
    assert quota.tokens == tokens - cost
    assert (gate.passed, gate.applied, gate.observed) == counts
    settle(quota, verdict, None, NOW_S)
    assert (quota.tokens, quota.outstanding) == (tokens, 0)


@pytest.mark.parametrize(
    ("result", "refunded"),
    [
        (AttemptResult(status=200), True),
        (None, True),  # never made
        (UNAVAILABLE, False),
        (AttemptResult(status=404), False),
        (AttemptResult(fault=Fault.RESET, reached=Reached.UNKNOWN), False),
    ],
)
def test_a_retry_that_succeeds_or_is_never_made_gets_its_cost_back(result, refunded):
    quota = full()
    verdict = ask(UNAVAILABLE, quota=quota)
    settle(quota, verdict, None if result is None else meaning_of(result), NOW_S)
    assert quota.outstanding == 0
    assert quota.tokens == (500 if refunded else 486)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("attempts", 0), ("retry_after_max_s", 0.0), ("retry_after_jitter_ratio", math.nan)],
)
def test_settings_that_make_no_sense_are_refused_by_name(name: str, bad: float):
    with pytest.raises(ValueError, match=name):
        RetrySettings(**{name: bad})
