"""PostgreSQL over libpq on Trio: a session is one connection, and no thread is in it.

A statement alone runs in autocommit, in one round trip. Statements always go by the extended
protocol, which takes one at a time, so none hides behind another. What a statement was the server's
command tag tells; one that begins or ends a transaction is refused, mostly before it is sent. What
a statement may have left in the session is undone before another call gets it (`postgres_leaving`).
Sources that are read-only run everything in transactions that are READ ONLY, in one round trip too,
as a statement alone may be one (DO) that ends its transaction and begins another; the one way to
take that back, SET before the first query, shows in its tag and is undone.

Cancelling asks the server to stop the statement, over a connection of its own as the protocol has
it, reads what is left, and has a statement of ours take what the request may still hit. Where that
takes too long the connection is thrown away.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from vastar_client.wire.rows import SqlStatement
from vastar_runtime.config import DatabaseAddress, DatabaseConfig
from vastar_runtime.connectors.sql.errors import Blame, SqlError, short
from vastar_runtime.connectors.sql.jobs import Job, Result
from vastar_runtime.connectors.sql.postgres_leaving import controls, gives_no_rows
from vastar_runtime.connectors.sql.postgres_link import Link, LinkError, connect
from vastar_runtime.connectors.sql.postgres_link import look_up as look_up_here
from vastar_runtime.connectors.sql.postgres_statements import Running, StaleError, Statements
from vastar_runtime.connectors.sql.postgres_values import SETTINGS, changed_setting
from vastar_runtime.connectors.sql.sessions import Gauge, Rows, Session
from vastar_runtime.outcomes import Disposition

__all__ = ["PostgresDriver", "PostgresSession"]

T = TypeVar("T")


class PostgresDriver:
    """Opens sessions to one database.

    Args:
        address: of the URL.
        config: of the source.
        password: gives the one of now; None logs in without.
        look_up: the server's addresses; by default the host's own lookup. Raises OSError and
            UnicodeError, and what forbids an address, which goes through.
    """

    has_one_writer = False

    def __init__(
        self,
        address: DatabaseAddress,
        config: DatabaseConfig,
        password: Callable[[], str] | None,
        look_up: Callable[[], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        self.origin = address.origin
        self._address = address
        self._config = config
        self._password = password
        self._look_up = look_up or partial(look_up_here, address.host, address.port)

    async def open(self) -> Session:
        """A new connection, logged in. Raises SqlError."""
        timeout_s = self._config.connect_timeout_s
        words = f"no answer in {timeout_s:g} s"
        with trio.move_on_after(timeout_s):
            try:
                addresses = await self._look_up()
                return PostgresSession(await connect(self._parameters(), addresses), self._config)
            except (OSError, UnicodeError) as error:
                words = f"{self._address.host}: {getattr(error, 'strerror', None) or error}"
            except LinkError as error:
                words = short(str(error))
        blame = Blame.SERVER if "authentication failed" in words else Blame.UNREACHABLE
        words = f"connecting to {self.origin} failed: {words}"
        raise SqlError(blame, words, Disposition.NOT_SENT)

    def _parameters(self) -> dict[str, str | int]:
        address, config = self._address, self._config
        settings = dict(SETTINGS)
        if config.read_only:
            settings["default_transaction_read_only"] = "on"
        parameters: dict[str, str | int] = {
            "application_name": "vastar",
            **dict(address.options),
            "host": address.host,
            "port": address.port,
            "dbname": address.name,
            "client_encoding": "UTF8",
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        }
        user = config.user or address.user
        if user:
            parameters["user"] = user
        if self._password is not None:
            parameters["password"] = self._password()
        return parameters


class PostgresSession:
    """One connection.

    Args:
        link: nobody else uses it.
        config: of the source.

    Attributes:
        is_usable: whether another job may be given to it.
    """

    def __init__(self, link: Link, config: DatabaseConfig) -> None:
        self.is_usable = True
        self._link = link
        self._config = config
        self._statements = Statements(link, config)

    def looks_alive(self) -> bool:
        """Whether the server has not closed it while it was idle."""
        # A server says nothing unasked but that it leaves; a notice costs us a connection.
        return self.is_usable and not self._link.has_news()

    async def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it. Raises SqlError."""
        begun()
        results = await self.tidily(lambda: self._healing(lambda: self._done(job)))
        await self.reset()
        return results

    def stream(self, job: Job, begun: Callable[[], None]) -> Rows:
        """The rows of a query."""
        return _PostgresRows(self, job.statements[0], begun)

    async def aclose(self) -> None:
        """End it."""
        self.is_usable = False
        self._link.close()
        await trio.lowlevel.checkpoint()

    async def tidily(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`; where it does not end well, make an end of it and keep the session.

        Raises:
            SqlError: it failed.
        """
        try:
            return await work()
        except LinkError as error:
            self.is_usable = False
            raise SqlError(Blame.LOST, short(str(error))) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what runs, and undo it."""
        self.is_usable &= await self._statements.stop()

    async def reset(self) -> None:
        """Undo what was left in the session."""
        try:
            self.is_usable &= await self._statements.reset()
        except BaseException:
            self.is_usable = False
            raise

    async def _healing(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except StaleError:
            # Nothing of it was done, or it is undone.
            await self._statements.forget_prepared()
            return await work()

    async def _done(self, job: Job) -> list[Result]:
        if self._is_alone(job):
            return await self._all(job)
        if any(controls(statement.sql) for statement in job.statements):
            words = "a statement that begins or ends a transaction is not allowed here"
            raise SqlError(Blame.CALLER, words)
        await self._begin(job.isolation)
        results = await self._all(job)
        await self._commit()
        return results

    def _is_alone(self, job: Job) -> bool:
        """Whether it is one statement that needs no transaction of several round trips.

        What gives the rows that it changed does: where these are too many it is to be undone.
        """
        if job.operation not in {"query", "execute"}:
            return False
        return self._config.read_only or "returning" not in job.statements[0].sql.lower()

    async def _begin(self, isolation: str | None) -> None:
        text = "BEGIN"
        if isolation is not None:
            text += f" ISOLATION LEVEL {isolation.upper()}"
        if self._config.read_only:
            text += " READ ONLY"
        await self._statements.command(text.encode())

    async def _commit(self) -> None:
        result = await self._statements.command(b"COMMIT")
        if result.command_status != b"COMMIT":
            raise SqlError(Blame.SERVER, "the transaction was rolled back")

    async def _all(self, job: Job) -> list[Result]:
        if job.operation == "execute_many":
            return [await self._many(job)]
        most = self._config.max_rows
        gauge = Gauge(min(job.max_rows or most, most), self._config.max_result_bytes)
        if len(job.statements) == 1:
            is_query = job.operation == "query"
            reads = self._config.read_only and self._is_alone(job)
            return [await self._one(job.statements[0], gauge, is_query=is_query, reads=reads)]
        results = []
        for statement in job.statements:
            results.append(await self._one(statement, gauge, is_query=False, reads=False))
            name = changed_setting(self._link.pgconn)
            if name is not None:  # the rows of the next statements would be misread
                raise SqlError(Blame.CALLER, f"{name} cannot be changed here")
        return results

    async def _one(
        self, statement: SqlStatement, gauge: Gauge, *, is_query: bool, reads: bool
    ) -> Result:
        running = await self._statements.start(statement.sql, statement.params, reads=reads)
        gauge.next()
        rows: list[tuple[Any, ...]] = []
        while (piece := await running.next()) is not None:
            if piece:
                gauge.add(piece)
                rows += piece
        count = len(rows) if is_query and running.names else running.count
        return Result(running.names, rows, count, types=running.kinds)

    async def _many(self, job: Job) -> Result:
        (statement,) = job.statements
        if gives_no_rows(statement.sql):
            count = await self._statements.change_many(statement.sql, job.params_list)
            return Result(row_count=count)
        count = 0
        for params in job.params_list:
            running = await self._statements.start(statement.sql, params or [])
            while await running.next() is not None:
                pass  # nobody asked for rows
            count += max(running.count, 0)
        return Result(row_count=count)

    async def begin_stream(
        self, statement: SqlStatement
    ) -> tuple[Running, list[tuple[Any, ...]] | None]:
        """A query and its first rows. Raises SqlError, LinkError."""

        async def work() -> tuple[Running, list[tuple[Any, ...]] | None]:
            reads = self._config.read_only
            running = await self._statements.start(statement.sql, statement.params, reads=reads)
            return running, await running.next()

        return await self._healing(work)


class _PostgresRows:
    """A query's rows as they come; the server waits while nobody asks."""

    def __init__(
        self, session: PostgresSession, statement: SqlStatement, begun: Callable[[], None]
    ) -> None:
        self._session = session
        self._statement = statement
        self._begun = begun
        self._running: Running | None = None
        self._is_open = False

    async def next(self, count: int) -> Result:
        """About `count` rows more. Raises SqlError."""
        try:
            result = await self._session.tidily(lambda: self._next(count))
        except BaseException:
            self._is_open = False
            raise
        if self._running is not None and not self._is_open:
            await self._session.reset()
        return result

    async def _next(self, count: int) -> Result:
        session, running = self._session, self._running
        rows: list[tuple[Any, ...]] = []
        piece: list[tuple[Any, ...]] | None = []
        if running is None:
            self._begun()
            self._is_open = True
            running, piece = await session.begin_stream(self._statement)
            self._running = running
        while self._is_open:
            if piece is None:
                self._is_open = False
                break
            rows += piece
            if len(rows) >= count:
                break
            piece = await running.next()
        return Result(running.names, rows, types=running.kinds)

    async def aclose(self) -> None:
        """Stop it where it has not ended."""
        if self._is_open:
            self._is_open = False
            await self._session.stop()
