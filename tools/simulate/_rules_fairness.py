"""Invariants of fairness: who waits beside others gets turns as often as they do, by weight.

Turns are counted where the bulkhead lets calls out of its line. Two tenants are compared over a
stretch in which both have waited all the time and neither was held up by limits of its own: then
each round of the queue gives each its weight in turns, and they can be apart by little more than a
round, however many calls either of them has in line.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Final

import attrs

from tools.simulate._world import World

__all__ = ["Turns", "tenants_take_turns"]

_MOST_ROUNDS_APART: Final = 3.0


@attrs.define(eq=False)
class Turns:
    """The rounds of both of two tenants, since both began to wait."""

    one: float = 0.0
    other: float = 0.0


def tenants_take_turns(world: World) -> Iterator[str]:
    """No tenant gets ahead of another who waits as well."""
    served = Counter(world.records.let_in)
    names = [tenant.name for tenant in world.setup.tenants]
    waiting = {name for name in names if _waits_for_the_runtime(world, name)}
    for pair in combinations(names, 2):
        if not waiting.issuperset(pair):
            world.turns.pop(pair, None)
            continue
        turns = world.turns.get(pair)
        if turns is None:  # who waits now may have come after those that were let in
            world.turns[pair] = Turns()
            continue
        turns.one += served[pair[0]] / _weight(world, pair[0])
        turns.other += served[pair[1]] / _weight(world, pair[1])
        if abs(turns.one - turns.other) > _MOST_ROUNDS_APART:
            yield f"{pair[0]} had {turns.one} rounds, and {pair[1]} {turns.other}, both waiting"


def _waits_for_the_runtime(world: World, tenant: str) -> bool:
    """Whether it has calls in line that only the places of the whole runtime hold up."""
    admission = world.machines.admission
    if not admission.waiting_of(tenant, streams=False):
        return False
    concurrency = world.machines.book.of(tenant=tenant).admission.concurrency
    return (
        concurrency.max_in_runtime <= min(concurrency.max_per_tenant, concurrency.max_per_origin)
        and concurrency.adaptive is None
    )


def _weight(world: World, tenant: str) -> int:
    return world.machines.book.of(tenant=tenant).admission.tenant_weight
