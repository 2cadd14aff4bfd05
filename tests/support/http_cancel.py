"""Leaving a call at its k-th await point, or at the k-th step of any task, for every k there is."""

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import attrs
import trio

from tests.support.running import Running
from tests.support.sessions import CallerEnd
from vastar_runtime.outcomes import FailureKind

__all__ = ["AtStep", "cancel_all", "cancelled_at", "hang_up"]

T = TypeVar("T")


async def cancelled_at(step: int, call: Coroutine[Any, Any, T]) -> bool:
    """Run `call` and cancel it when it waits for the `step`-th time (from 1).

    Returns:
        Whether it got as far as that; otherwise it ran to its end, and larger steps are of no use.
    """
    with trio.CancelScope() as scope:
        await _counted(call, step, scope)
    return scope.cancel_called


@types.coroutine
def _counted(
    call: Coroutine[Any, Any, T], step: int, scope: trio.CancelScope
) -> Generator[Any, Any, T]:
    """Drive `call` by hand, passing on what it yields to Trio and counting."""
    count = 0
    resume: Any = call.send
    value: Any = None
    while True:
        try:
            waiting_for = resume(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        count += 1
        if count == step:
            scope.cancel()
        try:
            value = yield waiting_for
            resume = call.send
        except BaseException as error:  # noqa: BLE001 - handed on to the call
            value, resume = error, call.throw


@attrs.define(eq=False)
class AtStep(trio.abc.Instrument):
    """Do something once, after the so-many-th step that any task takes from now on."""

    step: int
    action: Callable[[], None]
    done: bool = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.step -= 1
        if not self.step and not self.done:
            self.done = True
            self.action()


def cancel_all(runtime: Running) -> None:
    for session in runtime.runtime._sessions:
        for calls in session._calls.values():
            for call in calls:
                call.cancel(FailureKind.CANCELLED)


def hang_up(caller: CallerEnd) -> None:
    caller.stream.send_stream.close()  # type: ignore[attr-defined]
    caller.stream.receive_stream.close()  # type: ignore[attr-defined]
    caller._hangup.set()
