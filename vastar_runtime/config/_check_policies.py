"""Numbers of a policy that exclude each other once the places are merged.

Each pair is looked at for the defaults, for every place that writes one of the two, and where a
caller's place writes the one and an origin's the other. Of the latter only the worst origin is held
against each caller: looking at all of them would take a thousand tenants times a thousand origins.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from vastar_runtime.config._merge import Written, all_written, merge, place_of_key, places_above
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._policies import ORIGINS
from vastar_runtime.config._toml import dotted

__all__ = ["check_policies"]


class _Pair(NamedTuple):
    """Two numbers of a policy of which the first is at most the second."""

    policy: str
    low: str
    high: str


_PAIRS: Final = (
    _Pair("retry", "base_s", "cap_s"),
    _Pair("retry", "throttled_base_s", "cap_s"),
    _Pair("breaker", "open_s", "open_max_s"),
    _Pair("cooldown", "base_s", "unhinted_max_s"),
)

_Fault = tuple[str, str, str]
_Places = tuple[Written, ...]


def check_policies(config: RuntimeConfig) -> Iterator[_Fault]:
    """Key, what is wrong and what would be right, for everything between keys of policies."""
    places = [(*places_above(config, place), place) for place in all_written(config)]
    for pair in _PAIRS:
        yield from _check_alone(config, pair, ())
        concerned = [chain for chain in places if _writes(chain[-1], pair)]
        for chain in concerned:
            yield from _check_alone(config, pair, chain)
        yield from _check_across(config, pair, concerned)


def _writes(place: Written, pair: _Pair) -> bool:
    keys = place.tables.get(pair.policy, {})
    return pair.low in keys or pair.high in keys


def _check_alone(config: RuntimeConfig, pair: _Pair, chain: _Places) -> Iterator[_Fault]:
    table = getattr(merge(config.defaults, [place.tables for place in chain]), pair.policy)
    if getattr(table, pair.low) > getattr(table, pair.high):
        yield _fault(config, pair, chain)


def _check_across(
    config: RuntimeConfig, pair: _Pair, concerned: Sequence[_Places]
) -> Iterator[_Fault]:
    def number(chain: _Places, key: str) -> float:
        return float(chain[-1].tables[pair.policy][key])

    callers = [chain for chain in concerned if chain[-1].kind != ORIGINS]
    origins = [chain for chain in concerned if chain[-1].kind == ORIGINS]
    for here, other, worst in ((pair.low, pair.high, min), (pair.high, pair.low, max)):
        # An origin that writes both decides alone.
        rivals = [
            chain
            for chain in origins
            if other in (keys := chain[-1].tables[pair.policy]) and here not in keys
        ]
        if not rivals:
            continue
        rival = worst(rivals, key=lambda chain: number(chain, other))
        for caller in callers:
            if here in caller[-1].tables[pair.policy]:
                yield from _check_alone(config, pair, (*caller, *rival))


def _fault(config: RuntimeConfig, pair: _Pair, chain: _Places) -> _Fault:
    """Blamed on the strongest place that writes one of the two, on the lower one where it can."""
    table = getattr(merge(config.defaults, [place.tables for place in chain]), pair.policy)
    low_path = place_of_key(chain, pair.policy, pair.low)
    high_path = place_of_key(chain, pair.policy, pair.high)
    last = (*chain[-1].path, pair.policy) if chain else low_path
    key = pair.low if last == low_path else pair.high
    low, high = getattr(table, pair.low), getattr(table, pair.high)
    lower = f"{pair.low} = {low:g} of [{dotted(low_path)}]"
    higher = f"{pair.high} = {high:g} of [{dotted(high_path)}]"
    wrong = f"{lower} is more than {higher}"
    return dotted((*last, key)), wrong, "lower the one, or raise the other"
