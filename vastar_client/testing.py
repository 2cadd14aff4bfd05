"""A scripted runtime for the tests of connectors: no daemon, no network.

Shape: `FakeRuntime` answers calls from a list of replies or from a function, and records what
was asked. It speaks the real protocol, through the same sans-IO core as the real runtime, so what
a test proves is what goes over the wire. Two ways to reach it:

- in memory: `RuntimeClient(dial=fake.dial)` or `AsyncRuntimeClient(dial=fake.dial)`; no socket,
  and delays run on the clock of the loop, so on a virtual one they take no time;
- a Unix socket in a temporary directory: `with FakeRuntime(...) as fake:` and `fake.config`.
"""

import heapq
import itertools
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import anyio
import msgspec
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from vastar_client._fake_peer import FakePeer, Reply, encode_reply, read_call
from vastar_client._headers import Headers, HeaderTypes, header_pairs
from vastar_client.config import RuntimeConfig
from vastar_client.errors import ConnectorException, RuntimeUnavailable
from vastar_client.request import HTTPRequest
from vastar_client.response import HTTPResponse
from vastar_client.wire import Disposition, ErrorClass, ExecuteRequest, HealthResponse

__all__ = ["HOLD", "After", "FakeRuntime", "HeldCall", "respond"]


class _Hold:
    """The type of `HOLD`."""


HOLD: Final = _Hold()
"""A reply that is no reply: the call waits in `FakeRuntime.held`."""


@dataclass(frozen=True)
class After:
    """A reply that comes `delay_s` seconds later."""

    delay_s: float
    reply: Reply


AnyReply: TypeAlias = Reply | After | _Hold
Handler: TypeAlias = Callable[[Any], AnyReply]


def respond(
    status_code: int = 200,
    *,
    body: bytes | str = b"",
    json: object = None,
    headers: HeaderTypes | None = None,
) -> HTTPResponse:
    """An HTTP answer for a script.

    Args:
        status_code: the HTTP status.
        body: bytes, or text as UTF-8.
        json: a value to send as JSON instead, with its content type.
        headers: a mapping, or pairs where a name repeats.
    """
    pairs = header_pairs(headers)
    if json is not None:
        body = msgspec.json.encode(json)
        if "content-type" not in Headers(pairs):
            pairs.append(("content-type", "application/json"))
    raw = body.encode() if isinstance(body, str) else body
    return HTTPResponse(0, status_code, Headers(pairs), raw, headers_list=pairs)


@dataclass(eq=False)
class HeldCall:
    """A call that was answered with `HOLD`."""

    request: HTTPRequest | ExecuteRequest
    message: ExecuteRequest
    peer: FakePeer

    def reply(self, reply: Reply) -> None:
        """Answer it now. In memory mode call this from the event loop of the client."""
        self.peer.send(encode_reply(self.message, reply))


class FakeRuntime:
    """A runtime that does as it is told.

    Args:
        replies: one reply for each call in turn, or a function from the request to its reply. A
            reply is an answer made by `respond`, a `ConnectorException`, bytes (the raw payload of
            another connector), `After(delay_s, reply)` or `HOLD`. The function gets an
            `HTTPRequest`, or the `ExecuteRequest` where the connector is not `http`.

    Attributes:
        requests: the HTTP requests so far.
        messages: every call as it came over the wire, with deadline and request id.
        cancelled: the ids of the calls that their callers cancelled.
        held: the calls that were answered with `HOLD`.
        health: what a health check is told.
        available: False makes it impossible to connect in memory.
    """

    def __init__(self, replies: Iterable[AnyReply] | Handler = ()) -> None:
        self.requests: list[HTTPRequest] = []
        self.messages: list[ExecuteRequest] = []
        self.cancelled: list[int] = []
        self.held: list[HeldCall] = []
        self.health = HealthResponse(healthy=True, message="fake", available_credits=256)
        self.available = True
        self._handler = replies if callable(replies) else _Script(replies)
        self._peers: list[FakePeer] = []
        self._listener: _Listener | None = None

    # What the peers call

    def serve(self, peer: FakePeer, message: ExecuteRequest) -> None:
        """Answer one call."""
        request = read_call(message)
        self.messages.append(message)
        if isinstance(request, HTTPRequest):
            self.requests.append(request)
        try:
            reply = self._handler(request)
        except Exception as error:  # noqa: BLE001  # a mistake in a test must not hang it
            reply = ConnectorException(
                f"the handler of the FakeRuntime raised {error!r}", ErrorClass.PERMANENT
            )
        delay_s = 0.0
        if isinstance(reply, After):
            delay_s, reply = reply.delay_s, reply.reply
        if isinstance(reply, _Hold):
            self.held.append(HeldCall(request, message, peer))
        else:
            peer.send(encode_reply(message, reply), delay_s)

    def cancel(self, peer: FakePeer, request_id: int) -> None:
        """Note a cancellation; a held call ends with the final frame that the protocol asks for."""
        self.cancelled.append(request_id)
        for call in self.held:
            if call.message.request_id == request_id and call.peer is peer:
                self.held.remove(call)
                call.reply(
                    ConnectorException(
                        "cancelled by caller",
                        ErrorClass.PERMANENT,
                        disposition=Disposition.SENT_NO_RESPONSE,
                    )
                )
                return

    # How clients reach it

    async def dial(self) -> ByteStream:
        """A connection in memory, as the `dial` argument of either client.

        Raises:
            RuntimeUnavailable: `available` is False.
        """
        await checkpoint()
        if not self.available:
            raise RuntimeUnavailable(
                "the fake runtime is switched off", disposition=Disposition.NOT_SENT
            )
        stream = _MemoryStream(self)
        self._peers.append(stream.peer)
        return stream

    @property
    def config(self) -> RuntimeConfig:
        """A configuration for the Unix socket; only inside the `with` block."""
        if self._listener is None:
            raise RuntimeError("a FakeRuntime has a socket inside its `with` block only")
        return RuntimeConfig(socket_path=str(self._listener.path), use_environment=False)

    def disconnect(self) -> None:
        """End every connection, as a restart of the runtime does."""
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.hang_up()

    def __enter__(self) -> Self:
        self._listener = _Listener(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


class _Script:
    """Replies in turn."""

    def __init__(self, replies: Iterable[AnyReply]) -> None:
        self._replies = iter(replies)

    def __call__(self, request: HTTPRequest | ExecuteRequest) -> AnyReply:
        for reply in self._replies:
            return reply
        return ConnectorException(
            f"FakeRuntime has no reply left for {request!r}", ErrorClass.PERMANENT
        )


class _MemoryStream(ByteStream):
    """The client's end of a connection in memory; the peer runs inside `send`."""

    def __init__(self, fake: FakeRuntime) -> None:
        self.peer = FakePeer(fake, self._deliver, self._hang_up)
        self._inbox: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        self._news = anyio.Event()
        self._ended = False
        self._closed = False

    def _deliver(self, data: bytes, delay_s: float) -> None:
        heapq.heappush(self._inbox, (anyio.current_time() + delay_s, next(self._order), data))
        self._news.set()

    def _hang_up(self) -> None:
        self._ended = True
        self._news.set()

    async def send(self, item: bytes) -> None:
        await checkpoint()
        if self._closed:
            raise anyio.ClosedResourceError
        if self._ended:
            raise anyio.BrokenResourceError
        self.peer.receive(bytes(item))

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            due_in_s = self._inbox[0][0] - anyio.current_time() if self._inbox else float("inf")
            if due_in_s <= 0:
                due, order, data = heapq.heappop(self._inbox)
                if len(data) > max_bytes:
                    heapq.heappush(self._inbox, (due, order, data[max_bytes:]))
                return data[:max_bytes]
            if self._ended:
                raise anyio.EndOfStream
            self._news = anyio.Event()
            with anyio.move_on_after(due_in_s):
                await self._news.wait()

    async def send_eof(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        self._closed = True
        self._news.set()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


class _Listener:
    """A Unix socket in a directory of its own, and a thread for each connection."""

    def __init__(self, fake: FakeRuntime) -> None:
        self._fake = fake
        self._directory = Path(tempfile.mkdtemp(prefix="vastar-fake-"))
        self.path = self._directory / "runtime.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._closing = False
        self._threads = [threading.Thread(target=self._accept, name="fake-runtime", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._closing:
                connection.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="fake-runtime", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        lock = threading.Lock()

        def send(data: bytes) -> None:
            with lock, suppress(OSError):  # the client has gone
                connection.sendall(data)

        def deliver(data: bytes, delay_s: float) -> None:
            if delay_s <= 0:
                send(data)
                return
            timer = threading.Timer(delay_s, send, (data,))
            timer.daemon = True
            timer.start()

        def hang_up() -> None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        peer = FakePeer(self._fake, deliver, hang_up)
        self._fake._peers.append(peer)  # noqa: SLF001  # same module
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                peer.receive(data)

    def close(self) -> None:
        """End the listener and every connection, and wait for their threads."""
        self._closing = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waker:
            waker.connect(str(self.path))
        self._threads[0].join()
        self._socket.close()
        self._fake.disconnect()
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._directory)
