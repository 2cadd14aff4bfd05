"""The upstream of streams: events at set times, and bodies of any length that nobody keeps.

    python -m benchmarks._stream_upstream

Prints its URL when it is ready. `GET /events/N/US/FIRST_US` gives N server-sent events, the first
FIRST_US microseconds behind the head and the others US apart; each says when it was due and when it
was sent, in nanoseconds of the monotonic clock, which all processes share (Linux). `GET /bytes/N`
gives N bytes out of one buffer. Shape: one selector and a heap of due times; a stream whose reader
does not read waits for its socket alone, and its events leave when there is room, late.
"""

import gc
import heapq
import re
import select
import signal
import socket
import sys
import time
from typing import Final

import attrs

__all__ = ["event_chunk", "main"]

_HEAD_END: Final = b"\r\n\r\n"
_EVENTS: Final = re.compile(rb"GET /events/(\d+)/(\d+)/(\d+) ")
_BYTES: Final = re.compile(rb"GET /bytes/(\d+) ")
_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_BUFFER: Final = memoryview(bytes(1_048_576))
_PADDING: Final = b"x" * 160
"""An event is then about as long as one of a language model."""


def event_chunk(due_ns: int, sent_ns: int) -> bytes:
    """An event, framed as one chunk."""
    event = b"data: %d %d %b\n\n" % (due_ns, sent_ns, _PADDING)
    return b"%x\r\n%b\r\n" % (len(event), event)


@attrs.define(eq=False)
class Peer:
    """A connection, and what is still to be sent on it."""

    socket: socket.socket
    head: bytes = b""
    unsent: bytes = b""
    bytes_left: int = 0
    events_left: int = 0
    interval_ns: int = 0
    due_ns: int = 0

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def begin(self) -> bool:
        """Take up a request that is whole; whether events are due."""
        head, self.head = self.head, b""
        if asked := _EVENTS.match(head):
            self.events_left, interval_us, first_us = map(int, asked.groups())
            self.interval_ns = interval_us * 1000
            self.unsent = _SSE_HEAD
            self.due_ns = time.monotonic_ns() + first_us * 1000
            return True
        asked = _BYTES.match(head)
        self.bytes_left = int(asked[1]) if asked else 0
        self.unsent = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.bytes_left
        return False

    def flush(self) -> bool:
        """Send what there is room for; whether more is to go."""
        try:
            if self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            while self.bytes_left and not self.unsent:
                self.bytes_left -= self.socket.send(_BUFFER[: self.bytes_left])
        except BlockingIOError:
            return True
        except OSError:  # its reader has left; the next read says so too
            self.unsent, self.bytes_left, self.events_left = b"", 0, 0
        return bool(self.unsent or self.bytes_left)

    def add_event(self) -> None:
        """Queue the event that is due."""
        self.unsent += event_chunk(self.due_ns, time.monotonic_ns())
        self.events_left -= 1
        self.due_ns += self.interval_ns
        if not self.events_left:
            self.unsent += _LAST_CHUNK


class Upstream:
    """Serves for ever."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._peers: set[Peer] = set()
        self._blocked: set[Peer] = set()
        self._due: list[tuple[int, int, Peer]] = []

    def turn(self) -> None:
        """Wait for what comes next, and do it."""
        timeout_s = None
        if self._due:
            timeout_s = max(0.0, (self._due[0][0] - time.monotonic_ns()) / 1e9)
        # `select` counts microseconds; epoll in Python rounds up to milliseconds.
        watched: list[Peer | socket.socket] = [self._listener, *self._peers]
        readable, writable, _ = select.select(watched, [*self._blocked], [], timeout_s)
        for peer in writable:
            self._send(peer)
        for found in readable:
            if isinstance(found, Peer):
                self._read(found)
            else:
                self._accept()
        while self._due and self._due[0][0] <= time.monotonic_ns():
            _, _, peer = heapq.heappop(self._due)
            if peer.events_left:
                peer.add_event()
                self._send(peer)
                self._plan(peer)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setblocking(False)
        self._peers.add(Peer(accepted))

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.socket.recv(65_536)
        except OSError:
            data = b""
        if not data:
            peer.events_left = 0
            self._peers.discard(peer)
            self._blocked.discard(peer)
            peer.socket.close()
            return
        peer.head += data
        if peer.head.endswith(_HEAD_END):
            if peer.begin():
                self._plan(peer)
            self._send(peer)

    def _send(self, peer: Peer) -> None:
        if peer.flush():
            self._blocked.add(peer)
        else:
            self._blocked.discard(peer)

    def _plan(self, peer: Peer) -> None:
        if peer.events_left:
            heapq.heappush(self._due, (peer.due_ns, id(peer), peer))


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def main() -> None:
    """Listen on a free port of the loopback and serve until a signal ends it."""
    signal.signal(signal.SIGTERM, _end)
    gc.disable()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        host, port = listener.getsockname()
        print(f"http://{host}:{port}", flush=True)
        upstream = Upstream(listener)
        while True:
            upstream.turn()


if __name__ == "__main__":
    main()
