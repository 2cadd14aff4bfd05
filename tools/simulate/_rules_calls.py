"""Invariants of calls: what a caller was told, when, and whether it is true."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tools.simulate._records import CallRecord, Exchange
from tools.simulate._world import EPSILON_S, World
from vastar_client.wire import Disposition, ErrorClass, ExecuteResponse
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Scope

__all__ = [
    "a_reply_is_of_its_own_call",
    "a_taken_back_call_ends_at_once",
    "draining_begins_nothing",
    "no_bug_shows",
    "no_call_outlives_its_deadline",
    "one_final_answer",
    "only_what_is_enforced_refuses",
    "refusals_say_who_and_when",
    "the_disposition_is_true",
    "times_add_up",
]

_SCOPES: Final = frozenset(scope.value for scope in Scope)
_LIMIT_SCOPES: Final = ("credential", "workspace", "tenant", "origin")
_SETTINGS: Final = {
    "bulkhead": "admission",
    "queue": "admission",
    "circuit_breaker": "breaker",
    "cooldown": "cooldown",
    "learned_limit": "header_learning",
    "retry_quota": "retry_quota",
}
_ROUNDING_US: Final = 3.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CLASS_OF_REFUSAL: Final = {
    "bulkhead": ErrorClass.TRANSIENT,
    "queue": ErrorClass.TRANSIENT,
    "drain": ErrorClass.TRANSIENT,
    "circuit_breaker": ErrorClass.TRANSIENT,
    "cooldown": ErrorClass.RATE_LIMITED,
    "learned_limit": ErrorClass.RATE_LIMITED,
    "rate_limit": ErrorClass.RATE_LIMITED,
    "token_limit": ErrorClass.RATE_LIMITED,
}
"""How each policy's refusal reads on the wire (PROTOCOL.md, section 4)."""


def one_final_answer(world: World) -> Iterator[str]:
    """No call is answered twice, and no connection is ended with calls unanswered."""
    yield from world.callers.surprises


def no_call_outlives_its_deadline(world: World) -> Iterator[str]:
    """Rule 7: at a call's deadline there is an answer."""
    now_s = world.now_s
    for call in world.records.live.values():
        if now_s > call.expires_at_s + EPSILON_S:
            yield f"call {call.number} had until {call.expires_at_s} and is not answered"


def a_taken_back_call_ends_at_once(world: World) -> Iterator[str]:
    """A cancelled call is answered at the moment of its Cancel."""
    for call in world.records.live.values():
        if call.left_at_s is not None:
            yield f"call {call.number} was cancelled at {call.left_at_s} and is not answered"


def a_reply_is_of_its_own_call(world: World) -> Iterator[str]:
    """What a caller reads as its answer is what an upstream said to that very call, whole."""
    for call, answer in world.records.new_answers:
        if answer.error_class is not ErrorClass.SUCCESS:
            if answer.payload is not None:
                yield f"call {call.number}: a failure with a payload: {answer}"
            continue
        fields: dict[str, Any] = msgspec.json.decode(bytes(answer.payload))  # type: ignore[arg-type]  # a success has one
        source = _source(call, fields)
        if source is None:
            yield f"call {call.number}: nobody sent this answer: {str(fields)[:200]}"


def _source(call: CallRecord, fields: dict[str, Any]) -> Exchange | None:
    """The exchange that the answer in `fields` comes from."""
    said = msgspec.json.decode(fields["body"]) if fields["body"] else None
    for exchange in call.exchanges:
        reaction = exchange.reaction
        if reaction is None or reaction.status != fields["status_code"]:
            continue
        if said is None or (said["exchange"] == exchange.number and said["call"] == call.number):
            return exchange
    return None


def the_disposition_is_true(world: World) -> Iterator[str]:
    """NOT_SENT: no upstream saw a byte of it; and so on for how far it got otherwise."""
    for call, answer in world.records.new_answers:
        reached = _reached(call, answer)
        if answer.disposition is not reached:
            yield f"call {call.number} says {answer.disposition.name}, but it was {reached.name}"


def _reached(call: CallRecord, answer: ExecuteResponse) -> Disposition:
    if answer.error_class is ErrorClass.SUCCESS:
        return Disposition.COMPLETED
    reached = Disposition.NOT_SENT
    for attempt in call.attempts:
        for exchange in attempt.exchanges:
            # A redirect that was followed is no end, however whole it came.
            was_followed = call.follows and attempt.status in _REDIRECTS
            most = Disposition.RESPONSE_STARTED if was_followed else Disposition.COMPLETED
            reached = max(reached, min(exchange.reached, most))
    return reached


def refusals_say_who_and_when(world: World) -> Iterator[str]:
    """Rule 9: policy and scope, a time to come back where there is one, and never as success."""
    for call, answer in world.records.new_answers:
        if answer.refused_by is None:
            if answer.error_class is ErrorClass.RATE_LIMITED:
                yield f"call {call.number} is rate limited, and nobody says so: {answer}"
            continue
        policy, _, scope = answer.refused_by.partition(":")
        if scope not in _SCOPES:
            yield f"call {call.number} was refused by {answer.refused_by!r}, which names no scope"
        if call.attempts:
            continue  # it has the end of an attempt to tell, beside the refusal of another one
        wanted = _CLASS_OF_REFUSAL.get(policy)
        if answer.error_class is not wanted:
            yield f"call {call.number}: refused by {policy} as {answer.error_class.name}"
        if not answer.retry_after_ms and policy not in {"rate_limit", "token_limit"}:
            yield f"call {call.number}: refused by {policy}, and no word on when to come back"


def only_what_is_enforced_refuses(world: World) -> Iterator[str]:
    """A policy that is off, or only observes, refuses nobody."""
    for call, answer in world.records.new_answers:
        if answer.refused_by is None or not world.is_current(call):
            continue
        policy, _, scope = answer.refused_by.partition(":")
        origins = {call.origin, *(attempt.key[2] for attempt in call.attempts)}
        # A call that was led elsewhere may have been refused there, where nothing was tried.
        policies = [world.policies((call.tenant, call.workspace, origin)) for origin in origins]
        modes = [_mode(each, policy, scope) for each in policies]
        if Mode.ENFORCE not in modes and not _was_led(call):
            yield f"call {call.number} was refused by {answer.refused_by}, which is {modes}"


def _was_led(call: CallRecord) -> bool:
    return call.follows and any(attempt.status in _REDIRECTS for attempt in call.attempts)


def _mode(policies: CallPolicies, policy: str, scope: str) -> Mode:
    """How far the verdicts of a policy reach."""
    if policy in {"rate_limit", "token_limit"}:
        limit = dict(zip(_LIMIT_SCOPES, policies.all_limits(), strict=True))[scope]
        settings = limit.requests
        if policy == "token_limit":
            settings = None if limit.tokens is None else limit.tokens.rate
        return Mode.OFF if settings is None else settings.mode
    if policy == "drain":
        return Mode.ENFORCE
    mode: Mode = getattr(policies, _SETTINGS[policy]).mode
    return mode


def draining_begins_nothing(world: World) -> Iterator[str]:
    """Once the runtime drains, every new call is refused, and the old ones go on."""
    since_s = world.draining_since_s
    if since_s is None:
        return
    for call, answer in world.records.new_answers:
        if call.began_at_s == since_s:
            continue  # before or after it, at the same moment
        is_new = call.began_at_s > since_s
        if is_new != (answer.refused_by == "drain:runtime") or (is_new and call.attempts):
            yield f"draining since {since_s}, and call {call.number} was answered {answer}"


def times_add_up(world: World) -> Iterator[str]:
    """An answer's times are those of its call: all of it, and not less than its waits."""
    for call, answer in world.records.new_answers:
        took_us = (world.now_s - call.began_at_s) * 1e6
        if abs(answer.duration_us - took_us) > _ROUNDING_US:
            yield f"call {call.number} took {took_us} us, and says {answer.duration_us}"
        waits_us = answer.queued_us + answer.backoff_us
        is_hedged = any(world.is_hedged(attempt.key) for attempt in call.attempts)
        if waits_us > took_us + _ROUNDING_US * (1 + len(call.attempts)) and not is_hedged:
            yield f"call {call.number} took {took_us} us, and waited {waits_us} of them"


def no_bug_shows(world: World) -> Iterator[str]:
    """The runtime logs no internal error, and answers none."""
    yield from world.errors()
    for call, answer in world.records.new_answers:
        if answer.error_message == "internal error":
            yield f"call {call.number} was answered: internal error"
