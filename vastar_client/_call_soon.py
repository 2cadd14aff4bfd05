"""A way back into an event loop, from other threads and from finalizers, on Trio and asyncio.

Neither library is imported here: that takes longer than the rest of this package, and whoever runs
in a loop has it already.
"""

import os
import sys
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["CallSoon", "call_soon_function"]

CallSoon: TypeAlias = Callable[[Callable[[], object]], bool]


def call_soon_function() -> CallSoon:
    """What has a function called in the event loop that runs now, from any thread and finalizer.

    It returns whether there is still a loop of this process to call it.
    """
    pid = os.getpid()
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        schedule = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        schedule = sys.modules["asyncio"].get_running_loop().call_soon_threadsafe

    def call_soon(function: Callable[[], object]) -> bool:
        if os.getpid() != pid:
            return False  # a copy in a forked child: the stream is its parent's
        try:
            schedule(function)
        except RuntimeError:  # the loop has ended, and the stream with it (Trio's is one, too)
            return False
        return True

    return call_soon
