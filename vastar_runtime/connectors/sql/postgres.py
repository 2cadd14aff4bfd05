"""PostgreSQL over psycopg 3: a session is one blocking connection, run in a thread.

In threads and not on Trio: psycopg's asynchronous connection waits with asyncio, and what would let
another loop drive it is not public. A thread costs some 60 us a call.

A statement alone runs in autocommit, in one round trip. Statements always go by the extended
protocol, which takes one at a time, so none hides behind another. What a statement was the server's
command tag tells, not a look at its text: one that ends or begins a transaction is refused, and a
connection whose settings a statement may have changed is not given to another call. Sources that
are read-only run everything in transactions that are READ ONLY; the one way to take that back, SET
before the first query, shows in its tag and is undone.

Cancelling asks the server to stop the statement, over a connection of its own as the protocol has
it; where it cannot be reached any more, the thread is left behind and its connection thrown away.
"""

import select
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, nullcontext, suppress
from decimal import Decimal
from itertools import islice
from typing import Any, Final, cast

import psycopg
from psycopg import IsolationLevel, pq
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from vastar_client.wire.rows import SqlStatement
from vastar_client.wire.values import Json
from vastar_runtime.config import DatabaseAddress, DatabaseConfig
from vastar_runtime.connectors.sql.errors import Blame, SqlError, blame_of_sqlstate, short
from vastar_runtime.connectors.sql.jobs import Job, Params, Result
from vastar_runtime.connectors.sql.sessions import Gauge, Session
from vastar_runtime.outcomes import Disposition

__all__ = ["PostgresDriver", "PostgresSession"]

_STEP_ROWS: Final = 256
_CANCEL_TIMEOUT_S: Final = 1.0
_PREPARE_AFTER: Final = 3
_OF_TRANSACTIONS: Final = frozenset(
    {"BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "PREPARE TRANSACTION"}
    | {"COMMIT PREPARED", "ROLLBACK PREPARED"}
)
_LEAVES_NOTHING: Final = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "SHOW"}
)
_LEAST_CHUNK: Final = 1
_ISOLATIONS: Final[Mapping[str, IsolationLevel]] = {
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}
_TYPES: Final[Mapping[str, str]] = {
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "oid": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "decimal",
    "bool": "bool",
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "name": "text",
    "bytea": "bytes",
    "jsonb": "json",
    "timestamptz": "timestamptz",
}
"""PostgreSQL's names where ours differ; else they are the same, and an array's is `array`."""

_Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresDriver:
    """Opens sessions to one database.

    Args:
        address: of the URL.
        config: of the source.
        password: gives the one of now; None logs in without.
    """

    has_one_writer = False

    def __init__(
        self, address: DatabaseAddress, config: DatabaseConfig, password: Callable[[], str] | None
    ) -> None:
        self.origin = address.origin
        self._address = address
        self._config = config
        self._password = password

    def open(self) -> Session:
        """A new connection, logged in. Raises SqlError."""
        address, config = self._address, self._config
        options = "-c timezone=UTC"
        if config.read_only:
            options += " -c default_transaction_read_only=on"
        given: dict[str, Any] = {"application_name": "vastar", **dict(address.options)}
        try:
            connection = psycopg.Connection.connect(
                host=address.host,
                port=address.port,
                dbname=address.name,
                user=config.user or address.user or None,
                password=None if self._password is None else self._password(),
                connect_timeout=max(int(config.connect_timeout_s), 1),
                options=options,
                autocommit=True,
                prepare_threshold=_PREPARE_AFTER,
                row_factory=tuple_row,
                **given,
            )
        except psycopg.Error as error:
            sqlstate = error.sqlstate or error.diag.sqlstate
            blame = Blame.UNREACHABLE if sqlstate is None else blame_of_sqlstate(sqlstate)
            if sqlstate is None and "authentication failed" in str(error):
                blame = Blame.SERVER
            words = f"connecting to {self.origin} failed: {short(str(error))}"
            raise SqlError(blame, words, Disposition.NOT_SENT) from None
        return PostgresSession(connection, config)


class PostgresSession:
    """One connection."""

    def __init__(self, connection: _Connection, config: DatabaseConfig) -> None:
        self._connection = connection
        self._config = config
        self._interrupted = threading.Event()
        self._cancelling = threading.Lock()
        self._broken = False
        if config.read_only:
            connection.read_only = True

    @property
    def is_usable(self) -> bool:
        """Whether another job may be given to it."""
        return not self._broken and not self._connection.closed

    @is_usable.setter
    def is_usable(self, usable: bool) -> None:
        self._broken = not usable

    def looks_alive(self) -> bool:
        """Whether the server has not closed it while it was idle."""
        if self._connection.closed:
            return False
        # A server says nothing unasked but that it leaves; a notice costs us a connection.
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it. Raises SqlError."""
        self._interrupted.clear()
        begun()
        connection = self._connection
        try:
            is_alone = job.operation in {"query", "execute"} and not self._config.read_only
            if is_alone:
                (statement,) = job.statements
                if job.operation == "query":
                    results = [self._rows(statement, self._gauge(job))]
                else:
                    results = [self._one(statement, self._gauge(job))]
            else:
                if job.isolation is not None:
                    connection.isolation_level = _ISOLATIONS[job.isolation]
                try:
                    with connection.transaction():
                        results = self._all(job)
                finally:
                    if job.isolation is not None and not connection.closed:
                        connection.isolation_level = None
        except psycopg.Error as error:
            raise self._told(error) from None
        except SqlError:
            self._reset()
            raise
        self._reset()
        return results

    def _all(self, job: Job) -> list[Result]:
        if job.operation == "query":
            return [self._rows(job.statements[0], self._gauge(job))]
        if job.operation != "execute_many":
            return [self._one(statement, self._gauge(job)) for statement in job.statements]
        (statement,) = job.statements
        with self._connection.cursor() as cursor:
            cursor.executemany(
                _query(statement.sql),
                [_bound(each) or () for each in job.params_list],
            )
            return [Result(row_count=max(cursor.rowcount, 0))]

    def stream(self, job: Job, begun: Callable[[], None]) -> Generator[Result, int, None]:
        """The rows of a query in pieces, out of a cursor of the server. Raises SqlError."""
        self._interrupted.clear()
        begun()
        (statement,) = job.statements
        connection = self._connection
        try:
            # With nothing to be undone a transaction is needed only to be READ ONLY.
            with connection.transaction() if self._config.read_only else nullcontext():
                yield from self._pieces(statement)
        except psycopg.Error as error:
            raise self._told(error) from None
        self._reset()

    def _pieces(self, statement: SqlStatement) -> Generator[Result, int, None]:
        with self._connection.cursor() as cursor:
            rows_of_all = cursor.stream(
                _query(statement.sql), _bound(statement.params), size=_chunk_rows()
            )
            # Closed where it is left before its end: that stops the statement on the server.
            with closing(cast("Generator[tuple[Any, ...], None, None]", rows_of_all)):
                count, names, types = _STEP_ROWS, list[str](), list[str]()
                while True:
                    rows = list(islice(rows_of_all, count))
                    names, types = _columns(cursor) if rows else (names, types)
                    if not rows and not names:
                        names, types = self._described(statement)
                    count = (yield Result(names, rows, types=types)) or _STEP_ROWS
                    if not rows:
                        return

    def _described(self, statement: SqlStatement) -> tuple[list[str], list[str]]:
        """The columns of a statement that gave no rows: psycopg tells none of its stream then."""
        connection = self._connection
        text: str = psycopg.ClientCursor(connection).mogrify(
            _query(statement.sql), _bound(statement.params)
        )
        prepared = connection.pgconn.prepare(b"", text.encode())
        if prepared.status != pq.ExecStatus.COMMAND_OK:
            return [], []
        told = connection.pgconn.describe_prepared(b"")
        names = [(told.fname(index) or b"").decode() for index in range(told.nfields)]
        return names, [_type_name(told.ftype(index)) for index in range(told.nfields)]

    def interrupt(self) -> None:
        """Ask the server to stop what runs, in a thread of its own: it takes a round trip."""
        self._interrupted.set()
        if not self._cancelling.acquire(blocking=False):
            return  # one is under way

        def cancel() -> None:
            try:
                with suppress(psycopg.Error):
                    self._connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            finally:
                self._cancelling.release()

        threading.Thread(target=cancel, daemon=True, name="vastar postgres cancel").start()

    def close(self) -> None:
        """End it."""
        self._broken = True
        with suppress(psycopg.Error):
            self._connection.close()

    def _gauge(self, job: Job) -> Gauge:
        most = self._config.max_rows
        return Gauge(min(job.max_rows or most, most), self._config.max_result_bytes)

    def _rows(self, statement: SqlStatement, gauge: Gauge) -> Result:
        """A query's result, of which no more is taken from the server than an answer may have."""
        result, rows = Result(), list[Any]()
        with closing(self._pieces(statement)) as pieces:
            for piece in pieces:
                gauge.add(piece.rows)
                rows += piece.rows
                result = piece
        return result._replace(rows=rows, row_count=len(rows))

    def _one(self, statement: SqlStatement, gauge: Gauge) -> Result:
        if self._interrupted.is_set():
            raise SqlError(Blame.TIMEOUT, "interrupted")
        with self._connection.cursor() as cursor:
            self._execute(cursor, statement)
            if cursor.description is None:
                return Result(row_count=cursor.rowcount)
            names, types = _columns(cursor)
            rows: list[tuple[Any, ...]] = []
            while piece := cursor.fetchmany(_STEP_ROWS):
                gauge.add(piece)
                rows += piece
            return Result(names, rows, cursor.rowcount, types=types)

    def _execute(self, cursor: psycopg.Cursor[Any], statement: SqlStatement) -> None:
        params = _bound(statement.params)
        # Without parameters psycopg would use the protocol that takes several statements.
        prepare = None if params else True
        cursor.execute(_query(statement.sql), params, prepare=prepare)
        tag = _tag(cursor.statusmessage)
        if tag in _LEAVES_NOTHING:
            return
        self._broken = True  # once this job is done
        if tag in _OF_TRANSACTIONS or (self._config.read_only and tag == "SET"):
            raise SqlError(
                Blame.CALLER, f"{tag} is not allowed here: use the operation transaction"
            )

    def _reset(self) -> None:
        """What a statement did to the connection is not the next caller's business."""
        # A cancel that is under way would hit the next statement: nobody else gets it then.
        if self._interrupted.is_set():
            with self._cancelling:
                pass
        status = self._connection.info.transaction_status
        if status is not pq.TransactionStatus.IDLE:  # a BEGIN of the caller's own
            self._broken = True

    def _told(self, error: psycopg.Error) -> SqlError:
        if self._interrupted.is_set():
            with self._cancelling:
                pass
        sqlstate = error.sqlstate
        if self._connection.closed or self._connection.broken:
            self._broken = True
            blame = Blame.LOST
        elif sqlstate is None:
            blame = Blame.CALLER  # psycopg's own: placeholders, types, a query without rows
            self._broken = True
        else:
            blame = blame_of_sqlstate(sqlstate)
            self._reset()
        words = short(error.diag.message_primary or str(error))
        code = f" (SQLSTATE {sqlstate})" if sqlstate else ""
        return SqlError(blame, words + code)


def _query(text: str) -> bytes:
    """As psycopg takes it: its placeholders are %s and %(name)s; without parameters as it is."""
    return text.encode()


def _tag(message: str | None) -> str:
    """The words of a command tag, without its numbers."""
    return " ".join(word for word in (message or "").split() if not word.isdigit())


def _chunk_rows() -> int:
    """Rows that the library takes from the server at once, of a stream."""
    return _STEP_ROWS if psycopg.capabilities.has_stream_chunked() else _LEAST_CHUNK


def _bound(params: Params) -> Any:
    """Parameters as psycopg adapts them; None where there are none, so that % means itself."""
    if params is None:
        return None
    if isinstance(params, dict):
        return {name: _value(each) for name, each in params.items()}
    return [_value(each) for each in params]


def _value(value: Any) -> Any:
    if type(value) is Json:
        return Jsonb(value.value)
    if type(value) is int and value.bit_length() > 63:  # noqa: PLR2004 - int8's
        return Decimal(value)
    if isinstance(value, list):
        return [_value(each) for each in value]
    return value


def _columns(cursor: psycopg.Cursor[Any]) -> tuple[list[str], list[str]]:
    columns = cursor.description or ()
    return [each.name for each in columns], [_type_name(each.type_code) for each in columns]


def _type_name(oid: int) -> str:
    found = psycopg.adapters.types.get(oid)
    if found is None:
        return "any"
    if oid == found.array_oid != found.oid:
        return "array"
    return _TYPES.get(found.name, found.name)
