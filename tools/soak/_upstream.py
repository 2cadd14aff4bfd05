"""The upstream that counts: each request that reaches it is noted by the id of its call.

Shape: one task for a connection, and one beside it that watches, while an answer is under way, for
the client to leave. A request is noted twice: as seen once its head is there, and as acted on once
all of it is. What turns a request away does not act on it. All of that happens in the process that
judges, so a restart of the upstream forgets nothing: it cuts all connections and stays away a
while.

Paths, `/WHAT/ID/AMOUNT`: `ok` answers with so many bytes at once; `slow` after so many
milliseconds; `hang` never; `events` has so many events, a few milliseconds apart; `busy` turns the
first request of a call away with a 503 that says when to come back, `broken` answers it with a 500,
`cut` closes behind it: the next one of the same call is answered.
"""

import math
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio

from tools.faults import FaultProxy
from tools.faults._proxy import connect_to
from tools.llm_simulator._http import (
    LAST_CHUNK,
    BadRequestError,
    Request,
    RequestReader,
    chunk,
    head,
)
from tools.soak._ledger import Ledger
from tools.soak._words import answer_body, event_data

__all__ = [
    "CountingUpstream",
    "counting_upstream",
    "faulty_way",
    "refusing_port",
    "silent_upstream",
]

_HOST: Final = "127.0.0.1"
_RECEIVE_BYTES: Final = 65_536
_EVENT_GAP_S: Final = 0.002
_PARTS: Final = 3
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_FAILS_FIRST: Final = frozenset({"busy", "broken", "cut"})
_PORT_PATIENCE_S: Final = 20.0
_LONGEST_WAY_S: Final = 20.0


class _Reader(RequestReader):
    """Tells of each request as soon as its head is there."""

    def __init__(self, seen: Callable[[str], None]) -> None:
        super().__init__()
        self._seen = seen

    def on_headers_complete(self) -> None:
        """The head has ended."""
        super().on_headers_complete()
        self._seen(_asked(self._url.decode("latin1"))[1])


def _asked(path: str) -> tuple[str, str, int]:
    """What, the id of the call, the amount."""
    parts = path.split("/")[1:]
    if len(parts) != _PARTS or not parts[2].isdecimal():
        return "", path, 0
    return parts[0], parts[1], int(parts[2])


@attrs.define(eq=False)
class CountingUpstream:
    """The server.

    Attributes:
        ledger: told of every request.
        port: stays the same through restarts.
        in_progress: requests that are being answered.
        connections: open ones.
    """

    ledger: Ledger
    port: int = 0
    in_progress: int = 0
    connections: int = 0
    _failed_once: set[str] = attrs.field(factory=set)
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _away_s: float = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve, through all restarts, until cancelled."""
        while True:
            listeners = await _listen(self.port)
            self.port = listeners[0].socket.getsockname()[1]
            with trio.CancelScope() as self._life:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.serve_listeners(self._serve, listeners)
            await trio.sleep(self._away_s)

    def restart(self, away_s: float) -> None:
        """Cut all connections, and come back after so long."""
        self._away_s = away_s
        self._life.cancel()

    def forget(self) -> None:
        """At a quiet point: no call will come again."""
        self._failed_once.clear()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        reader = _Reader(self.ledger.seen)
        try:
            while data := await stream.receive_some(_RECEIVE_BYTES):
                reader.feed(data)
                while reader.ready:
                    if not await self._answer(stream, reader, reader.ready.popleft()):
                        return
        except (*_GONE, BadRequestError):
            pass
        finally:
            self.connections -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.abc.Stream, reader: _Reader, request: Request) -> bool:
        """Whether the connection may go on."""
        is_over = False
        self.in_progress += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch, stream, reader, nursery.cancel_scope)
                is_over = await self._send(stream, request)
                nursery.cancel_scope.cancel()
        finally:
            self.in_progress -= 1
        return is_over

    async def _send(self, stream: trio.abc.Stream, request: Request) -> bool:
        """Send the answer; whether the connection may go on."""
        for wait_s, data in self._pieces(request):
            await trio.sleep(wait_s)
            if data is None:
                return False
            try:
                await stream.send_all(data)
            except _GONE:
                return False
        return True

    def _pieces(self, request: Request) -> Iterator[tuple[float, bytes | None]]:
        """(seconds before, bytes) of the answer; None closes."""
        what, call_id, amount = _asked(request.path)
        fails = what in _FAILS_FIRST and call_id not in self._failed_once
        if what != "busy" or not fails:
            self.ledger.acted(call_id)
        body = answer_body(call_id, amount, request.body)
        if fails:
            self._failed_once.add(call_id)
            if what == "cut":
                yield 0, None
            elif what == "broken":
                yield 0, head(500, content_length=len(body)) + body
            else:
                soon = (("retry-after-ms", "20"),)
                yield 0, head(503, headers=soon, content_length=len(body)) + body
        elif what == "events":
            yield 0, head(200, content_type="text/event-stream", chunked=True)
            for index in range(amount):
                data = event_data(call_id, index, amount)
                yield _EVENT_GAP_S, chunk(f"data: {data}\n\n".encode())
            yield 0, LAST_CHUNK
        elif what == "hang":
            yield math.inf, None
        elif what == "slow":
            body = answer_body(call_id, 0, request.body)
            yield amount / 1000, head(200, content_length=len(body)) + body
        else:
            yield 0, head(200, content_type="text/plain", content_length=len(body)) + body


async def _watch(stream: trio.abc.Stream, reader: _Reader, scope: trio.CancelScope) -> None:
    """End the answer when its client leaves; what else it sends is read, and answered behind it."""
    try:
        while data := await stream.receive_some(_RECEIVE_BYTES):
            reader.feed(data)
    except (*_GONE, BadRequestError):
        pass
    scope.cancel()


async def _listen(port: int) -> list[trio.SocketListener]:
    """On that port, also where a connection of somebody's has it for a moment."""
    with trio.move_on_after(_PORT_PATIENCE_S):
        while port:
            try:
                return await trio.open_tcp_listeners(port, host=_HOST)
            except OSError:
                await trio.sleep(0.1)
    return await trio.open_tcp_listeners(port, host=_HOST)


@asynccontextmanager
async def counting_upstream(ledger: Ledger) -> AsyncIterator[CountingUpstream]:
    """The upstream that counts, on loopback, while the block runs."""
    upstream = CountingUpstream(ledger)
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        yield upstream
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def silent_upstream() -> AsyncIterator[int]:
    """The port of one that takes connections and requests, and never says anything."""

    async def listen(stream: trio.SocketStream) -> None:
        try:
            while await stream.receive_some(_RECEIVE_BYTES):
                pass
        except _GONE:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await _listen(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, listen, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def refusing_port() -> socket.socket:
    """A socket that has a port and does not listen there: who connects is refused."""
    taken = socket.socket()
    taken.bind((_HOST, 0))
    return taken


@asynccontextmanager
async def faulty_way(port: int) -> AsyncIterator[FaultProxy]:
    """A proxy to that port whose plan may be changed; no connection through it lives for ever.

    A black hole does not tell that its ends are gone: it would hold them until the end of the run.
    """
    proxy = FaultProxy(partial(connect_to, f"{_HOST}:{port}"))

    async def carry(stream: trio.SocketStream) -> None:
        with trio.move_on_after(_LONGEST_WAY_S):
            await proxy.serve_stream(stream)

    listeners = await _listen(0)
    proxy.address = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, carry, listeners))
        yield proxy
        nursery.cancel_scope.cancel()
