"""A line of tasks of which only the first is awake: for what a machine keeps no line of.

Who comes stands behind those who are there. The first one asks, sleeps until it may ask again, and
is rung where something may have changed; the others sleep until it has left. So whatever is rung
how often, the work is in proportion to the tasks, and they go in the order in which they came.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["Line"]


class Line:
    """One line.

    Attributes:
        length: tasks in it, the first one included.
    """

    __slots__ = ("_bell", "_turn", "length")

    def __init__(self) -> None:
        self.length = 0
        self._turn = trio.Lock()  # serves in the order of arrival
        self._bell = trio.Event()

    @asynccontextmanager
    async def first(self) -> AsyncIterator[None]:
        """Stand in line; inside of the block the task is the first."""
        self.length += 1
        try:
            async with self._turn:
                yield
        finally:
            self.length -= 1

    async def sleep_until(self, at_s: float) -> None:
        """For the first in line: sleep until then, or until rung."""
        self._bell = trio.Event()
        with trio.CancelScope(deadline=at_s):
            await self._bell.wait()

    def ring(self) -> None:
        """Something may have changed: wake the first in line."""
        self._bell.set()
