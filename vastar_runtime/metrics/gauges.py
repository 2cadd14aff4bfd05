"""A snapshot as metrics: what is small is shown whole, what callers can make long is capped.

A family shows at most so many series, the ones worth looking at first, and says in
`vastar_series_dropped` how many it left out: a cap must not look like the whole truth. Sums and
counts beside it (`vastar_breakers`, `vastar_pool_connections`) are of everything, capped or not.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from heapq import nsmallest
from typing import Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vastar_runtime.metrics.labels import fit
from vastar_runtime.metrics.snapshot import BreakerRow, DatabaseRow, PoolRow, QuotaRow, Snapshot
from vastar_runtime.policy.breaker import State
from vastar_runtime.policy.verdicts import Scope

__all__ = ["families"]

_Labels: TypeAlias = tuple[str, ...]
_Capped: TypeAlias = tuple[GaugeMetricFamily, int]
"""A family, and how many series it left out."""

_RANKS: Final = {State.OPEN: 0, State.HALF_OPEN: 1, State.CLOSED: 2}


def families(snapshot: Snapshot, series_cap: int) -> Iterator[Metric]:
    """The metrics of a snapshot, none with more than `series_cap` series."""
    yield from _plain(snapshot)
    yield _breaker_counts(snapshot)
    dropped: dict[_Labels, float] = {}
    for family, left_out in (
        _breaker_states(snapshot, series_cap),
        _quota_tokens(snapshot, series_cap),
        _origin_connections(snapshot, series_cap),
        _database_connections(snapshot, series_cap),
    ):
        dropped[family.name,] = left_out
        yield family
    yield _verdicts(snapshot)
    yield _gauge(
        "vastar_series_dropped",
        "Series that a family would have had beyond its cap.",
        ("family",),
        dropped,
    )


def _plain(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge(
        "vastar_calls_in_flight",
        "Calls accepted and not answered yet, waiting ones included.",
        (),
        {(): snapshot.calls_in_flight},
    )
    yield _gauge(
        "vastar_caller_connections",
        "Open connections of callers.",
        (),
        {(): snapshot.connections},
    )
    yield _gauge(
        "vastar_draining",
        "1 while the runtime takes no new calls because it is to stop.",
        (),
        {(): snapshot.draining},
    )
    yield _gauge(
        "vastar_in_flight",
        "Calls and streams that hold a place of the bulkhead.",
        ("kind",),
        {("call",): snapshot.admitted_calls, ("stream",): snapshot.admitted_streams},
    )
    yield _gauge(
        "vastar_queue_depth",
        "Calls and streams that wait for a place of the bulkhead, or for an upstream connection.",
        ("kind",),
        {
            ("call",): snapshot.waiting_calls,
            ("stream",): snapshot.waiting_streams,
            ("connection",): sum(row.waiting for row in _pools(snapshot)),
        },
    )
    waiting: Counter[_Labels] = Counter()
    for row in snapshot.limiters:
        waiting[row.policy, row.scope] += row.waiting
    yield _gauge(
        "vastar_limiter_waiting",
        "Calls that wait for a limit.",
        ("policy", "scope"),
        waiting,
    )
    yield _gauge(
        "vastar_pool_connections",
        "Connections to upstreams, idle ones in the pool and busy ones.",
        ("state",),
        {
            ("idle",): sum(row.idle for row in _pools(snapshot)),
            ("busy",): sum(row.busy for row in _pools(snapshot)),
        },
    )


def _pools(snapshot: Snapshot) -> Iterator[PoolRow | DatabaseRow]:
    yield from snapshot.pools
    yield from snapshot.databases


def _breaker_counts(snapshot: Snapshot) -> Metric:
    counts: Counter[_Labels] = Counter()
    for scope in (Scope.ORIGIN.value, Scope.TENANT.value, *snapshot.closed_unlisted):
        for state in State:
            counts[scope, state.value] = 0
    for row in snapshot.breakers:
        counts[row.scope, row.state.value] += 1
    for scope, closed in snapshot.closed_unlisted.items():
        counts[scope, State.CLOSED.value] += closed
    return _gauge(
        "vastar_breakers", "Circuit breakers there are, by state.", ("scope", "state"), counts
    )


def _breaker_states(snapshot: Snapshot, series_cap: int) -> _Capped:
    """Those that are not closed first, and else always the same ones."""

    def interest(row: BreakerRow) -> tuple[int, str, str, str]:
        return _RANKS[row.state], row.scope, row.tenant, row.origin

    shown = nsmallest(series_cap // len(State), snapshot.breakers, interest)
    family = _gauge(
        "vastar_breaker_state",
        "1 for the state that a circuit breaker is in, 0 for the others.",
        ("scope", "tenant", "origin", "state"),
        {
            (row.scope, row.tenant, row.origin, state.value): row.state is state
            for row in shown
            for state in State
        },
    )
    there_are = len(snapshot.breakers) + sum(snapshot.closed_unlisted.values())
    return family, (there_are - len(shown)) * len(State)


def _quota_tokens(snapshot: Snapshot, series_cap: int) -> _Capped:
    """The emptiest first."""

    def interest(row: QuotaRow) -> tuple[float, str, str]:
        return (row.tokens / row.most if row.most else 0.0), row.tenant, row.origin

    shown = nsmallest(series_cap, snapshot.quotas, interest)
    family = _gauge(
        "vastar_retry_quota_tokens",
        "Tokens left for retries.",
        ("tenant", "origin"),
        {(row.tenant, row.origin): row.tokens for row in shown},
    )
    return family, len(snapshot.quotas) + snapshot.full_unlisted - len(shown)


def _origin_connections(snapshot: Snapshot, series_cap: int) -> _Capped:
    """Those with the most connections first."""
    idle: defaultdict[str, int] = defaultdict(int)
    busy: defaultdict[str, int] = defaultdict(int)
    for row in _pools(snapshot):
        idle[row.origin] += row.idle
        busy[row.origin] += row.busy
    most = series_cap // 2
    shown = nsmallest(most, idle, lambda origin: (-idle[origin] - busy[origin], origin))
    rows: dict[_Labels, float] = {}
    for origin in shown:
        rows[origin, "idle"] = idle[origin]
        rows[origin, "busy"] = busy[origin]
    family = _gauge(
        "vastar_origin_connections",
        "Connections to an upstream, those of all tenants together.",
        ("origin", "state"),
        rows,
    )
    return family, (len(idle) - len(shown)) * 2


def _database_connections(snapshot: Snapshot, series_cap: int) -> _Capped:
    """Those with the longest lines first, then those with the most connections."""

    def interest(row: DatabaseRow) -> tuple[int, int, str, str]:
        return -row.waiting, -row.idle - row.busy, row.tenant, row.source

    shown = nsmallest(series_cap // 3, snapshot.databases, interest)
    family = _gauge(
        "vastar_database_connections",
        "Connections of a data source, idle and busy, and calls that wait for one.",
        ("tenant", "source", "state"),
        {
            (row.tenant, row.source, state): count
            for row in shown
            for state, count in (("idle", row.idle), ("busy", row.busy), ("waiting", row.waiting))
        },
    )
    return family, (len(snapshot.databases) - len(shown)) * 3


def _verdicts(snapshot: Snapshot) -> Metric:
    family = CounterMetricFamily(
        "vastar_policy_verdicts_total",
        "What became of a policy's verdicts: nothing against it, applied, only observed.",
        labels=("policy", "mode", "verdict"),
    )
    for row in snapshot.verdicts:
        for verdict in ("passed", "applied", "observed"):
            labels = (row.policy, row.mode.value, verdict)
            family.add_metric(labels, getattr(row, verdict))
    return family


def _gauge(
    name: str, text: str, labels: _Labels, rows: Mapping[_Labels, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows.items():
        family.add_metric(tuple(map(fit, values)), value)
    return family
