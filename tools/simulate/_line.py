"""A connection to a simulated upstream, tapped on the runtime's side.

The runtime holds a `Line` as its channel. What it sends is read as HTTP at the moment it leaves, so
that an exchange begins when its bytes were sent and not when the upstream's task runs; what it
receives is counted at the moment it is taken. So "the upstream saw no byte of it" is a fact of this
class, whatever anybody says. When the runtime closes its end, the upstream's work ends with it.
"""

from collections import deque
from collections.abc import Callable, Sequence

import trio

from tools.simulate._records import Exchange
from vastar_runtime.transport import Buffer
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair

__all__ = ["Head", "Line"]

_CAPACITY_BYTES = 65536
"""Longer than any head, so that no request is cut inside it."""


class Head:
    """The head of a request: method, target and headers, names in lower case."""

    def __init__(self, raw: bytes) -> None:
        first, *rest = raw.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        pairs = (line.partition(":") for line in rest)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def body_bytes(self) -> int:
        """What follows."""
        return int(self.headers.get("content-length", 0))


class Line(MemoryChannel):
    """The runtime's end.

    Args:
        number: counts connections.
        origin: whose upstream is at the other end.
        begin: makes the exchange of a request whose head has left.

    Attributes:
        far: the upstream's end.
        requests: exchanges that the upstream has not taken up.
        current: the exchange whose request left last.
        scope: of the upstream's work on this connection.
        sent_bytes: by the runtime, over all exchanges.
        closed_at_s: when the runtime closed it.
    """

    def __init__(self, number: int, origin: str, begin: Callable[["Line", Head], Exchange]) -> None:
        near, self.far = memory_channel_pair(_CAPACITY_BYTES)
        super().__init__(near._in, near._out)  # noqa: SLF001 - the same end, tapped
        self.number = number
        self.origin = origin
        self.requests: deque[Exchange] = deque()
        self.current: Exchange | None = None
        self.scope = trio.CancelScope()
        self.sent_bytes = 0
        self.closed_at_s: float | None = None
        self._begin = begin
        self._head = bytearray()
        self._body_left = 0

    def try_send(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """See `Channel.try_send`; `send_buffers` sends through here, too."""
        rest = super().try_send(buffers)
        data = b"".join(buffers)
        self._left(data[: len(data) - sum(map(len, rest))])
        return rest

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """See `Channel.receive_some`."""
        data = await super().receive_some(max_bytes)
        if self.current is not None:
            self.current.received_bytes += len(data)
        return data

    def abort(self) -> None:
        """See `Channel.abort`."""
        if self.closed_at_s is None:
            self.closed_at_s = trio.current_time()
        super().abort()
        self.scope.cancel()

    def _left(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._head += data
        while self._head:
            taken = min(self._body_left, len(self._head))
            self._body_left -= taken
            del self._head[:taken]
            if self.current is not None and not self._body_left:
                self.current.is_sent = True
            end = self._head.find(b"\r\n\r\n")
            if self._body_left or end < 0:
                return
            head = Head(bytes(self._head[:end]))
            del self._head[: end + 4]
            self._body_left = head.body_bytes
            self.current = exchange = self._begin(self, head)
            exchange.is_sent = not self._body_left
            self.requests.append(exchange)
