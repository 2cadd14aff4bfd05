"""Cancelling a call at its k-th await point, for every k there is."""

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

import trio

__all__ = ["cancelled_at"]

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
