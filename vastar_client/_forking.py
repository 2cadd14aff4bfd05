"""One lock around process-wide changes, which a fork waits for.

Held while Trio is imported, the background thread started, or a client's connection replaced. A
fork in the middle of those would give the child a module or a lock that some thread of its parent
was busy with, for ever. The forking thread takes the lock first, so no other thread can be inside.
"""

import os
import threading
from typing import Final

__all__ = ["process_lock"]

process_lock: Final = threading.RLock()
"""Reentrant, since a signal handler or the garbage collector may come back in the same thread."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=process_lock.acquire,
        after_in_parent=process_lock.release,
        after_in_child=process_lock.release,
    )
