"""A controllable HTTP/1.1 upstream inside the test process: `vectors/upstream.py` remade in Trio.

The same paths give the same answers, byte for byte: the golden frames were captured against them.
It is written against `Channel`, so it serves real loopback sockets (`serve_upstream`), sits behind
the fake network in virtual time (`Upstream.handle` as the handler of a `fake.Serve`), and serves
tests that have no Trio loop of their own (`threaded_upstream`).

What it saw is in `events`; wait for an event, never sleep:

    async with serve_upstream() as upstream:
        ...request(f"http://127.0.0.1:{upstream.port}/sleep?ms=60000")...
        await upstream.wait_for("client_closed_while_busy")

Events: conn_open, req (method, target, headers, blen, proto), sleep_start, sleep_end, sse_start,
sse_done_sent, sse_cut, sse_end, sse_big_end, body_start, hang_start, client_closed_while_busy,
conn_err, conn_close; each with `conn` (number of the connection) and `t` (seconds on Trio's clock).

Unlike the original, every answer that takes time watches for its client: when it closes, the answer
ends at once with `client_closed_while_busy`.
"""

import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from tests.support.http_answers import find_answer
from tests.support.http_call import Call, ClientGoneError, Event, Log, Reader
from vastar_runtime.transport.channel import Channel, ChannelStream, SocketChannel, StreamChannel

__all__ = ["Upstream", "serve_upstream", "threaded_upstream"]


class Upstream(Log):
    """The server: what it saw, and how it serves.

    Attributes:
        port: of the loopback listener; 0 behind a fake network.
        events: everything that happened, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._connections = 0

    async def handle(self, channel: Channel) -> None:
        """Serve one connection until either side closes it."""
        self._connections += 1
        conn = self._connections
        self.note("conn_open", conn=conn)
        reader = Reader(channel)
        try:
            while True:
                call = Call(self, reader, channel, conn)
                if not await call.read():
                    break
                if call.path != "/_log":
                    call.note(
                        "req",
                        method=call.method,
                        target=call.target,
                        headers=call.headers,
                        blen=len(call.body),
                        proto=call.proto,
                    )
                await find_answer(call.path)(call)
                if call.closing:
                    break
        except (ClientGoneError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.note("conn_err", conn=conn, e=repr(error))
        finally:
            self.note("conn_close", conn=conn)
            channel.abort()

    async def listen(
        self, listener: socket.socket, tls: ssl.SSLContext | None, nursery: trio.Nursery
    ) -> None:
        """Accept for ever."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            channel = SocketChannel(sock)
            if tls is None:
                nursery.start_soon(self.handle, channel)
            else:
                nursery.start_soon(self.handle_tls, channel, tls)

    async def handle_tls(self, channel: Channel, tls: ssl.SSLContext) -> None:
        """Serve one connection through TLS; notes `tls` (`cert`, `alpn`) or `tls_failed`."""
        stream = trio.SSLStream(
            ChannelStream(channel), tls, server_side=True, https_compatible=True
        )
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            self.note("tls_failed", e=repr(error.__cause__))
        else:
            self.note("tls", cert=stream.getpeercert(), alpn=stream.selected_alpn_protocol())
            await self.handle(StreamChannel(stream, abort=channel.abort))
        finally:
            channel.abort()


@asynccontextmanager
async def serve_upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream on a loopback port of its own, until the block ends."""
    upstream = Upstream()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        upstream.port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.listen, listener, tls, nursery)
            yield upstream
            nursery.cancel_scope.cancel()


class _ThreadedUpstream:
    """An `Upstream` in a thread of its own, for tests without Trio."""

    def __init__(self, upstream: Upstream, token: trio.lowlevel.TrioToken) -> None:
        self._upstream = upstream
        self._token = token
        self.port = upstream.port

    @property
    def events(self) -> list[Event]:
        """A copy of the events so far."""
        return list(self._upstream.events)

    def wait_for(self, name: str, *, count: int = 1, timeout_s: float = 10, **fields: Any) -> Event:
        """As `Upstream.wait_for`; `trio.TooSlowError` after `timeout_s`."""

        async def wait() -> Event:
            with trio.fail_after(timeout_s):
                return await self._upstream.wait_for(name, count=count, **fields)

        return trio.from_thread.run(wait, trio_token=self._token)


@contextmanager
def threaded_upstream(tls: ssl.SSLContext | None = None) -> Iterator[_ThreadedUpstream]:
    """An upstream that needs no Trio loop in the test, until the block ends."""
    ready = threading.Event()
    made: list[_ThreadedUpstream] = []
    scopes: list[trio.CancelScope] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with serve_upstream(tls) as upstream:
                made.append(_ThreadedUpstream(upstream, trio.lowlevel.current_trio_token()))
                scopes.append(scope)
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(main,), name="upstream", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the upstream did not start")
    try:
        yield made[0]
    finally:
        made[0]._token.run_sync_soon(scopes[0].cancel)
        thread.join(10)
