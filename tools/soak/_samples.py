"""What is looked at each second: the processes by /proc, the runtime by its own account, the calls.

A sample is one line of `samples.jsonl`; so are what happened and, at the end, what was judged. All
times are seconds from the beginning of the run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from tools.processes import open_files, resident_bytes, threads

__all__ = ["Book", "Held", "Noted", "Sample", "Told", "busy", "held", "told"]

_MEGABYTE: Final = 1_000_000


class Held(msgspec.Struct, frozen=True):
    """What a process holds.

    Attributes:
        name: "runtime 1", "worker 1.4242" (its start, its pid), "client async-1".
    """

    name: str
    memory_mb: float
    files: int
    threads: int


class Told(msgspec.Struct, frozen=True):
    """What the runtime tells of itself: calls, permits (places of calls and streams), connections.

    Attributes:
        in_flight: calls accepted and not answered.
        connections: of callers, the sampler's left out.
        tasks: of Trio.
        places, streams: that calls and streams hold.
        waiting: calls and streams in line for a place, for a limit, for a connection.
        idle, active: connections to upstreams.
    """

    in_flight: int
    connections: int
    tasks: int
    places: int
    streams: int
    waiting: int
    idle: int
    active: int


class Sample(msgspec.Struct, frozen=True, tag="sample"):
    """One look.

    Attributes:
        epoch: of the runtime: another one since each of its deaths.
        calls: ended so far.
        outcomes: of those that ended since the sample before, by how.
        kinds: the same by kind of load.
        upstream_connections: as the counting upstream sees them.
        is_quiet: nothing is under way, and nobody is connected.
    """

    at_s: float
    epoch: int
    calls: int
    processes: list[Held]
    runtime: Told | None
    outcomes: dict[str, int]
    kinds: dict[str, int]
    upstream_connections: int = 0
    is_quiet: bool = False


class Noted(msgspec.Struct, frozen=True, tag="event"):
    """Something that was done, and a number that belongs to it: seconds, calls."""

    at_s: float
    what: str
    amount: float = 0.0


def held(pids: Mapping[int, str]) -> list[Held]:
    """What each of these processes holds; the values are their names. Who has ended is left out."""
    found = []
    for pid, name in pids.items():
        with suppress(OSError, RuntimeError):
            memory_mb = round(resident_bytes(pid) / _MEGABYTE, 3)
            found.append(Held(name, memory_mb, open_files(pid), threads(pid)))
    return found


def told(status: Mapping[str, Any] | None) -> Told | None:
    """The part of the runtime's account that is sampled."""
    if status is None:
        return None
    admission: Mapping[str, int] = status.get("admission", {})
    pools: Iterable[Mapping[str, int]] = status.get("pools", ())
    limits: Iterable[Mapping[str, int]] = status.get("limits", ())
    return Told(
        status["in_flight"],
        status["connections"],
        status.get("tasks", 0),
        admission.get("in_flight", 0),
        admission.get("streams", 0),
        admission.get("waiting", 0)
        + admission.get("waiting_streams", 0)
        + sum(row["waiting"] for row in [*pools, *limits]),
        sum(row["idle"] for row in pools),
        sum(row["active"] for row in pools),
    )


def busy(now: Told | None, in_progress: int) -> list[str]:
    """What is not at rest, in words; empty: all is.

    Args:
        now: what the runtime tells.
        in_progress: requests that the upstream is still answering.
    """
    if now is None:
        return ["the runtime does not tell its status"]
    counts = {
        "calls in flight": now.in_flight,
        "connections of callers": now.connections,
        "places held by calls": now.places,
        "places held by streams": now.streams,
        "calls in a line": now.waiting,
        "connections to upstreams in use": now.active,
        "requests in progress at the upstream": in_progress,
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


@attrs.define(eq=False)
class Book:
    """All samples and happenings of a run, and the file that they go to.

    Attributes:
        path: of the file.
        samples, noted: in order.
    """

    path: Path
    samples: list[Sample] = attrs.field(factory=list)
    noted: list[Noted] = attrs.field(factory=list)
    _last: Counter[tuple[str, str]] = attrs.field(factory=Counter)

    def since_last(
        self, outcomes: Counter[tuple[str, str]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """How calls ended since this was asked last: by how, and by kind."""
        new = outcomes - self._last
        self._last = Counter(outcomes)
        by_how: Counter[str] = Counter()
        by_kind: Counter[str] = Counter()
        for (kind, how), count in new.items():
            by_how[how] += count
            by_kind[kind] += count
        return dict(by_how), dict(by_kind)

    def add(self, entry: Sample | Noted) -> None:
        """Keep it, and write it down."""
        if isinstance(entry, Sample):
            self.samples.append(entry)
        else:
            self.noted.append(entry)
        self.write(entry)

    def write(self, line: object) -> None:
        """A line of the file."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
