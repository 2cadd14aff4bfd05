"""Byte streams that record, block or break what a client sends."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from anyio.abc import ByteStream

from vastar_client.testing import FakeRuntime

__all__ = ["Wrapped", "recording_dial", "scripted"]


class Wrapped(ByteStream):
    """A stream around another one that notes each buffer sent, and can hold writes up."""

    def __init__(self, inner: ByteStream) -> None:
        self.inner = inner
        self.sent: list[Any] = []
        self.gate: anyio.Event | None = None
        self.write_error: type[BaseException] | None = None

    async def send(self, item: bytes) -> None:
        self.sent.append(item)
        if self.gate is not None:
            await self.gate.wait()
        if self.write_error is not None:
            raise self.write_error
        await self.inner.send(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


def recording_dial(fake: FakeRuntime) -> tuple[Callable[[], Awaitable[Wrapped]], list[Wrapped]]:
    """A dial function to `fake`, and the streams that it has opened so far."""
    streams: list[Wrapped] = []

    async def dial() -> Wrapped:
        streams.append(Wrapped(await fake.dial()))
        return streams[-1]

    return dial, streams


def scripted(*chunks: bytes) -> Callable[[], Any]:
    """A dial function to a peer that sends `chunks` as soon as it hears anything, then ends."""

    class Scripted(ByteStream):
        def __init__(self) -> None:
            self.heard = anyio.Event()
            self.left = list(chunks)

        async def send(self, item: bytes) -> None:
            self.heard.set()

        async def receive(self, max_bytes: int = 65536) -> bytes:
            await self.heard.wait()
            if not self.left:
                raise anyio.EndOfStream
            return self.left.pop(0)

        async def send_eof(self) -> None:
            pass

        async def aclose(self) -> None:
            pass

    async def dial() -> ByteStream:
        return Scripted()

    return dial
