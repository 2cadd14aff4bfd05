"""What a driver gives: blocking sessions, each one connection, used by one thread at a time.

`interrupt` alone may be called from another thread, while a statement runs: it makes that fail
soon, again and again if need be, and never waits long itself.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Final, Protocol

from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result

__all__ = ["Driver", "Gauge", "Session"]

_VALUE_BYTES: Final = 16
_SIZED: Final = (str, bytes)


class Session(Protocol):
    """One connection to a database.

    Attributes:
        is_usable: whether another job may be given to it.
    """

    is_usable: bool

    def looks_alive(self) -> bool:
        """Whether it is worth giving out again after an idle time; asks nobody."""

    def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it.

        Args:
            job: one result for each of its statements.
            begun: told when the database may have got a statement.

        Raises:
            SqlError: it failed, and nothing of it holds.
        """

    def stream(self, job: Job, begun: Callable[[], None]) -> Generator[Result, int, None]:
        """The rows of a query in pieces; who takes them says (`send`) how many are next.

        Raises:
            SqlError: it failed.
        """

    def interrupt(self) -> None:
        """Stop what runs; from any thread."""

    def close(self) -> None:
        """End it. Raises nothing."""


class Driver(Protocol):
    """Opens sessions to one data source.

    Attributes:
        origin: the server, for policies and logs.
        has_one_writer: whether jobs that change something have to go one by one.
    """

    origin: str
    has_one_writer: bool

    def open(self) -> Session:
        """A new connection; blocks. Raises SqlError, of what was certainly not sent."""


class Gauge:
    """Counts what a result takes, and refuses what is too much.

    Args:
        max_rows, max_bytes: the bounds of one answer.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows = 0
        self._bytes = 0

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
                if isinstance(value, _SIZED):
                    self._bytes += len(value)
        if self._bytes > self._max_bytes:
            words = f"the result takes more than {self._max_bytes} bytes: use streaming, or LIMIT"
            raise SqlError(Blame.TOO_LARGE, words)
