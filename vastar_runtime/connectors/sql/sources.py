"""Data sources: the connections to each, kept apart by tenant as each tenant names its own.

A `Source` lends sessions: at most so many at once, an idle one before a new one, the last one given
back first, so that those of a quiet time grow old and are closed. Whoever waits does so in order.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType

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
from vastar_runtime.connectors.sql.sessions import Driver, Session
from vastar_runtime.transport import Origin
from vastar_runtime.transport.progress import Progress

__all__ = ["LookUp", "Password", "Source", "server_of", "sources_of"]

Password = Callable[[], str]
LookUp = Callable[[str, Origin], Awaitable[Sequence[str]]]
"""For a tenant: the addresses of a server that may be connected to. Raises OSError, UnicodeError;
what else it raises (`Forbidden`) is a refusal, and goes through everybody's hands."""


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

    def lend(self, *, writes: bool, progress: Progress | None = None) -> "Loan":
        """A context of a session; one that changes something comes after those before it.

        Args:
            writes: it changes something.
            progress: is told how long it waited in line, and how long connecting took.

        Entering raises:
            SqlError: none can be opened.
        """
        return Loan(self, self._places, self._writer if writes else None, progress or Progress())

    async def take(self, progress: Progress) -> Session:
        """A session, for whoever has a place."""
        while self._idle:
            session = self._idle.pop().session
            if session.looks_alive():
                return session
            await self._close([session])
        started_s = trio.current_time()
        session = await self._driver.open()
        progress.connect_us = round((trio.current_time() - started_s) * 1e6)
        return session

    async def take_back(self, session: Session) -> None:
        """It is not used any more."""
        if session.is_usable and not self._is_closed:
            self._idle.append(_Idle(session, trio.current_time()))
        else:
            await self._close([session])

    async def _close(self, sessions: list[Session]) -> None:
        if sessions:
            with trio.CancelScope(shield=True):
                for session in sessions:
                    await session.aclose()

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


class Loan:
    """A place in line, and a session, for as long as the context lasts.

    Args:
        source: lends.
        places: of its sessions.
        writer: whose turn it is to change something, where they go one by one.
        progress: as of `lend`.
    """

    __slots__ = ("_places", "_progress", "_session", "_source", "_writer")

    def __init__(
        self,
        source: Source,
        places: trio.CapacityLimiter,
        writer: trio.Lock | None,
        progress: Progress,
    ) -> None:
        self._progress = progress
        self._source = source
        self._places = places
        self._writer = writer
        self._session: Session | None = None

    async def __aenter__(self) -> Session:
        try:
            # Most find a place, and go on without a turn of the scheduler.
            self._enter()
        except trio.WouldBlock:
            await self._wait()
        try:
            self._session = await self._source.take(self._progress)
        except BaseException:
            self._leave()
            raise
        return self._session

    def _enter(self) -> None:
        """Raises WouldBlock: there is a line."""
        if self._writer is not None:
            self._writer.acquire_nowait()
        try:
            self._places.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:
            if self._writer is not None:
                self._writer.release()
            raise

    async def _wait(self) -> None:
        started_s = trio.current_time()
        try:
            if self._writer is not None:
                await self._writer.acquire()
            try:
                await self._places.acquire_on_behalf_of(self)
            except BaseException:
                if self._writer is not None:
                    self._writer.release()
                raise
        finally:
            self._progress.queued_us = round((trio.current_time() - started_s) * 1e6)

    def _leave(self) -> None:
        self._places.release_on_behalf_of(self)
        if self._writer is not None:
            self._writer.release()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session = self._session
        assert session is not None, "entered"
        if isinstance(error, SqlError) and error.blame is Blame.LOST:
            session.is_usable = False
        try:
            await self._source.take_back(session)
        finally:
            self._leave()


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
    assert database.url is not None, "it was checked"
    address = database_address(database.url)
    if address.driver == "postgres":
        from vastar_runtime.connectors.sql.postgres import PostgresDriver  # noqa: PLC0415 - not all have psycopg

        server = server_of(address)
        bound = None if look_up is None or server is None else partial(look_up, server)
        postgres: Driver = PostgresDriver(address, database, password, bound)
        return Source(database, postgres, address.driver, server)
    from vastar_runtime.connectors.sql.sqlite import SqliteDriver  # noqa: PLC0415 - 4 ms for all

    driver = SqliteDriver(
        address.name,
        read_only=database.read_only,
        busy_timeout_s=database.busy_timeout_s,
        max_rows=database.max_rows,
        max_bytes=database.max_result_bytes,
        max_connections=database.max_connections,
    )
    return Source(database, driver, address.driver)
