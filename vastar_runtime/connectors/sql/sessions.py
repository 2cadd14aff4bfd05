"""What a driver gives: sessions, each one connection, used by one task at a time.

Everything here is asynchronous, and cancelling is all there is to stop a statement: a session that
is cancelled has the database stop what runs, waits for that a moment, and is usable again, or says
that it is not. Whether a driver needs threads for it is its own business (`threaded`).
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result

__all__ = ["Driver", "Gauge", "Rows", "Session"]

_VALUE_BYTES: Final = 16
_SIZED: Final = frozenset({str, bytes})


class Rows(Protocol):
    """The rows of one query, as they are asked for. To be closed, also after an error."""

    async def next(self, count: int) -> Result:
        """About `count` rows more, with the columns; none where that was the end.

        Raises:
            SqlError: it failed.
        """

    async def aclose(self) -> None:
        """Stop the query where it has not ended. Raises nothing but cancellation."""


class Session(Protocol):
    """One connection to a database.

    Attributes:
        is_usable: whether another job may be given to it.
    """

    is_usable: bool

    def looks_alive(self) -> bool:
        """Whether it is worth giving out again after an idle time; asks nobody."""

    async def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it.

        Args:
            job: one result for each of its statements.
            begun: told when the database may have got a statement; from any thread.

        Raises:
            SqlError: it failed, and nothing of it holds.
        """

    def stream(self, job: Job, begun: Callable[[], None]) -> Rows:
        """The rows of a query, which begins when the first are asked for."""

    async def aclose(self) -> None:
        """End it, soon, whatever it does. Raises nothing but cancellation."""


class Driver(Protocol):
    """Opens sessions to one data source.

    Attributes:
        origin: the server, for policies and logs.
        has_one_writer: whether jobs that change something have to go one by one.
    """

    origin: str
    has_one_writer: bool

    async def open(self) -> Session:
        """A new connection. Raises SqlError, of what was certainly not sent."""


class Gauge:
    """Counts what the results of a job take, and refuses what is too much while it comes in.

    Args:
        max_rows: of each result.
        max_bytes: of all results together, about as they are in memory.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows = 0
        self._bytes = 0

    def next(self) -> None:
        """The next result begins."""
        self._rows = 0

    def add(self, rows: Sequence[Sequence[object]]) -> None:
        """Count these too.

        Raises:
            SqlError: that is too much.
        """
        self._rows += len(rows)
        if self._rows > self._max_rows:
            words = f"the result has more than {self._max_rows} rows: use streaming, or LIMIT"
            raise SqlError(Blame.TOO_LARGE, words)
        for row in rows:
            self._bytes += _VALUE_BYTES * len(row)
            for value in row:
                if type(value) in _SIZED:
                    self._bytes += len(value)  # type: ignore[arg-type]  # as just seen
        if self._bytes > self._max_bytes:
            words = f"the result takes more than {self._max_bytes} bytes: use streaming, or LIMIT"
            raise SqlError(Blame.TOO_LARGE, words)
