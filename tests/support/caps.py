"""A hard cap on asynchronous tests, in real seconds, under any clock.

`trio.fail_after` counts the seconds of the test's own clock: under an autojump clock 20 of them
pass at once, and a test that waits for nothing at all never reaches them. So a timer thread cancels
the test's scope from outside, through the token of its loop.
"""

import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio

__all__ = ["DEFAULT_CAP_S", "capped", "real_time_cap"]

DEFAULT_CAP_S = 20.0


@contextmanager
def real_time_cap(cap_s: float) -> Iterator[None]:
    """Cancel the body after `cap_s` real seconds.

    Raises:
        TimeoutError: the cap was reached and the body ended by it.
    """
    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        timer = threading.Timer(cap_s, _cancel, (token, scope))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
    if scope.cancelled_caught:
        raise TimeoutError(f"the test took longer than its cap of {cap_s} s of real time")


def _cancel(token: trio.lowlevel.TrioToken, scope: trio.CancelScope) -> None:
    with suppress(trio.RunFinishedError):  # the test ended while the timer fired
        token.run_sync_soon(scope.cancel)


def capped(
    test: Callable[..., Awaitable[None]], cap_s: float = DEFAULT_CAP_S
) -> Callable[..., Awaitable[None]]:
    """The test function, ended by force after `cap_s` real seconds."""

    @functools.wraps(test)
    async def run_capped(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        with real_time_cap(cap_s):
            await test(*args, **kwargs)

    return run_capped
