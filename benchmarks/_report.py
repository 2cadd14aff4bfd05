"""What a benchmark gives back, and how it is printed: rows, claims, the state of the machine."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec

__all__ = [
    "Claim",
    "Options",
    "Report",
    "Row",
    "Sample",
    "machine",
    "median",
    "shown",
    "table",
    "watch_others",
]

Row: TypeAlias = dict[str, str | float]
_EXACT_FROM = 100.0
"""Figures from here up are shown without decimals."""


class Options(msgspec.Struct, frozen=True):
    """How long to measure.

    Attributes:
        seconds: counted time of one run of one contestant.
        rounds: how often the contestants take turns.
        pin: give the measured process a core of its own.
        output: where a picture goes; None is where the benchmark wants it.
        seed: of what chance decides, where a benchmark runs in virtual time.
    """

    seconds: float = 2.0
    rounds: int = 5
    pin: bool = False
    output: str | None = None
    seed: int = 1


class Sample(msgspec.Struct, frozen=True):
    """One run of one contestant.

    Attributes:
        p50_us, p99_us: latency as the load saw it.
        cpu_us: CPU time of the measured process for one request.
        load_cpu_us: that of the load, where it is a process of its own; else 0.
    """

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    load_cpu_us: float = 0.0


class Claim(msgspec.Struct, frozen=True):
    """Something that must hold: `measured` on the right side of `bound`."""

    text: str
    measured: float
    bound: float
    at_most: bool

    @property
    def held(self) -> bool:
        """Whether it does."""
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        verdict = "held" if self.held else "NOT held"
        return f"{self.text}: {shown(self.measured)} {sign} {shown(self.bound)}: {verdict}"


class Report(msgspec.Struct):
    """The result of one benchmark.

    Attributes:
        rows: all with the same keys, one line each.
        others_cores: how many cores the processes of others kept busy meanwhile; `None` where the
            system does not tell.
        notes: lines that are neither.
    """

    name: str
    rows: list[Row]
    claims: list[Claim] = msgspec.field(default_factory=list)
    machine: str = ""
    when: str = ""
    others_cores: float | None = None
    notes: list[str] = msgspec.field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        others = "unknown" if self.others_cores is None else f"{self.others_cores:.2f} cores"
        yield f"{self.name}: {self.machine}; {self.when}; busy with others: {others}"
        yield from table(self.rows)
        for line in (*self.claims, *self.notes):
            yield f"  {line}"


def shown(value: str | float) -> str:
    """A cell as text."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= _EXACT_FROM else f"{value:.2f}"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Rows with the same keys as lines of text, figures to the right."""
    if not rows:
        return
    cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [isinstance(value, str) for value in rows[0].values()]
    for line in cells:
        yield "  " + "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, texts, strict=True)
        )


def median(values: Sequence[float]) -> float:
    """The median of at least one value."""
    return statistics.median(values)


def machine() -> str:
    """The shape of this machine in a few words."""
    model = platform.processor() or platform.machine()
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        model = info.partition("model name\t: ")[2].partition("\n")[0] or model
    except OSError:
        pass
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


@contextmanager
def watch_others(report: Report) -> Iterator[None]:
    """Stamp `report` with the machine, the time, and what other processes did in the block.

    All processes that the block starts must have ended with it.
    """
    report.machine = machine()
    report.when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    began_s, busy_s, own_s = time.monotonic(), _busy_s(), _own_s()
    yield
    took_s = time.monotonic() - began_s
    busy_now_s = _busy_s()
    if busy_s is not None and busy_now_s is not None:
        spent_s = (busy_now_s - busy_s) - (_own_s() - own_s)
        report.others_cores = max(0.0, spent_s / took_s)


def _busy_s() -> float | None:
    """CPU time that this machine has spent, on anything."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
