"""What callers have in databases stays out of the log: planted values, in all that can fail."""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import databases
from tests.support.log_lines import log_to
from tests.support.postgres import postgres_server
from vastar_client.wire import ErrorClass
from vastar_runtime import logs

SECRET = "xyzzy-4711-alice"
SQLITE = f"""
create table t (a text unique check (a <> 'x'), n integer);
insert into t values ('{SECRET}', 1)
"""
FAILING: list[tuple[str, str, list[object] | None]] = [
    ("query", f"select '{SECRET}", None),
    ("query", f"select {SECRET.replace('-', '_')}", None),
    ("query", f'select * from "{SECRET}"', None),
    ("query", "select ?, ?", [SECRET]),
    ("execute", "insert into t values (?, 1)", [SECRET]),
    ("execute", f"insert into t values ('{SECRET}', 1)", None),
    ("execute", f"create table t ('{SECRET}')", None),
    ("query", "select json_extract(?, '$.a')", [SECRET]),
    ("query", "select ?", [float("nan")]),
    (f"{SECRET}"[:5], "select 1", None),
]
OF_POSTGRES: list[tuple[str, str, list[object] | None]] = [
    ("query", f"select '{SECRET}", None),
    ("query", f"select {SECRET.replace('-', '_')}", None),
    ("query", f"select '{SECRET}'::int", None),
    ("query", "select %s::int", [SECRET]),
    ("query", "select %s::uuid", [SECRET]),
    ("query", "select %s, %s", [SECRET]),
    ("execute", "insert into t values (%s)", [SECRET]),
    ("execute", f"do $$ begin raise exception '{SECRET}'; end $$", None),
    ("query", "select '-infinity'::date, '4000-01-01 BC'::timestamp", None),
    ("query", f"select '{SECRET}'::json", None),
]


@pytest.fixture
def reasons(tmp_path) -> Iterator[Callable[[], list[str]]]:
    """Gives the reasons that were logged, when it was seen that nothing holds the secret."""
    with log_to(tmp_path / "log") as fd:
        logs.configure("debug", "json", fd)

        def read() -> list[str]:
            text = os.pread(fd, 1 << 22, 0).decode()
            assert "4711" not in text, text
            events = map(json.loads, text.splitlines())
            return [each["reason"] for each in events if "reason" in each]

        yield read


async def test_sqlite(tmp_path, reasons):
    async with databases(
        tmp_path, f'[tenants.acme.databases.main]\nurl = "sqlite://{tmp_path}/a.db"'
    ) as db:
        for statement in SQLITE.strip().split(";"):
            await db.execute(statement)
        words = []
        for operation, sql, params in FAILING:
            got = await db.call(operation, sql, params)
            assert got.error_class is not ErrorClass.SUCCESS, sql
            words.append(got.error_message)
    found = reasons()
    assert len(found) == len(FAILING)
    assert "sqlite: the data refuse the statement (SQLITE_CONSTRAINT_UNIQUE)" in found
    assert any("4711" in str(each) for each in words)  # who asked is told


@pytest.mark.slow
@pytest.mark.cap_s(60)
async def test_postgresql(tmp_path, reasons):
    with postgres_server() as server:
        async with databases(
            tmp_path, f'[tenants.acme.databases.main]\nurl = "{server.url}"'
        ) as db:
            await db.execute("create table t (a text unique)")
            await db.execute("insert into t values (%s)", [SECRET])
            words = []
            for operation, sql, params in OF_POSTGRES:
                got = await db.call(operation, sql, params)
                assert got.error_class is not ErrorClass.SUCCESS, sql
                words.append(got.error_message)
        found = reasons()
    assert len(found) == len(OF_POSTGRES)
    assert "postgres: the data refuse the statement (SQLSTATE 23505)" in found
    assert any("4711" in str(each) for each in words)
