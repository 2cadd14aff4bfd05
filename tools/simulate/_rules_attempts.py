"""Invariants of attempts: how many, of whom, not before and not after their time."""

from collections.abc import Iterator
from typing import Final

from tools.simulate._records import Attempt, Exchange
from tools.simulate._world import EPSILON_S, World
from vastar_runtime.policy.modes import Mode

__all__ = [
    "a_resting_credential_is_left_alone",
    "attempts_are_told",
    "no_attempt_after_the_end",
    "no_more_attempts_than_configured",
    "tenants_are_apart",
    "the_upstream_is_left_with_its_call",
    "what_may_not_be_repeated_is_not",
]

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503


def no_attempt_after_the_end(world: World) -> Iterator[str]:
    """Nothing is begun for a call that has ended."""
    for attempt in world.records.new_attempts:
        ended_at_s = attempt.call.ended_at_s
        if ended_at_s is not None and attempt.began_at_s > ended_at_s + EPSILON_S:
            yield f"attempt {attempt.number} of call {attempt.call.number}, over at {ended_at_s}"


def no_more_attempts_than_configured(world: World) -> Iterator[str]:
    """As many as `retry.attempts` for each hop, twice as many where they are hedged."""
    for attempt in world.records.new_attempts:
        if not world.is_current(attempt.call):
            continue
        policies = world.policies(attempt.key)
        most = 1 if policies.retry.mode is not Mode.ENFORCE else policies.retry.attempts
        if world.is_hedged(attempt.key):
            most *= 2
        made = sum(other.hop == attempt.hop for other in attempt.call.attempts)
        if made > most:
            yield f"call {attempt.call.number} made {made} attempts at hop {attempt.hop} of {most}"


def attempts_are_told(world: World) -> Iterator[str]:
    """An answer counts the attempts that its call made, those that were sent twice as two."""
    for call, answer in world.records.new_answers:
        made = sum(1 + attempt.was_resent for attempt in call.attempts)
        if answer.attempts != made:
            yield f"call {call.number} says {answer.attempts} attempts, and made {made}"


def what_may_not_be_repeated_is_not(world: World) -> Iterator[str]:
    """A request that is not idempotent is seen again only where the upstream said it did nothing.

    That is 429, and 503 with a Retry-After (DEFAULTS.md); a key from the caller allows all.
    """
    for exchange in world.records.new_exchanges:
        attempt = exchange.attempt
        if attempt.method in _IDEMPOTENT or attempt.call.is_keyed:
            continue
        for earlier in attempt.call.exchanges:
            is_same = earlier.attempt.hop == attempt.hop and earlier.number < exchange.number
            if is_same and not _is_certainly_not_done(earlier):
                yield (
                    f"{attempt.method} of call {attempt.call.number} was seen as exchange "
                    f"{earlier.number} and again as exchange {exchange.number}"
                )


def _is_certainly_not_done(exchange: Exchange) -> bool:
    status = exchange.attempt.status
    return status == _TOO_MANY or (status == _UNAVAILABLE and exchange.asks_s is not None)


def the_upstream_is_left_with_its_call(world: World) -> Iterator[str]:
    """Rule 8: when a call has ended, whatever its upstream is still busy with is closed."""
    for exchange in world.records.open_exchanges.values():
        if exchange.is_open and exchange.attempt.call.is_over:
            yield (
                f"call {exchange.attempt.call.number} is over, and exchange {exchange.number} "
                f"still runs on line {exchange.line.number}"
            )


def a_resting_credential_is_left_alone(world: World) -> Iterator[str]:
    """After a 429 no attempt of its credential goes out for as long as that answer asked for."""
    for attempt in world.records.new_attempts:
        policies = world.policies(attempt.key)
        is_asked = policies.cooldown.mode is Mode.ENFORCE and world.is_current(attempt.call)
        since_s, until_s = world.rests_s.get(attempt.key, (0.0, 0.0))
        has_rest = since_s + EPSILON_S < attempt.let_through_s < until_s - EPSILON_S
        if is_asked and has_rest:
            yield f"attempt {attempt.number} went out, and {attempt.key} rests until {until_s}"
    for attempt in world.records.ended_attempts:
        cooldown = world.policies(attempt.key).cooldown
        exchange = attempt.exchanges[-1] if attempt.exchanges else None
        is_asked = cooldown.mode is Mode.ENFORCE and world.is_current(attempt.call)
        if exchange and exchange.asks_s and attempt.status == _TOO_MANY and is_asked:
            until_s = world.now_s + min(exchange.asks_s, cooldown.hinted_max_s)
            if until_s > world.rests_s.get(attempt.key, (0.0, 0.0))[1]:
                world.rests_s[attempt.key] = (world.now_s, until_s)


def tenants_are_apart(world: World) -> Iterator[str]:
    """No connection ever carries requests of two tenants or workspaces."""
    for exchange in world.records.new_exchanges:
        mine = _owner(exchange.attempt)
        first = world.owners.setdefault(exchange.line.number, mine)
        if first != mine:
            yield f"line {exchange.line.number} served {first} and now {mine}"
        if mine != (exchange.attempt.call.tenant, exchange.attempt.call.workspace):
            yield f"call {exchange.attempt.call.number} went out as {mine}"


def _owner(attempt: Attempt) -> tuple[str, str]:
    return attempt.key[0], attempt.key[1]
