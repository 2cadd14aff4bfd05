"""Serve the metrics over HTTP: `GET /metrics` on a socket of its own, and nothing else.

A scraper is a guest: it may be slow, rude or many, and the calls of the runtime notice none of it.
A request has `REQUEST_S` from its first byte to the last byte of its answer, its head a few KiB, a
body is refused. There are at most `MAX_CONNECTIONS`: where one more comes, that goes which has been
waiting for its client the longest, so that those who only hold connections keep nobody out. How
often the text is made is the business of `metrics.Scraper`.

HTTP by h11, which checks what it reads. It is loaded with this module, which only those import who
have an address for it.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from socket import socket
from typing import Final, TypeAlias

import attrs
import h11
import trio

from vastar_runtime.config import TcpAddress
from vastar_runtime.listeners import Listener, open_tcp
from vastar_runtime.logs import get_logger
from vastar_runtime.metrics import CONTENT_TYPE
from vastar_runtime.runtime_files import RuntimeFileError

__all__ = ["MAX_CONNECTIONS", "open_metrics_listener", "serve_metrics"]

MAX_CONNECTIONS: Final = 16
REQUEST_S: Final = 10.0
IDLE_S: Final = 75.0
"""Between requests of one connection: longer than scrapers usually pause."""
_MAX_HEAD_BYTES: Final = 8192
_RECEIVE_BYTES: Final = 4096
_MAX_READ_IN_PARTING: Final = 16
_PATH: Final = b"/metrics"
_METHODS: Final = (b"GET", b"HEAD")
_PLAIN: Final = "text/plain; charset=utf-8"

Render: TypeAlias = Callable[[], Awaitable[bytes]]

_log = get_logger(__name__)


def open_metrics_listener(address: TcpAddress) -> Listener:
    """Listen for scrapers; before the event loop runs, as for callers.

    Raises:
        RuntimeFileError: the address cannot be used; the message names the key and says why.
    """
    try:
        return open_tcp(address)
    except RuntimeFileError as error:
        raise RuntimeFileError(f"metrics.listen: {error}") from None


async def serve_metrics(listener_socket: socket, render: Render) -> None:
    """Answer scrapers until cancelled; closes the socket then.

    Args:
        listener_socket: listening and non-blocking.
        render: the text of now.
    """
    guests = _Guests(render)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener_socket))
    await trio.serve_listeners(guests.serve, [listener])


@attrs.frozen
class _Answer:
    """What goes back; its body is left out for HEAD, `headers` come on top of the usual ones."""

    status: HTTPStatus
    body: bytes
    content_type: str = _PLAIN
    headers: tuple[tuple[str, str], ...] = ()


@attrs.define(eq=False)
class _Guests:
    """The connections of scrapers.

    Attributes:
        count: open ones.
        waiting: the scopes of those that wait for their clients, the longest-waiting first.
    """

    render: Render
    count: int = 0
    waiting: dict[trio.CancelScope, None] = attrs.field(factory=dict)

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """One connection to its end, whatever its client does."""
        self.count += 1
        try:
            if self.count <= MAX_CONNECTIONS or self._make_room():
                await self._converse(stream)
            else:
                _log.debug("a scraper was turned away: too many connections")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            _log.debug("a scraper went away")
        finally:
            self.count -= 1
            await trio.aclose_forcefully(stream)

    def _make_room(self) -> bool:
        """End a connection that waits for its client; whether there was one."""
        scope = next(iter(self.waiting), None)
        if scope is None:
            return False
        del self.waiting[scope]
        scope.cancel()
        return True

    @contextmanager
    def _waits(self, scope: trio.CancelScope) -> Iterator[None]:
        """While it is the client's turn, the connection may have to make room for another one."""
        self.waiting[scope] = None
        try:
            yield
        finally:
            self.waiting.pop(scope, None)

    async def _converse(self, stream: trio.abc.HalfCloseableStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        patience_s = REQUEST_S
        while True:
            goes_on = False
            with trio.move_on_after(patience_s) as scope:
                goes_on = await self._exchange(stream, connection, scope)
            if not goes_on:
                return
            connection.start_next_cycle()
            patience_s = REQUEST_S if connection.trailing_data[0] else IDLE_S

    async def _exchange(
        self,
        stream: trio.abc.HalfCloseableStream,
        connection: h11.Connection,
        scope: trio.CancelScope,
    ) -> bool:
        """One request and its answer; whether another request may follow."""
        try:
            with self._waits(scope):
                request = await _receive(stream, connection, scope)
        except h11.RemoteProtocolError as error:
            answer = _refusal(HTTPStatus(error.error_status_hint), ("Connection", "close"))
            request = None
        else:
            if request is None:
                return False
            answer = await self._answer(request, has_body=connection.their_state is h11.SEND_BODY)
        is_head = request is not None and request.method == b"HEAD"
        with self._waits(scope):
            await stream.send_all(_bytes_of(connection, answer, is_head=is_head))
            if connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return True
            await _part(stream)
        return False

    async def _answer(self, request: h11.Request, *, has_body: bool) -> _Answer:
        if has_body:
            return _refusal(HTTPStatus.BAD_REQUEST, ("Connection", "close"))
        if request.target.partition(b"?")[0] != _PATH:
            return _refusal(HTTPStatus.NOT_FOUND)
        if request.method not in _METHODS:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        try:
            return _Answer(HTTPStatus.OK, await self.render(), CONTENT_TYPE)
        except Exception:  # noqa: BLE001 - a bug in the metrics must not end the runtime
            _log.exception("the metrics could not be rendered")
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _receive(
    stream: trio.abc.ReceiveStream, connection: h11.Connection, scope: trio.CancelScope
) -> h11.Request | None:
    """The head of the next request, None where there is none; its body, if any, is left unread.

    Raises:
        RemoteProtocolError: this is not HTTP, or too much of it.
    """
    has_begun = bool(connection.trailing_data[0])
    while (event := connection.next_event()) is h11.NEED_DATA:
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not has_begun:
            scope.deadline = trio.current_time() + REQUEST_S
            has_begun = True
        connection.receive_data(bytes(data))
    if not isinstance(event, h11.Request):
        return None
    connection.next_event()  # the end of the message, where there is no body
    return event


def _bytes_of(connection: h11.Connection, answer: _Answer, *, is_head: bool) -> bytes:
    head = h11.Response(
        status_code=answer.status,
        reason=answer.status.phrase.encode(),
        headers=[
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
        ],
    )
    events = (head, *(() if is_head else (h11.Data(answer.body),)), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


def _refusal(status: HTTPStatus, *headers: tuple[str, str]) -> _Answer:
    return _Answer(status, f"{status.phrase}\n".encode(), headers=headers)


async def _part(stream: trio.abc.HalfCloseableStream) -> None:
    """Let the client read its answer: with bytes of its own unread, closing would reset it."""
    await stream.send_eof()
    for _ in range(_MAX_READ_IN_PARTING):
        if not await stream.receive_some(_RECEIVE_BYTES):
            return
