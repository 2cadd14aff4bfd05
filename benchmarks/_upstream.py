"""The upstream of all contestants: answers HTTP as cheaply as Python can, in its own process.

    python -m benchmarks._upstream [--delay-ms MS]

Prints its URL when it is ready. `GET /small` gives 27 bytes of JSON, `/bytes/N` N bytes, anything
else with a body is swallowed and answered like `/small`. Shape: one selector, blocking writes (its
readers read), no parsing on the hot path: no contestant pipelines towards it, so a piece that ends
a head is one request. With a delay, answers wait in a queue in the order of their requests.
"""

import argparse
import gc
import re
import selectors
import signal
import socket
import sys
import time
from collections import deque

import attrs

__all__ = ["HEAD_END", "SMALL_BODY", "SMALL_RESPONSE", "Peer", "main"]

SMALL_BODY = b'{"ok":true,"msg":"hello w"}'
HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_READ_BYTES = 65_536
"""Below what the allocator maps and unmaps for every read (glibc: 128 KiB)."""
_BYTES_PATH = re.compile(rb"\S+ /bytes/(\d+)")


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


SMALL_RESPONSE = _response(SMALL_BODY)


@attrs.define(eq=False)
class Peer:
    """One connection: an unfinished head, or how much of a body is still to come."""

    socket: socket.socket
    head: bytes = b""
    body_left: int = 0
    answer: bytes = SMALL_RESPONSE

    def take(self, data: bytes) -> bytes:
        """The answer that `data` completes, or nothing."""
        if data.startswith(b"GET /small") and data.endswith(HEAD_END):
            return SMALL_RESPONSE
        return self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        if not self.body_left:
            self.head += data
            head, end, body = self.head.partition(HEAD_END)
            if not end:
                return b""
            self.head = b""
            length = _LENGTH.search(head)
            asked = _BYTES_PATH.match(head)
            self.answer = _response(b"x" * int(asked[1])) if asked else SMALL_RESPONSE
            self.body_left = int(length[1]) if length else 0
            data = body
        self.body_left -= len(data)
        return b"" if self.body_left else self.answer


def serve(listener: socket.socket, delay_s: float) -> None:
    """Answer for ever."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(timeout_s):
            peer: Peer | None = key.data
            if peer is None:
                _accept(listener, selector)
                continue
            data = _received(peer.socket)
            if not data:
                selector.unregister(peer.socket)
                peer.socket.close()
            elif answer := peer.take(data):
                if delay_s:
                    waiting.append((time.monotonic() + delay_s, peer.socket, answer))
                else:
                    _send(peer.socket, answer)
        while waiting and waiting[0][0] <= time.monotonic():
            _, sock, answer = waiting.popleft()
            _send(sock, answer)


def _accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(accepted, selectors.EVENT_READ, Peer(accepted))


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_READ_BYTES)
    except OSError:
        return b""


def _send(sock: socket.socket, answer: bytes) -> None:
    try:
        sock.sendall(answer)
    except OSError:
        return  # its reader has left; the next read says so too


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def main() -> None:
    """Listen on a free port of the loopback and serve until a signal ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before each answer")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    gc.disable()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        host, port = listener.getsockname()
        print(f"http://{host}:{port}", flush=True)
        serve(listener, options.delay_ms / 1000)


if __name__ == "__main__":
    main()
