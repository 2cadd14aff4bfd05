"""A request body that comes in pieces while it is sent, and can begin again while it is young.

What was read is kept until it is too much; then it is dropped, and the body can be sent once only.
It is kept as one buffer: a body of single bytes must not cost many times its length.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from vastar_runtime.transport.messages import BodySource, Buffer

__all__ = ["REPLAY_BYTES", "StreamedBody"]

REPLAY_BYTES: Final = 65536
"""Of a body that are kept to be sent again (one window of a stream)."""


class StreamedBody(BodySource):
    """A body made by a function.

    Args:
        receive: the next bytes, `b""` at the end; not called after that. Cancelling must lose
            nothing. May raise `BodyAborted`, and then whenever it is called again.
        length_bytes: see `BodySource`.
    """

    __slots__ = ("_again", "_has_ended", "_kept", "_receive", "consumed_bytes", "length_bytes")

    def __init__(
        self, receive: Callable[[], Awaitable[Buffer]], length_bytes: int | None = None
    ) -> None:
        self.length_bytes = length_bytes
        self.consumed_bytes = 0
        self._receive = receive
        self._kept: bytearray | None = bytearray()
        self._again = b""
        self._has_ended = False

    async def read_some(self) -> Buffer:
        """See `BodySource.read_some`."""
        piece: Buffer
        if self._again:
            piece, self._again = self._again, b""
        elif self._has_ended:
            return b""
        else:
            piece = await self._receive()
            self._keep(piece)
        self.consumed_bytes += len(piece)
        return piece

    def _keep(self, piece: Buffer) -> None:
        self._has_ended = not piece
        if self._kept is not None:
            if len(self._kept) + len(piece) <= REPLAY_BYTES:
                self._kept += piece
            else:
                self._kept = None

    def rewind(self) -> bool:
        """See `BodySource.rewind`."""
        if self._kept is None:
            return False
        self._again = bytes(self._kept)
        self.consumed_bytes = 0
        return True
