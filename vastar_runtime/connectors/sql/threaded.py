"""A blocking session as one of ours: each job, and each piece of a stream, runs in a thread.

A thread cannot be cancelled, so the session is interrupted (`interrupting`). Where that does not
help in time the thread is left behind with its session, which nobody else gets, and which is closed
when the thread returns at last.
"""

from collections.abc import Callable, Generator
from typing import Final, Protocol, TypeVar

import trio

from vastar_runtime.connectors.sql.interrupting import in_thread
from vastar_runtime.connectors.sql.jobs import Job, Result
from vastar_runtime.connectors.sql.sessions import Rows, Session

__all__ = ["BlockingSession", "ThreadedSession", "open_in_thread", "thread_limiter"]

_SPARE_THREADS: Final = 4
"""For those that did not return in time, beside one for each connection."""

T = TypeVar("T")


class BlockingSession(Protocol):
    """One connection, used by one thread at a time.

    Attributes:
        is_usable: as of a `Session`.
    """

    is_usable: bool

    def looks_alive(self) -> bool:
        """As of a `Session`."""

    def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it. Raises SqlError."""

    def stream(self, job: Job, begun: Callable[[], None]) -> Generator[Result, int, None]:
        """The rows of a query in pieces; who takes them says (`send`) how many are next.

        Raises:
            SqlError: it failed.
        """

    def interrupt(self) -> None:
        """Make what runs fail soon; from any thread, again and again, never waiting long."""

    def close(self) -> None:
        """End it. Raises nothing."""


def thread_limiter(connections: int) -> trio.CapacityLimiter:
    """Threads for so many connections."""
    return trio.CapacityLimiter(connections + _SPARE_THREADS)


async def open_in_thread(
    function: Callable[[], BlockingSession], limiter: trio.CapacityLimiter
) -> Session:
    """The session that `function` opens.

    Raises:
        SqlError: none could be opened.
    """
    opened: list[BlockingSession] = []

    def close() -> None:
        for session in opened:
            session.close()

    def open_one() -> BlockingSession:
        opened.append(function())
        return opened[0]

    try:
        session = await in_thread(open_one, interrupt=lambda: None, orphaned=close, limiter=limiter)
    except trio.Cancelled:
        close()
        raise
    return ThreadedSession(session, limiter)


class ThreadedSession:
    """A blocking session in threads.

    Args:
        session: used by nobody else.
        limiter: of threads.
    """

    def __init__(self, session: BlockingSession, limiter: trio.CapacityLimiter) -> None:
        self._session = session
        self._limiter = limiter
        self._is_orphaned = False

    @property
    def is_usable(self) -> bool:
        """Whether another job may be given to it."""
        return self._session.is_usable

    @is_usable.setter
    def is_usable(self, usable: bool) -> None:
        self._session.is_usable = usable

    @property
    def is_orphaned(self) -> bool:
        """Whether a thread is still in it, and will close it."""
        return self._is_orphaned

    def looks_alive(self) -> bool:
        """Whether it is worth giving out again."""
        return self._session.looks_alive()

    async def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        """Do all of `job`, or nothing of it. Raises SqlError."""
        return await self.do(lambda: self._session.run(job, begun))

    def stream(self, job: Job, begun: Callable[[], None]) -> Rows:
        """The rows of a query."""
        return _ThreadedRows(self, self._session.stream(job, begun))

    async def aclose(self) -> None:
        """End it, where no thread does."""
        if not self._is_orphaned:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._session.close)

    async def do(self, function: Callable[[], T]) -> T:
        """Have a thread do `function`, which uses the session; cancelling interrupts it."""

        def left() -> None:
            self._is_orphaned = True
            self._session.is_usable = False

        return await in_thread(
            function,
            interrupt=self._session.interrupt,
            orphaned=self._session.close,
            limiter=self._limiter,
            left=left,
        )


class _ThreadedRows:
    """A generator of pieces, each made in a thread."""

    def __init__(self, session: ThreadedSession, pieces: Generator[Result, int, None]) -> None:
        self._session = session
        self._pieces = pieces
        self._has_begun = False

    async def next(self, count: int) -> Result:
        """About `count` rows more."""
        if self._has_begun:
            return await self._session.do(lambda: self._pieces.send(count))
        self._has_begun = True
        return await self._session.do(lambda: next(self._pieces))

    async def aclose(self) -> None:
        """Close the generator, where no thread is in it."""
        if not self._session.is_orphaned:
            with trio.CancelScope(shield=True):
                await self._session.do(self._pieces.close)
