"""Streams as a load reads them by hand: straight from the upstream, or through a runtime.

Kept lean as `_load` is: a time is taken for each read of a socket, not for each event.
"""

import socket
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from benchmarks._load import WrongAnswer
from vastar_client.wire import (
    NEED_DATA,
    Connection,
    CreditUpdate,
    ErrorClass,
    ExecuteRequest,
    HttpRequest,
    Message,
    PayloadFormat,
    Role,
    Signal,
    StreamChunk,
    StreamEnd,
    encode_http_request,
)
from vastar_client.wire.limits import (
    INITIAL_CONNECTION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
)
from vastar_client.wire.windows import ReceiveWindow

__all__ = ["STALLED_ID", "Direct", "RuntimeLine"]

STALLED_ID: Final = 1_000_000
"""Of the stream that is never granted anything."""
_LAST_CHUNK: Final = b"0\r\n\r\n"
_RECEIVE_BYTES: Final = 262_144


class Direct:
    """One stream straight from the upstream."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.socket = socket.create_connection((parts.hostname, parts.port or 80))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def ask(self, path: str) -> None:
        """Send a request."""
        self.socket.sendall(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())

    def take(self) -> tuple[bytes, bool]:
        """The events that have come, whole, and whether the stream has ended."""
        data = self._rest + self.socket.recv(_RECEIVE_BYTES)
        has_ended = data.endswith(_LAST_CHUNK)
        whole, end, self._rest = data.rpartition(b"\n\n")
        return whole + end, has_ended


class RuntimeLine:
    """A connection to a runtime with any number of streams on it, all of them read at once.

    Attributes:
        received_ns: when something came last, on the monotonic clock.
    """

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._connection = Connection(Role.CLIENT)
        self._shared = ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._windows: dict[int, ReceiveWindow] = {}
        self.received_ns = 0

    def ask(self, request_id: int, url: str) -> None:
        """Begin a stream."""
        self._windows[request_id] = ReceiveWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._send(
            ExecuteRequest(
                request_id=request_id,
                tenant_id="default",
                connector_name="http",
                operation="request",
                payload=encode_http_request(HttpRequest(url)),
                payload_format=PayloadFormat.NATIVE,
                stream=True,
            )
        )

    def _send(self, message: Message) -> None:
        self.socket.sendall(b"".join(self._connection.send(message)))

    def take(self) -> Iterator[StreamChunk | StreamEnd]:
        """Receive once; what came, credit given back for it.

        Raises:
            WrongAnswer: a stream failed, or the connection ended.
        """
        received = self.socket.recv(_RECEIVE_BYTES)
        self.received_ns = time.monotonic_ns()
        self._connection.receive_data(received)
        while (event := self._connection.next_event()) is not NEED_DATA:
            if isinstance(event, Signal):
                raise WrongAnswer("the runtime closed the connection")
            if isinstance(event, StreamChunk):
                yield event
                self._consumed(event)
            elif isinstance(event, StreamEnd):
                if event.error_class is not ErrorClass.SUCCESS:
                    raise WrongAnswer(f"{event.error_class.name}: {event.error_message}")
                yield event

    def _consumed(self, chunk: StreamChunk) -> None:
        size = len(chunk.data or b"")
        shared = self._shared.consumed(size)
        own = 0
        if chunk.request_id != STALLED_ID:
            own = self._windows[chunk.request_id].consumed(size)
        if own or shared:
            self._send(CreditUpdate(own, request_id=chunk.request_id, connection_bytes=shared))
