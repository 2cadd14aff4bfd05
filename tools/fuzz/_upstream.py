"""The HTTP server behind the runtime under attack: three ports on loopback, threads, no framework.

The *steady* port never fails, so no policy has a reason to refuse a call to it; the *troubled* one
resets and answers 503, so that failures of one origin cannot be blamed on the other. The *shared*
one fails only tenants that ask for it (with `/503`): what that costs is to be their own concern.
Each path ends in the token of a request, and what came of each token is noted:
that a call was sent, or never was, is believed of this side only.

Paths: `/ok/T` answers `ok T`; `/late/T` the same, after `LATE_S`; `/sum/T` the length of the body
and its CRC-32; `/hang/T` never; `/reset/T` closes without a byte; `/503/T` is a 503;
`/stream/T/N` has N bytes of a pattern.
"""

import contextlib
import socket
import socketserver
import threading
import time
import zlib
from types import TracebackType
from typing import Final, Self

__all__ = ["PATTERN", "SHARED", "STEADY", "TROUBLED", "Upstream", "pattern"]

STEADY: Final = 0
TROUBLED: Final = 1
SHARED: Final = 2
"""Which of the ports."""

LATE_S: Final = 0.3
"""Far more than a handful of calls take, so that one that began before them ends behind them."""

PATTERN: Final = bytes(value * 7 % 251 for value in range(251))
"""Its length is prime to all sizes of pieces, so a piece out of place shows."""

_PIECE_BYTES: Final = 20_000
_HANG_S: Final = 60.0


def pattern(start: int, size: int) -> bytes:
    """`size` bytes of the body of a stream from `start` on."""
    first = start % len(PATTERN)
    return (PATTERN * (size // len(PATTERN) + 2))[first : first + size]


class _Handler(socketserver.StreamRequestHandler):
    """One connection of the runtime."""

    server: "_Server"

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.server.upstream.opened(self.connection)
            while self._exchange():
                pass

    def _exchange(self) -> bool:
        line = self.rfile.readline(65_536).decode("latin1").split()
        if len(line) != 3:  # noqa: PLR2004 - method, target, version
            return False
        body = self._body(self._headers())
        parts = line[1].split("?")[0].split("/")
        what, token = [*parts[1:3], "", ""][:2]
        self.server.upstream.note(token)
        match what:
            case "reset":
                return False
            case "hang":
                self.server.upstream.hang(self.connection, token)
                return False
            case "stream":
                self._stream(int(parts[3]))
            case "late":
                time.sleep(LATE_S)
                self._answer(200, f"ok {token}".encode())
            case "sum":
                self._answer(200, f"{len(body)} {zlib.crc32(body)}".encode())
            case "503":
                self._answer(503, f"no {token}".encode())
            case _:
                self._answer(200, f"ok {token}".encode())
        return True

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(65_536)) not in {b"\r\n", b""}:
            name, _, value = line.decode("latin1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return headers

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", ""):
            pieces = []
            while size := int(self.rfile.readline(100), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline(100)
            self.rfile.readline(100)
            return b"".join(pieces)
        return self.rfile.read(int(headers.get("content-length", 0)))

    def _answer(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def _stream(self, size: int) -> None:
        self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, _PIECE_BYTES):
            self.wfile.write(pattern(start, min(_PIECE_BYTES, size - start)))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    upstream: "Upstream"

    def handle_error(self, request: object, client_address: object) -> None:
        """A runtime that leaves in the middle of an answer is expected."""


class Upstream:
    """All ports, as a context.

    Attributes:
        ports: steady, troubled, shared.
    """

    def __init__(self) -> None:
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(3)]
        for server in self._servers:
            server.upstream = self
        self.ports: tuple[int, ...] = tuple(s.server_address[1] for s in self._servers)
        self._lock = threading.Lock()
        self._hits: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._sockets: set[socket.socket] = set()
        self._threads = [
            threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            for s in self._servers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
        for taken in self._sockets:
            with contextlib.suppress(OSError):
                taken.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Begin a new attack: tokens may come again."""
        with self._lock:
            self._hits.clear()

    def hits(self, token: str) -> int:
        """How many requests came with this token."""
        with self._lock:
            return self._hits.get(token, 0)

    def holds(self, token: str) -> bool:
        """Whether a request with this token hangs here now."""
        with self._lock:
            return self._held.get(token, 0) > 0

    @property
    def holds_any(self) -> bool:
        """Whether any request hangs here now."""
        with self._lock:
            return any(self._held.values())

    def opened(self, taken: socket.socket) -> None:
        """A connection of the runtime began."""
        with self._lock:
            self._sockets = {known for known in self._sockets if known.fileno() >= 0} | {taken}

    def note(self, token: str) -> None:
        """A whole request came."""
        with self._lock:
            self._hits[token] = self._hits.get(token, 0) + 1

    def hang(self, taken: socket.socket, token: str) -> None:
        """Say nothing until the runtime leaves, or far too long."""
        with self._lock:
            self._held[token] = self._held.get(token, 0) + 1
        taken.settimeout(_HANG_S)
        until_s = time.monotonic() + _HANG_S
        try:
            while time.monotonic() < until_s and taken.recv(1024):
                pass
        finally:
            with self._lock:
                self._held[token] -= 1
