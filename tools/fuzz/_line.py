"""A connection of the fuzzer: its socket, its judge, and what was asked on it and is still open."""

import socket
import struct
from collections import deque
from typing import Final

import attrs

from tools.fuzz._model import ConnectionModel
from vastar_client.wire import HealthResponse

__all__ = ["Address", "Check", "Line", "dial"]

Address = str | tuple[str, int]
"""The path of a Unix socket, or host and port."""

_RESETS: Final = struct.pack("ii", 1, 0)


@attrs.frozen
class Check:
    """What was certain when a connection's health was asked."""

    ended: int
    held: frozenset[int]
    was_idle: bool


@attrs.define(eq=False)
class Line:
    """One connection: its socket, its judge, and its questions for health that are open."""

    socket: socket.socket
    model: ConnectionModel
    is_open: bool = True
    checks: deque[Check] = attrs.field(factory=deque)
    last_health: HealthResponse | None = None

    def close(self) -> None:
        """Leave, so that the runtime can know it."""
        if self.is_open:
            self.is_open = False
            if self.socket.family != socket.AF_UNIX:
                # Over TCP a close may be a half-close: only a reset says that nobody is there.
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
            self.socket.close()


def dial(address: Address, timeout_s: float, model: ConnectionModel) -> Line:
    """A new connection.

    Raises:
        OSError: nobody takes it in time.
    """
    if isinstance(address, str):
        dialed = socket.socket(socket.AF_UNIX)
        dialed.settimeout(timeout_s)
        try:
            dialed.connect(address)
        except OSError:
            dialed.close()
            raise
    else:
        dialed = socket.create_connection(address, timeout_s)
        dialed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    dialed.setblocking(False)
    return Line(dialed, model)
