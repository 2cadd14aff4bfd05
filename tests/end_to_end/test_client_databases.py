"""Both clients and databases, through a runtime in a process of its own."""

import math
import signal
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anyio
import pytest

from tests.support import leaks
from tests.support.commands import end, serving
from tests.support.postgres import postgres_server
from vastar_client import (
    AsyncRuntimeClient,
    DatabaseError,
    ErrorClass,
    IntegrityError,
    Json,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    QueryTimeout,
    RuntimeClient,
    RuntimeConfig,
)

FOREVER = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
MANY = (
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) "
    "select i, 'x' as t from n"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Iterator[RuntimeConfig]:
    directory = tmp_path_factory.mktemp("client")
    file = directory / "vastar.toml"
    path = directory / "runtime.sock"
    with postgres_server() as server:
        file.write_text(
            f"""
            [tenants.acme.databases.local]
            url = "sqlite://{directory}/local.db"
            [tenants.acme.databases.orders]
            url = "{server.url}"
            """
        )
        served = serving("--config", str(file), "--socket", str(path))
        with served as process, leaks.keep(process.pid):
            yield RuntimeConfig(tenant_id="acme", socket_path=str(path), use_environment=False)
            status, logged = end(process, signal.SIGTERM)
            assert status == 0, logged[-2000:]


def test_blocking(config):
    with RuntimeClient(config) as client:
        db = client.database("local")
        db.execute("create table t (id integer primary key, name text unique)")
        made = db.execute("insert into t (name) values (?)", ["a"])
        assert (made.row_count, made.last_id) == (1, 1)
        assert db.execute_many("insert into t (name) values (?)", [["b"], ["c"]]).row_count == 2
        rows = client.query("select * from t order by id", source="local")
        assert list(rows) == [(1, "a"), (2, "b"), (3, "c")]
        assert rows.dicts()[0] == {"id": 1, "name": "a"}
        assert rows[-1] == (3, "c")
        assert (rows.columns, rows.types, len(rows)) == (("id", "name"), ("int", "text"), 3)
        results = client.transaction(
            ["delete from t where id = 3", ("select count(*) from t where id < :n", {"n": 9})],
            source="local",
        )
        assert results[0].row_count == 1
        assert results[1].scalar() == 2
        with pytest.raises(LookupError):
            db.query("select id from t").one()


def test_errors_have_the_names_of_the_db_api(config):
    with RuntimeClient(config) as client:
        for source, code in (("local", "SQLITE_CONSTRAINT_PRIMARYKEY"), ("orders", "23505")):
            db = client.database(source)
            db.execute("create table k (id integer primary key)")
            db.execute("insert into k values (1)")
            with pytest.raises(IntegrityError) as caught:
                db.execute("insert into k values (1)")
            assert caught.value.code == code
            with pytest.raises(ProgrammingError) as caught:
                db.query("selekt")
            assert caught.value.error_class is ErrorClass.INVALID_REQUEST
        with pytest.raises(QueryTimeout):
            client.query("select pg_sleep(30)", source="orders", timeout_s=0.2)
        with pytest.raises(QueryTimeout):
            client.query(FOREVER, source="local", timeout_s=0.2)
        with pytest.raises(ProgrammingError, match="no data source named nope"):
            client.query("select 1", source="nope")
        with pytest.raises(ProgrammingError, match="complex"):
            client.query("select ?", [1j], source="local")
        with pytest.raises(DatabaseError, match="more than 5 rows"):
            client.query(MANY.format(6), source="local", max_rows=5)
        assert issubclass(NotSupportedError, DatabaseError)
        assert issubclass(QueryTimeout, OperationalError)


@pytest.mark.parametrize("source", ["local", "orders"])
def test_rows_as_they_come(config, source):
    with RuntimeClient(config) as client:
        db = client.database(source)
        with db.stream(MANY.format(50_000)) as rows:
            assert sum(row[0] for row in rows) == 50_000 * 50_001 // 2
            assert rows.columns == ("i", "t")
        with db.stream(MANY.format(5_000_000)) as rows:
            assert next(rows) == (1, "x")  # type: ignore[call-overload]
        assert db.query("select 1").scalar() == 1
        with pytest.raises(ProgrammingError), db.stream("selekt"):
            pass


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("source", ["local", "orders"])
def test_async(config, backend, source):
    async def main() -> None:
        async with AsyncRuntimeClient(config) as client:
            db = client.database(source)
            rows = await client.query(MANY.format(3), source=source)
            assert len(rows) == 3
            async with db.stream(MANY.format(5000)) as stream:
                assert [row[0] async for row in stream] == list(range(1, 5001))
            results = await client.transaction([MANY.format(1), "select 2"], source=source)
            assert [each.row_count for each in results] == [1, 1]
            with anyio.fail_after(10):
                with anyio.move_on_after(0.1):
                    await client.query(FOREVER, source=source)
                assert (await db.query("select 1")).one() == (1,)
            with pytest.raises(ProgrammingError):
                await db.execute("selekt")

    anyio.run(main, backend=backend)


def test_values(config):
    values: list[Any] = [Decimal("1.50"), math.inf, b"\x00", Json([1]), None, [1, 2]]
    kinds = ["numeric", "float8", "bytea", "jsonb", "text", "int8[]"]
    with RuntimeClient(config) as client:
        marks = ", ".join(f"%s::{kind}" for kind in kinds)
        row = client.query(f"select {marks}", values, source="orders").one()
        assert row == (Decimal("1.50"), math.inf, b"\x00", [1], None, [1, 2])
