"""Blocking work in a thread that can be stopped: cancellation interrupts it and waits a moment.

A thread cannot be cancelled, what it waits for can: so when the scope around the work is cancelled,
`interrupt` is called until the thread has returned, again and again as one call may come between
two statements. A thread that does not return in `GRACE_S` is left behind, and its caller is told,
so that a deadline is kept whatever a driver does; `orphaned` is then called in that thread when it
returns at last, and can throw away what nobody else may use any more.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import trio

__all__ = ["GRACE_S", "in_thread"]

GRACE_S: Final = 1.0
_AGAIN_S: Final = 0.02

T = TypeVar("T")


@attrs.define
class _Thread:
    """Where the thread is, for both sides, under `lock`."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    is_inside: bool = False
    is_left: bool = False

    def enter(self) -> bool:
        """The thread begins; False where nobody wants it any more."""
        with self.lock:
            self.is_inside = not self.is_left
            return self.is_inside

    def leave(self) -> bool:
        """The thread has returned; whether its caller has left before."""
        with self.lock:
            self.is_inside = False
            return self.is_left

    def abandon(self) -> bool:
        """The caller leaves; whether the thread is still inside."""
        with self.lock:
            self.is_left = True
            return self.is_inside


async def in_thread(
    function: Callable[[], T],
    *,
    interrupt: Callable[[], None],
    orphaned: Callable[[], None],
    limiter: trio.CapacityLimiter,
    left: Callable[[], None] = lambda: None,
) -> T:
    """What `function` gives or raises, run in a thread.

    Args:
        function: blocks; what it gives or raises is dropped when the caller was cancelled.
        interrupt: makes it return soon; does not block, and may come when it has returned.
        orphaned: called once, where the caller was cancelled and the thread did not return in time,
            when it returns at last; in that thread, if it ever began.
        limiter: of threads.
        left: called in that case before the caller goes on, with the thread maybe still inside.
    """
    thread = _Thread()
    given: list[T] = []
    raised: list[Exception] = []

    def work() -> None:
        if not thread.enter():
            return
        try:
            given.append(function())
        except Exception as error:  # noqa: BLE001 - raised again on the other side
            raised.append(error)
        finally:
            if thread.leave():
                orphaned()

    done = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True) as patience:
            nursery.start_soon(_interrupt_when_cancelled, interrupt, done, patience)
            await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)
        done.set()
        if patience.cancelled_caught:
            left()
            if not thread.abandon():
                orphaned()
        nursery.cancel_scope.cancel()
    if raised:
        raise raised[0]
    return given[0]


async def _interrupt_when_cancelled(
    interrupt: Callable[[], None], done: trio.Event, patience: trio.CancelScope
) -> None:
    try:
        await trio.sleep_forever()
    finally:
        if not done.is_set():
            patience.deadline = trio.current_time() + GRACE_S
            with trio.CancelScope(shield=True):
                while not done.is_set():
                    interrupt()
                    with trio.move_on_after(_AGAIN_S):
                        await done.wait()
