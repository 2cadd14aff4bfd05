"""One request at the test upstream: read it from a channel, and the means to answer it."""

import json
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from vastar_runtime.transport.channel import Channel

__all__ = ["Call", "ClientGoneError", "Event", "Log", "Reader"]

Event = dict[str, Any]


class ClientGoneError(EOFError):
    """The client closed or broke the connection."""


class Reader:
    """Buffered reading from a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unread = bytearray()
        self.ended = False

    async def _more(self) -> None:
        data = b"" if self.ended else await self._channel.receive_some()
        if not data:
            self.ended = True
            raise ClientGoneError
        self._unread += data

    async def line(self) -> bytes:
        """A line with its end; what there was when the stream ended."""
        while b"\n" not in self._unread:
            try:
                await self._more()
            except ClientGoneError:
                break
        end = self._unread.find(b"\n") + 1 or len(self._unread)
        return self._take(end)

    async def chunk_size(self) -> int:
        """Of the next chunk of a body."""
        line = await self.line()
        if not line.endswith(b"\n"):
            raise ClientGoneError
        return int(line.split(b";")[0], 16)

    async def exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            await self._more()
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    async def until_gone(self) -> None:
        """Return when the client closes; what it sends meanwhile is kept for later."""
        try:
            while True:
                await self._more()
        except (ClientGoneError, trio.BrokenResourceError):
            self.ended = True


class Log:
    """What happened at an upstream, oldest first; it wakes whoever waits for it to happen."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.flaky_calls: dict[str, int] = {}
        self._changed = trio.lowlevel.ParkingLot()

    def note(self, name: str, **fields: Any) -> None:
        """Add an event."""
        self.events.append({"ev": name, **fields, "t": round(trio.current_time(), 4)})
        self._changed.unpark_all()

    def seen(self, name: str, **fields: Any) -> list[Event]:
        """The events so far of that name with those fields."""
        return [
            event
            for event in self.events
            if event["ev"] == name and fields.items() <= event.items()
        ]

    async def wait_for(self, name: str, *, count: int = 1, **fields: Any) -> Event:
        """The `count`-th event of that name with those fields, as soon as it has happened."""
        while len(found := self.seen(name, **fields)) < count:
            await self._changed.park()
        return found[count - 1]


class Call:
    """One request, and the means to answer it."""

    def __init__(self, log: "Log", reader: Reader, channel: Channel, conn: int) -> None:
        self.log = log
        self.reader = reader
        self.channel = channel
        self.conn = conn
        self.closing = False  # close the connection behind the answer
        self.method = self.target = self.path = self.proto = ""
        self.headers: list[tuple[str, str]] = []
        self.query: dict[str, str] = {}
        self.body = b""

    async def read(self) -> bool:
        """Read the request; False when the client closed instead."""
        line = await self.reader.line()
        if not line:
            return False
        while (field := await self.reader.line()) not in {b"\r\n", b"\n", b""}:
            name, _, value = field.partition(b":")
            self.headers.append((name.decode("latin1"), value.strip().decode("latin1")))
        lowered = {name.lower(): value for name, value in self.headers}
        if "content-length" in lowered:
            self.body = await self.reader.exactly(int(lowered["content-length"]))
        elif lowered.get("transfer-encoding", "").lower() == "chunked":
            while size := await self.reader.chunk_size():
                self.body += await self.reader.exactly(size)
                await self.reader.line()
            await self.reader.line()
        parts = line.decode("latin1").strip().split(" ")
        self.method, self.proto = parts[0], parts[-1]
        self.target = parts[1] if len(parts) > 1 else "/"
        url = urllib.parse.urlsplit(self.target)
        self.path = url.path
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        return True

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name, default))

    def note(self, name: str, **fields: Any) -> None:
        self.log.note(name, conn=self.conn, **fields)

    async def out(self, data: bytes) -> None:
        await self.channel.send_buffers((data,))

    async def chunk(self, data: bytes) -> None:
        await self.out(b"%x\r\n" % len(data) + data + b"\r\n")

    async def answer(
        self,
        body: bytes = b"",
        headers: "list[tuple[str, str | bytes]] | None" = None,
        *,
        status: int = 200,
        length: bool = True,
    ) -> None:
        """A whole response; HEAD gets the head alone."""
        lines = [b"HTTP/1.1 %d X" % status]
        for name, value in headers or []:
            raw = value if isinstance(value, bytes) else value.encode("latin1")
            lines.append(name.encode() + b": " + raw)
        if length:
            lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        await self.out(head if self.method == "HEAD" else head + body)

    async def json(self, value: object, *extra: tuple[str, str]) -> None:
        headers: list[tuple[str, str | bytes]] = [("Content-Type", "application/json"), *extra]
        await self.answer(json.dumps(value).encode(), headers)

    async def text(self, body: bytes, kind: str, *extra: tuple[str, str | bytes]) -> None:
        await self.answer(body, [("Content-Type", kind), *extra])

    async def begin_chunked(self, kind: str, *extra: str, status: str = "200") -> None:
        lines = [f"HTTP/1.1 {status} OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked"]
        await self.out("\r\n".join([*lines, *extra, "", ""]).encode())

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """End the body when the client closes, and say so."""
        broken: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                yield
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                broken = error  # not from in here, where it would come out in a group
            nursery.cancel_scope.cancel()
        if broken is not None:
            raise ClientGoneError from broken
        if self.reader.ended:
            self.closing = True

    async def _watch(self, scope: trio.CancelScope) -> None:
        await self.reader.until_gone()
        self.note("client_closed_while_busy", tag=self.query.get("tag", ""))
        scope.cancel()
