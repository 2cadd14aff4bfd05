"""Whether and when to try again: one decision after each attempt, and nothing remembered between.

`decide` looks at the questions in the order of their price: what the result means, then what is
left of the attempts, then of the time, and last the quota, which is charged in the same step. So
a retry that is refused for another reason costs nothing (litellm #39309). The state of a call is
the number of its attempts and its deadline, which its driver has anyway; the one machine behind it
is the quota that the calls share. `RetryAt` is a reservation: the driver waits, and settles it
with `settle`, also when the retry is never made (cancelled in its backoff, refused by a breaker).
"""

from enum import Enum
from typing import Final, TypeAlias

import attrs
from attrs.validators import ge, gt

from vastar_runtime.policy.backoff import BackoffSettings, backoff_s
from vastar_runtime.policy.classify import AttemptResult, Meaning, Retry
from vastar_runtime.policy.modes import Gate, Mode
from vastar_runtime.policy.retry_quota import RetryQuota

__all__ = ["GiveUp", "Reason", "RetryAt", "RetrySettings", "Verdict", "decide", "settle"]


_USABLE_RATIO: Final = 0.99
"""Of the time left; all of it would reach the deadline itself by rounding."""


class Reason(Enum):
    """Why there is no further attempt; the value is how metrics name it."""

    NOT_RETRYABLE = "not_retryable"
    COMMITTED = "committed"
    """A byte of the response has gone to the caller."""
    ATTEMPTS_SPENT = "attempts_spent"
    RETRY_AFTER_TOO_LONG = "retry_after_too_long"
    PAST_DEADLINE = "past_deadline"
    """The wait would not end before the deadline, so it is not begun."""
    QUOTA_SPENT = "quota_spent"


@attrs.frozen
class RetrySettings:
    """How often, and how patiently.

    Attributes:
        attempts: in all, the first one included.
        retry_after_max_s: an answer that asks for longer ends the call at once.
        retry_after_jitter_ratio: up to this share is added to what an answer asks for.
    """

    mode: Mode = Mode.ENFORCE
    attempts: int = attrs.field(default=3, validator=ge(1))
    backoff: BackoffSettings = attrs.field(factory=BackoffSettings)
    retry_after_max_s: float = attrs.field(default=120.0, validator=gt(0))
    retry_after_jitter_ratio: float = attrs.field(default=0.25, validator=ge(0))


@attrs.frozen
class RetryAt:
    """Wait, then try again.

    Attributes:
        at_s: when, on the clock that `decide` was given.
        wait_s: how long that is.
        cost_tokens: what was charged to the quota for it.
    """

    at_s: float
    wait_s: float
    cost_tokens: int


@attrs.frozen
class GiveUp:
    """The result stands.

    Attributes:
        retry_after_s: when the caller may come back, as the answer itself said.
    """

    reason: Reason
    retry_after_s: float | None = None


Verdict: TypeAlias = RetryAt | GiveUp


def decide(
    settings: RetrySettings,
    result: AttemptResult,
    meaning: Meaning,
    quota: RetryQuota,
    quota_gate: Gate,
    *,
    now_s: float,
    attempts_made: int,
    expires_at_s: float,
    is_committed: bool,
    random_ratio: float,
    rest_s: float = 0.0,
) -> Verdict:
    """Whether to try again after `result`.

    Args:
        settings: of the origin.
        result: of the attempt that has just ended; its Retry-After is used here and nowhere else.
        meaning: what `classify` makes of it.
        quota: of the (tenant, origin); charged where the verdict is to try again.
        quota_gate: how far the quota's refusals reach.
        now_s: a monotonic clock.
        attempts_made: this one included.
        expires_at_s: the call's deadline on that clock.
        is_committed: a byte of a response went to the caller.
        random_ratio: uniform over [0, 1).
        rest_s: so long the credential rests after a 429, its own or another call's: who asked
            earlier would be refused by ourselves.
    """
    hint_s = result.retry_after_s
    if meaning.retry is Retry.NEVER:
        return GiveUp(Reason.NOT_RETRYABLE, hint_s)
    if is_committed:
        return GiveUp(Reason.COMMITTED, hint_s)
    if attempts_made >= settings.attempts:
        return GiveUp(Reason.ATTEMPTS_SPENT, hint_s)
    asked_s, hint_s = hint_s or 0.0, hint_s or rest_s or None
    longest_s = settings.retry_after_max_s
    # A rest that an answer asked for has its jitter on top of that.
    if asked_s > longest_s or rest_s > longest_s * (1 + settings.retry_after_jitter_ratio):
        return GiveUp(Reason.RETRY_AFTER_TOO_LONG, hint_s)
    is_throttled = meaning.retry is Retry.THROTTLED
    wait_s = backoff_s(settings.backoff, attempts_made, random_ratio, is_throttled=is_throttled)
    floor_s = max(asked_s, rest_s)
    if floor_s:
        # What is left after the floor bounds the jitter: chance must not miss the deadline.
        left_s = max(0.0, expires_at_s - now_s - floor_s) * _USABLE_RATIO
        spread_s = min(settings.retry_after_jitter_ratio * floor_s, left_s)
        wait_s = max(wait_s, floor_s + spread_s * random_ratio)
    if now_s + wait_s >= expires_at_s:
        return GiveUp(Reason.PAST_DEADLINE, hint_s)
    cost = _charge(quota, quota_gate, now_s, is_throttled=is_throttled)
    if cost is None:
        return GiveUp(Reason.QUOTA_SPENT, hint_s)
    return RetryAt(now_s + wait_s, wait_s, cost)


def _charge(quota: RetryQuota, gate: Gate, now_s: float, *, is_throttled: bool) -> int | None:
    """The tokens that were charged; None where the quota refuses and its refusal counts."""
    if not gate.is_consulted:
        return quota.reserve_nothing(now_s)
    cost = quota.reserve(now_s, is_throttled=is_throttled)
    if gate.apply(Reason.QUOTA_SPENT if cost is None else None) is not None:
        return None
    return quota.reserve_nothing(now_s) if cost is None else cost


def settle(quota: RetryQuota, retry: RetryAt, meaning: Meaning | None, now_s: float) -> None:
    """Account for what became of a retry; exactly once for each.

    Args:
        quota: the one that `decide` charged.
        retry: its verdict.
        meaning: of the retry's own result; None where no attempt was made of it.
        now_s: the same clock.
    """
    if meaning is None or meaning.is_clean:
        quota.refund(retry.cost_tokens, now_s)
    else:
        quota.spend(now_s)
