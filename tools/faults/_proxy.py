"""The proxy: between callers and a target, Unix or TCP, each direction spoiled as a plan says.

Shape: a connection is a nursery with two pumps. A pump is a reader and a writer with a short queue
between them: the reader cuts, spoils and counts bytes, and says when each piece is due; the writer
waits for that time. So latency delays bytes without slowing them, and a target that reads slowly
slows the caller, as a wire would.
"""

import math
import random
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from tools.faults._plan import Direction, Ending, Link, Plan
from tools.faults._steps import reset_of

__all__ = ["FaultProxy", "Happening", "connect_to", "listen_at", "proxied"]

_RECEIVE_BYTES: Final = 65_536
_QUEUED_PIECES: Final = 256
_BITS: Final = 8
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

Stream = trio.abc.HalfCloseableStream


@attrs.frozen
class Happening:
    """What was done to a connection, and where: the same for the same plan and bytes."""

    connection: int
    direction: Direction
    what: str
    at_bytes: int


class _Pump:
    """One direction of one connection.

    Args:
        link: what it suffers.
        note: told of what was done, and behind how many bytes.
        break_all: closes both sides; the argument: by a reset.
    """

    def __init__(
        self,
        link: Link,
        source: Stream,
        sink: Stream,
        note: Callable[[str, int], None],
        break_all: Callable[[bool], None],
    ) -> None:
        self._link = link
        self._source = source
        self._sink = sink
        self._note = note
        self._break_all = break_all
        self._chance = random.Random(link.seed)  # noqa: S311 - no secret
        self._passed_bytes = 0
        self._written_bytes = 0
        self._free_at_s = 0.0
        self._swallows = False
        self._over = False

    async def run(self) -> None:
        """Carry bytes to the end of the direction."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](_QUEUED_PIECES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, send)
            if math.isfinite(self._link.end_at_s):
                nursery.start_soon(self._end_in_time)
            await self._write(receive)
            nursery.cancel_scope.cancel()

    async def _end_in_time(self) -> None:
        await trio.sleep(self._link.end_at_s)
        await self._end()

    async def _read(self, send: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
        async with send:
            if self._link.end_at_bytes == 0:
                await send.send((trio.current_time(), b""))
            while data := await _received(self._source):
                for piece in self._cut(data):
                    await send.send((self._due_s(len(piece)), self._spoiled(piece)))
                    self._passed_bytes += len(piece)
                    if self._passed_bytes == self._link.end_at_bytes:
                        await send.send((self._free_at_s, b""))
            if self._swallows:
                await trio.sleep_forever()

    def _cut(self, data: bytes) -> Iterator[bytes]:
        """Pieces of `data`; one ends where the direction does."""
        while data:
            size = len(data)
            if self._link.slice_bytes:
                size = self._chance.randint(1, self._link.slice_bytes)
            left = self._link.end_at_bytes - self._passed_bytes
            if 0 < left < size:
                size = int(left)
            yield data[:size]
            data = data[size:]

    def _due_s(self, count: int) -> float:
        """When a piece of `count` bytes, read now, is there; never before the one before."""
        link, now_s = self._link, trio.current_time()
        begun_s = max(self._free_at_s, now_s)
        delay_s = link.latency_s + link.jitter_s * self._chance.random()
        self._free_at_s = max(begun_s + count / link.bytes_per_s, now_s + delay_s)
        return self._free_at_s

    def _spoiled(self, piece: bytes) -> bytes:
        link, start = self._link, self._passed_bytes
        places = {at - start for at in link.corrupt_at if start <= at < start + len(piece)}
        if link.corrupt_ratio:
            chance = self._chance.random
            places |= {at for at in range(len(piece)) if chance() < link.corrupt_ratio}
        if not places:
            return piece
        spoiled = bytearray(piece)
        for at in sorted(places):
            spoiled[at] ^= 1 << self._chance.randrange(_BITS)
            self._note("corrupt", start + at)
        return bytes(spoiled)

    async def _write(self, receive: trio.MemoryReceiveChannel[tuple[float, bytes]]) -> None:
        async for due_s, piece in receive:
            await trio.sleep_until(due_s)
            if not piece:
                await self._end()
            elif not (self._swallows or self._over):
                try:
                    await self._sink.send_all(piece)
                    self._written_bytes += len(piece)
                except _GONE:
                    self._break_all(False)
        if not self._over:
            with suppress(*_GONE):
                await self._sink.send_eof()

    async def _end(self) -> None:
        """Do what the link says happens here."""
        ending = self._link.ending
        if ending is None or self._over or self._swallows:
            return
        self._note(ending.value, self._written_bytes)
        if ending is Ending.BLACK_HOLE:
            self._swallows = True
        elif ending is Ending.HALF_CLOSE:
            self._over = True
            with suppress(*_GONE):
                await self._sink.send_eof()
        else:
            self._break_all(ending is Ending.RESET)


@asynccontextmanager
async def _closing(stream: Stream) -> AsyncIterator[None]:
    """Close it in the end, also where another close is cancelled."""
    try:
        yield
    finally:
        await trio.aclose_forcefully(stream)


async def _received(stream: Stream) -> bytes:
    try:
        return bytes(await stream.receive_some(_RECEIVE_BYTES))
    except _GONE:
        return b""


@attrs.define(eq=False)
class FaultProxy:
    """A proxy that spoils what goes through it.

    Attributes:
        connect: opens a connection to the target; raises OSError where it cannot.
        plan: what happens to each connection; may be replaced, for connections to come.
        connections: accepted so far.
        happenings: what was done, in order.
        address: where it listens: a path, or (host, port).
    """

    connect: Callable[[], Awaitable[Stream]]
    plan: Plan = attrs.field(factory=Plan)
    connections: int = 0
    happenings: list[Happening] = attrs.field(factory=list)
    address: "str | tuple[str, int]" = ""

    @property
    def port(self) -> int:
        """Of the TCP listener."""
        assert not isinstance(self.address, str)
        return self.address[1]

    async def serve_stream(
        self, caller: Stream, reset: Callable[[Stream], None] | None = None
    ) -> None:
        """Carry one connection to its end; closes it.

        Args:
            caller: the connection.
            reset: makes the close of a stream a reset; by default what sockets need.
        """
        self.connections += 1
        number, plan = self.connections, self.plan
        async with _closing(caller):
            try:
                target = await self.connect()
            except OSError:
                reset_of(caller)()
                return
            async with _closing(target), trio.open_nursery() as nursery:

                def break_all(by_reset: bool) -> None:
                    for stream in (caller, target) if by_reset else ():
                        reset_of(stream)() if reset is None else reset(stream)
                    nursery.cancel_scope.cancel()

                for way, source, sink in (
                    (Direction.UP, caller, target),
                    (Direction.DOWN, target, caller),
                ):

                    def note(what: str, at_bytes: int, way: Direction = way) -> None:
                        self.happenings.append(Happening(number, way, what, at_bytes))

                    pump = _Pump(plan.link(number, way), source, sink, note, break_all)
                    nursery.start_soon(pump.run)


async def connect_to(address: str) -> Stream:
    """A connection to `HOST:PORT`, or to a Unix socket's path.

    Raises:
        OSError: it cannot be had.
        ValueError: that is no address.
    """
    if "/" in address:
        return await trio.open_unix_socket(address)
    host, port = _host_and_port(address)
    return await trio.open_tcp_stream(host, port, happy_eyeballs_delay=0.25)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ValueError(f"{address!r} is no address: expected HOST:PORT, or a path with a slash")
    return host.strip("[]") or "127.0.0.1", int(port)


async def listen_at(address: str) -> list[trio.SocketListener]:
    """Listeners at `HOST:PORT` (port 0: any), or at a Unix socket's path, where none may be.

    Raises:
        OSError: it cannot be listened on.
        ValueError: that is no address.
    """
    if "/" not in address:
        host, port = _host_and_port(address)
        return await trio.open_tcp_listeners(port, host=host)
    listening = trio.socket.socket(socket.AF_UNIX)
    try:
        await listening.bind(address)
    except BaseException:
        listening.close()
        raise
    listening.listen()
    return [trio.SocketListener(listening)]


@asynccontextmanager
async def proxied(
    target: str, plan: Plan | None = None, *, listen: str = "127.0.0.1:0"
) -> AsyncIterator[FaultProxy]:
    """A proxy to `target` while the block runs; at its end all connections are cut.

    Args:
        target: `HOST:PORT`, or the path of a Unix socket.
        plan: by default nothing is spoiled.
        listen: the same for the proxy itself.

    Raises:
        OSError: it cannot listen there.
        ValueError: one of them is no address.
    """
    if "/" not in target:
        _host_and_port(target)
    proxy = FaultProxy(partial(connect_to, target), plan or Plan())
    listeners = await listen_at(listen)
    proxy.address = listeners[0].socket.getsockname()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, proxy.serve_stream, listeners))
            yield proxy
            nursery.cancel_scope.cancel()
    finally:
        if isinstance(proxy.address, str):
            _remove_socket(proxy.address)


def _remove_socket(path: str) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(Path(path).lstat().st_mode):
            Path(path).unlink()
