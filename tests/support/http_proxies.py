"""Proxies inside the test process, over any network: HTTP (CONNECT, absolute-form) and SOCKS5."""

import base64
import socket
from typing import Any

import attrs
import trio

from tests.support.http_call import ClientGoneError, Reader
from vastar_runtime.transport.channel import Channel
from vastar_runtime.transport.network import Network

__all__ = ["HttpProxy", "SocksProxy"]


@attrs.define
class _Proxy:
    """What both kinds share.

    Attributes:
        network: how it reaches the origins.
        credentials: `name:password` that it wants.
        asked: (host, port) of every request for a way, in order.
        heads: what HTTP clients sent as head, in order.
        answer: sent instead of doing anything.
    """

    network: Network
    credentials: str | None = None
    answer: bytes | None = None
    asked: list[tuple[str, int]] = attrs.field(factory=list)
    heads: list[bytes] = attrs.field(factory=list)

    async def handle(self, channel: Channel) -> None:
        """Serve one connection."""
        try:
            await self._serve(channel, Reader(channel))
        except (ClientGoneError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            channel.abort()

    async def _serve(self, channel: Channel, reader: Reader) -> None:
        raise NotImplementedError

    async def _open(self, host: str, port: int) -> Channel:
        self.asked.append((host, port))
        addresses = await self.network.resolve(host, port, tenant="proxy")
        return await self.network.connect(addresses[0])

    async def _join(self, client: Channel, onward: Channel, greeting: bytes) -> None:
        """Say that the way is open, then carry bytes both ways until one side ends."""
        try:
            await self._say(client, greeting)
            async with trio.open_nursery() as nursery:
                for source, sink in ((client, onward), (onward, client)):
                    nursery.start_soon(self._carry, source, sink, nursery.cancel_scope)
        finally:
            onward.abort()

    async def _say(self, channel: Channel, message: bytes) -> None:
        await channel.send_buffers([message])

    @staticmethod
    async def _carry(source: Channel, sink: Channel, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some():
                await sink.send_buffers([data])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@attrs.define
class HttpProxy(_Proxy):
    """CONNECT opens a tunnel; anything else must be in absolute-form and is passed on."""

    async def _serve(self, channel: Channel, reader: Reader) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = await reader.line()
            if not line:
                return
            head += line
        self.heads.append(head)
        if self.answer is not None:
            await channel.send_buffers([self.answer])
            return
        if self.credentials is not None:
            wanted = b"proxy-authorization: basic " + base64.b64encode(self.credentials.encode())
            if wanted.lower() not in head.lower():
                await channel.send_buffers([b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"])
                return
        method, target, _ = head.split(b" ", 2)
        if method == b"CONNECT":
            host, _, port = target.decode().rpartition(":")
            try:
                onward = await self._open(host.strip("[]"), int(port))
            except OSError:
                await channel.send_buffers([b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"])
                return
            greeting = b"HTTP/1.1 200 Connection established\r\n\r\n"
        else:
            assert target.startswith(b"http://"), head
            authority, _, path = target.removeprefix(b"http://").partition(b"/")
            name, _, port = authority.decode().partition(":")
            onward = await self._open(name, int(port or 80))
            await onward.send_buffers([head.replace(target, b"/" + path, 1)])
            greeting = b""
        await self._join(channel, onward, greeting)


@attrs.define
class SocksProxy(_Proxy):
    """RFC 1928 with no authentication or that of RFC 1929.

    Attributes:
        reply: the code it answers a request with, 0 = by what happened.
        piece_bytes: its own messages go out in pieces of so many bytes.
    """

    reply: int = 0
    piece_bytes: int = 100

    async def _say(self, channel: Channel, message: bytes) -> None:
        for start in range(0, len(message), self.piece_bytes):
            await channel.send_buffers([message[start : start + self.piece_bytes]])
            await trio.lowlevel.checkpoint()

    async def _serve(self, channel: Channel, reader: Reader) -> None:
        if self.answer is not None:
            await self._say(channel, self.answer)
            return
        _, count = await reader.exactly(2)
        methods = await reader.exactly(count)
        wanted = 0 if self.credentials is None else 2
        if wanted not in methods:
            await self._say(channel, b"\5\xff")
            return
        await self._say(channel, bytes([5, wanted]))
        if wanted:
            name = await reader.exactly((await reader.exactly(2))[1])
            password = await reader.exactly((await reader.exactly(1))[0])
            good = f"{name.decode()}:{password.decode()}" == self.credentials
            await self._say(channel, b"\1" + bytes([not good]))
            if not good:
                return
        await self._connect(channel, reader)

    async def _connect(self, channel: Channel, reader: Reader) -> None:
        kind = (await reader.exactly(4))[3]
        host: Any
        if kind == 3:
            host = (await reader.exactly((await reader.exactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.exactly(size))
        port = int.from_bytes(await reader.exactly(2), "big")
        code, onward = self.reply, None
        if not code:
            try:
                onward = await self._open(host, port)
            except OSError:
                code = 5
        bound = {3: b"\3\4name", 1: b"\1\0\0\0\0", 4: b"\4" + bytes(16)}[kind]
        reply = bytes([5, code, 0]) + bound + b"\0\0"
        if onward is None:
            await self._say(channel, reply)
        else:
            await self._join(channel, onward, reply)
