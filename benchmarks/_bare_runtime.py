"""The peer of `ci_guard`: what any runtime in Python has to do for a call, and nothing more.

    python -m benchmarks._bare_runtime serve --socket PATH     (other arguments are not heeded)

Reads frames from a Unix socket, makes each call's GET in a task of its own over a kept connection
with httptools, checks the answer, and writes the answers of a turn of the event loop together. It
has the runtime's libraries and system calls, and so its CPU time moves with the machine, Python,
Trio and the kernel as the runtime's does; but no policies, deadlines, log, metrics or codec (the
answer is encoded before, but for its id), so that it does not move with the runtime's own code.
"""

import gc
import re
import signal
import socket
import sys
from struct import Struct
from typing import Final

import httptools
import trio

from benchmarks._load import WrongAnswer, answer_fields
from benchmarks._upstream import SMALL_BODY
from benchmarks._wire_echo import BEFORE, BEHIND

__all__ = ["Caller", "Upstreams", "main"]

_LENGTH: Final = Struct(">I")
_U64: Final = Struct("<Q")
_HEADER_BYTES: Final = 5
_READ_BYTES: Final = 65_536
_URL: Final = re.compile(rb"http://([0-9.]+):([0-9]+)(/[a-z]+)")


class _Answer:
    """What httptools tells of one response."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        """Keep it."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note it."""
        self.complete = True


class Upstreams:
    """Kept connections to the one upstream."""

    def __init__(self) -> None:
        self._idle: list[trio.socket.SocketType] = []

    async def get(self, host: str, port: int, path: bytes) -> None:
        """Make a GET; the answer is the small one.

        Raises:
            WrongAnswer: it is not.
        """
        sock = self._idle.pop() if self._idle else await self._connected(host, port)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        try:
            await sock.send(b"GET %b HTTP/1.1\r\nhost: %b:%d\r\n\r\n" % (path, host.encode(), port))
            while not answer.complete:
                parser.feed_data(await sock.recv(_READ_BYTES))
            if answer.body != SMALL_BODY:
                raise WrongAnswer(f"{len(answer.body)} bytes")  # noqa: TRY301 - closes as all do
        except BaseException:
            sock.close()
            raise
        self._idle.append(sock)

    async def _connected(self, host: str, port: int) -> trio.socket.SocketType:
        sock = trio.socket.socket()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Close what is kept."""
        for sock in self._idle:
            sock.close()


class Caller:
    """One connection of the load."""

    def __init__(self, sock: trio.socket.SocketType, upstreams: Upstreams) -> None:
        self._sock = sock
        self._upstreams = upstreams
        self._ready: list[bytes] = []
        self._woken = trio.Event()

    async def serve(self) -> None:
        """Read calls until the caller leaves."""
        with self._sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                rest = b""
                while received := await self._sock.recv(_READ_BYTES):
                    rest = self._take(rest + received, nursery)
                nursery.cancel_scope.cancel()

    def _take(self, data: bytes, nursery: trio.Nursery) -> bytes:
        """Start the calls in `data`; what is left of it."""
        at = 0
        while len(data) - at >= _HEADER_BYTES:
            end = at + 4 + _LENGTH.unpack_from(data, at)[0]
            if end > len(data):
                break
            nursery.start_soon(self._call, data[at:end])
            at = end
        return data[at:]

    async def _call(self, frame: bytes) -> None:
        url = _URL.search(frame)
        assert url is not None
        await self._upstreams.get(url[1].decode(), int(url[2]), url[3])
        # The id is the first slot of a call as it is of an answer.
        self._ready += (BEFORE, _U64.pack(answer_fields(frame, _HEADER_BYTES)[0]), BEHIND)
        self._woken.set()

    async def _write(self) -> None:
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            data, self._ready = b"".join(self._ready), []
            while data:
                data = data[await self._sock.send(data) :]


async def _serve(path: str) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(_accept, path, Upstreams())
            print(f"ready on {path}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()


async def _accept(
    path: str,
    upstreams: Upstreams,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(path)
        listener.listen(1024)
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                accepted, _ = await listener.accept()
                nursery.start_soon(Caller(accepted, upstreams).serve)


def main() -> None:
    """Serve until a signal ends it."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # as the runtime does
    trio.run(_serve, sys.argv[sys.argv.index("--socket") + 1])


if __name__ == "__main__":
    main()
