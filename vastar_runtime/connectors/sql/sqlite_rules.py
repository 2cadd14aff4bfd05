"""What a statement may do to SQLite, and how much of it: asked while SQLite prepares the statement.

No other file is ever attached (nor written by VACUUM INTO, which attaches), no PRAGMA but those
that tell of the schema, no transactions and temporary tables of the caller's own, as connections
are shared by calls; nothing that loads code. SQLite's own advice for SQL of strangers, but for what
would hinder honest callers.
"""

import sqlite3
from typing import Final

__all__ = ["HEAP_BYTES", "is_allowed", "limit"]

HEAP_BYTES: Final = 512 * 1024 * 1024
"""Of SQLite in this process, all files together."""

_MAX_SQL_BYTES: Final = 1024 * 1024
_MAX_PATTERN_BYTES: Final = 1000
"""Of LIKE and GLOB: matching takes up to the square of it, and is not interrupted."""

_KNOWN_PRAGMAS: Final = frozenset(
    {"foreign_key_list", "index_info", "index_list", "index_xinfo", "table_info", "table_list"}
    | {"table_xinfo"}
)
_READING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_NEVER: Final = frozenset(
    {
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
        sqlite3.SQLITE_CREATE_VTABLE,
    }
)
_BAD_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer"})


def limit(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Bound what one statement may take.

    Args:
        connection: new.
        max_bytes: of a value; a statement's text may be as long in any case.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MAX_PATTERN_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(max_bytes, _MAX_SQL_BYTES))


def is_allowed(action: int, first: str | None, second: str | None, *, read_only: bool) -> bool:
    """Whether a statement may do that.

    Args:
        action: `SQLITE_READ` and the like.
        first: as SQLite gives it to an authorizer: of a PRAGMA its name.
        second: likewise: of a function its name.
        read_only: nothing may be changed.
    """
    if action in _NEVER:
        return False
    if action == sqlite3.SQLITE_PRAGMA:
        return (first or "").lower() in _KNOWN_PRAGMAS
    if action == sqlite3.SQLITE_FUNCTION:
        return (second or "").lower() not in _BAD_FUNCTIONS
    return not read_only or action in _READING
