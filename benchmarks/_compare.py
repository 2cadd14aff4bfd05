"""Two runs beside each other: what `--compare old.json` prints.

Rows find each other by their benchmark and their identifying columns, which are those that are text
in every row; equal ones by their order. Every figure of a row that both have becomes a line with
old, new and new/old. A comparison is told, never judged: the exit code is not its business, because
two runs are two states of the machine, and ratios to a peer of the same run say more.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import msgspec

from benchmarks._report import Report, Row, shown, table

__all__ = ["Written", "compared", "read"]


class Written(msgspec.Struct):
    """The file of `--json`."""

    reports: list[Report]


@attrs.frozen
class _Key:
    """What a row is: the texts of its identifying columns, and the how-manieth with just these."""

    texts: tuple[tuple[str, str], ...]
    nth: int

    def __str__(self) -> str:
        name = " | ".join(text for _, text in self.texts) or "-"
        return name if not self.nth else f"{name} ({self.nth + 1})"


def read(path: Path) -> list[Report]:
    """The reports in a file that `--json` wrote.

    Raises:
        OSError: it cannot be read.
        msgspec.DecodeError: it is no such file.
    """
    return msgspec.json.decode(path.read_bytes(), type=Written).reports


def compared(old: Iterable[Report], new: Iterable[Report]) -> Iterator[str]:
    """The lines that tell what changed, for every benchmark that is in both."""
    before = {report.name: report for report in old}
    for report in new:
        if report.name not in before:
            yield f"{report.name}: not in the old file"
            continue
        yield from _lines(before[report.name], report)


def _lines(old: Report, new: Report) -> Iterator[str]:
    yield f"{new.name}, old and new: {old.when} and {new.when}"
    if old.machine != new.machine:
        yield f"  ANOTHER MACHINE OR PYTHON: {old.machine} / {new.machine}"
    others = [report.others_cores for report in (old, new)]
    busy = ["unknown" if cores is None else f"{cores:.2f}" for cores in others]
    yield f"  busy with others: {busy[0]} and {busy[1]} cores"
    identifying = _identifying((*old.rows, *new.rows))
    before, after = _by_key(old.rows, identifying), _by_key(new.rows, identifying)
    yield from table(
        [line for key in after if key in before for line in _figures(key, before[key], after[key])]
    )
    for key in before.keys() - after.keys():
        yield f"  only in the old file: {key}"
    for key in after.keys() - before.keys():
        yield f"  only in this run: {key}"


def _identifying(rows: Iterable[Row]) -> set[str]:
    """The columns that are text wherever they are; those of figures may be left empty in a row."""
    figures = {name for row in rows for name, value in row.items() if not isinstance(value, str)}
    return {name for row in rows for name in row} - figures


def _by_key(rows: Iterable[Row], identifying: set[str]) -> dict[_Key, Row]:
    found: dict[_Key, Row] = {}
    for row in rows:
        texts = tuple((name, str(value)) for name, value in row.items() if name in identifying)
        nth = 0
        while _Key(texts, nth) in found:
            nth += 1
        found[_Key(texts, nth)] = row
    return found


def _figures(key: _Key, old: Row, new: Row) -> Iterator[Row]:
    for name, now in new.items():
        was = old.get(name)
        if isinstance(now, str) or was is None or isinstance(was, str):
            continue
        ratio = f"{now / was:.3f}" if was else "-"
        yield {
            "row": str(key),
            "figure": name,
            "old": shown(was),
            "new": shown(now),
            "new/old": ratio,
        }
