"""PostgreSQL through the whole runtime, against a real server, on the real clock."""

import datetime as dt
import math
from decimal import Decimal
from uuid import UUID

import pytest
import trio

from tests.support.databases import Databases, databases, sql_request
from tests.support.postgres import postgres_server
from vastar_client.wire import Cancel, Disposition, ErrorClass, StreamEnd, StreamStart
from vastar_client.wire.values import Json


@pytest.fixture(scope="module")
def server():
    with postgres_server() as running:
        yield running


def config(server, more: str = "", tail: str = "") -> str:
    return f'[tenants.acme.databases.main]\nurl = "{server.url}"\n{more}\n{tail}'


async def active(db: Databases) -> list[tuple[str, ...]]:
    """What other statements the server runs now."""
    return await db.query(
        "select query from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() "
        "and backend_type = 'client backend'"
    )


async def test_values_both_ways(tmp_path, server):
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    moment = dt.datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=zone)
    values = {
        "int8": 2**63 - 1,
        "numeric": Decimal("12345678901234567890.000100"),
        "float8": 1.5,
        "text": "\N{SNOWMAN}%s",
        "bytea": b"\x00\xff",
        "bool": True,
        "date": dt.date(2026, 11, 22),
        "time": dt.time(1, 2, 3, 4),
        "timestamp": dt.datetime(2026, 11, 22, 1, 2, 3),  # noqa: DTZ001 - one without a zone
        "timestamptz": moment,
        "interval": dt.timedelta(days=-1, microseconds=5),
        "uuid": UUID(int=7),
        "jsonb": Json({"a": [1, None]}),
        "int4[]": [1, None, 3],
        "text[]": ["a", "b"],
    }
    async with databases(tmp_path, config(server)) as db:
        columns = ", ".join(f"%s::{kind}" for kind in values)
        (block,) = await db.results("query", f"select {columns}, null", list(values.values()))
        row = [column[0] for column in block.data]
        expected = [value.value if isinstance(value, Json) else value for value in values.values()]
        assert row == [*expected, None]
        assert block.types[:3] == ["int", "decimal", "float"]
        assert block.types[9:15] == ["timestamptz", "interval", "uuid", "json", "array", "array"]
        assert await db.query("select %(a)s::int8 + 1", {"a": 2}) == [(3,)]
        assert await db.query("select %s::numeric", [2**70]) == [(Decimal(2**70),)]
        ((nan,),) = await db.query("select %s::float8", [math.nan])
        assert math.isnan(nan)
        assert await db.query("select 5 % 3") == [(2,)]


async def test_operations(tmp_path, server):
    async with databases(tmp_path, config(server)) as db:
        await db.execute("drop table if exists t")
        await db.execute("create table t (id int primary key, name text)")
        insert = "insert into t values (%s, %s)"
        (many,) = await db.results(
            "execute_many", insert, params_list=[[number, "x"] for number in range(5)]
        )
        assert many.row_count == 5
        assert (await db.execute("update t set name = 'y' where id < 2")).row_count == 2
        results = await db.results(
            "transaction",
            statements=[(insert, [10, "z"]), ("select count(*) from t", None)],
            isolation="serializable",
        )
        assert results[1].data == [[6]]
        got = await db.failed(
            ErrorClass.PERMANENT,
            "transaction",
            statements=[(insert, [11, "z"]), (insert, [0, "z"])],
        )
        assert "(SQLSTATE 23505)" in (got.error_message or "")
        assert await db.query("select count(*) from t") == [(6,)]
        got = await db.json(
            "query", {"sql": "select id, 1.5 as n from t where id = %s", "params": [1]}
        )
        assert got["columns"] == [{"name": "id", "type": "int"}, {"name": "n", "type": "decimal"}]
        assert got["rows"] == [[1, {"$decimal": "1.5"}]]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("selekt", "42601"),
        ("select * from nothing", "42P01"),
        ("select 1; select 2", "42601"),
        ("commit; create table leak (a int)", "42601"),
        ("select %s", None),
    ],
)
async def test_the_callers_faults(tmp_path, server, sql, code):
    async with databases(tmp_path, config(server)) as db:
        got = await db.failed(
            ErrorClass.INVALID_REQUEST, "query", sql, ["a", "b"] if not code else None
        )
        assert code is None or f"SQLSTATE {code}" in (got.error_message or "")
        assert await db.query("select 1") == [(1,)]


@pytest.mark.parametrize("sql", ["begin", "commit", "rollback and chain", "start transaction"])
async def test_transactions_are_an_operation(tmp_path, server, sql):
    async with databases(tmp_path, config(server)) as db:
        for operation, fields in (("query", {}), ("transaction", {"statements": [(sql, None)]})):
            text = sql if operation == "query" else ""
            got = await db.call(operation, text, **fields)
            assert got.error_class is not ErrorClass.SUCCESS
        assert await db.query("select 1") == [(1,)]


async def test_a_source_that_is_read_only(tmp_path, server):
    async with databases(tmp_path, config(server)) as db:
        await db.execute("drop table if exists r")
        await db.execute("create table r (a int)")
    async with databases(tmp_path, config(server, "read_only = true")) as db:
        write = "insert into r values (1)"
        for sql in (
            write,
            "create table s (a int)",
            "with w as (insert into r values (1) returning a) select * from w",
        ):
            for operation in ("query", "execute"):
                got = await db.failed(ErrorClass.INVALID_REQUEST, operation, sql)
                assert "SQLSTATE 25006" in (got.error_message or "")
        for first in (
            "set transaction read write",
            "set default_transaction_read_only = off",
            "set session characteristics as transaction read write",
            "select set_config('transaction_read_only', 'off', false)",
            "select set_config('default_transaction_read_only', 'off', false)",
            "commit and chain",
            "commit",
        ):
            await db.failed(
                ErrorClass.INVALID_REQUEST, "transaction", statements=[(first, None), (write, None)]
            )
            await db.call("execute", first)
            await db.failed(ErrorClass.INVALID_REQUEST, "execute", write)
        assert await db.query("select count(*) from r") == [(0,)]


async def test_what_is_too_much_is_not_taken_from_the_server(tmp_path, server):
    async with databases(tmp_path, config(server, "max_rows = 10")) as db:
        series = "select generate_series(1, 2000000000)"
        with trio.fail_after(5):
            got = await db.failed(ErrorClass.PERMANENT, "query", series)
        assert "more than 10 rows" in (got.error_message or "")
        assert await active(db) == []
        (block,) = await db.results("query", "select 1 as a, '%%' as b where 1 = %s", [2])
        assert (block.names, block.types, block.row_count) == (["a", "b"], ["int", "text"], 0)
        (block,) = await db.results("query", "select 1 as a where '%' = 'x'")
        assert block.names == ["a"]


async def test_settings_do_not_reach_the_next_call(tmp_path, server):
    async with databases(tmp_path, config(server, "max_connections = 1")) as db:
        await db.execute("set application_name = 'mine'")
        assert await db.query("show application_name") == [("vastar",)]


async def test_timeouts_and_cancel_stop_the_statement_on_the_server(tmp_path, server):
    more = "max_connections = 2\nstatement_timeout_s = 5"
    async with databases(tmp_path, config(server, more)) as db:
        (pid,) = await db.query("select pg_backend_pid()")
        got = await db.failed(ErrorClass.TIMEOUT, "query", "select pg_sleep(60)", timeout_ms=200)
        assert got.disposition is Disposition.SENT_NO_RESPONSE
        assert await active(db) == []
        ident = await db.send("query", "select pg_sleep(61)")
        await trio.sleep(0.1)
        assert await active(db) == [("select pg_sleep(61)",)]
        with trio.fail_after(5):
            await db.end.send(Cancel(ident))
            cancelled = await db.end.receive()
        assert "cancelled by caller" in cancelled.error_message
        assert await active(db) == []
        assert await db.query("select pg_backend_pid()") == [pid]  # the connection lives on


async def test_the_statement_timeout_is_the_sources(tmp_path, server):
    async with databases(tmp_path, config(server, "statement_timeout_s = 0.2")) as db:
        got = await db.failed(ErrorClass.TIMEOUT, "query", "select pg_sleep(60)")
        assert "statement timeout of 0.2 s" in (got.error_message or "")


async def test_a_deadlock_is_transient_and_retried_only_where_that_is_safe(tmp_path, server):
    async with databases(tmp_path, config(server)) as db:
        await db.execute("drop table if exists d")
        await db.execute("create table d (id int primary key, n int)")
        await db.execute("insert into d values (1, 0), (2, 0)")
        await db.execute("alter system set deadlock_timeout = '50ms'")
        await db.query("select pg_reload_conf()")
        lock = "update d set n = n + 1 where id = %s"

        def crossing(first: int, second: int) -> list[tuple[str, object]]:
            return [(lock, [first]), ("select pg_sleep(0.3)", None), (lock, [second])]

        for key, classes in ((None, 1), ("k", 2)):
            for pair in ((1, 2), (2, 1)):
                await db.send("transaction", statements=crossing(*pair), idempotency_key=key)
            answers = [await db.end.receive() for _ in range(2)]
            successes = [each for each in answers if each.error_class is ErrorClass.SUCCESS]
            assert len(successes) == classes
            for each in answers:
                if each.error_class is not ErrorClass.SUCCESS:
                    assert each.error_class is ErrorClass.TRANSIENT
                    assert "SQLSTATE 40P01" in each.error_message


async def test_a_killed_server_mid_query_and_its_restart(tmp_path, server):
    tail = "[defaults.breaker]\nmode = 'off'\n[defaults.retry]\nmode = 'off'"
    async with databases(tmp_path, config(server, tail=tail)) as db:
        await db.query("select 1")
        await db.send("query", "select pg_sleep(60)")
        await trio.sleep(0.2)
        await trio.to_thread.run_sync(server.stop)
        with trio.fail_after(10):
            got = await db.end.receive()
        assert got.error_class is ErrorClass.TRANSIENT
        assert got.disposition is Disposition.SENT_NO_RESPONSE
        got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1")
        assert f"connecting to postgres://127.0.0.1:{server.port} failed" in (
            got.error_message or ""
        )
        assert got.disposition is Disposition.NOT_SENT
        await trio.to_thread.run_sync(server.start)
        assert await db.query("select 1") == [(1,)]


async def test_idle_connections_that_a_restart_killed_are_replaced(tmp_path, server):
    async with databases(tmp_path, config(server)) as db:
        await db.query("select 1")
        await trio.to_thread.run_sync(server.stop)
        await trio.to_thread.run_sync(server.start)
        assert await db.query("select 1") == [(1,)]
        assert await db.execute("select 1") is not None


async def test_a_block_that_ends_its_transaction_writes_nothing_where_only_reading_is_allowed(
    tmp_path, server
):
    async with databases(tmp_path, config(server)) as db:
        await db.execute("drop table if exists b")
        await db.execute("create table b (a int)")
    async with databases(tmp_path, config(server, "read_only = true")) as db:
        for block in (
            "do $$ begin commit; set transaction read write; insert into b values (1); end $$",
            "do $$ begin set default_transaction_read_only=0;commit;insert into b values (1);end$$",
        ):
            for operation in ("query", "execute"):
                await db.call(operation, block)
            await db.call("transaction", statements=[(block, None)])
        await db.failed(ErrorClass.INVALID_REQUEST, "execute", "insert into b values (1)")
        assert await db.query("select count(*) from b") == [(0,)]


async def test_a_transaction_is_not_ended_by_one_of_its_statements(tmp_path, server):
    async with databases(tmp_path, config(server)) as db:
        await db.execute("drop table if exists w")
        await db.execute("create table w (a int)")
        for end in ("commit", "/* */ end", "commit and chain"):
            got = await db.failed(
                ErrorClass.INVALID_REQUEST,
                "transaction",
                statements=[("insert into w values (1)", None), (end, None), ("selekt", None)],
            )
            assert "not allowed here" in (got.error_message or "")
        assert await db.query("select count(*) from w") == [(0,)]
        settings = [("set local datestyle = 'German'", None), ("select now()", None)]
        got = await db.failed(ErrorClass.INVALID_REQUEST, "transaction", statements=settings)
        assert "DateStyle cannot be changed here" in (got.error_message or "")


async def test_bounds_hold_for_all_operations_and_undo_what_passed_them(tmp_path, server):
    async with databases(tmp_path, config(server, "max_rows = 10\nmax_result_bytes = 65536")) as db:
        await db.execute("drop table if exists m")
        await db.execute("create table m (a int)")
        insert = "insert into m select generate_series(1, {}) returning a"
        assert (await db.execute(insert.format(10))).length == 10
        for operation in ("execute", "query"):
            await db.failed(ErrorClass.PERMANENT, operation, insert.format(11))
            await db.failed(ErrorClass.PERMANENT, operation, insert.format(100_000))
        half = "select repeat('x', 40000)"
        await db.results("transaction", statements=[(half, None)])
        got = await db.failed(
            ErrorClass.PERMANENT,
            "transaction",
            statements=[("insert into m values (1)", None), (half, None), (half, None)],
        )
        assert "more than 65536 bytes" in (got.error_message or "")
        assert await db.query("select count(*) from m") == [(10,)]
        many = await db.results(
            "execute_many", "insert into m values (%s) returning a", params_list=[[1]] * 100
        )
        assert many[0].row_count == 100
        assert await active(db) == []


async def test_a_caller_who_goes_away_stops_the_statement(tmp_path, server):
    async with databases(tmp_path, config(server)) as db:
        other = db.running.caller()
        await other.send(sql_request(1, "query", "select pg_sleep(600)"))
        while not await active(db):  # noqa: ASYNC110 - the server tells nobody
            await trio.sleep(0.01)
        await other.close()
        while await active(db):  # noqa: ASYNC110 - the same
            await trio.sleep(0.01)


async def test_the_connection_lives_on_after_a_stream_is_left(tmp_path, server):
    async with databases(tmp_path, config(server, "max_connections = 1\nread_only = true")) as db:
        (pid,) = await db.query("select pg_backend_pid()")
        for _ in range(3):
            ident = await db.send("query", "select generate_series(1, 100000000)", stream=True)
            assert isinstance(await db.end.receive(), StreamStart)
            await db.end.send(Cancel(ident))
            while not isinstance(await db.end.receive(), StreamEnd):
                pass
            assert await db.query("select pg_backend_pid()") == [pid]
