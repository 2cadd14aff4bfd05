"""What happens when: a plan drawn from a seed, before anything happens.

A run is made of cycles: each a third of it, ten minutes at least and an hour at most. A cycle has a
calm part, a storm, and a calm part. In the calm parts clients die, the upstream restarts, the
configuration is reloaded, and faults come and go between runtime and upstream; but the runtime
lives on, so that its memory, sockets and tasks can be judged over a long time. The storm is for its
deaths. Quiet points, at which everybody rests and the accounts are compared, come through all of
it.
"""

import math
import random
from collections import Counter
from typing import Final

import attrs

__all__ = ["WEATHERS", "Happening", "schedule"]

_LEAST_CYCLE_S: Final = 600.0
_MOST_CYCLE_S: Final = 3600.0
_CYCLES: Final = 3
_CALM_PART: Final = 0.4
_DEATH_EVERY_S: Final = 15.0
_CALM_EVERY_S: Final = 12.0
_QUIET_EVERY_S: Final = 30.0
_LEAST_QUIETS: Final = 2

WEATHERS: Final = (
    "latency=0.02 jitter=0.03",
    "",
    "bandwidth=200k slice=700",
    "down:reset@300",
    "",
    "down:close@90",
    "up:reset@40",
    "down:halfclose@200",
    "up:blackhole@10",
    "down:blackhole@100 latency=0.01",
    "reset@0.5s",
)
"""Between runtime and upstream. Nothing turns bits over: without TLS nobody could tell."""


@attrs.frozen
class Happening:
    """Something to do.

    Attributes:
        at_s: from the beginning.
        what: "quiet", "weather", "kill client", "restart upstream", "reload", "kill runtime",
            "drain", "kill worker".
        which: how many of its kind were before it: clients and weathers take turns.
    """

    at_s: float
    what: str
    which: int = 0


def schedule(run_s: float, seed: int, *, workers: int, may_kill: bool) -> list[Happening]:
    """The plan of a run, in order; its last point is a quiet one.

    Args:
        run_s: how long.
        seed: of all chance.
        workers: of the runtime; more than one have deaths of their own.
        may_kill: the runtime is the soak's own.
    """
    chance = random.Random(f"{seed}/schedule")  # noqa: S311 - no secret
    deaths = ["kill runtime", "drain"] if may_kill else []
    if may_kill and workers > 1:
        deaths.append("kill worker")
    calm = ["kill client", "restart upstream", "weather"]
    if may_kill:
        calm.append("reload")
    about_s = min(max(run_s / _CYCLES, _LEAST_CYCLE_S), _MOST_CYCLE_S)
    cycles = max(1, round(run_s / about_s))
    cycle_s = run_s / cycles
    found: list[Happening] = []
    for cycle in range(cycles):
        begin_s = cycle * cycle_s
        calm_s = cycle_s * _CALM_PART
        found += _spread(calm, begin_s, calm_s, _CALM_EVERY_S, chance)
        storm_s = cycle_s - 2 * calm_s
        storm = [*deaths, "kill client"]
        found += _spread(storm, begin_s + calm_s, storm_s, _DEATH_EVERY_S, chance)
        found += _spread(calm, begin_s + cycle_s - calm_s, calm_s, _CALM_EVERY_S, chance)
    quiets = max(_LEAST_QUIETS, math.ceil(run_s / _QUIET_EVERY_S))
    found += [Happening(run_s * number / quiets, "quiet") for number in range(1, quiets)]
    found.sort(key=lambda each: each.at_s)
    so_far: Counter[str] = Counter()
    numbered = []
    for each in [*found, Happening(run_s, "quiet")]:
        numbered.append(attrs.evolve(each, which=so_far[each.what]))
        so_far[each.what] += 1
    return numbered


def _spread(
    kinds: list[str], begin_s: float, span_s: float, every_s: float, chance: random.Random
) -> list[Happening]:
    """Each kind once at least, and all of them over the span, one in each of its equal parts."""
    count = max(len(kinds), round(span_s / every_s))
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += chance.sample(kinds, len(kinds))
    part_s = span_s / count
    return [
        Happening(begin_s + (index + chance.uniform(0.1, 0.9)) * part_s, what)
        for index, what in enumerate(drawn[:count])
    ]
