"""How a body that is sent in pieces is marked off (RFC 9112, 6 and 7.1), without I/O.

`frame` takes every piece and then `b""`, and gives what to send for it. No upstream is made to
believe that it has the whole of a body that is shorter or longer than declared: the piece that
would complete it is held until the end has come.
"""

from collections.abc import Sequence
from typing import Protocol

from vastar_runtime.transport.errors import LocalFault
from vastar_runtime.transport.messages import Buffer

__all__ = ["Framing", "framing_for"]


class Framing(Protocol):
    """The framing of one body."""

    def frame(self, piece: Buffer) -> Sequence[Buffer]:
        """What to send for the next piece, maybe nothing; an empty piece is the end.

        Raises:
            LocalFault: the body is not as long as it was said to be.
        """


def framing_for(length_bytes: int | None) -> Framing:
    """The framing of a body of that length; `None` = not known."""
    return _Chunked() if length_bytes is None else _Counted(length_bytes)


class _Chunked:
    """Each piece behind its length; an empty chunk ends the body, so there is none before."""

    def frame(self, piece: Buffer) -> Sequence[Buffer]:
        return (b"%x\r\n" % len(piece), piece, b"\r\n") if piece else (b"0\r\n\r\n",)


class _Counted:
    """As it is, and counted."""

    def __init__(self, length_bytes: int) -> None:
        self._length_bytes = length_bytes
        self._came_bytes = 0
        self._last: Sequence[Buffer] = ()

    def frame(self, piece: Buffer) -> Sequence[Buffer]:
        self._came_bytes += len(piece)
        if self._came_bytes > self._length_bytes:
            raise LocalFault(
                f"the request body is longer than the {self._length_bytes} bytes declared"
            )
        if piece:
            if self._came_bytes < self._length_bytes:
                return (piece,)
            self._last = (piece,)
            return ()
        if self._came_bytes < self._length_bytes:
            raise LocalFault(
                f"the request body ended short: {self._came_bytes} of {self._length_bytes} bytes"
            )
        return self._last
