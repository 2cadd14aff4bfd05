"""A session of SQLite by itself; what callers see of it is in end_to_end/test_sqlite.py."""

import pytest

from vastar_client.wire.rows import SqlStatement
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job
from vastar_runtime.connectors.sql.sqlite import SqliteDriver
from vastar_runtime.outcomes import Disposition


def driver(path, *, read_only: bool = False) -> SqliteDriver:
    return SqliteDriver(
        str(path), read_only=read_only, busy_timeout_s=0.0, max_rows=100, max_bytes=1 << 20
    )


def job(operation: str, *texts: str) -> Job:
    return Job(operation, [SqlStatement(text) for text in texts])


def test_a_deferred_constraint_is_undone_and_the_session_lives(tmp_path):
    session = driver(tmp_path / "a b%.db").connect()
    begun: list[int] = []
    session.run(
        job(
            "transaction",
            "create table p (id integer primary key)",
            "create table c (p references p deferrable initially deferred)",
        ),
        lambda: begun.append(1),
    )
    with pytest.raises(SqlError, match="FOREIGN KEY") as caught:
        session.run(job("execute", "insert into c values (7)"), lambda: None)
    assert caught.value.blame is Blame.DATA
    assert session.is_usable
    (result,) = session.run(job("query", "select count(*) from c"), lambda: None)
    assert result.rows == [(0,)]
    assert begun == [1]
    session.close()
    assert not session.is_usable


def test_a_stream_is_left_before_its_end(tmp_path):
    session = driver(tmp_path / "a.db").connect()
    pieces = session.stream(job("query", "select 1 union all select 2"), lambda: None)
    assert next(pieces).rows == [(1,), (2,)]
    pieces.close()
    assert session.looks_alive()
    session.close()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SqlError, match="SQLITE_CANTOPEN") as caught:
        driver(tmp_path / "none.db", read_only=True).connect()
    assert caught.value.blame is Blame.UNREACHABLE
    assert caught.value.disposition is Disposition.NOT_SENT
    (tmp_path / "text.db").write_text("no database, whatever its name says " * 40)
    with pytest.raises(SqlError, match="SQLITE_NOTADB") as caught:
        driver(tmp_path / "text.db").connect()
    assert caught.value.blame is Blame.SERVER


def test_an_interrupt_between_statements_counts(tmp_path):
    session = driver(tmp_path / "a.db").connect()
    with pytest.raises(SqlError, match="interrupted"):
        session.run(job("query", "select 1"), session.interrupt)
    session.close()
