"""Statements of one session against a real server: prepared, healed, stopped, undone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")

from tests.support.postgres import postgres_server
from vastar_client.wire.rows import SqlStatement
from vastar_runtime.config import DatabaseConfig, database_address
from vastar_runtime.connectors.sql import postgres_statements
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result
from vastar_runtime.connectors.sql.postgres import PostgresDriver
from vastar_runtime.connectors.sql.sessions import Session


@pytest.fixture(scope="module")
def server():
    with postgres_server() as running:
        yield running


@asynccontextmanager
async def opened(server, **fields: Any) -> AsyncIterator[Session]:
    config = DatabaseConfig(url=server.url, **fields)
    session = await PostgresDriver(database_address(server.url), config, None).open()
    yield session
    await session.aclose()


def job(operation: str, *texts: str, params: Any = None) -> Job:
    return Job(operation, [SqlStatement(text, params) for text in texts])


async def run(session: Session, operation: str, *texts: str, params: Any = None) -> list[Result]:
    return await session.run(job(operation, *texts, params=params), lambda: None)


async def rows(session: Session, text: str, params: Any = None) -> list[Any]:
    return list((await run(session, "query", text, params=params))[0].rows)


async def prepared(session: Session) -> list[str]:
    found = await rows(session, "select statement from pg_prepared_statements order by 1")
    return [text for (text,) in found if "pg_prepared_statements" not in text]


async def test_the_third_use_is_prepared(server):
    async with opened(server) as session:
        for number in range(4):
            assert await rows(session, "select %s::int", [number]) == [(number,)]
            assert await prepared(session) == (["select $1::int"] if number > 1 else [])
        assert await rows(session, "select %s::int", [None]) == [(None,)]  # of another type
    async with opened(server, prepared_statements=False) as session:
        for number in range(4):
            await rows(session, "select %s::int", [number])
        assert await prepared(session) == []


async def test_what_is_prepared_makes_room(server, monkeypatch):
    monkeypatch.setattr(postgres_statements, "_PREPARED", 2)
    async with opened(server) as session:
        for text in ("select 1", "select 2", "select 3"):
            for _ in range(3):
                await rows(session, text)
        assert await prepared(session) == ["select 2", "select 3"]


async def test_a_statement_that_cannot_be_prepared(server):
    async with opened(server) as session:
        for _ in range(5):
            with pytest.raises(SqlError, match="SQLSTATE 42601"):
                await rows(session, "selekt")
        assert session.is_usable


@pytest.mark.parametrize("operation", ["query", "transaction", "stream"])
async def test_prepared_statements_that_are_gone_are_made_anew(server, operation):
    async with opened(server) as session:
        await run(session, "execute", "drop table if exists g")
        await run(session, "execute", "create table g (a int)")
        await run(
            session,
            "execute",
            "create or replace function forget() returns int language plpgsql as "
            "$$ begin execute 'deallocate all'; return 1; end $$",
        )
        await run(session, "execute", "create or replace view forgetting as select forget() as a")
        change = "insert into g values (1)"

        async def use() -> list[Any]:
            if operation == "query":
                return await rows(session, "select * from g")
            if operation == "transaction":
                await run(session, "transaction", change, "select * from g")
                return await rows(session, "select count(*) from g")
            stream = session.stream(job("query", "select * from g"), lambda: None)
            got = await stream.next(5)
            assert not (await stream.next(5)).rows
            await stream.aclose()
            return list(got.rows)

        for _ in range(4):
            before = await use()
        assert "select * from g" in await prepared(session)
        await rows(session, "select * from forgetting")  # nobody sees that it forgets
        after = await use()
        assert len(after) == len(before)
        assert operation != "transaction" or after == [(before[0][0] + 1,)]
        for _ in range(3):
            await use()
        async with opened(server) as other:
            await run(other, "execute", "alter table g add column b int")
        result = (await run(session, "query", "select * from g"))[0]
        assert list(result.names) == ["a", "b"]
        assert session.is_usable


LEAVING = [
    "select set_config('search_path', 'nowhere', false)",
    "set search_path = nowhere",
    "set role pg_monitor",
    "select pg_advisory_lock(4711)",
    "select pg_try_advisory_lock_shared(4711)",
    "create temp table t as select 1",
    "select 1 as a into temporary t",
    "listen x",
    "prepare x as select 1",
    "declare c cursor with hold for select 1",
    "do $$ begin perform pg_advisory_lock(4711); perform set_config('a.b', 'c', false); end $$",
    "select leaving(4711)",
]
LEFT = """
select (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
 (select count(*) from pg_prepared_statements where name not like 'vastar_%%'),
 (select count(*) from pg_cursors where is_holdable),
 (select count(*) from pg_class where relpersistence = 't'),
 (select count(*) from pg_listening_channels()),
 current_setting('search_path'), current_setting('a.b', true), current_user = session_user
"""
FUNCTION = (
    "create or replace function leaving(a int) returns int language plpgsql as "
    "$$ begin perform pg_advisory_lock(a); perform set_config('a.b', 'c', false); return a; end $$"
)


async def left(session: Session) -> Any:
    (found,) = await rows(session, LEFT.replace("%%", "%"))
    return (*found[:6], found[6] or "", found[7])


NOTHING = (0, 0, 0, 0, 0, '"$user", public', "", True)


@pytest.mark.parametrize("operation", ["query", "execute", "transaction"])
async def test_nothing_is_left_to_the_next_call(server, operation):
    async with opened(server) as session:
        await run(session, "execute", FUNCTION)
        (pid,) = await rows(session, "select pg_backend_pid()")
        for text in LEAVING:
            # A cursor is declared in a transaction only; alone it is one of its own.
            await run(session, operation, text)
            assert await left(session) == NOTHING, text
        assert await rows(session, "select pg_backend_pid()") == [pid]


async def test_nothing_is_left_by_what_fails_or_is_stopped(server):
    async with opened(server) as session:
        await run(session, "execute", FUNCTION)
        for text in ("select pg_advisory_lock(4711), 1 / 0", "select leaving(1), 'x'::text::int"):
            with pytest.raises(SqlError):
                await run(session, "query", text)
            assert await left(session) == NOTHING
        with trio.move_on_after(0.2):
            await run(session, "query", "select pg_advisory_lock(4711), pg_sleep(600)")
        assert session.is_usable
        assert await left(session) == NOTHING
        stream = session.stream(job("query", "select leaving(i) from n(i)"), lambda: None)
        await stream.aclose()
        series = "select leaving(i) from generate_series(1, 100000) i"
        stream = session.stream(job("query", series), lambda: None)
        assert len((await stream.next(100)).rows) >= 100
        await stream.aclose()
        assert await left(session) == NOTHING
        assert session.is_usable


async def test_what_no_text_shows_is_undone_where_the_source_says_always(server):
    async with opened(server) as session:
        await run(session, "execute", FUNCTION)
        await run(session, "execute", "create or replace view sly as select leaving(1) as a")
    for how, is_left in (("auto", True), ("always", False)):
        async with opened(server, reset=how) as session:
            for _ in range(4):
                await rows(session, "select a from sly")
            assert "select a from sly" in await prepared(session)
            assert (await left(session) != NOTHING) is is_left


async def test_no_cancel_hits_the_next_statement(server):
    async with opened(server) as session:
        (pid,) = await rows(session, "select pg_backend_pid()")
        for turn in range(60):
            texts = ["select pg_sleep(0.001)"] * (1 + turn % 2)
            async with trio.open_nursery() as nursery:
                operation = "transaction" if turn % 2 else "query"
                nursery.start_soon(lambda o=operation, t=texts: run(session, o, *t))
                for _ in range(turn * 3):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert session.is_usable
            assert await rows(session, "select pg_backend_pid(), 1") == [(*pid, 1)]


async def test_a_session_that_cannot_be_stopped_is_given_up(server, monkeypatch):
    async with opened(server) as session, opened(server) as other:
        ((pid,),) = await rows(session, "select pg_backend_pid()")
        monkeypatch.setattr(postgres_statements, "GRACE_S", 0.0)
        with trio.move_on_after(0.1):
            await rows(session, "select pg_sleep(600)")
        assert not session.is_usable
        monkeypatch.undo()
        assert await rows(other, "select pg_terminate_backend(%s, 5000)", [pid]) == [(True,)]


async def test_reading_is_one_round_trip_with_all_that_holds_elsewhere(server):
    async with opened(server, read_only=True, max_rows=1000) as session:
        (pid,) = await rows(session, "select pg_backend_pid()")
        assert len(await rows(session, "select generate_series(1, 1000)")) == 1000
        with pytest.raises(SqlError, match="more than 1000 rows"):
            await rows(session, "select generate_series(1, 1000000000)")
        for text, code in (
            ("select 1 / 0", "22012"),
            ("selekt", "42601"),
            ("drop table x", "25006"),
        ):
            for _ in range(4):
                with pytest.raises(SqlError, match=code):
                    await rows(session, text)
        for text in ("commit", "rollback", "begin", "set transaction read write", "set role none"):
            with pytest.raises(SqlError):
                await rows(session, text)
        (shown,) = await run(session, "execute", "show transaction_read_only")
        assert (shown.rows, shown.names) == ([("on",)], ["transaction_read_only"])
        with trio.move_on_after(0.1):
            await rows(session, "select pg_sleep(600)")
        stream = session.stream(job("query", "select generate_series(1, 2500)"), lambda: None)
        got = 0
        while some := (await stream.next(1000)).rows:
            got += len(some)
        await stream.aclose()
        assert got == 2500
        assert await rows(session, "select pg_backend_pid()") == [pid]


async def test_many_at_once_are_all_or_nothing(server):
    async with opened(server) as session:
        await run(session, "execute", "drop table if exists many")
        await run(session, "execute", "create table many (a int primary key, b text)")
        insert = [SqlStatement("insert into many values (%s, %s)")]

        async def many(params: list[Any]) -> int:
            (result,) = await session.run(Job("execute_many", insert, params), lambda: None)
            return result.row_count

        async def count() -> int:
            return (await rows(session, "select count(*) from many"))[0][0]

        assert await many([]) == 0
        mixed = [[number, None if number % 3 else "x"] for number in range(-5, 70_000, 97)]
        assert await many(mixed) == len(mixed) == await count()
        for bad in ([1, "x"], [-5, "x"], ["y", "x"]):
            with pytest.raises(SqlError):
                await many([*([number, None] for number in range(100_000, 100_250)), bad, [1]])
            assert await count() == len(mixed)
        for turn in range(0, 40, 4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(many, [[number, "z"] for number in range(200_000, 200_300)])
                for _ in range(turn):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert session.is_usable
            left = await count() - len(mixed)
            assert left in {0, 300}
            await run(session, "execute", "delete from many where a >= 200000")
        update = [SqlStatement("select pg_sleep(%s)")]
        slow = Job("execute_many", update, [[0], [0]])
        assert (await session.run(slow, lambda: None))[0].row_count == 2
        async with opened(server) as other:
            await run(other, "execute", "drop table many")
            await run(other, "execute", "create table many (b int, c int, a text)")
        with pytest.raises(SqlError):
            await many([["x", "y"]])
        assert await many([[number, number] for number in range(5)]) == 5


async def test_copy_is_refused_and_the_session_lost(server):
    async with opened(server) as session:
        with pytest.raises(SqlError, match="COPY") as caught:
            await run(session, "execute", "copy (select 1) to stdout")
        assert caught.value.blame is Blame.CALLER
        assert not session.is_usable


async def test_an_empty_statement_and_notices(server):
    async with opened(server) as session:
        (result,) = await run(session, "execute", "-- nothing")
        assert (result.names, result.rows) == ([], [])
        await run(session, "execute", "do $$ begin raise notice 'hear'; end $$")
        assert session.looks_alive()


async def test_dates_that_python_does_not_have(server):
    async with opened(server) as session:
        with pytest.raises(SqlError, match="cannot be read") as caught:
            await rows(session, "select 'infinity'::timestamptz")
        assert caught.value.blame is Blame.DATA
        assert await rows(session, "select 1") == [(1,)]
