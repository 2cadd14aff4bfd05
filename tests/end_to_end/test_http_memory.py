"""What an 8 MiB body costs in memory on its way through, either way, in the native format.

Real sockets (a memory stream is itself a copy of the body), and an upstream and a caller that hold
no more than one block, so that what is measured is the runtime's.
"""

import json
import socket
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from vastar_client.wire import (
    Connection,
    ExecuteRequest,
    HttpRequest,
    PayloadFormat,
    Role,
    encode_http_request,
)
from vastar_runtime.assembly import Runtime
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.transport import Address, Channel, SocketChannel

BODY_BYTES = 8 << 20
BLOCK = bytes(64 << 10)
URL = "http://127.0.0.1:4600/"


class SocketNetwork:
    """Upstreams behind socket pairs."""

    def __init__(
        self, nursery: trio.Nursery, handler: Callable[[Channel], Awaitable[None]]
    ) -> None:
        self._nursery = nursery
        self._handler = handler

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:
        await trio.lowlevel.checkpoint()
        return [Address(2, (host, port))]

    async def connect(self, address: Address) -> Channel:
        await trio.lowlevel.checkpoint()
        ours, theirs = map(SocketChannel, socket.socketpair())
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, channel: Channel) -> None:
        try:
            await self._handler(channel)
        except trio.BrokenResourceError:
            pass
        finally:
            channel.abort()


async def receive_head_and_body(channel: Channel) -> int:
    """Take one request; the length of its body, which is not kept."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await channel.receive_some()
    head, _, rest = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            length = int(line.partition(b": ")[2])
    got = len(rest)
    while got < length:
        got += len(await channel.receive_some())
    return got


async def take_all(channel: Channel) -> None:
    """Answers how many bytes came."""
    while True:
        body = json.dumps({"got": await receive_head_and_body(channel)}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        await channel.send_buffers([head, body])


async def give_much(channel: Channel) -> None:
    while True:
        await receive_head_and_body(channel)
        await channel.send_buffers([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES])
        for _ in range(BODY_BYTES // len(BLOCK)):
            await channel.send_buffers([BLOCK])


async def give_much_in_chunks(channel: Channel) -> None:
    while True:
        await receive_head_and_body(channel)
        await channel.send_buffers([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
        for _ in range(BODY_BYTES // len(BLOCK)):
            await channel.send_buffers([b"%x\r\n" % len(BLOCK), BLOCK, b"\r\n"])
        await channel.send_buffers([b"0\r\n\r\n"])


async def call(channel: Channel, body_bytes: int) -> int:
    """One native call; the length of the answer's frame, of which nothing is kept."""
    body = [BLOCK] * (body_bytes // len(BLOCK)) or [b"x"]
    payload = encode_http_request(HttpRequest(URL, "POST", body=body))
    request = ExecuteRequest(
        1, "acme", connector_name="http", operation="request", payload=payload,
        payload_format=PayloadFormat.NATIVE,
    )  # fmt: skip
    await channel.send_buffers(Connection(Role.CLIENT).send(request))
    data = b""
    while len(data) < 4:
        data += await channel.receive_some(4 - len(data))
    length = int.from_bytes(data, "big")
    got = 0
    while got < length:
        got += len(await channel.receive_some(min(65536, length - got)))
    return length


async def peak_over_idle_bytes(
    handler: Callable[[Channel], Awaitable[None]], body_bytes: int
) -> tuple[int, int]:
    """The peak of one call over what the runtime holds idle, and the length of the answer."""
    async with trio.open_nursery() as nursery:
        runtime = Runtime(RuntimeConfig(), network=SocketNetwork(nursery, handler))
        nursery.start_soon(runtime.run)
        ours, theirs = map(SocketChannel, socket.socketpair())
        nursery.start_soon(runtime.serve, ours)
        await call(theirs, 0)  # what is made once is made
        tracemalloc.start()
        try:
            idle_bytes = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            length = await call(theirs, body_bytes)
            peak_bytes = tracemalloc.get_traced_memory()[1] - idle_bytes
        finally:
            tracemalloc.stop()
            theirs.abort()
        nursery.cancel_scope.cancel()
    return peak_bytes, length


async def test_an_8_mib_request_body_peaks_below_three_times_its_size():
    peak_bytes, length = await peak_over_idle_bytes(take_all, BODY_BYTES)
    assert length < 500
    assert peak_bytes < 3 * BODY_BYTES, f"{peak_bytes / BODY_BYTES:.2f} times the body"


@pytest.mark.parametrize("handler", [give_much, give_much_in_chunks])
async def test_an_8_mib_response_body_peaks_below_three_times_its_size(handler):
    await peak_over_idle_bytes(take_all, 0)  # imports are no part of it
    peak_bytes, length = await peak_over_idle_bytes(handler, 0)
    assert length > BODY_BYTES
    assert peak_bytes < 3 * BODY_BYTES, f"{peak_bytes / BODY_BYTES:.2f} times the body"
