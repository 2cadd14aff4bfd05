r"""A network that exists in memory only, for the tests of whatever makes upstream calls.

It ships with the package, as connector authors need it too. Hosts have addresses, addresses have a
`Behaviour`: an upstream that is a function over a `Channel`, a script of steps, a refusal, or a
black hole. Delays are Trio sleeps, so that a mock clock makes them free and exact.

```python
async with trio.open_nursery() as nursery:
    network = FakeNetwork(nursery)
    network.add_host("api.test", Script([Request(), Send(b"HTTP/1.1 204 No Content\r\n\r\n")]))
    transport = HttpTransport(settings, network, environ={})
```
"""

import errno
import math
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from vastar_runtime.transport.channel import Channel
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair
from vastar_runtime.transport.network import Address

__all__ = [
    "Behaviour",
    "BlackHole",
    "Close",
    "FakeNetwork",
    "Refuse",
    "Request",
    "Reset",
    "Script",
    "Send",
    "Serve",
    "Wait",
]


@attrs.frozen
class Refuse:
    """Connections fail after `after_s` with the error of that number."""

    after_s: float = 0.0
    number: int = errno.ECONNREFUSED


@attrs.frozen
class BlackHole:
    """Connections are never answered."""


@attrs.frozen
class Serve:
    """Connections open after `after_s` and are handled by a function, which should close them."""

    handler: Callable[[MemoryChannel], Awaitable[None]]
    after_s: float = 0.0
    capacity_bytes: int = 65536


@attrs.frozen
class Request:
    """A step: read one request, its head and its body, counted or in chunks."""


@attrs.frozen
class Send:
    """A step: send these bytes, in pieces of `piece_bytes` when that is given."""

    data: bytes
    piece_bytes: int | None = None


@attrs.frozen
class Wait:
    """A step: do nothing for a time, or for ever."""

    seconds: float = math.inf


@attrs.frozen
class Reset:
    """A step: reset the connection. The script ends."""


@attrs.frozen
class Close:
    """A step: close the connection. The script ends; so it does behind its last step."""


Step = Request | Send | Wait | Reset | Close


@attrs.frozen
class Script:
    """Each connection is served by the same steps, from the first.

    Attributes:
        steps: what to do, in order.
        repeat: begin again behind the last step, until the caller closes.
    """

    steps: Sequence[Step]
    repeat: bool = False

    async def __call__(self, channel: MemoryChannel) -> None:
        """Serve one connection."""
        unread = b""
        while True:
            for step in self.steps:
                match step:
                    case Request():
                        unread = await _read_request(channel, unread)
                    case Send(data, piece_bytes):
                        size = piece_bytes or len(data) or 1
                        for start in range(0, len(data), size):
                            await channel.send_buffers((data[start : start + size],))
                    case Wait(seconds):
                        await trio.sleep(seconds)
                    case Reset():
                        channel.reset()
                        return
                    case Close():
                        return
            if not self.repeat:
                return


Behaviour = Refuse | BlackHole | Serve | Script


class FakeNetwork:
    """A `Network` without a network.

    Args:
        nursery: where the upstreams run; cancel it to end them.

    Attributes:
        lookups: the names looked up, in order.
        connected: the address of every connection opened, in order.
        channels: the callers' ends, to see which are still open.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._hosts: dict[str, list[Address]] = {}
        self._behaviours: dict[str, Behaviour] = {}
        self._lookup_s: dict[str, float] = {}
        self.lookups: list[str] = []
        self.connected: list[Address] = []
        self.channels: list[MemoryChannel] = []

    @property
    def open_channels(self) -> list[MemoryChannel]:
        """The callers' ends that were not closed."""
        return [channel for channel in self.channels if not channel.closed]

    def add_host(
        self, name: str, *behaviours: Behaviour, lookup_s: float = 0.0, ipv6: Sequence[int] = ()
    ) -> list[str]:
        """Make `name` resolve to one address for each behaviour; the addresses.

        Args:
            name: the host.
            behaviours: what is behind its addresses, in the order a lookup gives them.
            lookup_s: how long a lookup takes.
            ipv6: the indices of those that are to be IPv6 addresses.
        """
        addresses = []
        for index, behaviour in enumerate(behaviours):
            number = len(self._behaviours) + 1
            ip = f"2001:db8::{number:x}" if index in ipv6 else f"192.0.2.{number}"
            self._behaviours[ip] = behaviour
            family = socket.AF_INET6 if index in ipv6 else socket.AF_INET
            addresses.append(Address(family, (ip,)))
        self._hosts[name] = addresses
        self._lookup_s[name] = lookup_s
        return [address.ip for address in addresses]

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:  # noqa: ARG002 - of the protocol
        """See `Network.resolve`. Numeric addresses resolve to themselves."""
        self.lookups.append(host)
        await trio.sleep(self._lookup_s.get(host, 0.0))
        if host in self._behaviours:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return [Address(family, (host, port))]
        if host not in self._hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [Address(found.family, (found.ip, port)) for found in self._hosts[host]]

    async def connect(self, address: Address) -> Channel:
        """See `Network.connect`."""
        behaviour = self._behaviours.get(address.ip, Refuse())
        if isinstance(behaviour, BlackHole):
            await trio.sleep_forever()
        if isinstance(behaviour, Refuse):
            await trio.sleep(behaviour.after_s)
            raise OSError(behaviour.number, os.strerror(behaviour.number))
        serve = behaviour if isinstance(behaviour, Serve) else Serve(behaviour)
        await trio.sleep(serve.after_s)
        ours, theirs = memory_channel_pair(serve.capacity_bytes)
        self.connected.append(address)
        self.channels.append(ours)
        self._nursery.start_soon(_run, serve.handler, theirs)
        return ours


async def _run(handler: Callable[[MemoryChannel], Awaitable[None]], channel: MemoryChannel) -> None:
    """An upstream is not harmed by what its caller does."""
    try:
        await handler(channel)
    except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
        pass
    finally:
        channel.abort()


async def _read_request(channel: MemoryChannel, unread: bytes) -> bytes:
    """Read one request; what came behind it. `EOFError` when the caller closed."""
    while b"\r\n\r\n" not in unread:
        unread += await _receive(channel)
    head, _, unread = unread.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            unread = await _skip(channel, unread, int(value))
        elif name == b"transfer-encoding":
            unread = await _skip_chunks(channel, unread)
    return unread


async def _skip(channel: MemoryChannel, unread: bytes, count: int) -> bytes:
    while len(unread) < count:
        unread += await _receive(channel)
    return unread[count:]


async def _skip_chunks(channel: MemoryChannel, unread: bytes) -> bytes:
    size = 1
    while size:
        while b"\r\n" not in unread:
            unread += await _receive(channel)
        line, _, unread = unread.partition(b"\r\n")
        size = int(line, 16)
        unread = await _skip(channel, unread, size + 2)
    return unread


async def _receive(channel: MemoryChannel) -> bytes:
    data = await channel.receive_some()
    if not data:
        raise EOFError("the caller closed the connection")
    return data
