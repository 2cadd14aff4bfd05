"""What calls a database looks like: on a client, and on a handle for one data source.

`client.database("orders")` is a handle; a client itself is one for the only source of its tenant.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Self, Unpack

from vastar_client._streams import LiveStream
from vastar_client.errors import ConnectorException
from vastar_client.sql import (
    Asked,
    InterfaceError,
    Params,
    Row,
    Rows,
    SqlOptions,
    Statement,
    asked,
    database_error,
)
from vastar_client.wire import RemoteProtocolError
from vastar_client.wire.rows import BlockReader, rows_of

__all__ = ["AsyncDatabase", "AsyncRowStream", "AsyncSqlCalls", "Database", "RowStream", "SqlCalls"]


class _Reading:
    """The rows that have come of a stream and were not read yet."""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.ready: deque[Row] = deque()
        self._blocks = BlockReader()

    def take(self, data: bytes) -> None:
        try:
            for block in self._blocks.feed(data):
                self.columns = tuple(block.names)
                self.ready.extend(rows_of(block))
        except RemoteProtocolError as error:
            raise InterfaceError(f"rows cannot be read: {error}") from None

    def check_end(self) -> None:
        """Raises InterfaceError: that is no end."""
        if not self._blocks.is_between:
            raise InterfaceError("rows cannot be read: their stream ends within a block")


class AsyncRowStream:
    """Rows as they come; `async with db.stream(...) as rows: async for row in rows`.

    Leaving the block before the end stops the statement on the server.

    Attributes:
        columns: names, once the first rows have come.
    """

    def __init__(self, calls: "AsyncSqlCalls", call: Asked) -> None:
        self._calls = calls
        self._call = call
        self._reading = _Reading()
        self._live: LiveStream | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, once the first rows have come."""
        return self._reading.columns

    async def __aenter__(self) -> Self:
        try:
            self._live = await self._calls.open_rows(self._call)
        except ConnectorException as error:
            raise database_error(error) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.close()

    def __aiter__(self) -> AsyncIterator[Row]:
        return self

    async def __anext__(self) -> Row:
        assert self._live is not None, "rows are read inside the `async with` block"
        ready = self._reading.ready
        try:
            while not ready:
                data = await self._live.take_all()
                if not data:
                    self._reading.check_end()
                    raise StopAsyncIteration
                self._reading.take(b"".join(data))
        except ConnectorException as error:
            raise database_error(error) from None
        return ready.popleft()


class RowStream:
    """The same for plain threads: `with db.stream(...) as rows: for row in rows`."""

    def __init__(self, calls: "SqlCalls", call: Asked) -> None:
        self._calls = calls
        self._call = call
        self._reading = _Reading()
        self._live: LiveStream | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, once the first rows have come."""
        return self._reading.columns

    def __enter__(self) -> Self:
        try:
            self._live = self._calls.open_rows(self._call)
        except ConnectorException as error:
            raise database_error(error) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._calls.close_rows(self._live)

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        assert self._live is not None, "rows are read inside the `with` block"
        ready = self._reading.ready
        try:
            while not ready:
                data = self._calls.take_rows(self._live)
                if not data:
                    self._reading.check_end()
                    raise StopIteration
                self._reading.take(b"".join(data))
        except ConnectorException as error:
            raise database_error(error) from None
        return ready.popleft()


class AsyncDatabase:
    """One data source of the tenant, by its name in the runtime's configuration.

    Raises (every call):
        DatabaseError: by the names of the DB-API; all are `ConnectorException`s.
    """

    def __init__(self, calls: "AsyncSqlCalls", source: str) -> None:
        self._calls = calls
        self.source = source

    async def query(self, sql: str, params: Params = None, **options: Unpack[SqlOptions]) -> Rows:
        """The rows that a statement gives."""
        return await self._one(asked("query", options, source=self.source, sql=sql, params=params))

    async def execute(self, sql: str, params: Params = None, **options: Unpack[SqlOptions]) -> Rows:
        """Have a statement change something; `row_count` says how much."""
        return await self._one(
            asked("execute", options, source=self.source, sql=sql, params=params)
        )

    async def execute_many(
        self, sql: str, params_list: Iterable[Params], **options: Unpack[SqlOptions]
    ) -> Rows:
        """The same statement for each of the parameters, all or nothing."""
        return await self._one(
            asked("execute_many", options, source=self.source, sql=sql, params_list=params_list)
        )

    async def transaction(
        self,
        statements: Iterable[Statement],
        *,
        isolation: str | None = None,
        **options: Unpack[SqlOptions],
    ) -> list[Rows]:
        """All statements or none; the result of each."""
        call = asked(
            "transaction", options, source=self.source, statements=statements, isolation=isolation
        )
        return await self._calls.database_call(call)

    def stream(
        self, sql: str, params: Params = None, **options: Unpack[SqlOptions]
    ) -> AsyncRowStream:
        """The rows of a query as they come, however many there are."""
        call = asked("query", options, source=self.source, sql=sql, params=params, stream=True)
        return AsyncRowStream(self._calls, call)

    async def _one(self, call: Asked) -> Rows:
        return (await self._calls.database_call(call))[0]


class Database:
    """The same for plain threads, as `AsyncDatabase`."""

    def __init__(self, calls: "SqlCalls", source: str) -> None:
        self._calls = calls
        self.source = source

    def query(self, sql: str, params: Params = None, **options: Unpack[SqlOptions]) -> Rows:
        """The rows that a statement gives."""
        call = asked("query", options, source=self.source, sql=sql, params=params)
        return self._calls.database_call(call)[0]

    def execute(self, sql: str, params: Params = None, **options: Unpack[SqlOptions]) -> Rows:
        """Have a statement change something; `row_count` says how much."""
        call = asked("execute", options, source=self.source, sql=sql, params=params)
        return self._calls.database_call(call)[0]

    def execute_many(
        self, sql: str, params_list: Iterable[Params], **options: Unpack[SqlOptions]
    ) -> Rows:
        """The same statement for each of the parameters, all or nothing."""
        call = asked("execute_many", options, source=self.source, sql=sql, params_list=params_list)
        return self._calls.database_call(call)[0]

    def transaction(
        self,
        statements: Iterable[Statement],
        *,
        isolation: str | None = None,
        **options: Unpack[SqlOptions],
    ) -> list[Rows]:
        """All statements or none; the result of each."""
        call = asked(
            "transaction", options, source=self.source, statements=statements, isolation=isolation
        )
        return self._calls.database_call(call)

    def stream(self, sql: str, params: Params = None, **options: Unpack[SqlOptions]) -> RowStream:
        """The rows of a query as they come, however many there are."""
        call = asked("query", options, source=self.source, sql=sql, params=params, stream=True)
        return RowStream(self._calls, call)


class AsyncSqlCalls(ABC):
    """What makes a client one of databases too."""

    def database(self, source: str = "") -> AsyncDatabase:
        """The data source of that name; the tenant's only one without."""
        return AsyncDatabase(self, source)

    async def query(
        self, sql: str, params: Params = None, *, source: str = "", **options: Unpack[SqlOptions]
    ) -> Rows:
        """As `database(source).query`."""
        return await self.database(source).query(sql, params, **options)

    async def transaction(
        self, statements: Iterable[Statement], *, source: str = "", **options: Unpack[SqlOptions]
    ) -> list[Rows]:
        """As `database(source).transaction`."""
        return await self.database(source).transaction(statements, **options)

    @abstractmethod
    async def database_call(self, call: Asked) -> list[Rows]:
        """The results of `call`. Raises DatabaseError."""

    @abstractmethod
    async def open_rows(self, call: Asked) -> LiveStream:
        """The stream of `call`, whose head has come."""


class SqlCalls(ABC):
    """The same for plain threads."""

    def database(self, source: str = "") -> Database:
        """The data source of that name; the tenant's only one without."""
        return Database(self, source)

    def query(
        self, sql: str, params: Params = None, *, source: str = "", **options: Unpack[SqlOptions]
    ) -> Rows:
        """As `database(source).query`."""
        return self.database(source).query(sql, params, **options)

    def transaction(
        self, statements: Iterable[Statement], *, source: str = "", **options: Unpack[SqlOptions]
    ) -> list[Rows]:
        """As `database(source).transaction`."""
        return self.database(source).transaction(statements, **options)

    @abstractmethod
    def database_call(self, call: Asked) -> list[Rows]:
        """The results of `call`. Raises DatabaseError."""

    @abstractmethod
    def open_rows(self, call: Asked) -> LiveStream:
        """The stream of `call`, whose head has come."""

    @abstractmethod
    def take_rows(self, live: LiveStream) -> list[bytes]:
        """What has come of it; none at its end."""

    @abstractmethod
    def close_rows(self, live: LiveStream) -> None:
        """Leave it."""
