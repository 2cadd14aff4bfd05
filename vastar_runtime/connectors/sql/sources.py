"""Data sources: the connections to each, kept apart by tenant as each tenant names its own.

A `Source` lends sessions: at most so many at once, an idle one before a new one, the last one given
back first, so that those of a quiet time grow old and are closed. Whoever waits does so in order.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from vastar_runtime.config import (
    DatabaseAddress,
    DatabaseConfig,
    RuntimeConfig,
    all_databases,
    database_address,
)
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.interrupting import in_thread
from vastar_runtime.connectors.sql.sessions import Driver, Session
from vastar_runtime.transport import Origin

__all__ = ["LookUp", "Password", "Source", "server_of", "sources_of"]

T = TypeVar("T")
Password = Callable[[], str]
LookUp = Callable[[str, Origin], Awaitable[Sequence[str]]]
"""For a tenant: the addresses of a server that may be connected to. Raises OSError, UnicodeError;
what else it raises (`Forbidden`) is a refusal, and goes through everybody's hands."""

_SPARE_THREADS: Final = 4
"""For those that did not return in time, beside one for each connection."""


@attrs.frozen
class _Idle:
    session: Session
    since_s: float


class Source:
    """One data source of a tenant.

    Args:
        config: what is written of it.
        driver: opens sessions.
        name: of the driver.
        server: where it is on the network; None: nowhere.

    Attributes:
        config, server: as given.
        origin: the server, for policies and logs.
    """

    def __init__(
        self, config: DatabaseConfig, driver: Driver, name: str, server: Origin | None = None
    ) -> None:
        self.config = config
        self.server = server
        self.driver_name = name
        self.origin = driver.origin
        self._driver = driver
        self._places = trio.CapacityLimiter(config.max_connections)
        self._threads = trio.CapacityLimiter(config.max_connections + _SPARE_THREADS)
        self._writer = trio.Lock() if driver.has_one_writer else None
        self._idle: list[_Idle] = []
        self._is_closed = False

    @property
    def busy(self) -> int:
        """Sessions that are lent."""
        return int(self._places.borrowed_tokens)

    @property
    def idle(self) -> int:
        """Sessions that are open and not lent."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Tasks in line for a session, or for their turn to change something."""
        writers = 0 if self._writer is None else self._writer.statistics().tasks_waiting
        return self._places.statistics().tasks_waiting + writers

    @asynccontextmanager
    async def lend(self, *, writes: bool) -> AsyncIterator["Lent"]:
        """A session; one that changes something comes after those before it, where it must.

        Raises:
            SqlError: none can be opened.
        """
        if writes and self._writer is not None:
            async with self._writer, self._place() as lent:
                yield lent
        else:
            async with self._place() as lent:
                yield lent

    @asynccontextmanager
    async def _place(self) -> AsyncIterator["Lent"]:
        async with self._places:
            lent = Lent(await self._idle_one() or await self._opened(), self._threads)
            try:
                yield lent
            except BaseException:
                await self._take_back(lent)
                raise
            await self._take_back(lent)

    async def _idle_one(self) -> Session | None:
        while self._idle:
            session = self._idle.pop().session
            if session.looks_alive():
                return session
            await self._close([session])
        return None

    async def _opened(self) -> Session:
        opened: list[Session] = []

        def orphaned() -> None:
            for session in opened:
                session.close()

        def open_one() -> Session:
            session = self._driver.open()
            opened.append(session)
            return session

        try:
            return await in_thread(
                open_one, interrupt=lambda: None, orphaned=orphaned, limiter=self._threads
            )
        except trio.Cancelled:
            for session in opened:
                session.close()
            raise

    async def _take_back(self, lent: "Lent") -> None:
        if lent.is_orphaned:
            return
        if lent.session.is_usable and not self._is_closed:
            self._idle.append(_Idle(lent.session, trio.current_time()))
        else:
            await self._close([lent.session])

    async def _close(self, sessions: list[Session]) -> None:
        def close() -> None:
            for session in sessions:
                session.close()

        if sessions:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(close)

    async def sweep(self, now_s: float) -> None:
        """Close what was idle for too long."""
        old = [each for each in self._idle if now_s - each.since_s >= self.config.idle_timeout_s]
        self._idle = [each for each in self._idle if each not in old]
        await self._close([each.session for each in old])

    async def aclose(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        await self._close([each.session for each in idle])


class Lent:
    """A session that somebody has.

    Attributes:
        is_orphaned: a thread is still in it, and will close it.
    """

    def __init__(self, session: Session, threads: trio.CapacityLimiter) -> None:
        self.session = session
        self.is_orphaned = False
        self._threads = threads

    async def do(self, function: Callable[[], T]) -> T:
        """Have a thread do `function`, which uses the session; cancelling interrupts it."""

        def orphaned() -> None:
            self.is_orphaned = True
            self.session.is_usable = False
            self.session.close()

        try:
            return await in_thread(
                function,
                interrupt=self.session.interrupt,
                orphaned=orphaned,
                limiter=self._threads,
            )
        except SqlError as error:
            if error.blame is Blame.LOST:
                self.session.is_usable = False
            raise


def sources_of(
    config: RuntimeConfig,
    passwords: Mapping[tuple[str, str], Password],
    before: "Mapping[tuple[str, str], Source] | None" = None,
    look_up: LookUp | None = None,
) -> dict[tuple[str, str], Source]:
    """The sources by tenant and name; those that are as `before` are those of before.

    Args:
        config: checked.
        passwords: of the sources that have one.
        before: of the configuration before.
        look_up: for drivers that connect; by default the host's own, where all may be reached.
    """
    sources = {}
    for (_, tenant, _, name), database in all_databases(config):
        key = (tenant, name)
        known = None if before is None else before.get(key)
        if known is not None and known.config == database:
            sources[key] = known
        else:
            bound = None if look_up is None else partial(look_up, tenant)
            sources[key] = _source(database, passwords.get(key), bound)
    return sources


def server_of(address: DatabaseAddress) -> Origin | None:
    """Where a data source is on the network, for the egress guard; None: it is a file."""
    if not address.host:
        return None
    return Origin(address.driver, address.host, address.port)


def _source(
    database: DatabaseConfig,
    password: Password | None,
    look_up: Callable[[Origin], Awaitable[Sequence[str]]] | None,
) -> Source:
    del look_up  # until the driver takes it
    assert database.url is not None, "it was checked"
    address = database_address(database.url)
    if address.driver == "postgres":
        from vastar_runtime.connectors.sql.postgres import PostgresDriver  # noqa: PLC0415 - not all have psycopg

        driver: Driver = PostgresDriver(address, database, password)
        return Source(database, driver, address.driver, server_of(address))
    from vastar_runtime.connectors.sql.sqlite import SqliteDriver  # noqa: PLC0415 - 4 ms for all

    driver = SqliteDriver(
        address.name,
        read_only=database.read_only,
        busy_timeout_s=database.busy_timeout_s,
        max_rows=database.max_rows,
        max_bytes=database.max_result_bytes,
    )
    return Source(database, driver, address.driver)
