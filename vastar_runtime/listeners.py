"""Open the sockets that a runtime listens on, and say who is calling.

Standard library sockets, made before the event loop runs: the order lock, probe, bind, mode,
listen is what keeps two runtimes apart, and nothing in it may be interleaved. The lock decides
between runtimes of this kind; the probe finds those that take no lock.
"""

import errno
import grp
import os
import select
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

from vastar_runtime.config import (
    Address,
    ServerConfig,
    TcpAddress,
    UnixAddress,
    parse_tcp_address,
)
from vastar_runtime.runtime_files import (
    ForeignListenerError,
    RuntimeFileError,
    RuntimeLock,
    lock_path_of_port,
    lock_path_of_socket,
)

__all__ = [
    "Listener",
    "PeerCredentials",
    "close_listeners",
    "fault_of_path",
    "group_number",
    "inherited",
    "is_readable",
    "is_stale",
    "open_listeners",
    "open_tcp",
    "open_unix",
    "peer_credentials",
]

_PLATFORM: Final[str] = sys.platform  # a plain text, so that no branch is dead to the type checker

BACKLOG: Final = 1024
_PROBE_TIMEOUT_S: Final = 1.0
_MAX_UNIX_PATH_BYTES: Final = 103 if _PLATFORM == "darwin" else 107
_OWN_MODE: Final = 0o600

# sys/un.h and sys/ucred.h of Darwin; Python has no names for them.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_LOCAL_PEERPID: Final = 2
_XUCRED: Final = struct.Struct("@IIh2x16I")
_UCRED: Final = struct.Struct("@iII")
_GROUPS: Final = 3

# asm-generic/socket.h of Linux 4.13; Python has no name for it.
_SO_PEERGROUPS: Final = 59
_GID: Final = struct.Struct("@I")
_MAX_GROUPS: Final = 256
"""What fits into the 1024 bytes that `getsockopt` hands out; nobody known has more."""


@attrs.frozen
class PeerCredentials:
    """Who is at the other end of a Unix socket, as the kernel says; pid 0 when it does not.

    Attributes:
        groups: all groups of the user, `gid` included, as far as the system tells.
    """

    uid: int
    gid: int
    pid: int
    groups: frozenset[int] = frozenset()


class _HasOptions(Protocol):
    """A standard library or a Trio socket."""

    @property
    def family(self) -> int:
        """The address family."""
        ...

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """The value of a socket option."""
        ...


@attrs.define(eq=False)
class Listener:
    """A listening, non-blocking socket with what has to be tidied when it goes.

    Attributes:
        address: where it really listens (port 0 resolved).
        socket: to be wrapped by the event loop; `close` closes it.
    """

    address: Address
    socket: socket.socket
    _lock: RuntimeLock | None = None
    _inode: tuple[int, int] | None = None

    def leave(self) -> None:
        """Stop listening, and say so where the lock is: what was accepted is still served."""
        if self._lock is not None:
            self._lock.tell_leaving()
        self.socket.close()

    def close(self) -> None:
        """Stop listening and remove our own socket file, if it still is the one at the path."""
        self.socket.close()
        if isinstance(self.address, UnixAddress) and self._inode is not None:
            if _inode_at(self.address.path) == self._inode:
                os.unlink(self.address.path)  # noqa: PTH108 - paths are text all through
            self._inode = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def open_listeners(server: ServerConfig) -> tuple[Listener, ...]:
    """Open every address of the configuration, all or none.

    Raises:
        AlreadyRunningError: a runtime serves one of them.
        ForeignListenerError: a program that is none of ours does.
        RuntimeFileError: an address cannot be used; the message says why.
    """
    opened: list[Listener] = []
    addresses = server.addresses()
    only_tcp = not any(isinstance(address, UnixAddress) for address in addresses)
    try:
        for address in addresses:
            match address:
                case UnixAddress(path=path):
                    opened.append(open_unix(path, server.socket_mode, server.socket_group))
                case TcpAddress():
                    # A Unix listener's lock names the pid already.
                    opened.append(open_tcp(address, lock=only_tcp and not opened))
    except BaseException:
        close_listeners(opened)
        raise
    return tuple(opened)


def close_listeners(listeners: Sequence[Listener]) -> None:
    """Close them all, the last opened first: the lock goes when nothing is served any more."""
    for listener in reversed(listeners):
        listener.close()


def open_unix(path: str, mode: int = _OWN_MODE, group: str | None = None) -> Listener:
    """Listen on a Unix socket file; a stale file there is replaced, anything else refused.

    Args:
        path: the socket file; its lock is `path` + ".lock".
        mode: permissions of the file, which is 0600 from its first instant until they are set.
        group: name or number of the group to give it to.

    Raises:
        AlreadyRunningError: a runtime has the path's lock.
        ForeignListenerError: a program without that lock listens there.
        RuntimeFileError: the path cannot be used.
    """
    _check_path(path)
    gid = group_number(group)
    lock = RuntimeLock.acquire(lock_path_of_socket(path), path)
    try:
        _remove_if_stale(path)
        sock = _bind_private(path)
    except BaseException:
        lock.release()
        raise
    listener = Listener(UnixAddress(path), sock, lock, _inode_at(path))
    try:
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
        if mode != _OWN_MODE:
            os.chmod(path, mode)  # noqa: PTH101 - paths are text all through
        sock.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise RuntimeFileError(f"{path}: cannot set group and mode ({reason})") from None
    return listener


def open_tcp(address: TcpAddress, *, lock: bool = False) -> Listener:
    """Listen on TCP; with `lock`, leave the pid where `stop` finds it.

    Raises:
        AlreadyRunningError: a runtime with a lock is on that port.
        RuntimeFileError: the address cannot be used.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise RuntimeFileError(f"{address}: {_lower(error)}") from None
    held: RuntimeLock | None = None
    try:
        if lock and address.port:
            held = RuntimeLock.acquire(lock_path_of_port(address.port), str(address))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        port = sock.getsockname()[1]
        if lock and held is None:
            held = RuntimeLock.acquire(lock_path_of_port(port), str(address))
    except BaseException as error:
        sock.close()
        if held is not None:
            held.release()
        if isinstance(error, OSError):
            raise RuntimeFileError(f"{address}: {_lower(error)}") from None
        raise
    return Listener(TcpAddress(address.host, port), sock, held)


def inherited(address: str, fd: int) -> Listener:
    """A listener that another process opened, and tidies up.

    Args:
        address: as that process tells it.
        fd: the listening socket's; it belongs to the listener now.
    """
    path = address.removeprefix("unix:")
    where: Address = (
        UnixAddress(path) if path != address else parse_tcp_address(address.removeprefix("tcp:"))
    )
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return Listener(where, sock)


def is_readable(listening: socket.socket) -> bool:
    """Whether somebody waits to be accepted."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


def is_stale(path: str) -> bool:
    """Whether `path` is a socket file that nobody listens on; False when there is nothing.

    To be asked by who holds the lock: a runtime of this kind would hold it itself.

    Raises:
        ForeignListenerError: somebody listens.
        RuntimeFileError: it is something else than a socket, or may not be asked.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RuntimeFileError(f"{path}: {_lower(error)}") from None
    if not stat.S_ISSOCK(mode):
        raise RuntimeFileError(
            f"{path}: there is something that is no socket, which is left alone; "
            "choose another path or remove it yourself"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.ETIMEDOUT} or isinstance(error, TimeoutError):
                raise ForeignListenerError(path, None) from None  # its backlog is full: it lives
            raise RuntimeFileError(f"{path}: {_lower(error)}; is it another user's?") from None
        peer = peer_credentials(probe)
        raise ForeignListenerError(path, peer.pid if peer else None)


def peer_credentials(sock: _HasOptions) -> PeerCredentials | None:
    """Who is at the other end; None for TCP and where the platform does not say."""
    if sock.family != socket.AF_UNIX:
        return None
    if _PLATFORM == "linux":
        pid, uid, gid = _UCRED.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        return PeerCredentials(uid, gid, pid, _groups_of(sock) | {gid})
    if _PLATFORM == "darwin":
        fields = _XUCRED.unpack(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
        (pid,) = struct.unpack("@i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))
        groups = frozenset(fields[_GROUPS : _GROUPS + fields[2]])
        return PeerCredentials(fields[1], fields[_GROUPS], pid, groups)
    return None


def _groups_of(sock: _HasOptions) -> frozenset[int]:
    """The supplementary groups of the peer; none where the kernel is older than that option."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * _GID.size)
    except OSError:
        return frozenset()
    return frozenset(gid for (gid,) in _GID.iter_unpack(data))


def fault_of_path(path: str) -> str | None:
    """Why no socket can have this path, nor be reached there; None where nothing is known."""
    length = len(os.fsencode(path))
    if "\0" not in path and length <= _MAX_UNIX_PATH_BYTES:
        return None
    return (
        f"{path!r}: a socket path has at most {_MAX_UNIX_PATH_BYTES} bytes and no NUL, "
        f"this has {length}; choose a shorter one"
    )


def _check_path(path: str) -> None:
    if fault := fault_of_path(path):
        raise RuntimeFileError(fault)
    directory = os.path.dirname(path) or "."  # noqa: PTH120 - paths are text
    try:
        found = os.stat(directory)  # noqa: PTH116 - paths are text all through
    except OSError:
        raise RuntimeFileError(
            f"{path}: the directory {directory} does not exist; create it or choose another path"
        ) from None
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise RuntimeFileError(
            f"{path}: everybody may replace files in {directory}; "
            "choose a directory of your own, or set its sticky bit"
        )


def group_number(group: str | None) -> int | None:
    """The number of the group with that name or number; None is none.

    Raises:
        RuntimeFileError: there is no such group.
    """
    if group is None:
        return None
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise RuntimeFileError(f'server.socket_group: there is no group "{group}"') from None


def _remove_if_stale(path: str) -> None:
    inode = _inode_at(path)
    if is_stale(path) and _inode_at(path) == inode:
        try:
            os.unlink(path)  # noqa: PTH108 - paths are text all through
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RuntimeFileError(
                f"{path}: a dead runtime's socket cannot be removed ({_lower(error)}); "
                "is it another user's?"
            ) from None


def _bind_private(path: str) -> socket.socket:
    """Bind with a umask that makes the file 0600; nobody can connect before `listen` anyway."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    before = os.umask(0o777 & ~_OWN_MODE)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise RuntimeFileError(f"{path}: cannot listen there ({_lower(error)})") from None
    finally:
        os.umask(before)
    return sock


def _inode_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _lower(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
