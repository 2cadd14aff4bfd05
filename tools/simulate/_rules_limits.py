"""Invariants of limits: never more in any window than burst and rate allow, whoever asks at once.

A `Meter` is the textbook's GCRA over what really went out. It says of every window of time at once
whether it was kept: what has gone out in it is at most `burst + window x rate`.

A limit is held exactly where it is the last in whose line an attempt can wait. Behind an earlier
one (they are asked in turn, the narrowest first) the line of a later one may bring attempts closer
together than they were let through; there only the whole run so far is bounded.
"""

from bisect import insort
from collections.abc import Iterator
from typing import Final, TypeAlias

import attrs

from tools.simulate._records import Attempt
from tools.simulate._world import World
from vastar_client.wire import ErrorClass
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import RateLimitSettings

__all__ = ["Meter", "calls_keep_to_their_rates", "tokens_keep_to_their_rates"]

_SCOPES: Final = ("credential", "workspace", "tenant", "origin")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_ROUNDING_UNITS: Final = 1e-3
_Key: TypeAlias = tuple[str, str, str]


@attrs.define(eq=False)
class Meter:
    """What has gone out against one limit, in the order in which it was let through."""

    spent: list[tuple[float, float]] = attrs.field(factory=list)
    _full_at_s: float = float("-inf")

    def excess(
        self, settings: RateLimitSettings, at_s: float, cost: float, *, is_last: bool
    ) -> float:
        """Count `cost`; by how much the worst window is over its bound, 0 or less if none is."""
        is_in_order = not self.spent or at_s >= self.spent[-1][0]
        insort(self.spent, (at_s, cost))
        if not is_last:
            total = sum(cost for _, cost in self.spent)
            elapsed_s = self.spent[-1][0]
            return total - settings.max_cost - elapsed_s / settings.interval_s - _ROUNDING_UNITS
        if is_in_order:
            return self._work_off(settings, at_s, cost)
        self._full_at_s = float("-inf")
        return max(self._work_off(settings, *each) for each in self.spent)

    def _work_off(self, settings: RateLimitSettings, at_s: float, cost: float) -> float:
        """One step of GCRA: when all of it is worked off, and how far that is over the burst."""
        self._full_at_s = max(self._full_at_s, at_s) + cost * settings.interval_s
        debt = (self._full_at_s - at_s) / settings.interval_s
        return debt - settings.max_cost - _ROUNDING_UNITS


def _limits(
    world: World, attempt: Attempt, *, tokens: bool
) -> list[tuple[_Key, RateLimitSettings]]:
    """The limits that an attempt meets, in the order in which it is charged."""
    tenant, workspace, origin = attempt.key
    owners = ((*attempt.key,), (tenant, workspace), (tenant,), (origin,))
    found = []
    each_limit = world.policies(attempt.key).all_limits()
    for scope, owner, limit in zip(_SCOPES, owners, each_limit, strict=True):
        settings = limit.requests
        if tokens:
            settings = None if limit.tokens is None else limit.tokens.rate
        if settings is not None and settings.mode is Mode.ENFORCE:
            kind = "tokens" if tokens else "calls"
            found.append(((kind, scope, "|".join(owner)), settings))
    return found


def calls_keep_to_their_rates(world: World) -> Iterator[str]:
    """Rule 6: in every window attempts are at most burst and rate, at each of their limits."""
    for exchange in world.records.new_exchanges:
        attempt = exchange.attempt
        if exchange is not attempt.exchanges[0] or not world.is_current(attempt.call):
            continue
        limits = _limits(world, attempt, tokens=False)
        # A body counts as prompt where it is no LLM request, too.
        waits_later = bool(attempt.method in _WITH_BODY and _limits(world, attempt, tokens=True))
        for key, settings in limits:
            is_last = key == limits[-1][0] and not waits_later
            meter = world.meters.setdefault(key, Meter())
            over = meter.excess(settings, attempt.let_through_s, 1, is_last=is_last)
            if over > 0:
                yield f"attempt {attempt.number} is {over:.3f} calls over {key}"


def tokens_keep_to_their_rates(world: World) -> Iterator[str]:
    """Rule 6: what whole answers say that they cost is within what every window allows."""
    for call, answer in world.records.new_answers:
        is_billed = call.tokens and answer.error_class is ErrorClass.SUCCESS
        if not is_billed or not world.is_current(call):
            continue
        attempt = call.attempts[-1]
        used = sum(exchange.used_tokens for exchange in attempt.exchanges[-1:])
        limits = _limits(world, attempt, tokens=True) if used else []
        for key, settings in limits:
            is_last = key == limits[-1][0]
            meter = world.meters.setdefault(key, Meter())
            over = meter.excess(settings, attempt.let_through_s, used, is_last=is_last)
            if over > 0:
                yield f"call {call.number} is {over:.1f} tokens over {key}"
