"""The socket of a connection on Trio, read and written without the layers between.

Shape: an anyio stream opens the socket and closes it; the bytes go past it. Two things are cheaper
so. A read waits before it tries, since behind a small answer there is nothing more to read: the
attempt would cost a system call and an exception for each. And a write can be tried outside of any
task, by `try_send`.

Only the background thread and programs on Trio use it; asyncio's streams write at once anyway.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import trio
from anyio.abc import ByteStream

from vastar_client.wire import Buffer

__all__ = ["TrioStream"]

_MORE_BYTES: Final = 32_768
"""A read of so much is followed by an attempt: long bodies come without a pause."""


class TrioStream(ByteStream):
    """A connected socket, for one reader and one writer.

    Args:
        opened: the stream that owns the socket.
        raw: the socket, in non-blocking mode.
    """

    def __init__(self, opened: ByteStream, raw: socket.socket) -> None:
        self._opened = opened
        self._raw = raw
        self._is_more_likely = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """What has come, as soon as there is anything.

        Raises:
            anyio.EndOfStream: the peer has ended its half.
            anyio.BrokenResourceError: the connection broke.
            anyio.ClosedResourceError: it was closed here.
        """
        wait = trio.lowlevel.checkpoint if self._is_more_likely else self._wait_readable
        while True:
            await wait()
            try:
                data = self._raw.recv(max_bytes)
            except BlockingIOError:
                wait = self._wait_readable
                continue
            except OSError as error:
                raise self._broken() from error
            if not data:
                raise anyio.EndOfStream
            self._is_more_likely = len(data) >= _MORE_BYTES
            return data

    async def send(self, item: Buffer) -> None:
        """Send all of `item`.

        Raises:
            anyio.BrokenResourceError: the connection broke.
            anyio.ClosedResourceError: it was closed here.
        """
        await trio.lowlevel.checkpoint()
        view = memoryview(item)
        while view:
            try:
                view = view[self._raw.send(view) :]
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_writable)
            except OSError as error:
                raise self._broken() from error

    def try_send(self, item: Buffer) -> int:
        """Send what the socket takes now; how many bytes that was.

        Raises:
            OSError: the connection broke.
        """
        try:
            return self._raw.send(item)
        except BlockingIOError:
            return 0

    def _broken(self) -> Exception:
        closed = self._raw.fileno() < 0
        return anyio.ClosedResourceError() if closed else anyio.BrokenResourceError()

    async def _wait_readable(self) -> None:
        await self._wait(trio.lowlevel.wait_readable)

    async def _wait(self, function: Callable[[socket.socket], Any]) -> None:
        try:
            await function(self._raw)
        except (trio.ClosedResourceError, OSError, ValueError) as error:
            raise anyio.ClosedResourceError from error

    async def send_eof(self) -> None:
        """End this half."""
        await self._opened.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._opened.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the stream that owns the socket."""
        return self._opened.extra_attributes
