"""What holds for a call, as one value; and the gates of all modes."""

import attrs
import pytest

from vastar_runtime.pipeline.policies import (
    NO_LIMITS,
    POLICIES,
    CallPolicies,
    Gates,
    LimitSettings,
)
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings

REQUESTS = LimitSettings(RateLimitSettings(10))
TOKENS = LimitSettings(tokens=TokenLimitSettings.per_minute(1000))
VOLUME = LimitSettings(volume=RateLimitSettings(1000))
LEVELS = ("limits", "workspace_limits", "tenant_limits", "origin_limits")


def test_the_defaults_are_those_of_the_table():
    policies = CallPolicies()
    concurrency = policies.admission.concurrency
    assert (
        concurrency.max_in_runtime,
        concurrency.max_per_tenant,
        concurrency.max_per_origin,
        policies.admission.max_waiting_per_tenant,
    ) == (1000, 500, 256, 1000)
    assert (policies.retry.attempts, policies.retry.retry_after_max_s) == (3, 120)
    quota = policies.retry_quota
    assert (
        quota.most_tokens,
        quota.transient_cost,
        quota.throttled_cost,
        quota.earned_per_success,
    ) == (500, 14, 5, 1)
    breaker = policies.breaker
    assert (breaker.window_s, breaker.buckets, breaker.failure_ratio, breaker.min_calls) == (
        30,
        10,
        0.5,
        20,
    )
    assert (breaker.no_answer_run, breaker.open_s, breaker.open_max_s) == (5, 5, 300)
    assert (breaker.probes, breaker.probe_lease_s, breaker.slow_call_s) == (1, 30, None)
    assert (policies.attempt_timeout_s, policies.all_limits()) == (None, (NO_LIMITS,) * 4)


def test_all_is_enforced_by_default_but_what_makes_load():
    policies = CallPolicies()
    of = ("admission", "retry", "retry_quota", "header_learning", "cooldown", "breaker")
    assert {getattr(policies, name).mode for name in of} == {Mode.ENFORCE}
    assert policies.hedging.mode is Mode.OFF


@pytest.mark.parametrize("level", LEVELS)
def test_a_limit_of_any_level_is_known_of(level):
    assert (CallPolicies().has_limits, CallPolicies().has_token_limits) == (False, False)
    assert not CallPolicies().has_byte_limits
    for limits in (REQUESTS, TOKENS, VOLUME):
        policies = CallPolicies(**{level: limits})
        assert policies.has_limits
        assert policies.has_token_limits is (limits is TOKENS)
        assert policies.has_byte_limits is (limits is VOLUME)
        assert policies.all_limits()[LEVELS.index(level)] is limits


def test_a_changed_copy_knows_of_its_own():
    policies = attrs.evolve(CallPolicies(limits=TOKENS), limits=NO_LIMITS)
    assert (policies.has_limits, policies.has_token_limits) == (False, False)


def test_a_gate_for_each_policy_and_mode():
    gates = Gates()
    for policy in POLICIES:
        for mode in Mode:
            gate = gates.of(policy, mode)
            assert gate.mode is mode
            assert gates.of(policy, mode) is gate
            gate.apply("no")
    everything = [*gates]
    assert len(everything) == len(POLICIES) * len(Mode)
    assert len({id(gate) for _, gate in everything}) == len(everything)
    for policy, gate in everything:
        assert gates.of(policy, gate.mode) is gate
    assert sum(gate.applied for _, gate in everything) == len(POLICIES)
    assert sum(gate.observed for _, gate in everything) == len(POLICIES)


def test_a_policy_without_a_name_has_none():
    for mode in Mode:
        with pytest.raises(KeyError):
            Gates().of("luck", mode)
