"""The rules that other systems broke, each under its name, for the policies that decide on calls.

Rule 8 (the upstream is let go when the caller goes) is for drivers; so are the parts of 6 and 7
that speak of limits and of queues.
"""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.breaker import Breaker, BreakerSettings, Evidence, Permit, State
from vastar_runtime.policy.classify import AttemptResult, Fault, classify
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.modes import Gate
from vastar_runtime.policy.retry import GiveUp, Reason, RetryAt, RetrySettings, decide, settle
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota
from vastar_runtime.policy.verdicts import Refused, Scope

SETTINGS = RetrySettings()
EAGER = BreakerSettings(no_answer_run=1)


def let(breaker: Breaker, now_s: float) -> Permit:
    permit = breaker.admit(now_s)
    assert isinstance(permit, Permit)
    return permit


def open_circuit(settings: BreakerSettings = EAGER) -> Breaker:
    breaker = Breaker(settings)
    breaker.report(let(breaker, 0.0), Evidence.NO_ANSWER, 0.0, 0.5)
    assert breaker.state is State.OPEN
    return breaker


def decide_on(
    result: AttemptResult,
    quota: RetryQuota,
    *,
    now_s: float = 0.0,
    made: int = 1,
    left_s: float = 1e6,
    random_ratio: float = 0.5,
) -> RetryAt | GiveUp:
    return decide(
        SETTINGS,
        result,
        classify("GET", result, has_idempotency_key=False),
        quota,
        Gate(),
        now_s=now_s,
        attempts_made=made,
        expires_at_s=now_s + left_s,
        is_committed=False,
        random_ratio=random_ratio,
    )


@pytest.mark.parametrize("evidence", Evidence)
def test_rule_1_a_result_of_an_earlier_state_changes_nothing(evidence: Evidence):
    breaker = Breaker(EAGER)
    late = [let(breaker, 0.0) for _ in range(3)]
    breaker.report(let(breaker, 0.0), Evidence.NO_ANSWER, 0.0, 0.5)
    assert breaker.report(late[0], evidence, 1.0, 0.5) is None
    assert breaker.state is State.OPEN
    probe = let(breaker, 5.0)
    assert breaker.report(late[1], evidence, 5.0, 0.5) is None
    assert breaker.state is State.HALF_OPEN
    assert isinstance(breaker.admit(5.0), Refused), "a late result frees nobody's lease"
    breaker.report(probe, Evidence.SUCCESS, 5.0, 0.5)
    assert breaker.report(late[2], evidence, 5.0, 0.5) is None
    assert breaker.state is State.CLOSED
    assert breaker.totals(5.0) == (0, 0)


def test_rule_2_a_probe_that_never_reports_cannot_jam_the_breaker():
    breaker = open_circuit()
    for nth in range(100):
        now_s = 5.0 + nth * 30.0
        assert let(breaker, now_s).is_probe
        assert isinstance(breaker.admit(now_s + 29.9), Refused)
    last = let(breaker, 5.0 + 100 * 30.0)
    breaker.report(last, Evidence.SUCCESS, 3010.0, 0.5)
    assert breaker.state is State.CLOSED


@given(st.lists(st.tuples(st.sampled_from(list(Evidence)), st.floats(0, 400)), max_size=40))
def test_rule_3_the_gauge_changes_with_the_transition_itself(steps: list[tuple[Evidence, float]]):
    breaker, now_s, gauge = Breaker(EAGER), 0.0, State.CLOSED
    for evidence, by_s in steps:
        now_s += by_s
        admission = breaker.admit(now_s)
        changed = [admission.transition] if isinstance(admission, Permit) else []
        if isinstance(admission, Permit):
            assert breaker.state is (admission.transition.after if admission.transition else gauge)
            changed.append(breaker.report(admission, evidence, now_s, 0.5))
        for transition in filter(None, changed):
            assert transition.before is gauge, "a gauge fed by transitions missed one"
            gauge = transition.after
        assert gauge is breaker.state


def test_rule_3_a_refusal_is_never_reported_as_success():
    for reached_nothing in (Fault.LOCAL_REFUSAL, Fault.CANCELLED, Fault.CALLER_LIMIT):
        meaning = classify("GET", AttemptResult(fault=reached_nothing), has_idempotency_key=False)
        assert (meaning.host, meaning.tenant) == (Evidence.NONE, Evidence.NONE)
        assert not meaning.is_clean
    breaker = open_circuit()
    probe = let(breaker, 5.0)
    assert breaker.report(probe, Evidence.NONE, 5.0, 0.5) is None
    assert breaker.state is State.HALF_OPEN, "a probe that was refused elsewhere closes nothing"
    assert let(breaker, 5.0).is_probe, "and has given its permit back"


def test_rule_4_a_retry_after_is_used_once_for_the_answer_that_carried_it():
    quota = RetryQuota(QuotaSettings())
    hinted = decide_on(AttemptResult(503, retry_after_s=20.0), quota)
    plain = decide_on(AttemptResult(503), quota, made=2)
    assert isinstance(hinted, RetryAt)
    assert isinstance(plain, RetryAt)
    assert hinted.wait_s >= 20.0
    assert plain.wait_s <= 0.1
    cooldown = Cooldown(CooldownSettings())
    for now_s, hint_s, at_most_s in ((0.0, 100.0, 125.0), (200.0, None, 20.0)):
        round_ = cooldown.admit(now_s)
        assert isinstance(round_, int)
        result = AttemptResult(429, retry_after_s=hint_s)
        meaning = classify("GET", result, has_idempotency_key=False)
        cooldown.report(round_, meaning, now_s, 0.5, hint_s)
        refused = cooldown.admit(now_s)
        assert isinstance(refused, Refused)
        assert refused.retry_after_s is not None
        assert refused.retry_after_s <= at_most_s


@given(st.integers(1, 300), st.sampled_from([503, 429]), st.randoms(use_true_random=False))
def test_rule_5_retry_never_multiplies_load(calls: int, status: int, random: object):
    """With every upstream down: whatever the order, attempts stay within the quota's bound."""
    quota = RetryQuota(QuotaSettings())
    result = AttemptResult(status)
    meaning = classify("GET", result, has_idempotency_key=False)
    attempts, under_way = 0, [(1, None)] * calls
    while under_way:
        made, retry = under_way.pop(random.randrange(len(under_way)))  # type: ignore[attr-defined]
        attempts += 1
        if retry is not None:
            settle(quota, retry, meaning, 0.0)
        verdict = decide_on(result, quota, made=made)
        if isinstance(verdict, RetryAt):
            under_way.append((made + 1, verdict))
    assert attempts - calls <= 500 // (5 if status == 429 else 14)
    assert attempts <= 3 * calls
    assert quota.outstanding == 0


def test_rule_6_five_concurrent_calls_never_spend_more_than_there_is():
    quota = RetryQuota(QuotaSettings(most_tokens=30))
    verdicts = [decide_on(AttemptResult(503), quota) for _ in range(5)]
    retried = [verdict for verdict in verdicts if isinstance(verdict, RetryAt)]
    assert len(retried) == 2
    assert sum(verdict.cost_tokens for verdict in retried) + quota.tokens == 30


@pytest.mark.parametrize(
    ("result", "changes"),
    [
        (AttemptResult(404), {}),
        (AttemptResult(503), {"made": 3}),
        (AttemptResult(503), {"left_s": 0.01}),
        (AttemptResult(503, retry_after_s=121.0), {}),
    ],
)
def test_rule_6_a_call_refused_for_another_reason_costs_nothing(result, changes):
    quota = RetryQuota(QuotaSettings())
    assert isinstance(decide_on(result, quota, **changes), GiveUp)
    assert (quota.tokens, quota.outstanding) == (500, 0)


def test_rule_6_a_retry_that_a_breaker_refuses_costs_nothing():
    quota, breaker = RetryQuota(QuotaSettings()), open_circuit()
    retry = decide_on(AttemptResult(503), quota)
    assert isinstance(retry, RetryAt)
    assert isinstance(breaker.admit(retry.at_s), Refused)
    settle(quota, retry, None, retry.at_s)
    assert (quota.tokens, quota.outstanding) == (500, 0)


@given(
    left_s=st.floats(0, 30),
    random_ratio=st.floats(0, 1, exclude_max=True),
    hint_s=st.none() | st.floats(0.001, 60),
    status=st.sampled_from([503, 429]),
)
def test_rule_7_a_backoff_that_cannot_fit_is_not_begun(left_s, random_ratio, hint_s, status):
    verdict = decide_on(
        AttemptResult(status, retry_after_s=hint_s),
        RetryQuota(QuotaSettings()),
        left_s=left_s,
        random_ratio=random_ratio,
    )
    if isinstance(verdict, RetryAt):
        assert verdict.at_s < left_s
    else:
        assert verdict.reason is Reason.PAST_DEADLINE


def test_rule_9_every_refusal_carries_who_and_for_how_long():
    tenant = Breaker(EAGER, Scope.TENANT)
    tenant.report(let(tenant, 0.0), Evidence.NO_ANSWER, 0.0, 0.5)
    cooldown = Cooldown(CooldownSettings())
    meaning = classify("GET", AttemptResult(429), has_idempotency_key=False)
    round_ = cooldown.admit(0.0)
    assert isinstance(round_, int)
    cooldown.report(round_, meaning, 0.0, 0.5, None)
    refusals = [open_circuit().admit(0.0), tenant.admit(0.0), cooldown.admit(0.0)]
    told = [(r.policy, r.scope) for r in refusals if isinstance(r, Refused)]
    assert told == [
        ("circuit_breaker", Scope.ORIGIN),
        ("circuit_breaker", Scope.TENANT),
        ("cooldown", Scope.CREDENTIAL),
    ]
    for refused in refusals:
        assert isinstance(refused, Refused)
        assert refused.retry_after_s is not None
        assert refused.retry_after_s > 0
        assert refused.reason


def test_a_tenant_cannot_shut_a_host_for_the_others():
    """Whatever answers its requests get, and however long they take."""
    host = Breaker(attrs.evolve(EAGER, min_calls=1))
    results = [
        *(AttemptResult(status) for status in (400, 401, 404, 429, 500, 502, 503, 504)),
        *(AttemptResult(fault=fault) for fault in (Fault.ATTEMPT_TIMEOUT, Fault.GARBLED)),
        AttemptResult(fault=Fault.UNTRUSTED),
    ]
    for result in results * 20:
        meaning = classify("GET", result, has_idempotency_key=False)
        assert host.report(let(host, 0.0), meaning.host, 0.0, 0.5) is None
