"""Upstreams for bodies that are large, slow or cut: handlers of ports of `PortNetwork`.

`events_at` answers with pieces at chosen instants; `Flood` sends without end and counts what was
taken; `Sink` reads a request's body in pieces, as slowly as told, and answers when told.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from vastar_runtime.transport.fake import Close, Request, Script, Send, Step, Wait
from vastar_runtime.transport.memory import MemoryChannel

__all__ = ["SSE", "TEXT", "Flood", "Sink", "chunked", "counted", "pieces"]

SSE = "content-type: text/event-stream"
TEXT = "content-type: text/plain"


def head(*headers: str, status: int = 200) -> bytes:
    """The head of a response."""
    return "\r\n".join([f"HTTP/1.1 {status} X", *headers, "", ""]).encode()


def counted(body: bytes, *headers: str, status: int = 200) -> list[Step]:
    """A whole response at once."""
    return [Send(head(f"content-length: {len(body)}", *headers, status=status) + body)]


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(
    *parts: bytes | float, headers: Sequence[str] = (TEXT,), status: int = 200, end: bytes = b""
) -> list[Step]:
    """A chunked response: pieces, and seconds to wait between them.

    Args:
        parts: in order.
        headers: of the response.
        status: of the response.
        end: trailers, each with its CRLF.
    """
    steps: list[Step] = [Send(head(*headers, "transfer-encoding: chunked", status=status))]
    steps += [Wait(part) if isinstance(part, float | int) else Send(chunk(part)) for part in parts]
    return [*steps, Send(b"0\r\n" + end + b"\r\n")]


def pieces(*responses: Sequence[Step]) -> Callable[[MemoryChannel], Awaitable[None]]:
    """An upstream with one response for each request, over all connections; it hangs up at last."""
    waiting = list(responses)

    async def handle(channel: MemoryChannel) -> None:
        with suppress(EOFError):
            while waiting:
                await Script([Request()])(channel)
                await Script(waiting.pop(0) if waiting else [Close()])(channel)

    return handle


class Flood:
    """Sends a body without end, or of a length, as fast as it is taken.

    Attributes:
        taken_bytes: of the body, over all connections.
        closed_at_s: when each connection was closed by the other end.
    """

    def __init__(self, *headers: str, length_bytes: int | None = None) -> None:
        self._headers = headers or (TEXT,)
        self._length_bytes = length_bytes
        self.taken_bytes = 0
        self.started = 0
        self.closed_at_s: list[float] = []

    async def __call__(self, channel: MemoryChannel) -> None:
        await Script([Request()])(channel)
        self.started += 1
        length = self._length_bytes
        lengths = () if length is None else (f"content-length: {length}",)
        await channel.send_buffers((head(*self._headers, *lengths),))
        left_bytes = length if length is not None else 1 << 60
        block = bytes(range(256)) * 16
        try:
            while left_bytes:
                piece = block[:left_bytes]
                await channel.send_buffers((piece,))
                left_bytes -= len(piece)
                self.taken_bytes += len(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.closed_at_s.append(trio.current_time())


class Sink:
    """Reads the body of each request and answers it.

    Args:
        answers: the response to each request, the last one again and again; one with a `Close`
            ends the connection.
        after_bytes: answer when so much of the body has come, instead of at its end.
        wait_s: before each read.
        reads: whether bodies are read at all before `resume`.
        keeps: whether bodies are kept, or only counted.

    Attributes:
        received_bytes: of all bodies.
        heads, bodies: of the requests, decoded as far as they came; whether each came whole is in
            `whole`.
        closed_at_s: when connections were closed by the other end.
    """

    def __init__(
        self,
        *answers: Sequence[Step],
        after_bytes: int | None = None,
        wait_s: float = 0.0,
        reads: bool = True,
        keeps: bool = True,
    ) -> None:
        self._answers = list(answers) or [counted(b"ok")]
        self._after_bytes = after_bytes
        self._wait_s = wait_s
        self._may_read = trio.Event()
        if reads:
            self._may_read.set()
        self._keeps = keeps
        self.received_bytes = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytearray] = []
        self.whole: list[bool] = []
        self.closed_at_s: list[float] = []
        self._changed = trio.lowlevel.ParkingLot()

    def resume(self) -> None:
        """Read from now on."""
        self._may_read.set()

    def takes_all(self) -> None:
        """Answer no earlier than at the end of a body."""
        self._after_bytes = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that came makes `condition` true."""
        while not condition():
            await self._changed.park()

    async def __call__(self, channel: MemoryChannel) -> None:
        reader = _Reader(channel, self)
        try:
            while await self._serve(reader, channel):
                pass
        except EOFError:
            self.closed_at_s.append(trio.current_time())
            self._changed.unpark_all()

    async def _serve(self, reader: "_Reader", channel: MemoryChannel) -> bool:
        got = await reader.until(b"\r\n\r\n")
        number = len(self.heads)
        self.heads.append(got)
        self.bodies.append(bytearray())
        self.whole.append(False)
        self._changed.unpark_all()
        answer = self._answers[min(number, len(self._answers) - 1)]
        await self._may_read.wait()
        is_early = await self._read_body(reader, got.lower(), number)
        await Script(answer)(channel)
        if any(isinstance(step, Close) for step in answer):
            return False
        if is_early:
            while await channel.receive_some():
                pass  # until the other end closes; what still comes is not wanted
            raise EOFError
        return True

    async def _read_body(self, reader: "_Reader", got: bytes, number: int) -> bool:
        body = self.bodies[number]
        if b"transfer-encoding: chunked" in got:
            while size := int(await reader.until(b"\r\n"), 16):
                if await self._take(reader, body, size):
                    return True
                await reader.until(b"\r\n")
            await reader.until(b"\r\n")
        elif b"content-length: " in got:
            size = int(got.split(b"content-length: ")[1].split(b"\r\n")[0])
            if await self._take(reader, body, size):
                return True
        self.whole[number] = True
        self._changed.unpark_all()
        return False

    async def _take(self, reader: "_Reader", body: bytearray, size: int) -> bool:
        """Read `size` bytes of the body; True when enough has come to answer."""
        while size:
            if self._wait_s:
                await trio.sleep(self._wait_s)
            data = await reader.some(size)
            size -= len(data)
            self.received_bytes += len(data)
            if self._keeps:
                body += data
            self._changed.unpark_all()
            if self._after_bytes is not None and len(body) >= self._after_bytes:
                return True
        return False


class _Reader:
    """Buffered reading; raises EOFError at the end."""

    def __init__(self, channel: MemoryChannel, sink: Sink) -> None:
        self._channel = channel
        self._sink = sink
        self._unread = b""

    async def _more(self) -> None:
        try:
            data = await self._channel.receive_some(4096)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise EOFError
        self._unread += data

    async def until(self, end: bytes) -> bytes:
        while end not in self._unread:
            await self._more()
        line, _, self._unread = self._unread.partition(end)
        return line + end

    async def some(self, most: int) -> bytes:
        if not self._unread:
            await self._more()
        data, self._unread = self._unread[:most], self._unread[most:]
        return data
