"""SQLite in hostile hands: bounded, told in clear words, and no harm to anybody beside.

Memory is measured in a process of its own, as its highest mark never comes down again.
"""

import json
import sqlite3
import stat
import subprocess
import sys

import pytest
import trio

from tests.support.commands import ROOT, environment
from tests.support.databases import databases
from vastar_client.wire import Cancel, Disposition, ErrorClass

MIB = 1 << 20
TWO = """
[tenants.acme.databases.main]
url = "sqlite://{path}/main.db"
{more}
[tenants.rival.databases.main]
url = "sqlite://{path}/main.db"
"""
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select {} from n"


def config(tmp_path, more: str = "") -> str:
    return TWO.format(path=tmp_path, more=more)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        # Other files, and what reads or writes them.
        ("attach 'file:/etc/passwd?mode=ro' as x", "not authorized"),
        ("vacuum", "denied"),
        ("vacuum main into '/tmp/stolen.db'", "denied"),
        ("select readfile('/etc/passwd')", "no such function"),
        ("select writefile('/tmp/x', 'y')", "no such function"),
        ("select edit('x')", "no such function"),
        ("select load_extension('/tmp/x.so', 'init')", "not authorized"),
        ("select fts3_tokenizer('simple', x'00')", "not authorized"),
        ("create virtual table v using csv(filename='/etc/passwd')", "not authorized"),
        ("create virtual table v using fts5(a)", "not authorized"),
        ("select * from fsdir('/')", "no such table"),
        # The schema and the settings of the connection, which others use too.
        ("pragma writable_schema = on", "not authorized"),
        ("select * from pragma_writable_schema", "not authorized"),
        ("pragma journal_mode = off", "not authorized"),
        ("pragma database_list", "not authorized"),
        ("pragma trusted_schema = on", "not authorized"),
        ("pragma hard_heap_limit = 1", "not authorized"),
        ("pragma mmap_size = 1000000000", "not authorized"),
        ("pragma main.locking_mode = exclusive", "not authorized"),
        ("update sqlite_master set sql = 'x'", "may not be modified"),
        ("create temp view v as select 1", "not authorized"),
        ("begin exclusive", "not authorized"),
        ("end", "not authorized"),
        ("release x", "not authorized"),
        # More than there is room for.
        ("select zeroblob(2000000000)", "too big"),
        ("select randomblob(1000000000)", "too big"),
        ("select length(replace(hex(zeroblob(9000000)), '0', hex(zeroblob(99))))", "too big"),
        ("select " + "(" * 2000 + "1" + ")" * 2000, "overflow"),
        ("select " + "+".join(["1"] * 5000), "too large"),
        ("select 1" + " union all select 1" * 600, "too many terms"),
        ("select * from " + ", ".join(f"sqlite_master m{n}" for n in range(70)), "at most 64"),
        ("select 'a' like '" + "%a" * 1000 + "'", "too complex"),
        ("select json('" + "[" * 3000 + "]" * 3000 + "')", "malformed JSON"),
        ("select '" + "x" * MIB + "'", "too"),
        ("select 1\0", "null character"),
    ],
)
async def test_what_is_refused(tmp_path, sql, words):
    async with databases(tmp_path, config(tmp_path)) as db:
        for operation in ("query", "execute"):
            got = await db.call(operation, sql)
            assert got.error_class in {ErrorClass.INVALID_REQUEST, ErrorClass.PERMANENT}, sql[:80]
            if operation == "query":
                assert words in got.error_message, sql[:80]
        assert await db.query("select count(*) from sqlite_master") == [(0,)]
        assert await db.query("select 1", tenant="rival") == [(1,)]


async def test_views_and_triggers_of_a_stranger_do_what_statements_may(tmp_path):
    with sqlite3.connect(tmp_path / "main.db") as made:
        made.executescript(
            """
            create table t (a);
            create view v as select load_extension('x');
            create trigger w after insert on t begin select load_extension('x'); end;
            """
        )
    made.close()
    async with databases(tmp_path, config(tmp_path)) as db:
        for operation, sql in (
            ("query", "select * from v"),
            ("execute", "insert into t values (1)"),
        ):
            await db.failed(ErrorClass.INVALID_REQUEST, operation, sql)
        assert await db.query("select count(*) from t") == [(0,)]


async def test_files_that_are_none(tmp_path):
    (tmp_path / "text.db").write_text("this is no database, but long enough to be looked at\n" * 99)
    (tmp_path / "loop.db").symlink_to("loop.db")
    (tmp_path / "directory.db").mkdir()
    text = ""
    for name in ("text", "loop", "directory", "nowhere/to"):
        text += f'[tenants.acme.databases."{name[:7]}"]\nurl = "sqlite://{tmp_path}/{name}.db"\n'
    async with databases(tmp_path, text + "[defaults.retry]\nmode = 'off'\n") as db:
        got = await db.failed(ErrorClass.PERMANENT, "query", "select * from t", source="text")
        assert "not a database (SQLITE_NOTADB)" in got.error_message
        for name in ("loop", "directo", "nowhere"):
            got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1", source=name)
            assert "SQLITE_CANTOPEN" in got.error_message
            assert got.disposition is Disposition.NOT_SENT


async def test_a_source_that_is_read_only_makes_no_file(tmp_path):
    text = config(tmp_path, "read_only = true")
    async with databases(tmp_path, text) as db:
        await db.failed(ErrorClass.TRANSIENT, "query", "select 1")
    assert not (tmp_path / "main.db").exists()


async def test_two_tenants_write_into_one_file(tmp_path):
    async with databases(tmp_path, config(tmp_path)) as db:
        await db.execute("create table t (n)")
        await db.execute("insert into t values (0)")
        for number in range(40):
            tenant = "rival" if number % 2 else "acme"
            await db.send("execute", "update t set n = n + 1", tenant=tenant)
        answers = [await db.end.receive() for _ in range(40)]
        assert {each.error_class for each in answers} == {ErrorClass.SUCCESS}
        assert await db.query("select n from t") == [(40,)]


async def test_a_reader_that_holds_on_does_not_stop_a_writer(tmp_path):
    async with databases(tmp_path, config(tmp_path, "max_connections = 2")) as db:
        await db.execute("create table t (n)")
        reading = await db.send("query", ENDLESS.format("max(i)"), timeout_ms=15_000)
        for _ in range(5):
            await db.execute("insert into t values (1)", tenant="rival")
        assert await db.query("select count(*) from t") == [(5,)]
        with trio.fail_after(10):
            await db.end.send(Cancel(reading))
            await db.end.receive()


async def test_what_no_interrupt_reaches_keeps_to_its_own_threads(tmp_path):
    """`printf` counts to a thousand million by itself; who waits leaves all the same."""
    more = "max_connections = 1\nstatement_timeout_s = 0.1"
    async with databases(tmp_path, config(tmp_path, more)) as db:
        with trio.fail_after(15):
            got = await db.failed(
                ErrorClass.TIMEOUT, "query", "select length(printf('%.*c', 700000000, 'x'))"
            )
            assert "statement timeout" in got.error_message
            assert await db.query("select 1", tenant="rival") == [(1,)]
            assert await db.query("select 1") == [(1,)]  # on a new connection


MEASURED = """
import json, resource, sys, threading
from vastar_client.wire.rows import SqlStatement
from vastar_runtime.connectors.sql.errors import SqlError
from vastar_runtime.connectors.sql.jobs import Job
from vastar_runtime.connectors.sql.sqlite import SqliteDriver

path, how, sql = sys.argv[1:]
driver = SqliteDriver(
    path, read_only=False, busy_timeout_s=1, max_rows=100_000, max_bytes=32 << 20
)
session = driver.connect()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = "done"
try:
    job = Job("query", [SqlStatement(sql)])
    if how == "run":
        session.run(job, lambda: None)
    else:
        pieces = session.stream(job, lambda: None)
        piece = next(pieces)
        for _ in range(8):
            piece = pieces.send(16384)
except SqlError as error:
    said = error.words
job = Job("query", [SqlStatement("select 1")])
assert session.run(job, lambda: None)[0].rows == [(1,)]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([said, (after - before) // 1024]))
"""
LATE = "with recursive n(i) as (select 1 union all select i + 1 from n) select {} from n"


@pytest.mark.parametrize(
    ("how", "sql", "words", "most_mib"),
    [
        # One row of 1.2 GB, and many rows of 30 MB each: they used to be fetched by the hundred.
        ("run", "select " + ", ".join(["hex(zeroblob(15000000))"] * 40), "memory", 1100),
        ("run", LATE.format("hex(zeroblob(15000000))"), "takes more than 33554432 bytes", 300),
        (
            "run",
            LATE.format("iif(i < 1000, i, zeroblob(30000000))"),
            "takes more than 33554432 bytes",
            300,
        ),
        ("stream", LATE.format("iif(i < 20000, i, zeroblob(30000000))"), "done", 300),
    ],
)
def test_memory_is_bounded(tmp_path, how, sql, words, most_mib):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "a.db"), how, sql],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said, grown_mib = json.loads(done.stdout)
    assert words in said
    assert grown_mib < most_mib


async def test_the_file_is_not_for_everybody(tmp_path):
    async with databases(tmp_path, config(tmp_path)) as db:
        await db.execute("create table t (n)")
        for suffix in ("", "-wal", "-shm"):
            mode = (tmp_path / f"main.db{suffix}").stat().st_mode
            assert not stat.S_IMODE(mode) & 0o007, suffix
