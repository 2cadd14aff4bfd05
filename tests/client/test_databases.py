"""Handles of data sources, over clients that are scripted; real ones in end_to_end."""

import inspect

import anyio
import pytest

from vastar_client import (
    AsyncRuntimeClient,
    ConnectorException,
    ErrorClass,
    InterfaceError,
    ProgrammingError,
    RuntimeClient,
)
from vastar_client.databases import (
    AsyncDatabase,
    AsyncRowStream,
    AsyncSqlCalls,
    Database,
    RowStream,
    SqlCalls,
)
from vastar_client.sql import Rows
from vastar_client.wire.rows import framed, to_block

BLOCKS = framed(to_block(["a"], [(1,), (2,)])) + framed(to_block(["a"], [(3,)]))


class Live:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [[piece] for piece in pieces]
        self.closed = False

    async def take_all(self) -> list[bytes]:
        return self.pieces.pop(0) if self.pieces else []

    def close(self) -> None:
        self.closed = True


class Blocking(SqlCalls):
    def __init__(self, live=None) -> None:
        self.asked = []
        self.live = live

    def database_call(self, call):
        self.asked.append((call.operation, call.request.source))
        return [Rows(to_block(["n"], [(1,)]))]

    def open_rows(self, call):
        if self.live is None:
            raise ConnectorException("bad", ErrorClass.INVALID_REQUEST)
        return self.live

    def take_rows(self, live):
        return live.pieces.pop(0) if live.pieces else []

    def close_rows(self, live):
        live.close()


class Async(AsyncSqlCalls):
    def __init__(self, live=None) -> None:
        self.inner = Blocking(live)

    async def database_call(self, call):
        return self.inner.database_call(call)

    async def open_rows(self, call):
        return self.inner.open_rows(call)


ASKED = [
    ("query", "s"),
    ("execute", "s"),
    ("execute_many", "s"),
    ("transaction", "s"),
    ("query", "t"),
    ("transaction", "t"),
]


def test_blocking():
    client = Blocking()
    db = client.database("s")
    assert db.query("x").scalar() == 1
    db.execute("x", [1])
    db.execute_many("x", [[1], [2]])
    assert len(db.transaction(["x"])) == 1
    client.query("x", source="t")
    client.transaction(["x"], source="t")
    assert client.asked == ASKED
    live = Live(BLOCKS[:5], BLOCKS[5:])
    with Blocking(live).database().stream("x") as rows:
        assert next(rows) == (1,)
        assert rows.columns == ("a",)
        assert list(rows) == [(2,), (3,)]
    assert live.closed
    with pytest.raises(ProgrammingError), client.database().stream("x"):
        pass
    with Blocking(Live(b"\xff" * 8)).database().stream("x") as rows, pytest.raises(InterfaceError):
        next(rows)


def test_async():
    async def main() -> None:
        client = Async()
        db = client.database("s")
        assert (await db.query("x")).scalar() == 1
        await db.execute("x", [1])
        await db.execute_many("x", [[1], [2]])
        assert len(await db.transaction(["x"])) == 1
        await client.query("x", source="t")
        await client.transaction(["x"], source="t")
        assert client.inner.asked == ASKED
        live = Live(BLOCKS[:5], BLOCKS[5:])
        async with Async(live).database().stream("x") as rows:
            assert [row async for row in rows] == [(1,), (2,), (3,)]
            assert rows.columns == ("a",)
        assert live.closed
        with pytest.raises(ProgrammingError):
            async with client.database().stream("x"):
                pass
        async with Async(Live(b"\xff" * 8)).database().stream("x") as rows:
            with pytest.raises(InterfaceError):
                await anext(rows)

    anyio.run(main)


def test_a_stream_that_ends_within_a_block_has_no_end():
    live = Live(BLOCKS[:-3])
    with Blocking(live).database().stream("x") as rows:
        assert [next(rows), next(rows)] == [(1,), (2,)]
        with pytest.raises(InterfaceError, match="ends within a block"):
            next(rows)


@pytest.mark.parametrize(
    ("plain", "asynchronous"),
    [(Database, AsyncDatabase), (RowStream, AsyncRowStream), (SqlCalls, AsyncSqlCalls)],
)
def test_both_clients_have_the_same_names(plain, asynchronous):
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")} - {
            "take_rows",
            "close_rows",
        }

    assert names(plain) == names(asynchronous)
    for name in names(plain):
        first, second = getattr(plain, name), getattr(asynchronous, name)
        if callable(first):
            assert inspect.signature(first).parameters.keys() == (
                inspect.signature(second).parameters.keys()
            )
            assert first.__doc__
            assert second.__doc__
    assert issubclass(RuntimeClient, SqlCalls)
    assert issubclass(AsyncRuntimeClient, AsyncSqlCalls)
