"""What a scrape reads and nobody keeps: one frozen value, taken in the event loop.

Gauges are not counted along with what happens, where they would cost each call something and could
drift from the truth: the state of a breaker is asked of the breaker. So the gauge changes with the
transition itself (DEFAULTS.md, rule 3). The value is frozen because the text is made from it in
another thread, while the machines go on.

Rows are named tuples, and only those that somebody may want to see: of a hundred thousand breakers
that are all closed a number is enough (`listed`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

import attrs

from vastar_runtime.policy.breaker import State
from vastar_runtime.policy.modes import Mode

__all__ = [
    "BreakerRow",
    "DatabaseRow",
    "LimiterRow",
    "PoolRow",
    "QuotaRow",
    "Snapshot",
    "VerdictRow",
    "listed",
]

_CALM_LISTED: Final = 200


class BreakerRow(NamedTuple):
    """A circuit; `tenant` is empty where all share it."""

    scope: str
    tenant: str
    origin: str
    state: State


class QuotaRow(NamedTuple):
    """A retry quota: what is left of `most`."""

    tenant: str
    origin: str
    tokens: int
    most: int


class LimiterRow(NamedTuple):
    """How many wait for a limiter; several rows of one policy and scope are added."""

    policy: str
    scope: str
    waiting: int


class PoolRow(NamedTuple):
    """The upstream connections of one pool key, and the calls that wait for one."""

    tenant: str
    workspace: str
    origin: str
    idle: int
    busy: int
    waiting: int


class DatabaseRow(NamedTuple):
    """The connections of one data source, and the calls that wait for one."""

    tenant: str
    source: str
    origin: str
    idle: int
    busy: int
    waiting: int


class VerdictRow(NamedTuple):
    """What became of a policy's verdicts under one mode, since the start."""

    policy: str
    mode: Mode
    passed: int
    applied: int
    observed: int


@attrs.frozen
class Snapshot:
    """The runtime at one instant.

    Attributes:
        calls_in_flight: accepted and not answered, those in the queue included.
        connections: of callers.
        admitted_calls, admitted_streams: that hold a place of the bulkhead.
        waiting_calls, waiting_streams: in the queue for one.
        breakers: in any order and number; how many are shown is not their business.
        closed_unlisted: closed breakers that are in no row, by scope.
        quotas: likewise.
        full_unlisted: full quotas that are in no row.
        pools: of HTTP; `databases` are beside them.
    """

    calls_in_flight: int = 0
    connections: int = 0
    draining: bool = False
    admitted_calls: int = 0
    admitted_streams: int = 0
    waiting_calls: int = 0
    waiting_streams: int = 0
    breakers: tuple[BreakerRow, ...] = ()
    closed_unlisted: Mapping[str, int] = attrs.field(factory=dict)
    quotas: tuple[QuotaRow, ...] = ()
    full_unlisted: int = 0
    limiters: tuple[LimiterRow, ...] = ()
    pools: tuple[PoolRow, ...] = ()
    databases: tuple[DatabaseRow, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()


Key = TypeVar("Key")
Machine = TypeVar("Machine")


def listed(
    items: Iterable[tuple[Key, Machine]],
    is_calm: Callable[[Machine], bool],
    most_calm: int = _CALM_LISTED,
) -> tuple[list[tuple[Key, Machine]], int]:
    """The machines that deserve a row, and how many do not: all but the calm, and some of those.

    One pass that makes nothing for a machine without a row: it runs in the event loop.

    Args:
        items: such as a `KeyedStore` gives.
        is_calm: whether there is nothing to see: a closed breaker, a full quota.
        most_calm: rows for such, so that small stores are shown whole.
    """
    rows: list[tuple[Key, Machine]] = []
    calm = 0
    for item in items:
        if is_calm(item[1]):
            calm += 1
            if calm > most_calm:
                continue
        rows.append(item)
    return rows, max(0, calm - most_calm)
