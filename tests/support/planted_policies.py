"""Bugs in the policies and their drivers, to be planted."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from tests.support.planted_bug import Bug, Plant, around
from vastar_runtime.pipeline import Surroundings, connecting
from vastar_runtime.policy import classify, cooldown, retry
from vastar_runtime.policy.breaker import Breaker, Evidence, Permit, State
from vastar_runtime.policy.fair_queue import FairQueue
from vastar_runtime.policy.modes import Gate, Mode
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter
from vastar_runtime.policy.retry_quota import RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter
from vastar_runtime.policy.verdicts import Refused

__all__ = ["POLICY_BUGS"]


def _breaker_keeps_permits(report: Any) -> Any:
    def patched(self: Breaker, permit: Permit, evidence: Evidence, *rest: Any) -> Any:
        if evidence is Evidence.NONE:
            return None  # "nothing was learned", and nothing is given back either
        return report(self, permit, evidence, *rest)

    return patched


def _open_circuits_let_through(admit: Any) -> Any:
    def patched(self: Breaker, now_s: float) -> Any:
        if self.state is State.OPEN:
            self.in_flight += 1
            return Permit(-1)
        return admit(self, now_s)

    return patched


def _everybody_probes(admit: Any) -> Any:
    def patched(self: Breaker, now_s: float) -> Any:
        verdict = admit(self, now_s)
        if isinstance(verdict, Refused) and self.state is State.HALF_OPEN:
            self.in_flight += 1
            return Permit(self.generation, 10**9)
        return verdict

    return patched


def _probes_never_close(judge: Any) -> Any:
    def patched(self: Breaker, lease: int, evidence: Evidence, *rest: Any) -> Any:
        good = {Evidence.SUCCESS, Evidence.ANSWERED}
        return judge(self, lease, Evidence.FAILURE if evidence in good else evidence, *rest)

    return patched


def _decide_with(**fields: Any) -> Plant:
    """Retry decides by other facts than those that hold."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = retry.decide
        patch.setattr(retry, "decide", lambda *args, **given: real(*args, **{**given, **fields}))

    return plant


def _hints_are_not_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(connecting, "_retry_after_s", lambda *_: None)


def _hints_are_used_again(patch: pytest.MonkeyPatch) -> None:
    """As in litellm #20722: the hint of one answer holds for the next ones, too."""
    real = connecting._retry_after_s
    last: list[float | None] = [None]

    def patched(*args: Any) -> float | None:
        asked_s = real(*args)
        last[0] = asked_s if asked_s is not None else last[0]
        return last[0]

    patch.setattr(connecting, "_retry_after_s", patched)


def _unsafe_methods_are_repeated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(classify, "IDEMPOTENT_METHODS", classify.IDEMPOTENT_METHODS | {"POST", "PATCH"})


def _limits_charge_nothing(decide: Any) -> Any:
    """Checked, and charged only some time later."""

    def patched(self: RateLimiter, now_s: float, cost: int = 1, *rest: Any) -> Any:
        verdict = decide(self, now_s, cost, *rest)
        if isinstance(verdict, Allowed):
            self.refund(now_s, verdict)
        return verdict

    return patched


def _tokens_cost_nothing(_: Any) -> Any:
    def patched(self: TokenLimiter, now_s: float, permit: Allowed, *rest: Any, **more: Any) -> Any:
        self.refund(now_s, permit)

    return patched


def _claims_are_put_off(patch: pytest.MonkeyPatch) -> None:
    """The line of a limiter turns round and round at one instant."""

    async def wait(self: Any, waiting: Any) -> Any:
        del self, waiting
        while True:
            await trio.lowlevel.checkpoint()

    patch.setattr("vastar_runtime.pipeline.pacing.Pacer.wait", wait)


def _reserve_for_nothing(reserve: Any) -> Any:
    def patched(self: RetryQuota, now_s: float, **how: Any) -> Any:
        tokens, cost = self.tokens, reserve(self, now_s, **how)
        self.tokens = tokens
        return cost

    return patched


def _the_first_tenant_first(push: Any) -> Any:
    def patched(self: Any, path: Any, item: Any, **how: Any) -> Any:
        return push(self, path, item, **{**how, "tenant_weight": 50 if path[0] == "acme" else 1})

    return patched


def _observers_refuse(apply: Any) -> Any:
    def patched(self: Gate, verdict: Any) -> Any:
        apply(self, verdict)
        return verdict if self.mode is not Mode.OFF else None

    return patched


def _wakes_are_lost(wake: Any) -> Any:
    def patched(self: Surroundings, woken: Any) -> None:
        for queued in [*woken][:-1]:
            wake(self, [queued])

    return patched


def _rests_are_short(_: Any) -> Any:
    return lambda self, random_ratio, retry_after_s: 0.001


POLICY_BUGS: Mapping[str, Bug] = {
    "a breaker's permit is not given back": Bug(
        around(Breaker, "report", _breaker_keeps_permits), ("nothing_is_held_for_nobody",)
    ),
    "an open circuit lets through": Bug(
        around(Breaker, "admit", _open_circuits_let_through), ("circuits_hold",)
    ),
    "everybody is a probe": Bug(around(Breaker, "admit", _everybody_probes), ("circuits_hold",)),
    "a circuit never closes": Bug(
        around(Breaker, "_judge_probe", _probes_never_close), ("recovers",)
    ),
    "retries ignore the deadline": Bug(
        _decide_with(expires_at_s=math.inf), ("a_backoff_that_cannot_fit_is_not_begun",)
    ),
    "retries have no end": Bug(
        _decide_with(attempts_made=1), ("no_more_attempts_than_configured",)
    ),
    "a hint is not read": Bug(
        _hints_are_not_read, ("a_hint_is_a_floor", "a_resting_credential_is_left_alone")
    ),
    "a hint is used again": Bug(_hints_are_used_again, ("backoff_is_of_its_own_answer",)),
    "a credential does not rest": Bug(
        around(cooldown.Cooldown, "_rest_s", _rests_are_short),
        ("a_resting_credential_is_left_alone",),
    ),
    "what may not be repeated is": Bug(
        _unsafe_methods_are_repeated, ("what_may_not_be_repeated_is_not",)
    ),
    "a limit checks and does not charge": Bug(
        around(RateLimiter, "decide", _limits_charge_nothing),
        ("calls_keep_to_their_rates", "tokens_keep_to_their_rates"),
    ),
    "tokens cost nothing": Bug(
        around(TokenLimiter, "settle_answer", _tokens_cost_nothing),
        ("tokens_keep_to_their_rates",),
    ),
    "a line never rests": Bug(_claims_are_put_off, ("comes_to_rest",)),
    "retries are free": Bug(
        around(RetryQuota, "reserve", _reserve_for_nothing), ("retries_stay_within_the_quota",)
    ),
    "one tenant goes first": Bug(
        around(FairQueue, "push", _the_first_tenant_first), ("tenants_take_turns",)
    ),
    "observers refuse": Bug(
        around(Gate, "apply", _observers_refuse), ("only_what_is_enforced_refuses",)
    ),
    "a wake-up is lost": Bug(
        around(Surroundings, "wake", _wakes_are_lost), ("nobody_waits_whose_turn_has_come",)
    ),
}
