"""What SQLite is told of a statement; the statements are in `end_to_end/test_sqlite_attacks`."""

import sqlite3
from contextlib import closing

import pytest

from vastar_runtime.connectors.sql.sqlite_rules import is_allowed, limit


@pytest.mark.parametrize(
    ("action", "first", "second", "writing", "reading"),
    [
        (sqlite3.SQLITE_SELECT, None, None, True, True),
        (sqlite3.SQLITE_READ, "t", "a", True, True),
        (sqlite3.SQLITE_RECURSIVE, None, None, True, True),
        (sqlite3.SQLITE_INSERT, "t", None, True, False),
        (sqlite3.SQLITE_CREATE_TABLE, "t", None, True, False),
        (sqlite3.SQLITE_DROP_TABLE, "t", None, True, False),
        (sqlite3.SQLITE_ATTACH, "x.db", None, False, False),
        (sqlite3.SQLITE_DETACH, "x", None, False, False),
        (sqlite3.SQLITE_TRANSACTION, "BEGIN", None, False, False),
        (sqlite3.SQLITE_SAVEPOINT, "BEGIN", "x", False, False),
        (sqlite3.SQLITE_CREATE_TEMP_TABLE, "t", None, False, False),
        (sqlite3.SQLITE_CREATE_VTABLE, "t", "csv", False, False),
        (sqlite3.SQLITE_PRAGMA, "Table_Info", "t", True, True),
        (sqlite3.SQLITE_PRAGMA, "writable_schema", "1", False, False),
        (sqlite3.SQLITE_PRAGMA, None, None, False, False),
        (sqlite3.SQLITE_FUNCTION, None, "lower", True, True),
        (sqlite3.SQLITE_FUNCTION, None, "LOAD_extension", False, False),
    ],
)
def test_what_is_allowed(action, first, second, writing, reading):
    assert is_allowed(action, first, second, read_only=False) is writing
    assert is_allowed(action, first, second, read_only=True) is reading


def test_limits():
    with closing(sqlite3.connect(":memory:")) as connection:
        limit(connection, 4 << 20)
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == 4 << 20
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_ATTACHED) == 0
        limit(connection, 1024)
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == 1 << 20
