"""`clean`: remove what a dead runtime left, and nothing else."""

import argparse
import os

from vastar_runtime.cli._target import lock_path_of, target_of
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import UnixAddress
from vastar_runtime.listeners import is_stale
from vastar_runtime.runtime_files import RuntimeLock

__all__ = ["clean"]


def clean(options: argparse.Namespace) -> ExitCode:
    """Remove a stale socket file and lock.

    Raises:
        AlreadyRunningError: a runtime is alive there.
        ForeignListenerError: another program is.
        RuntimeFileError: what is there is not a runtime's, or not ours.
    """
    address = target_of(options)
    path = lock_path_of(address)
    removed = [path] if os.path.lexists(path) else []
    # Holding the lock keeps a runtime from starting between the look and the removal.
    lock = RuntimeLock.acquire(path, str(address))
    try:
        if isinstance(address, UnixAddress) and is_stale(address.path):
            os.unlink(address.path)  # noqa: PTH108 - paths are text all through
            removed.insert(0, address.path)
    finally:
        lock.release()
    print(f"removed: {', '.join(removed)}" if removed else f"nothing to clean at {address}")
    return ExitCode.OK
