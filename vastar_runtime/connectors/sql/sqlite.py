"""SQLite: a session is one connection to one file, guarded by an authorizer.

What a statement may do is said by SQLite itself while it prepares it, not by reading SQL
(`sqlite_rules`). A source that is read-only is opened so, too.

Files are in WAL mode, so readers wait for nobody. Those that change something go one by one in this
process; other programs' locks are waited for here in short sleeps rather than in SQLite's busy
handler, which an interrupt does not wake. Our own BEGIN and COMMIT carry a word that callers cannot
guess, since statements that were prepared once are not authorized again.

A statement can ask for any amount of memory, in one row of many long values: so rows are taken one
by one, and SQLite itself may hold no more than `HEAP_BYTES` in this process, all files together;
whoever wants more is told that there is no memory. What a function does for long by itself is not
interrupted: its thread is left behind (`threaded`), one of those that its source has.
"""

import math
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec

from vastar_client.wire.rows import SqlStatement
from vastar_client.wire.values import Json
from vastar_runtime.connectors.sql.errors import Blame, SqlError, blame_of_sqlite
from vastar_runtime.connectors.sql.jobs import Job, Params, Result
from vastar_runtime.connectors.sql.sessions import Gauge, Session
from vastar_runtime.connectors.sql.sqlite_rules import HEAP_BYTES, is_allowed, limit
from vastar_runtime.connectors.sql.threaded import open_in_thread, thread_limiter
from vastar_runtime.outcomes import Disposition

__all__ = ["SqliteDriver", "SqliteSession"]

_STEP_ROWS: Final = 256
_BUSY_STEP_S: Final = 0.01
_PIECE_BYTES: Final = 1024 * 1024
"""Texts and blobs of one piece of a stream, but for its last row."""
_FAILURES: Final = (sqlite3.Error, MemoryError, OverflowError, UnicodeEncodeError)
_SIZED: Final = frozenset({str, bytes})


class SqliteDriver:
    """Opens sessions to one file.

    Args:
        path: absolute.
        read_only: refuse every change.
        busy_timeout_s: patience with other programs' locks.
        max_rows, max_bytes: of an answer that is no stream.
        max_connections: to be open at once.
    """

    has_one_writer = True

    def __init__(
        self,
        path: str,
        *,
        read_only: bool,
        busy_timeout_s: float,
        max_rows: int,
        max_bytes: int,
        max_connections: int = 1,
    ) -> None:
        self.origin = f"sqlite://{quote(path)}"
        self._path = path
        self._read_only = read_only
        self._busy_timeout_s = busy_timeout_s
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._threads = thread_limiter(max_connections)

    async def open(self) -> Session:
        """A new connection, each of its jobs in a thread. Raises SqlError."""
        return await open_in_thread(self.connect, self._threads)

    def connect(self) -> "SqliteSession":
        """A new connection; blocks. Raises SqlError."""
        mode = "ro" if self._read_only else "rwc"
        if not self._read_only:
            self._create()
        try:
            connection = sqlite3.connect(
                f"file:{quote(self._path)}?mode={mode}",
                uri=True,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if not self._read_only:
                    connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout_s * 1000)}")
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA trusted_schema = OFF")
                # Of the whole process, and never raised again: the first one sets it.
                connection.execute(f"PRAGMA hard_heap_limit = {HEAP_BYTES}")
            except sqlite3.Error:
                connection.close()
                raise
        except sqlite3.Error as error:
            told = _error(error)
            told.disposition = Disposition.NOT_SENT
            raise told from None
        return SqliteSession(
            connection,
            read_only=self._read_only,
            busy_timeout_s=self._busy_timeout_s,
            max_rows=self._max_rows,
            max_bytes=self._max_bytes,
        )

    def _create(self) -> None:
        """A new file is its owner's alone; SQLite gives what goes with it the same mode."""
        # Never opened where it is there: closing it again would lose SQLite's locks on it.
        with suppress(OSError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


class SqliteSession:
    """One connection."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        read_only: bool,
        busy_timeout_s: float,
        max_rows: int,
        max_bytes: int,
    ) -> None:
        self.is_usable = True
        self._connection = connection
        self._read_only = read_only
        self._busy_timeout_s = busy_timeout_s
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._interrupted = threading.Event()
        self._is_ours = False
        self._word = f"/*{secrets.token_hex(16)}*/"
        limit(connection, max_bytes)
        connection.set_authorizer(self._authorize)

    def looks_alive(self) -> bool:
        """A file does not hang up."""
        return self.is_usable

    def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it. Raises SqlError."""
        self._interrupted.clear()
        begun()
        try:
            if job.operation == "query":
                (statement,) = job.statements
                # A statement alone is undone by itself where it fails, so it can be said again.
                gauge = self._gauge(job)
                return [self._patiently(lambda: self._one(statement, gauge))]
            with self._transaction():
                if job.operation == "execute_many":
                    return [self._many(job)]
                gauge = self._gauge(job)
                return [self._one(statement, gauge) for statement in job.statements]
        except _FAILURES as error:
            raise self._told(error) from None

    def stream(self, job: Job, begun: Callable[[], None]) -> Generator[Result, int, None]:
        """The rows of a query in pieces. Raises SqlError."""
        self._interrupted.clear()
        begun()
        (statement,) = job.statements
        try:
            cursor = self._patiently(lambda: self._execute(statement.sql, statement.params))
            try:
                names = _names(cursor)
                count = _STEP_ROWS
                while True:
                    rows = _taken(cursor, count)
                    count = yield Result(names, rows)
                    if not rows:
                        return
            finally:
                cursor.close()
        except _FAILURES as error:
            raise self._told(error) from None

    def interrupt(self) -> None:
        """Stop what runs."""
        self._interrupted.set()
        self._connection.interrupt()

    def close(self) -> None:
        """End it."""
        self.is_usable = False
        self._connection.close()

    def _gauge(self, job: Job) -> Gauge:
        return Gauge(min(job.max_rows or self._max_rows, self._max_rows), self._max_bytes)

    def _transaction(self) -> "_Transaction":
        return _Transaction(self)

    def begin(self) -> None:
        """Begin to write, when nobody else does. Raises sqlite3.Error, SqlError."""
        how = "DEFERRED" if self._read_only else "IMMEDIATE"
        self._patiently(lambda: self._ours(f"BEGIN {how}"))

    def end(self, how: str) -> None:
        """COMMIT or ROLLBACK. Raises sqlite3.Error."""
        if how == "ROLLBACK" and not self._connection.in_transaction:
            return  # SQLite has done that itself
        try:
            self._patiently(lambda: self._ours(how))
        except BaseException:
            self.is_usable = False
            raise

    def _ours(self, sql: str) -> None:
        self._is_ours = True
        try:
            self._connection.execute(sql + self._word)
        finally:
            self._is_ours = False

    def _patiently(self, function: Callable[[], Any]) -> Any:
        """Do it as soon as no other program's lock is in the way."""
        ends_at_s = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                return function()
            except sqlite3.OperationalError as error:
                if not _code(error).startswith("SQLITE_BUSY"):
                    raise
                if time.monotonic() >= ends_at_s:
                    raise
            if self._interrupted.wait(_BUSY_STEP_S):
                raise SqlError(Blame.TIMEOUT, "interrupted while another program held a lock")

    def _one(self, statement: SqlStatement, gauge: Gauge) -> Result:
        gauge.next()
        cursor = self._execute(statement.sql, statement.params)
        try:
            names = _names(cursor)
            rows: list[tuple[Any, ...]] = []
            for row in cursor if names else ():
                gauge.add((row,))
                rows.append(row)
            # Without rows of its own it changed some; `lastrowid` is of whatever came last.
            is_insert = not names and cursor.rowcount > 0
            count = len(rows) if names else cursor.rowcount
            return Result(names, rows, count, cursor.lastrowid if is_insert else None)
        finally:
            cursor.close()

    def _many(self, job: Job) -> Result:
        (statement,) = job.statements
        count = 0
        for params in job.params_list:
            cursor = self._execute(statement.sql, params)
            count += max(cursor.rowcount, 0)
            cursor.close()
        return Result(row_count=count)

    def _execute(self, sql: str, params: Params) -> sqlite3.Cursor:
        if self._interrupted.is_set():
            raise SqlError(Blame.TIMEOUT, "interrupted")
        if isinstance(params, dict):
            return self._connection.execute(
                sql, {name: _bound(each) for name, each in params.items()}
            )
        return self._connection.execute(sql, [_bound(each) for each in params or ()])

    def _told(self, error: Exception) -> SqlError:
        if self._connection.in_transaction:
            self.is_usable = False
        if isinstance(error, MemoryError):  # so the module says SQLITE_NOMEM
            words = f"out of memory: more than {HEAP_BYTES} bytes in all (SQLITE_NOMEM)"
            return SqlError(Blame.BUSY, words)
        if isinstance(error, sqlite3.Error):
            return _error(error)
        return SqlError.said(Blame.CALLER, f"a parameter cannot be bound: {error}")

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_TRANSACTION and self._is_ours:
            return sqlite3.SQLITE_OK
        allowed = is_allowed(action, first, second, read_only=self._read_only)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class _Transaction:
    """All or nothing."""

    def __init__(self, session: SqliteSession) -> None:
        self._session = session

    def __enter__(self) -> None:
        self._session.begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._session.end("ROLLBACK")
            return
        try:
            self._session.end("COMMIT")
        except sqlite3.Error:
            self._session.end("ROLLBACK")  # a deferred constraint does not hold
            self._session.is_usable = True
            raise


def _taken(cursor: sqlite3.Cursor, count: int) -> list[tuple[Any, ...]]:
    """About `count` rows, and fewer where they are long."""
    rows: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in cursor:
        rows.append(row)
        for value in row:
            if type(value) in _SIZED:
                size_bytes += len(value)
        if len(rows) >= count or size_bytes >= _PIECE_BYTES:
            break
    return rows


def _names(cursor: sqlite3.Cursor) -> list[str]:
    return [column[0] for column in cursor.description or ()]


def _bound(value: Any) -> Any:
    """A parameter as SQLite keeps it: what it has no type for as its usual text."""
    match value:
        case float() if math.isnan(value):
            raise SqlError(Blame.CALLER, "SQLite has no NaN: it would become NULL")
        case Decimal() | UUID():
            return str(value)
        case datetime() | date() | time_of_day():
            return value.isoformat()
        case timedelta():
            return value // timedelta(microseconds=1)
        case Json():
            return msgspec.json.encode(value.value).decode()
        case list():
            raise SqlError(Blame.CALLER, "SQLite has no arrays: give the parameter as json")
    return value


def _code(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


_OF_THE_MODULE: Final[Mapping[type[sqlite3.Error], Blame]] = {
    sqlite3.ProgrammingError: Blame.CALLER,
    sqlite3.InterfaceError: Blame.CALLER,
    sqlite3.DataError: Blame.DATA,
}


def _error(error: sqlite3.Error) -> SqlError:
    code = _code(error)
    blame = blame_of_sqlite(code) if code else _OF_THE_MODULE.get(type(error), Blame.DATA)
    return SqlError.said(blame, str(error), code)
