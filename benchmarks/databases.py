"""Queries through the runtime beside psycopg and sqlite3 called directly; many rows at once.

Peers: psycopg 3 in threads and on asyncio, and sqlite3 in threads, each in a process of its own and
against the same server or file in the same round. The server is a real PostgreSQL on loopback
(`tools.postgres`), without fsync, which reading does not need.

Load shape: 16 queries under way, each of one row by its key, prepared by all; the runtime has 16
callers with one query each, and a source with 16 connections. Its load is `_load`, raw frames.
"stream" is 1,000,000 rows of three columns, read by the blocking client; "MB over idle" is the
runtime's peak above what it held before. "beside" are health checks every millisecond, alone and
while another caller asks for answers of 100,000 rows (4 MB) without a pause: the longest wait is
about the longest time that the runtime's loop stood still.

Read it so: "CPU us" is what one query costs the measured process: policies, metrics and the access
log of the runtime are in it, and a peer's own loop. The server takes its share of the same cores,
so queries/s compare within a round only. "x peer" is the median of queries/s over those of the
first peer, psycopg or sqlite3 in threads, in the same round. Waits hold whatever else there was.

Cheating would be: a server that both do not use alike; answers that nobody checks; prepared
statements on one side; a memory figure of a stream that nobody reads.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from benchmarks._processes import Cores, cores, run_json, running_runtime
from benchmarks._report import Claim, Options, Report, Row, Sample, median, watch_others
from benchmarks._sql_load import POINT, SqlSpec
from benchmarks._sql_peers import PeerSpec, Way
from benchmarks._sql_rows import RowsSample, RowsSpec
from tools.postgres import running_postgres

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "databases: queries/s, CPU us beside psycopg and sqlite3; a million rows; stalls"
AT_ONCE: Final = 16
_WARM_S: Final = 0.5
_ITEMS: Final = 1000
WANTED_CPU_US: Final = 170.0
WANTED_OVER_MB: Final = 16.0
WANTED_STALL_MS: Final = 40.0
_SHAPES: Final[tuple[tuple[str, str, tuple[Way, ...]], ...]] = (
    ("orders", "%s", ("psycopg threads", "psycopg asyncio")),
    ("local", "?", ("sqlite3",)),
)


def run(options: Options) -> Report:
    """Measure queries in turns, then rows and stalls once a round."""
    report = Report("databases", [])
    where = cores(pin=options.pin)
    with (
        watch_others(report),
        tempfile.TemporaryDirectory(prefix="vastar-bench-") as folder,
        running_postgres() as server,
    ):
        path = str(Path(folder, "local.db"))
        _fill(server.url, path)
        config = Path(folder, "vastar.toml")
        config.write_text(
            f'[tenants.acme.databases.orders]\nurl = "{server.url}"\n'
            f"max_connections = {AT_ONCE}\nmax_rows = 1_000_000\n"
            f'[tenants.acme.databases.local]\nurl = "sqlite://{path}"\n'
            f"max_connections = {AT_ONCE}\n"
        )
        places = {"orders": server.url, "local": path}
        for shape in _SHAPES:
            source = shape[0]
            samples = _measure(shape, places[source], str(config), options, where)
            report.rows += [_row(source, name, samples) for name in samples]
            if source == "orders":
                cpu_us = median([sample.cpu_us for sample in samples["runtime"]])
                text = "CPU us a query of PostgreSQL, 16 at once"
                report.claims.append(Claim(text, cpu_us, WANTED_CPU_US, at_most=True))
        _rows(report, server.url, str(config), options, where)
        _stalls(report, str(config), options, where)
    return report


def _fill(url: str, path: str) -> None:
    """The same table in both."""
    import sqlite3  # noqa: PLC0415 - with psycopg, which is an extra

    import psycopg  # noqa: PLC0415 - an extra

    create = "create table items (id integer primary key, name text, n {})"
    rows: list[Any] = [(number, f"item {number}", number / 2) for number in range(_ITEMS)]
    with psycopg.connect(url) as connection:
        connection.execute(create.format("float8").encode())
        connection.cursor().executemany("insert into items values (%s, %s, %s)", rows)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("pragma journal_mode = wal")
        file.execute(create.format("real"))
        file.executemany("insert into items values (?, ?, ?)", rows)


def _measure(
    shape: tuple[str, str, tuple[Way, ...]], place: str, config: str, options: Options, where: Cores
) -> dict[str, list[Sample]]:
    """The contestants in turn, round after round."""
    source, mark, peers = shape
    samples: dict[str, list[Sample]] = {"runtime": [], **{way: [] for way in peers}}
    for _ in range(options.rounds):
        with running_runtime("--config", config, core=where.measured) as runtime:
            load = SqlSpec(
                socket_path=runtime.socket_path,
                url="",
                connections=AT_ONCE,
                depth=1,
                seconds=options.seconds,
                warm_s=_WARM_S,
                watched_pid=runtime.pid,
                source=source,
                sql=POINT + mark,
            )
            core = where.other
            samples["runtime"].append(run_json("benchmarks._sql_load", load, Sample, core=core))
        for way in peers:
            spec = PeerSpec(way, place, AT_ONCE, options.seconds, _WARM_S)
            core = where.measured
            samples[way].append(run_json("benchmarks._sql_peers", spec, Sample, core=core))
    return samples


def _row(source: str, name: str, samples: dict[str, list[Sample]]) -> Row:
    own = samples[name]
    first = next(way for way in samples if way != "runtime")
    ratios = [
        mine.requests_per_s / theirs.requests_per_s
        for mine, theirs in zip(own, samples[first], strict=True)
    ]
    return {
        "what": "PostgreSQL" if source == "orders" else "SQLite",
        "who": name,
        "per s": median([sample.requests_per_s for sample in own]),
        "p50 ms": median([sample.p50_us for sample in own]) / 1000,
        "p99 ms": median([sample.p99_us for sample in own]) / 1000,
        "CPU us": median([sample.cpu_us for sample in own]),
        "x peer": median(ratios),
    }


def _other_row(what: str, who: str, per_s: float, p99_ms: float = 0.0) -> Row:
    return {
        "what": what,
        "who": who,
        "per s": per_s,
        "p50 ms": 0.0,
        "p99 ms": p99_ms,
        "CPU us": 0.0,
        "x peer": 0.0,
    }


def _rows(report: Report, url: str, config: str, options: Options, where: Cores) -> None:
    """A million rows as they come."""
    streams: list[RowsSample] = []
    direct: list[RowsSample] = []
    for _ in range(options.rounds):
        with running_runtime("--config", config, core=where.measured) as runtime:
            spec = RowsSpec("stream", runtime.socket_path, runtime.pid)
            streams.append(_client(spec, where))
        direct.append(_client(RowsSpec("psycopg", url), where))
    report.rows.append(
        _other_row("rows as a stream", "runtime", median([s.per_s for s in streams]))
    )
    report.rows.append(_other_row("rows as a stream", "psycopg", median([s.per_s for s in direct])))
    over_mb = median([sample.over_mb for sample in streams])
    text = "MB over idle while 1,000,000 rows are streamed"
    report.claims.append(Claim(text, over_mb, WANTED_OVER_MB, at_most=True))


def _stalls(report: Report, config: str, options: Options, where: Cores) -> None:
    """Health checks alone, and beside large answers."""
    alone: list[RowsSample] = []
    beside: list[RowsSample] = []
    with running_runtime("--config", config, core=where.measured) as runtime:
        for _ in range(options.rounds):
            look = RowsSpec("beside", runtime.socket_path, seconds=options.seconds)
            alone.append(_client(look, where))
            with ThreadPoolExecutor(1) as pool:
                ask = RowsSpec("answers", runtime.socket_path, seconds=options.seconds + 1)
                answers = pool.submit(_client, ask, where)
                beside.append(_client(look, where))
                answers.result()
    for who, some in (("alone", alone), ("beside large answers", beside)):
        p99_ms = median([sample.p99_ms for sample in some])
        report.rows.append(
            _other_row("health checks", who, median([s.per_s for s in some]), p99_ms)
        )
    longest_ms = median([sample.longest_ms for sample in alone])
    report.notes.append(f"longest wait for health alone: {longest_ms:.1f} ms")
    text = "ms, longest wait for health beside answers of 100,000 rows"
    longest_ms = median([sample.longest_ms for sample in beside])
    report.claims.append(Claim(text, longest_ms, WANTED_STALL_MS, at_most=True))


def _client(spec: RowsSpec, where: Cores) -> RowsSample:
    return run_json("benchmarks._sql_rows", spec, RowsSample, core=where.other)
