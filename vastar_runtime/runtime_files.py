"""The files of a runtime on disk: its lock (with the pid) and what a dead one left behind.

The second line of a lock says that its holder is leaving: it listens no more then, and whoever asks
it to leave once more with a signal would cut its calls.

The lock is an flock, because the kernel drops it with the process however that ends: a pid alone
may be another program's by now. The file beside it is only where the lock lives and the pid is
read. It stands in /tmp, so nothing in it is believed that another user may have written: opened
without following links, a plain file, ours, with one name.
"""

import errno
import fcntl
import os
import stat
import time
from typing import Final

import attrs

__all__ = [
    "AlreadyRunningError",
    "ForeignListenerError",
    "RuntimeFileError",
    "RuntimeLock",
    "holder_of",
    "is_leaving",
    "lock_path_of_port",
    "lock_path_of_socket",
    "missing_directory",
    "open_own_file",
]

_LOCK_SUFFIX: Final = ".lock"
_MODE: Final = 0o600
_MAX_LOCK_BYTES: Final = 64
_LEAVING: Final = b"leaving\n"
_PID_WAIT_S: Final = 0.2
_ASKER_WAIT_S: Final = 0.1
_POLL_S: Final = 0.01
_MAX_REOPENS: Final = 100


class RuntimeFileError(Exception):
    """A file that the runtime needs cannot be used; the message names it and what would help."""


class AlreadyRunningError(RuntimeFileError):
    """Another runtime has the address. `pid` is None when it cannot be told."""

    def __init__(self, address: str, pid: int | None) -> None:
        who = f"pid {pid}" if pid is not None else "pid unknown"
        super().__init__(f"{address}: already running, {who}")
        self.pid = pid


class ForeignListenerError(RuntimeFileError):
    """A program without a lock has the address. `pid` is None when it cannot be told."""

    def __init__(self, address: str, pid: int | None) -> None:
        who = f"pid {pid}" if pid else "pid unknown"
        super().__init__(f"{address}: another program listens there ({who}); it is left alone")
        self.pid = pid


def lock_path_of_socket(socket_path: str) -> str:
    """Where the lock of a Unix listener lives: beside the socket."""
    return socket_path + _LOCK_SUFFIX


def lock_path_of_port(port: int) -> str:
    """Where the lock of a runtime that only listens on TCP lives: beside the default socket."""
    return f"/tmp/vastar-connector-runtime-tcp-{port}{_LOCK_SUFFIX}"  # noqa: S108 - checked below


@attrs.define(eq=False)
class RuntimeLock:
    """A lock held by this process until `release` or its end."""

    path: str
    _fd: int

    @classmethod
    def acquire(cls, path: str, address: str) -> "RuntimeLock":
        """Take the lock at `path` for the runtime that is to serve `address`.

        Raises:
            AlreadyRunningError: another process holds it.
            RuntimeFileError: the file cannot be trusted or made.
        """
        for _ in range(_MAX_REOPENS):
            fd = open_own_file(path, os.O_RDWR | os.O_CREAT)
            if not _lock_patiently(fd):
                pid = _read_pid_patiently(fd)
                os.close(fd)
                raise AlreadyRunningError(address, pid)
            if _still_named(fd, path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return cls(path, fd)
            # Who held it before removed the file as it left: that inode locks nobody out.
            os.close(fd)
        raise RuntimeFileError(f"{path}: keeps being replaced; find out by what")

    def tell_leaving(self) -> None:
        """Say in it that this process takes nothing more, and ends when its calls have."""
        if self._fd >= 0:
            os.pwrite(self._fd, _LEAVING, os.fstat(self._fd).st_size)

    def release(self) -> None:
        """Remove the file and let go. Removing comes first: so nobody waits on a nameless file."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        if _still_named(fd, self.path):
            os.unlink(self.path)  # noqa: PTH108 - paths are text all through
        os.close(fd)


def holder_of(path: str) -> int | None:
    """The pid of the process that holds the lock at `path`, None when nobody does.

    Raises:
        RuntimeFileError: the file is not to be trusted, or somebody holds it without saying who.
    """
    try:
        fd = open_own_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two who ask do not take each other for a runtime.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _read_pid_patiently(fd)
        if pid is None:
            raise RuntimeFileError(
                f"{path}: held by a process that did not write its pid"
            ) from None
        return pid
    finally:
        os.close(fd)
    return None


def is_leaving(path: str) -> bool:
    """Whether the holder of the lock at `path` said so; of no use without `holder_of`.

    Raises:
        RuntimeFileError: the file is not to be trusted.
    """
    try:
        fd = open_own_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return os.pread(fd, _MAX_LOCK_BYTES, 0).endswith(b"\n" + _LEAVING)
    finally:
        os.close(fd)


def open_own_file(path: str, flags: int) -> int:
    """Open a plain file of ours; whatever else stands there is refused, and left alone.

    Raises:
        FileNotFoundError: there is none, and `flags` do not create it.
        RuntimeFileError: it is not to be trusted.
    """
    try:
        # O_NONBLOCK: a FIFO put there must not hang us before it is refused.
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
    except FileNotFoundError:
        if flags & os.O_CREAT:
            raise RuntimeFileError(missing_directory(path)) from None
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            reason = "is a symbolic link; remove it if it is yours"
        elif error.errno == errno.EACCES:
            reason = "may not be opened; it or its directory belongs to another user"
        else:
            reason = f"cannot be opened ({(error.strerror or '').lower()})"
        raise RuntimeFileError(f"{path}: {reason}") from None
    found = os.fstat(fd)
    fault = None
    if not stat.S_ISREG(found.st_mode):
        fault = "is no plain file; choose another path"
    elif found.st_uid != os.geteuid():
        fault = f"belongs to uid {found.st_uid}, not to you; choose another path"
    elif found.st_nlink > 1:
        fault = "has a second name (hard link); remove it if it is yours"
    if fault:
        os.close(fd)
        raise RuntimeFileError(f"{path}: {fault}")
    return fd


def _lock_patiently(fd: int) -> bool:
    """Whether the lock is ours now. Who only asks for the holder has it for an instant: outwait."""
    deadline_s = time.monotonic() + _ASKER_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def missing_directory(path: str) -> str:
    """Words for a file whose directory does not exist."""
    # Not made absolute: the working directory itself may be what does not exist any more.
    directory = os.path.dirname(path)  # noqa: PTH120 - paths are text
    named = f"the directory {directory}" if directory else "the working directory"
    return f"{path}: {named} does not exist; create it or choose another path"


def _still_named(fd: int, path: str) -> bool:
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _read_pid_patiently(fd: int) -> int | None:
    """The pid in a lock file; its holder writes it right after locking, so wait a moment for it."""
    deadline_s = time.monotonic() + _PID_WAIT_S
    while True:
        pid, end_of_line, _ = os.pread(fd, _MAX_LOCK_BYTES, 0).partition(b"\n")
        if end_of_line and pid.isdigit():
            return int(pid)
        if time.monotonic() > deadline_s:
            return None
        time.sleep(_POLL_S)
