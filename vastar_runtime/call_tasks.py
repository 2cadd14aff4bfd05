"""The tasks of a connection's calls: each call has one to itself, and a task serves many in turn.

A new task costs four times what waking one does (7 us against 2), so one that has ended its call
rests a while for the next of its connection. Few do, in the whole process: a task at rest holds
some 3 kB, and a thousand idle connections are to stay cheap.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from vastar_runtime.calls import Call
from vastar_runtime.runtime_state import Resting

__all__ = ["CallTasks"]

_MAX_RESTING: Final = 256


class CallTasks:
    """Runs the calls of one connection in its nursery.

    Args:
        nursery: of the connection.
        serve: the life of one call; raises nothing but cancellation.
        resting: shared by all connections.
    """

    def __init__(
        self, nursery: trio.Nursery, serve: Callable[[Call], Awaitable[None]], resting: Resting
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._resting = resting
        self._at_rest: list[trio.lowlevel.Task] = []
        self._given: dict[trio.lowlevel.Task, Call] = {}

    def begin(self, call: Call) -> None:
        """Serve `call` in a task of its own, soon."""
        if self._at_rest:
            self._resting.tasks -= 1
            task = self._at_rest.pop()
            self._given[task] = call
            trio.lowlevel.reschedule(task)
        else:
            self._nursery.start_soon(self._run, call)

    async def _run(self, call: Call) -> None:
        await self._serve(call)
        del call  # it may hold a body of megabytes, and this frame lives on
        while self._resting.tasks < _MAX_RESTING:
            await self._serve(await self._rest())

    async def _rest(self) -> Call:
        """The next call. While it waits the task holds nothing of the last one."""
        task = trio.lowlevel.current_task()
        self._at_rest.append(task)
        self._resting.tasks += 1

        def leave(_: object) -> trio.lowlevel.Abort:
            self._at_rest.remove(task)
            self._resting.tasks -= 1
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
        return self._given.pop(task)
