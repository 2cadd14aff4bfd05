"""A session of PostgreSQL by itself; with callers it is in end_to_end/test_postgres.py."""

import pytest

from vastar_client.wire.rows import SqlStatement
from vastar_runtime.config import DatabaseConfig, database_address
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job
from vastar_runtime.outcomes import Disposition

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")

from tests.support.postgres import postgres_server
from vastar_runtime.connectors.sql.postgres import PostgresDriver


def driver(url: str, **fields: object) -> PostgresDriver:
    config = DatabaseConfig(url=url, **fields)  # type: ignore[arg-type]
    return PostgresDriver(database_address(url), config, lambda: "hunter2")


async def test_nobody_there():
    with pytest.raises(SqlError, match=r"connecting to postgres://127.0.0.1:1 failed") as caught:
        await driver("postgres://u@127.0.0.1:1/n").open()
    assert caught.value.blame is Blame.UNREACHABLE
    assert caught.value.disposition is Disposition.NOT_SENT
    assert "hunter2" not in caught.value.words


async def test_a_session_that_the_server_ended_does_not_look_alive():
    def query(text: str) -> Job:
        return Job("query", [SqlStatement(text)])

    with postgres_server() as server:
        session, other = [await driver(server.url).open() for _ in range(2)]
        ((pid,),) = (await session.run(query("select pg_backend_pid()"), lambda: None))[0].rows
        assert session.looks_alive()
        await other.run(query(f"select pg_terminate_backend({pid}, 5000)"), lambda: None)
        assert not session.looks_alive()
        with pytest.raises(SqlError) as caught:
            await session.run(query("select 1"), lambda: None)
        assert caught.value.blame is Blame.LOST
        assert not session.is_usable
        with pytest.raises(SqlError) as caught:
            await driver(server.url.removesuffix("/postgres") + "/nothing").open()
        assert caught.value.disposition is Disposition.NOT_SENT
        await session.aclose()
        await other.aclose()
        assert not other.looks_alive()
