"""Databases through the runtime: rows, and errors by the names of the DB-API (PEP 249).

Shape: statements become messages and answers become `Rows` here; the waiting is the clients'
(`_sql_calls`). Parameters are values, never text in a statement: by place (a list) or by name (a
mapping), in the placeholders of the database: `?` and `:name` in SQLite, `%s` and `%(name)s` in
PostgreSQL.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypedDict, overload

from vastar_client._calls import CallMaker, Outgoing
from vastar_client._payload import payload_view, unsendable
from vastar_client.errors import CallTimeout, ConnectorException
from vastar_client.request import timeout_ms_of
from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteResponse,
    PayloadFormat,
    RemoteProtocolError,
)
from vastar_client.wire.rows import (
    ResultBlock,
    SqlRequest,
    SqlStatement,
    decode_answer,
    encode_request,
    rows_of,
)
from vastar_client.wire.values import Json, SqlValueError, pack

__all__ = [
    "Asked",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Json",
    "NotSupportedError",
    "OperationalError",
    "Params",
    "ProgrammingError",
    "QueryTimeout",
    "Row",
    "Rows",
    "SqlOptions",
    "Statement",
    "asked",
    "database_error",
    "results_of",
]

Params: TypeAlias = Sequence[Any] | Mapping[str, Any] | None
Statement: TypeAlias = str | tuple[str, Params]
"""The text alone, or with its parameters."""
Row: TypeAlias = tuple[Any, ...]


class SqlOptions(TypedDict, total=False):
    """What every call to a database takes.

    Attributes:
        timeout_s: until its deadline, by default the client's.
        max_rows: refuse a result of more.
        idempotency_key: declares a repeat harmless: only then is what was undone tried again.
        tenant_id, workspace_id, trace_id: as of any call.
    """

    timeout_s: float | None
    max_rows: int
    idempotency_key: str | None
    tenant_id: str | None
    workspace_id: str | None
    trace_id: str | None


Error: TypeAlias = ConnectorException
"""The DB-API's name for all that a call may raise, a runtime that is not there included."""


class InterfaceError(ConnectorException):
    """Neither the database's doing nor the statement's: the answer cannot be read."""


class DatabaseError(ConnectorException):
    """A database, or the way to it, failed.

    Attributes:
        code: the SQLSTATE, or SQLite's name of the error; empty where there is none.
    """

    code: str = ""


class IntegrityError(DatabaseError):
    """A constraint does not hold."""


class DataError(DatabaseError):
    """A value is out of range, or not of the type it should be."""


class ProgrammingError(DatabaseError):
    """The statement or its parameters are wrong, or not allowed; `INVALID_REQUEST`."""


class OperationalError(DatabaseError):
    """The server's state, not the statement: unreachable, busy, a deadlock."""


class QueryTimeout(OperationalError, CallTimeout):  # noqa: N818 - as CallTimeout
    """It took longer than allowed, and was stopped on the server."""

    DEFAULT_CLASS = ErrorClass.TIMEOUT


class InternalError(DatabaseError):
    """The database's own trouble."""


class NotSupportedError(DatabaseError):
    """There is no such thing in this database, or no such database."""


_CODE: Final = re.compile(r"\((?:SQLSTATE ([0-9A-Z]{5})|(SQLITE_[A-Z_]+))\)$")
_KINDS: Final[tuple[tuple[str, type[DatabaseError]], ...]] = (
    ("0A", NotSupportedError),
    ("22", DataError),
    ("21", DataError),
    ("23", IntegrityError),
    ("40002", IntegrityError),
    ("XX", InternalError),
    ("58", InternalError),
    ("SQLITE_CONSTRAINT", IntegrityError),
    ("SQLITE_MISMATCH", DataError),
    ("SQLITE_TOOBIG", DataError),
    ("SQLITE_CORRUPT", InternalError),
)
_OF_CLASS: Final[Mapping[ErrorClass, type[DatabaseError]]] = {
    ErrorClass.INVALID_REQUEST: ProgrammingError,
    ErrorClass.TRANSIENT: OperationalError,
    ErrorClass.RATE_LIMITED: OperationalError,
    ErrorClass.TIMEOUT: QueryTimeout,
    ErrorClass.PERMANENT: DatabaseError,
}


def database_error(error: ConnectorException) -> ConnectorException:
    """`error` by its name in the DB-API; what is of the connection to the runtime as it is."""
    if type(error) not in {ConnectorException, CallTimeout}:
        return error
    found = _CODE.search(error.message)
    code = "" if found is None else found[1] or found[2]
    kind = _OF_CLASS.get(error.error_class, DatabaseError)
    if kind is not QueryTimeout:
        for start, named in _KINDS:
            if code.startswith(start):
                kind = named
        if "is not supported" in error.message and not code:
            kind = NotSupportedError
    made = kind(
        error.message,
        error.error_class,
        error.request_id,
        disposition=error.disposition,
        retry_after_ms=error.retry_after_ms,
        attempts=error.attempts,
        refused_by=error.refused_by,
        queued_us=error.queued_us,
        backoff_us=error.backoff_us,
    )
    made.code = code
    return made


class Rows(Sequence[Row]):
    """The rows of one result, as tuples; a sequence.

    Attributes:
        columns: their names, in order; none where the statement gives no rows.
        types: what the database calls them.
        row_count: rows that were read, or changed; -1 where nobody knows.
        last_id: what SQLite gave the row that was inserted last.
    """

    __slots__ = ("_rows", "columns", "last_id", "row_count", "types")

    def __init__(self, block: ResultBlock) -> None:
        self.columns = tuple(block.names)
        self.types = tuple(block.types)
        self.row_count = block.row_count
        self.last_id = block.last_id
        self._rows = rows_of(block)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._rows[index]

    def dicts(self) -> list[dict[str, Any]]:
        """Each row by the names of its columns; of two with one name the last one counts."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]

    def one(self) -> Row:
        """The only row.

        Raises:
            LookupError: there is none, or more than one.
        """
        if len(self._rows) != 1:
            raise LookupError(f"{len(self._rows)} rows where one was expected")
        return self._rows[0]

    def scalar(self) -> Any:
        """The first value of the only row. Raises LookupError."""
        row = self.one()
        return row[0]

    def __repr__(self) -> str:
        """Without values: they are somebody's data."""
        return f"<Rows {len(self._rows)} of {', '.join(self.columns) or 'no columns'}>"


@dataclass(frozen=True, slots=True)
class Asked:
    """A call to a database that is not made yet.

    Attributes:
        connector: `sql`, or the driver that the source has to be of.
    """

    connector: str
    operation: str
    request: SqlRequest
    options: SqlOptions
    stream: bool = False

    @property
    def timeout_s(self) -> float | None:
        """What the caller asks for."""
        return self.options.get("timeout_s")

    def outgoing(self, calls: CallMaker, timeout_ms: int | None) -> Outgoing:
        """The message, its time running from now."""
        options = self.options
        return calls.call(
            self.connector,
            self.operation,
            encode_request(self.request),
            PayloadFormat.NATIVE,
            timeout_ms=timeout_ms,
            tenant_id=options.get("tenant_id"),
            workspace_id=options.get("workspace_id"),
            trace_id=options.get("trace_id"),
            idempotency_key=options.get("idempotency_key"),
            stream=self.stream,
        )

    def own_timeout_ms(self) -> int | None:
        """What the caller asks for, None where it asks for none."""
        return None if self.timeout_s is None else timeout_ms_of(self.timeout_s)


def asked(
    operation: str,
    options: SqlOptions,
    *,
    source: str,
    sql: str = "",
    params: Params = None,
    params_list: Iterable[Params] | None = None,
    statements: Iterable[Statement] | None = None,
    isolation: str | None = None,
    stream: bool = False,
) -> Asked:
    """A call with its parameters as the wire says them.

    Raises:
        ConnectorException: INVALID_REQUEST: a parameter is none that a database takes.
    """
    try:
        request = SqlRequest(
            source=source,
            sql=sql,
            params=_packed(params),
            params_list=None
            if params_list is None
            else [_packed(each) or [] for each in params_list],
            statements=None if statements is None else [_statement(each) for each in statements],
            isolation=isolation,
            max_rows=options.get("max_rows", 0),
        )
    except (SqlValueError, TypeError) as error:
        raise database_error(unsendable(error)) from error
    return Asked("sql", operation, request, options, stream)


def _statement(statement: Statement) -> SqlStatement:
    if isinstance(statement, str):
        return SqlStatement(statement)
    text, params = statement
    return SqlStatement(text, _packed(params))


def _packed(params: Params) -> list[Any] | dict[str, Any] | None:
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {name: pack(value) for name, value in params.items()}
    if isinstance(params, str | bytes):
        raise TypeError("parameters are a list or a mapping, not one text")
    return [pack(value) for value in params]


def results_of(answer: ExecuteResponse) -> list[Rows]:
    """The results in a successful answer.

    Raises:
        ConnectorException: PERMANENT: it cannot be read.
    """
    try:
        return [Rows(block) for block in decode_answer(payload_view(answer))]
    except RemoteProtocolError as error:
        raise InterfaceError(
            f"the runtime's answer cannot be read: {error}",
            ErrorClass.PERMANENT,
            answer.request_id,
            disposition=Disposition.COMPLETED,
        ) from None
