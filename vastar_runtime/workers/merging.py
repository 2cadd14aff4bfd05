"""The accounts of several workers as one: what `status` tells, and the text for Prometheus.

Plain functions over what each worker tells of itself. Counts are added. What all workers share, or
what is 1 or 0, is not: there the value holds that names the trouble which some worker sees.

A counter must not fall when a worker dies: Prometheus would take that for a restart of everything
and count the rest once more. So the text knows two kinds of sources: those that live, of which all
is taken, and those whose last text is kept, of which only counters are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["merged_details", "merged_metrics", "merged_status"]

_Row: TypeAlias = dict[str, Any]

_NOT_ADDED: Final[Mapping[str, Callable[[float, float], float]]] = {
    "vastar_breaker_state": max,
    "vastar_breakers": max,
    "vastar_draining": max,
    "vastar_retry_quota_tokens": min,
}
"""What workers share, or what is yes or no: the value that names the trouble."""
_COUNTING: Final = frozenset({"counter", "histogram"})
_USAGE: Final = (*("calls", "refused", "in_flight", "sent_bytes", "received_bytes", "llm_tokens"),)
_RANKS: Final = ("closed", "half_open", "open")


def merged_status(own: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> _Row:
    """What `status` tells of all: `own` (for what all know alike) with the counts of everybody."""
    all_of = [own, *others]
    told = dict(own)
    for key in ("in_flight", "connections", "calls_accepted", "tasks"):
        told[key] = sum(int(each.get(key, 0)) for each in all_of)
    told["draining"] = any(each.get("draining") for each in all_of)
    told["pools"] = _added(
        (row for each in all_of for row in each.get("pools", ())),
        ("tenant", "workspace", "origin"),
        ("idle", "active", "waiting"),
    )
    told["databases"] = _added(
        (row for each in all_of for row in each.get("databases", ())),
        ("tenant", "source", "origin"),
        ("open", "idle", "active", "waiting"),
    )
    if any("policies" in each for each in all_of):
        told |= merged_details(all_of)
    return told


def merged_details(all_of: Sequence[Mapping[str, Any]]) -> _Row:
    """The same for what `--verbose` adds."""
    breakers: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in (row for each in all_of for row in each.get("breakers", ())):
        key = (row.get("scope"), row.get("tenant"), row.get("origin"))
        if key not in breakers or _rank(row) > _rank(breakers[key]):
            breakers[key] = row
    limits: dict[tuple[Any, ...], _Row] = {}
    for row in (row for each in all_of for row in each.get("limits", ())):
        key = (row.get("policy"), row.get("scope"), row.get("of"))
        known = limits.setdefault(key, {**row, "waiting": 0})
        known["waiting"] += row.get("waiting", 0)
        known["available"] = min(known.get("available", 0), row.get("available", 0))
    admission: dict[str, int] = {}
    for each in all_of:
        for name, value in each.get("admission", {}).items():
            admission[name] = admission.get(name, 0) + value
    return {
        "policies": _added(
            (row for each in all_of for row in each.get("policies", ())),
            ("policy", "mode"),
            ("passed", "applied", "observed"),
        ),
        "tenants": _added(
            (row for each in all_of for row in each.get("tenants", ())),
            ("tenant", "workspace"),
            _USAGE,
        ),
        "admission": admission,
        "breakers": list(breakers.values()),
        "limits": list(limits.values()),
        "keys": max((each.get("keys", 0) for each in all_of), default=0),
    }


def _rank(row: Mapping[str, Any]) -> int:
    state = row.get("state")
    return _RANKS.index(state) if state in _RANKS else 0


def _added(
    rows: Iterable[Mapping[str, Any]], names: tuple[str, ...], counts: tuple[str, ...]
) -> list[_Row]:
    """One row for each set of `names`, with the sums of `counts`."""
    found: dict[tuple[Any, ...], _Row] = {}
    for row in rows:
        key = tuple(row.get(name) for name in names)
        sums = found.setdefault(key, {**row, **dict.fromkeys(counts, 0)})
        for count in counts:
            sums[count] += row.get(count, 0)
    return list(found.values())


def _sum(before: float, value: float) -> float:
    return before + value


class _Family:
    """One metric: its head, its type and its series by name and labels."""

    def __init__(self) -> None:
        self.head: list[str] = []
        self.kind = ""
        self.series: dict[str, float] = {}

    def add(self, name: str, series: str, value: float) -> None:
        before = self.series.get(series)
        if before is None:
            self.series[series] = value
        else:
            self.series[series] = _NOT_ADDED.get(name, _sum)(before, value)


def merged_metrics(living: Iterable[str], kept: Iterable[str] = ()) -> str:
    """One text of several, each in text format 0.0.4 as `metrics` writes it.

    Args:
        living: texts of now.
        kept: texts of dead workers, or of such that do not answer: their counters still count.
    """
    families: dict[str, _Family] = {}
    for text in living:
        _read(text, families, counters_only=False)
    for text in kept:
        _read(text, families, counters_only=True)
    lines: list[str] = []
    for family in families.values():
        lines += family.head
        lines += [f"{series} {_number(value)}" for series, value in family.series.items()]
    return "\n".join((*lines, ""))


def _read(text: str, families: dict[str, _Family], *, counters_only: bool) -> None:
    family, name, is_new = _Family(), "", True
    for line in text.split("\n"):
        if line.startswith("#"):  # HELP, and then TYPE
            _, what, name, words = line.split(" ", 3)
            if what == "HELP":
                is_new = name not in families
                family = families.setdefault(name, _Family())
            if is_new:
                family.head.append(line)
            if what == "TYPE":
                family.kind = words
        elif line and not (counters_only and family.kind not in _COUNTING):
            series, _, value = line.rpartition(" ")
            family.add(name, series, float(value))


def _number(value: float) -> str:
    """As the format has it."""
    text = repr(value)
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)
