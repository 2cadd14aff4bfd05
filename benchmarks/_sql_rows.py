"""Many rows, and whoever waits beside them: the clients of `databases`, each in its own process.

    python -m benchmarks._sql_rows SPEC     (a RowsSpec as JSON; prints a RowsSample as JSON)

`stream` reads a million rows through the runtime as they come, `psycopg` the same directly.
`answers` asks for large answers again and again, and `beside` asks for health every millisecond
meanwhile: its longest wait is about the longest time that the runtime's loop stood still, and
whatever the machine did.
"""

import sys
import time
from typing import Literal

import msgspec
import psycopg

from benchmarks._processes import peak_bytes, reset_peak, resident_bytes
from vastar_client import RuntimeClient, RuntimeConfig

__all__ = ["ANSWER_ROWS", "ROWS", "RowsSample", "RowsSpec"]

ROWS = 1_000_000
ANSWER_ROWS = 100_000
_SERIES = "select i, 'row ' || i, i * 0.5::float8 from generate_series(1, {}) i"
_EVERY_S = 0.001


class RowsSpec(msgspec.Struct, frozen=True):
    """What to do, for so long where it has no end of its own."""

    what: Literal["stream", "psycopg", "answers", "beside"]
    where: str
    watched_pid: int = 0
    seconds: float = 0.0


class RowsSample(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        per_s: rows, or answers.
        over_mb: what the watched process held more than before, at its peak.
        p99_ms, longest_ms: waits for health.
    """

    per_s: float = 0.0
    over_mb: float = 0.0
    p99_ms: float = 0.0
    longest_ms: float = 0.0


def _client(spec: RowsSpec) -> RuntimeClient:
    return RuntimeClient(
        RuntimeConfig(tenant_id="acme", socket_path=spec.where, use_environment=False)
    )


def _stream(spec: RowsSpec) -> RowsSample:
    with _client(spec) as client:
        db = client.database("orders")
        db.query("select 1")
        before = resident_bytes(spec.watched_pid)
        reset_peak(spec.watched_pid)
        began_s, total = time.perf_counter(), 0
        with db.stream(_SERIES.format(ROWS), timeout_s=600) as rows:
            for number, _, _ in rows:
                total += number
        took_s = time.perf_counter() - began_s
        assert total == ROWS * (ROWS + 1) // 2
        over = peak_bytes(spec.watched_pid) - before
        return RowsSample(ROWS / took_s, max(over, 0) / 1e6)


def _psycopg(spec: RowsSpec) -> RowsSample:
    with psycopg.connect(spec.where, autocommit=True) as connection:
        began_s, total = time.perf_counter(), 0
        for row in connection.cursor().stream(_SERIES.format(ROWS).encode(), size=256):
            total += row[0]
        assert total == ROWS * (ROWS + 1) // 2
        return RowsSample(ROWS / (time.perf_counter() - began_s))


def _answers(spec: RowsSpec) -> RowsSample:
    with _client(spec) as client:
        began_s, answers = time.perf_counter(), 0
        while time.perf_counter() - began_s < spec.seconds:
            rows = client.query(_SERIES.format(ANSWER_ROWS), source="orders")
            assert len(rows) == ANSWER_ROWS
            answers += 1
        return RowsSample(answers / (time.perf_counter() - began_s))


def _beside(spec: RowsSpec) -> RowsSample:
    waits_ms: list[float] = []
    with _client(spec) as client:
        client.health()
        end_s = time.perf_counter() + spec.seconds
        while (began_s := time.perf_counter()) < end_s:
            client.health()
            waits_ms.append((time.perf_counter() - began_s) * 1000)
            time.sleep(_EVERY_S)
    waits_ms.sort()
    return RowsSample(
        len(waits_ms) / spec.seconds,
        p99_ms=waits_ms[len(waits_ms) * 99 // 100],
        longest_ms=waits_ms[-1],
    )


_ALL = {"stream": _stream, "psycopg": _psycopg, "answers": _answers, "beside": _beside}


def main() -> None:
    """Do what the first argument says."""
    spec = msgspec.json.decode(sys.argv[1], type=RowsSpec)
    print(msgspec.json.encode(_ALL[spec.what](spec)).decode())


if __name__ == "__main__":
    main()
