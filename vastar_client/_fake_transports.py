"""The two ways to a fake runtime: a stream in memory, and a Unix socket.

Both are drivers of `FakePeer`: they bring it bytes, and write a frame when it is due. A frame is
made at that moment, since a call that was answered meanwhile has none.
"""

import heapq
import itertools
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from vastar_client._fake_peer import FakePeer, Frame, Server

__all__ = ["Listener", "MemoryStream"]


class MemoryStream(ByteStream):
    """The client's end of a connection in memory; the peer runs inside `send`."""

    def __init__(self, server: Server) -> None:
        self.peer = FakePeer(server, self._deliver, self._hang_up)
        self._inbox: list[tuple[float, int, Frame]] = []
        self._unread = b""
        self._order = itertools.count()
        self._news = anyio.Event()
        self._ended = False
        self._closed = False

    def _deliver(self, frame: Frame, delay_s: float) -> None:
        heapq.heappush(self._inbox, (anyio.current_time() + delay_s, next(self._order), frame))
        self._news.set()

    def _hang_up(self) -> None:
        self._ended = True
        self._news.set()

    async def send(self, item: bytes) -> None:
        await checkpoint()
        if self._closed:
            raise anyio.ClosedResourceError
        if self._ended:
            raise anyio.BrokenResourceError
        self.peer.receive(bytes(item))

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            due_in_s = self._inbox[0][0] - anyio.current_time() if self._inbox else float("inf")
            if not self._unread and due_in_s <= 0:
                self._unread = heapq.heappop(self._inbox)[2]()
                continue
            if self._unread:
                data, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
                return data
            if self._ended:
                raise anyio.EndOfStream
            self._news = anyio.Event()
            with anyio.move_on_after(due_in_s):
                await self._news.wait()

    async def send_eof(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        self._closed = True
        self._news.set()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


class Listener:
    """A Unix socket in a directory of its own, and a thread for each connection.

    Args:
        server: answers the calls.
        on_peer: told of each connection.
    """

    def __init__(self, server: Server, on_peer: Callable[[FakePeer], None]) -> None:
        self._server = server
        self._on_peer = on_peer
        self._directory = Path(tempfile.mkdtemp(prefix="vastar-fake-"))
        self.path = self._directory / "runtime.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._closing = False
        self._threads = [threading.Thread(target=self._accept, name="fake-runtime", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._closing:
                connection.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="fake-runtime", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        lock = threading.RLock()  # a frame may have others made later
        later: list[tuple[float, int, Frame]] = []
        order = itertools.count()
        woken, waker = socket.socketpair()
        waker.setblocking(False)  # one byte that is unread will do

        def deliver(frame: Frame, delay_s: float) -> None:
            with lock, suppress(OSError):  # the client has gone
                if delay_s > 0:
                    heapq.heappush(later, (time.monotonic() + delay_s, next(order), frame))
                    waker.send(b"!")  # this may be another thread
                else:
                    connection.sendall(frame())

        def hang_up() -> None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        peer = FakePeer(self._server, deliver, hang_up)
        self._on_peer(peer)
        with (
            connection,
            woken,
            waker,
            selectors.DefaultSelector() as selector,
            suppress(OSError),
        ):
            selector.register(connection, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                while later and later[0][0] <= time.monotonic():
                    deliver(heapq.heappop(later)[2], 0)
                ready = selector.select(later[0][0] - time.monotonic() if later else None)
                for key, _ in ready:
                    data = key.fileobj.recv(65_536)  # type: ignore[union-attr]  # both are sockets
                    if key.fileobj is connection:
                        if not data:
                            return
                        peer.receive(data)

    def close(self) -> None:
        """Take no more connections."""
        self._closing = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waker:
            waker.connect(str(self.path))
        self._threads[0].join()
        self._socket.close()

    def join(self) -> None:
        """Wait for the threads of the connections, which have been hung up; remove the socket."""
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._directory)
