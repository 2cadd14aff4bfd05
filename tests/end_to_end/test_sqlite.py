"""SQLite through the whole runtime, over memory streams, on the real clock."""

import sqlite3
from decimal import Decimal
from uuid import UUID

import pytest
import trio

from tests.support.databases import Databases, databases
from vastar_client.wire import Cancel, Disposition, ErrorClass
from vastar_client.wire.values import Json

COUNT_FOREVER = (
    "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
)
CONFIG = """
[tenants.acme.databases.main]
url = "sqlite://{path}"
{more}
"""


@pytest.fixture
def config(tmp_path):
    def make(more: str = "", name: str = "main.db") -> str:
        return CONFIG.format(path=tmp_path / name, more=more)

    return make


async def filled(db: Databases, rows: int = 3) -> None:
    await db.execute("create table t (id integer primary key, name text unique, n real)")
    await db.results(
        "execute_many",
        "insert into t (name, n) values (?, ?)",
        params_list=[[f"name {number}", number / 2] for number in range(rows)],
    )


async def test_rows_come_back_with_names_and_types(tmp_path, config):
    async with databases(tmp_path, config()) as db:
        await filled(db)
        (block,) = await db.results("query", "select * from t where id > :least", {"least": 1})
        assert block.names == ["id", "name", "n"]
        assert block.types == ["int", "text", "float"]
        assert block.data == [[2, 3], ["name 1", "name 2"], [0.5, 1.0]]
        assert block.row_count == 2
        made = await db.execute("insert into t (name) values (?)", ["x"], source="main")
        assert (made.row_count, made.last_id) == (1, 4)
        changed = await db.execute("update t set n = 0 where id <= 2 returning id")
        assert sorted(changed.data[0]) == [1, 2]
        assert await db.query("select count(*) from t where 1 = 2") == [(0,)]
        assert await db.query("select name from t where 1 = 2") == []


async def test_values_both_ways(tmp_path, config):
    an_id = UUID(int=7)
    async with databases(tmp_path, config()) as db:
        values = [None, True, -(2**63), 1.5, "\N{SNOWMAN}", b"\x00\xff", Decimal("1.10"), an_id]
        (row,) = await db.query("select ?, ?, ?, ?, ?, ?, ?, ?", values)
        assert row == (None, 1, -(2**63), 1.5, "\N{SNOWMAN}", b"\x00\xff", "1.10", str(an_id))
        assert await db.query("select json_extract(?, '$.a')", [Json({"a": 5})]) == [(5,)]
        for bad in (2**64, float("nan"), [1], "\udc80"):
            if bad != "\udc80":
                await db.failed(ErrorClass.INVALID_REQUEST, "query", "select ?", [bad])


async def test_json_for_published_sdks(tmp_path, config):
    async with databases(tmp_path, config()) as db:
        await filled(db, 1)
        got = await db.json(
            "query", {"sql": "select *, x'00ff' from t where id = ?", "params": [1]}
        )
        assert got["success"] is True
        assert [column["name"] for column in got["columns"]][:3] == ["id", "name", "n"]
        assert got["rows"] == [[1, "name 0", 0.0, {"$bytes": "AP8="}]]
        both = {"statements": [{"sql": "delete from t"}, {"sql": "select count(*) from t"}]}
        got = await db.json("transaction", both)
        assert got["results"][0]["row_count"] == 1
        assert got["results"][1]["rows"] == [[0]]


async def test_a_transaction_is_all_or_nothing(tmp_path, config):
    async with databases(tmp_path, config()) as db:
        await filled(db)
        insert = "insert into t (name) values (?)"
        results = await db.results(
            "transaction", statements=[(insert, ["a"]), ("select count(*) from t", None)]
        )
        assert results[1].data == [[4]]
        got = await db.failed(
            ErrorClass.PERMANENT, "transaction", statements=[(insert, ["b"]), (insert, ["a"])]
        )
        assert "SQLITE_CONSTRAINT_UNIQUE" in (got.error_message or "")
        await db.failed(ErrorClass.PERMANENT, "execute_many", insert, params_list=[["c"], ["a"]])
        assert await db.query("select count(*) from t") == [(4,)]


@pytest.mark.parametrize(
    "sql",
    [
        "attach database '/tmp/other.db' as other",
        "vacuum into '/tmp/other.db'",
        "pragma journal_mode = delete",
        "pragma writable_schema = 1",
        "pragma temp_store_directory = '/tmp'",
        "begin",
        "commit",
        "savepoint a",
        "create temp table x (a)",
        "select load_extension('x')",
        "select 1; select 2",
        "selekt",
        "select * from nothing",
        "select ?",
    ],
)
async def test_what_is_refused(tmp_path, config, sql):
    async with databases(tmp_path, config()) as db:
        for operation in ("query", "execute"):
            await db.failed(ErrorClass.INVALID_REQUEST, operation, sql)
        assert await db.query("select name from pragma_table_info('t')") == []


async def test_a_source_that_is_read_only(tmp_path, config):
    sqlite3.connect(tmp_path / "main.db").executescript(
        "create table t (a); insert into t values (1)"
    )
    async with databases(tmp_path, config("read_only = true")) as db:
        assert await db.query("select a from t") == [(1,)]
        for sql in (
            "insert into t values (2)",
            "drop table t",
            "create table u (a)",
            "delete from t",
        ):
            for operation in ("query", "execute"):
                got = await db.failed(ErrorClass.INVALID_REQUEST, operation, sql)
                assert "not authorized" in (got.error_message or "")
        results = await db.results("transaction", statements=[("select a from t", None)])
        assert results[0].data == [[1]]


async def test_too_many_rows_or_bytes(tmp_path, config):
    async with databases(tmp_path, config("max_rows = 10\nmax_result_bytes = 4096")) as db:
        series = (
            "with recursive n(i) as (select 1 union all select i + 1 from n limit {}) "
            "select i from n"
        )
        assert len(await db.query(series.format(10))) == 10
        got = await db.failed(ErrorClass.PERMANENT, "query", series.format(11))
        assert "more than 10 rows" in (got.error_message or "")
        got = await db.failed(ErrorClass.PERMANENT, "query", series.format(5), max_rows=4)
        assert "more than 4 rows" in (got.error_message or "")
        got = await db.failed(ErrorClass.PERMANENT, "query", "select hex(zeroblob(8000))")
        assert "4096 bytes" in (got.error_message or "")


async def test_times_end_statements(tmp_path, config):
    async with databases(tmp_path, config("statement_timeout_s = 0.1\nmax_connections = 1")) as db:
        got = await db.failed(ErrorClass.TIMEOUT, "query", COUNT_FOREVER)
        assert "statement timeout of 0.1 s" in (got.error_message or "")
        got = await db.failed(ErrorClass.TIMEOUT, "query", COUNT_FOREVER, timeout_ms=50)
        assert "timeout_ms of 50 ms" in (got.error_message or "")
        assert got.disposition is Disposition.SENT_NO_RESPONSE
        assert await db.query("select 1") == [(1,)]  # on the one connection there is


async def test_cancel_interrupts_and_rolls_back(tmp_path, config):
    async with databases(tmp_path, config("max_connections = 1")) as db:
        await filled(db)
        ident = await db.send(
            "transaction", statements=[("delete from t", None), (COUNT_FOREVER, None)]
        )
        source = db.running.runtime._further._sources["acme", "main"]
        while not source.busy:  # noqa: ASYNC110 - a thread tells nobody
            await trio.sleep(0.01)
        await trio.sleep(0.05)
        with trio.fail_after(5):
            await db.end.send(Cancel(ident))
            got = await db.end.receive()
        assert got.error_class is ErrorClass.PERMANENT
        assert "cancelled by caller" in got.error_message
        assert await db.query("select count(*) from t") == [(3,)]


async def test_another_programs_lock_is_waited_for(tmp_path, config):
    async with databases(tmp_path, config("busy_timeout_s = 0.1")) as db:
        await filled(db)
        other = sqlite3.connect(tmp_path / "main.db", isolation_level=None)
        other.execute("begin immediate")
        got = await db.failed(ErrorClass.TRANSIENT, "execute", "delete from t")
        assert "SQLITE_BUSY" in (got.error_message or "")
        assert await db.query("select count(*) from t") == [(3,)]  # readers do not wait
        got = await db.failed(ErrorClass.TIMEOUT, "execute", "delete from t", timeout_ms=30)
        other.execute("rollback")
        assert (await db.execute("delete from t")).row_count == 3
        other.close()


async def test_writers_go_one_by_one(tmp_path, config):
    async with databases(tmp_path, config("busy_timeout_s = 0")) as db:
        await filled(db, 1)
        for _ in range(40):
            await db.send("execute", "update t set n = n + 1")
        answers = [await db.end.receive() for _ in range(40)]
        assert {each.error_class for each in answers} == {ErrorClass.SUCCESS}
        assert await db.query("select n from t") == [(40.0,)]


async def test_sources_are_the_tenants_own(tmp_path, config):
    async with databases(tmp_path, config()) as db:
        got = await db.failed(ErrorClass.INVALID_REQUEST, "query", "select 1", tenant="other")
        assert "tenant other has none" in (got.error_message or "")
        got = await db.failed(ErrorClass.INVALID_REQUEST, "query", "select 1", source="nope")
        assert "no data source named nope: tenant acme has main" in (got.error_message or "")
        got = await db.failed(ErrorClass.INVALID_REQUEST, "query", "select 1", connector="postgres")
        assert "is of connector sqlite" in (got.error_message or "")
        got = await db.failed(ErrorClass.PERMANENT, "query", "select 1", connector="mysql")
        assert "mysql is not supported" in (got.error_message or "")
        await db.failed(ErrorClass.INVALID_REQUEST, "drop", "select 1")
        await db.failed(ErrorClass.INVALID_REQUEST, "query", " ")


async def test_policies_apply(tmp_path, config):
    limit = "[tenants.acme.tenant_rate_limit]\nlimit = 2\nperiod_s = 3600\n"
    async with databases(tmp_path, config() + limit) as db:
        for _ in range(2):
            await db.query("select 1")
        got = await db.failed(ErrorClass.RATE_LIMITED, "query", "select 1", timeout_ms=100)
        assert got.refused_by == "rate_limit:tenant"
        assert got.disposition is Disposition.NOT_SENT


async def test_a_circuit_for_each_server(tmp_path, config):
    (tmp_path / "dir.db").mkdir()
    more = '[tenants.acme.databases.broken]\nurl = "sqlite://' + str(tmp_path / "dir.db") + '"\n'
    more += "[defaults.retry]\nmode = 'off'\n"
    async with databases(tmp_path, config() + more) as db:
        for _ in range(5):
            await db.failed(ErrorClass.TRANSIENT, "query", "select 1", source="broken")
        got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1", source="broken")
        assert got.refused_by == "circuit_breaker:origin"
        assert await db.query("select 1", source="main") == [(1,)]
