"""The upstream's answer, as its reader sees it.

A response holds its connection until its body has been received to the end, which for a small one
is before the reader has even seen the head. Whoever leaves earlier closes the connection: half-read
ones are never used again. Who may want the body later, and not the connection, keeps it (`keep`).
"""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from vastar_runtime.transport.errors import BodyTooLarge, TransportError
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.messages import Headers
from vastar_runtime.transport.pool import Slot

__all__ = ["UpstreamResponse"]


class UpstreamResponse:
    """Head, and a body to be read once, by one task. An async context manager: leaving it closes.

    Attributes:
        status: 200 to 999; interim responses were skipped.
        reason: the reason phrase, maybe empty.
        http_version: "1.1" or "1.0".
        headers: (name in lower case, value) in the order received, repeated ones kept.
        trailers: the same, of a chunked body; complete when the body is.
    """

    __slots__ = (
        "_aborted",
        "_body",
        "_connection",
        "_failure",
        "_give_back",
        "_slot",
        "headers",
        "http_version",
        "reason",
        "status",
        "trailers",
    )

    def __init__(
        self,
        connection: Http1Connection,
        slot: Slot[Http1Connection],
        give_back: Callable[[Slot[Http1Connection]], None],
    ) -> None:
        parser = connection.parser
        self.status: int = parser.status
        self.reason: bytes = parser.reason
        self.http_version: str = parser.http_version
        self.headers: Headers = parser.headers
        self.trailers: Headers = parser.trailers
        self._body = parser.body
        self._failure: TransportError | None = None
        self._aborted = False
        self._slot = slot
        self._give_back = give_back
        self._connection: Http1Connection | None = connection
        if parser.complete:
            self._end()

    def _end(self) -> None:
        """Return the connection, to be used again if its response is whole, else to be closed."""
        if self._connection is not None:
            self._connection = None
            self._give_back(self._slot)

    @property
    def ended(self) -> bool:
        """Whether nothing is left on the connection; received pieces may still wait here."""
        return self._connection is None

    @property
    def is_kept(self) -> bool:
        """Whether all that there will be of the body is here, read or not: `keep` would be idle."""
        return self._connection is None and not self._aborted

    async def read_some(self) -> bytes:
        """The next piece of the body, at least one byte; `b""` at its end.

        Cancelling loses nothing: read again, or leave. Content codings are not undone.

        Raises:
            TransportError: the body cannot be had whole. What came before was delivered.
        """
        body = self._body
        if not body and not await self._fill():
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    async def _fill(self) -> bool:
        while not self._body:
            connection = self._connection
            if connection is not None:
                await self._receive(connection)
            elif self._failure is not None:
                raise self._failure
            else:
                return False
        return True

    async def _receive(self, connection: Http1Connection) -> None:
        # Once. A failure is the end, and is told behind what came before it.
        try:
            await connection.read_more()
        except TransportError as error:
            self._failure = error
            self._end()
        else:
            if connection.parser.complete:
                self._end()

    async def read_all(self, max_bytes: int | None = None) -> bytes:
        """The rest of the body.

        Raises:
            BodyTooLarge: it is longer than `max_bytes`; the connection is closed.
            TransportError: the body cannot be had whole.
        """
        if max_bytes is not None:
            self._refuse_over(max_bytes)
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read_some():
            pieces.append(piece)
            size += len(piece)
            if max_bytes is not None and size > max_bytes:
                self.abort()
                raise BodyTooLarge(max_bytes)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _refuse_over(self, max_bytes: int) -> None:
        """Do not wait for a body that already says it is too long."""
        if self._connection is not None and self._declared_bytes() > max_bytes:
            self.abort()
            raise BodyTooLarge(max_bytes)

    def _declared_bytes(self) -> int:
        """How long the body says it is, the part read already included; 0 when it does not say."""
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)
        return 0

    async def keep(self, max_bytes: int) -> bool:
        """Receive the rest of the body into the response, to be read later; free the connection.

        Cancelling loses nothing: what came so far can be read, the rest be received, or all left.

        Args:
            max_bytes: how much of the body the response may hold unread.

        Returns:
            Whether the response can still be read. If not, its body is longer, and it was aborted.
            What could not be had whole is kept as far as it came: reading raises behind it.
        """
        connection = self._connection
        held_bytes = sum(map(len, self._body))
        if connection is not None:
            parser = connection.parser
            delivered_bytes = parser.body_bytes - held_bytes
            if self._declared_bytes() - delivered_bytes > max_bytes:
                held_bytes = max_bytes + 1  # as it says; not waited for
            while self._connection is not None and held_bytes <= max_bytes:
                await self._receive(connection)
                held_bytes = parser.body_bytes - delivered_bytes
        if held_bytes > max_bytes:
            self.abort()
            return False
        return True

    def abort(self) -> None:
        """Let go of the response, whatever is left of it. Never waits; may be called again."""
        self._aborted = True
        self._body.clear()
        self._end()

    async def aclose(self) -> None:
        """The same as `abort`, for `async with` and its relatives. It does not wait either."""
        self.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()
