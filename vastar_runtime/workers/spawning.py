"""Start a worker's process with the descriptors that it inherits.

The worker is a fresh interpreter (exec, not fork): nothing of the supervisor is in its memory, and
the listening sockets are there before any event loop runs. It is a process group of its own, so
that a terminal's Ctrl-C reaches only the supervisor, which passes on what it means.
"""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from vastar_runtime.workers.place import WorkerPlace

__all__ = ["PLACE_OPTION", "command", "control_pair", "shared_file", "spawn"]

PLACE_OPTION: Final = "--worker-place"
_NOT_FOR_WORKERS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""systemd is told by the supervisor alone."""


def command(place: WorkerPlace) -> list[str]:
    """The command line of a worker: this very program, and nothing from where it was started."""
    flags = ["-I"] if sys.flags.isolated else ["-P"] if _is_safe() else []
    words = ["-m", "vastar_runtime", "serve", PLACE_OPTION, place.to_text()]
    return [sys.executable, *flags, *words]


def _is_safe() -> bool:
    """Whether this process imports nothing from its directory, which may be anybody's.

    A script does not, and `python -m` would: in /tmp it would run what others put there.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 - paths are text all through
    except OSError:  # it was removed
        return True
    return sys.flags.safe_path or not {"", here} & {*sys.path}


def spawn(arguments: list[str], fds: Sequence[int], environ: Mapping[str, str]) -> int:
    """Start a process that inherits `fds`; its pid.

    Args:
        arguments: the program (a path) and its arguments.
        fds: descriptors that keep their numbers; all others are closed in it, but for 0 to 2.
        environ: its environment, without what is the supervisor's alone.

    Raises:
        OSError: the system has no room for it, or there is no such program.
    """
    kept = {name: value for name, value in environ.items() if name not in _NOT_FOR_WORKERS}
    with _inheritable(fds):
        return os.posix_spawn(
            arguments[0],
            arguments,
            kept,
            setpgroup=0,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )


@contextmanager
def _inheritable(fds: Sequence[int]) -> Iterator[None]:
    """Only while the process starts; the supervisor has one thread."""
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        yield
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)


def shared_file(name: str, size_bytes: int) -> int:
    """A descriptor of so many zeros without a name on disk, to be mapped by several processes.

    Raises:
        OSError: there is no room for it.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:  # pragma: no cover - macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def control_pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end, non-blocking, and the worker's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs
