"""Invariants of retries: not before their time, not longer after it, and within the purse."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

import attrs

from tools.simulate._records import Attempt, CallRecord
from tools.simulate._world import EPSILON_S, World
from vastar_client.wire import ErrorClass, ExecuteResponse
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.retry_quota import QuotaSettings

__all__ = [
    "Purse",
    "a_backoff_that_cannot_fit_is_not_begun",
    "a_hint_is_a_floor",
    "backoff_is_of_its_own_answer",
    "no_attempt_outlives_its_limit",
    "retries_stay_within_the_quota",
]

_TOO_MANY: Final = 429
_ERRORS_FROM: Final = 400
_KEPT_S: Final = 0.02
"""So much longer the runtime may wait for the rest of an error's body."""


def before(attempt: Attempt) -> Attempt | None:
    """The attempt that this one follows, at the same hop."""
    same = [other for other in attempt.call.attempts if other.hop == attempt.hop]
    at = same.index(attempt)
    return same[at - 1] if at else None


def asked_s(attempt: Attempt) -> float | None:
    """What its answer asked for."""
    if not attempt.exchanges or attempt.status < _ERRORS_FROM:
        return None
    return attempt.exchanges[-1].asks_s


def a_hint_is_a_floor(world: World) -> Iterator[str]:
    """Rule 4: no attempt comes before the Retry-After of the answer that it follows."""
    for attempt in world.records.new_attempts:
        earlier = before(attempt)
        if earlier is None or not world.is_current(attempt.call) or world.is_hedged(attempt.key):
            continue
        hint_s = asked_s(earlier)
        if hint_s is None:
            continue
        headed_at_s = earlier.exchanges[-1].headed_at_s
        assert headed_at_s is not None, "an answer that asks has a head"
        if attempt.let_through_s < headed_at_s + hint_s - EPSILON_S:
            yield (
                f"attempt {attempt.number} went out at {attempt.let_through_s}, and the answer at "
                f"{headed_at_s} before it asked for {hint_s} s"
            )


def backoff_is_of_its_own_answer(world: World) -> Iterator[str]:
    """Rule 4: all waits together are no longer than each answer's own hint, or its backoff, allows.

    So a hint that were used for a later attempt again would show. The rest of the credential after
    a 429 is a policy of its own, which other calls may lengthen: its time is allowed beside.
    """
    for call, answer in world.records.new_answers:
        if not world.is_current(call):
            continue
        longest_s = 0.0
        for attempt, nth, next_at_s in _numbered(call, world.now_s):
            settings = world.policies(attempt.key).retry
            ended_at_s = attempt.began_at_s if attempt.ended_at_s is None else attempt.ended_at_s
            spread_ratio = 1 + settings.retry_after_jitter_ratio
            rested_s = (_rests_until_s(world, attempt) - ended_at_s) * spread_ratio
            rested_s = min(rested_s, next_at_s - ended_at_s)
            longest_s += max(_longest_s(settings, attempt, nth), rested_s)
        if answer.backoff_us > longest_s * 1e6 + len(call.attempts):
            yield f"call {call.number} backed off {answer.backoff_us} us of at most {longest_s} s"


def _rests_until_s(world: World, attempt: Attempt) -> float:
    credential = world.machines.credentials.peek(Key(*attempt.key))
    return 0.0 if credential is None else credential.cooldown.rests_until_s


def _numbered(call: CallRecord, now_s: float) -> Iterator[tuple[Attempt, int, float]]:
    """Each attempt with its number at its hop, from 1, and when the next one went out."""
    counts: dict[int, int] = {}
    for attempt, following in zip_longest(call.attempts, call.attempts[1:]):
        counts[attempt.hop] = counts.get(attempt.hop, 0) + 1
        next_at_s = now_s if following is None else following.let_through_s
        yield attempt, counts[attempt.hop], next_at_s


def _longest_s(settings: RetrySettings, attempt: Attempt, nth: int) -> float:
    """The longest wait behind an attempt that its own end calls for."""
    backoff = settings.backoff
    base_s = backoff.throttled_base_s if attempt.status == _TOO_MANY else backoff.base_s
    longest_s = min(backoff.cap_s, base_s * 2.0 ** (nth - 1))
    hint_s = asked_s(attempt) or 0.0
    longest_s = max(longest_s, hint_s * (1 + settings.retry_after_jitter_ratio))
    return longest_s + (_KEPT_S if attempt.status >= _ERRORS_FROM else 0.0)


def a_backoff_that_cannot_fit_is_not_begun(world: World) -> Iterator[str]:
    """Rule 7: no deadline passes while a call waits to try again."""
    for call, answer in world.records.new_answers:
        if answer.error_class is ErrorClass.TIMEOUT and "to try again" in _said(answer):
            yield f"call {call.number}: {answer.error_message}"


def _said(answer: ExecuteResponse) -> str:
    return answer.error_message or ""


def no_attempt_outlives_its_limit(world: World) -> Iterator[str]:
    """An attempt has its head, or its end, within `attempt.timeout_s`."""
    for call in filter(world.is_current, world.records.live.values()):
        for attempt in call.attempts:
            limit_s = world.policies(attempt.key).attempt_timeout_s
            if limit_s is None or attempt.ended_at_s is not None:
                continue
            if world.now_s > attempt.began_at_s + limit_s + EPSILON_S:
                yield f"attempt {attempt.number} began at {attempt.began_at_s}, limit {limit_s} s"


@attrs.define(eq=False)
class Purse:
    """The most that a retry quota may hold, as if it could overflow without loss.

    Attributes:
        tokens: left.
        used_at_s: when it was last drawn on or filled.
        costs: what each retry was charged, by attempt.
    """

    tokens: float
    used_at_s: float = float("-inf")
    costs: dict[int, int] = attrs.field(factory=dict)

    def use(self, settings: QuotaSettings, now_s: float) -> None:
        """It is full again after a long rest."""
        if now_s - self.used_at_s >= settings.forget_after_s:
            self.tokens = max(self.tokens, settings.most_tokens)
        self.used_at_s = now_s


def retries_stay_within_the_quota(world: World) -> Iterator[str]:
    """Rule 5: what all retries of a tenant at an origin cost was in the purse, or was earned."""
    new = [
        (attempt, _purse(world, attempt), _cost(world, attempt))
        for attempt in world.records.new_attempts
    ]
    for attempt, purse, cost in new:
        purse.costs[attempt.number] = cost
    for attempt in filter(_is_clean, world.records.ended_attempts):
        purse = _purse(world, attempt)
        # A retry that went well gives back what it cost, another call earns.
        earned = world.policies(attempt.key).retry_quota.earned_per_success
        purse.tokens += purse.costs.get(attempt.number) or earned
    for attempt, purse, cost in new:
        if cost > purse.tokens:
            yield f"attempt {attempt.number} cost {cost} of {purse.tokens} tokens"
        purse.tokens -= cost


def _purse(world: World, attempt: Attempt) -> Purse:
    """The purse that an attempt of now draws on."""
    tenant, _, origin = attempt.key
    settings = world.policies(attempt.key).retry_quota
    purse = world.purses.setdefault((tenant, origin), Purse(settings.most_tokens))
    purse.use(settings, world.now_s)
    return purse


def _cost(world: World, attempt: Attempt) -> int:
    """What it was charged; 0 for a first attempt, or where nothing is."""
    earlier, policies = before(attempt), world.policies(attempt.key)
    if earlier is None or not _counts(policies) or not world.is_current(attempt.call):
        return 0
    settings = policies.retry_quota
    return settings.throttled_cost if earlier.status == _TOO_MANY else settings.transient_cost


def _counts(policies: CallPolicies) -> bool:
    return policies.retry_quota.mode is Mode.ENFORCE and policies.hedging.mode is Mode.OFF


def _is_clean(attempt: Attempt) -> bool:
    return 0 < attempt.status < _ERRORS_FROM
