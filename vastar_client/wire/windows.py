"""Credit for stream data, as both ends count it: who may send how much, and when to grant more.

Two levels (PROTOCOL.md, section 6): every stream has a window for each direction, and so has the
connection; data may be sent while both have room, and only `data` bytes count. The windows begin
full on both sides, so that nobody waits for a first grant. Credit of the connection comes back when
data was received, that of a stream when it was consumed: else a few readers that stand still would
use up the connection of all the others. It is granted again at half, so that a reader that goes on
steadily never stops its sender, and a grant is not sent for every chunk.
"""

from typing import Final

from vastar_client.wire.errors import RemoteProtocolError
from vastar_client.wire.limits import MAX_WINDOW_BYTES

__all__ = ["GROWN_STREAM_WINDOW_BYTES", "ReceiveWindow", "SendWindow"]


class SendWindow:
    """What may be sent.

    Attributes:
        available_bytes: at once; never negative.
    """

    __slots__ = ("available_bytes",)

    def __init__(self, available_bytes: int) -> None:
        self.available_bytes = available_bytes

    def take(self, wanted_bytes: int) -> int:
        """Use up to `wanted_bytes`; how many there were."""
        taken_bytes = min(wanted_bytes, self.available_bytes)
        self.available_bytes -= taken_bytes
        return taken_bytes

    def grant(self, more_bytes: int) -> None:
        """The receiver allows more.

        Raises:
            RemoteProtocolError: the window would overflow; the connection is to be closed.
        """
        if self.available_bytes + more_bytes > MAX_WINDOW_BYTES:
            raise RemoteProtocolError(
                f"a window of more than {MAX_WINDOW_BYTES} bytes was granted", closes=True
            )
        self.available_bytes += more_bytes


GROWN_STREAM_WINDOW_BYTES: Final = 2_097_152
"""For a stream that is read as it comes: at 64 KiB sender and reader wait for each other most of
the time, at 512 KiB a third of it (measured: a large download in MiB/s is 200, 350, and at this
size 500)."""


class ReceiveWindow:
    """What the sender may still send, as its receiver keeps the books.

    Args:
        size_bytes: as both sides begin.
        grown_bytes: the size once a whole window has been consumed, which shows that somebody
            reads; by default it stays as it is. Who never reads is never sent more than at first.
    """

    __slots__ = ("_grown_bytes", "_owed_bytes", "_size_bytes", "_until_grown_bytes", "left_bytes")

    def __init__(self, size_bytes: int, grown_bytes: int = 0) -> None:
        self._size_bytes = self._until_grown_bytes = size_bytes
        self._grown_bytes = max(size_bytes, grown_bytes)
        self._owed_bytes = 0
        self.left_bytes = size_bytes

    def received(self, data_bytes: int) -> None:
        """So much came.

        Raises:
            RemoteProtocolError: it is more than was granted; the connection is to be closed.
        """
        if data_bytes > self.left_bytes:
            raise RemoteProtocolError(
                f"{data_bytes} bytes of stream data came where {self.left_bytes} were granted",
                closes=True,
            )
        self.left_bytes -= data_bytes

    def consumed(self, data_bytes: int) -> int:
        """So much is done with; what to grant for it now, mostly 0."""
        self._owed_bytes += data_bytes
        if self._size_bytes < self._grown_bytes:
            self._until_grown_bytes -= data_bytes
            if self._until_grown_bytes <= 0:
                self._owed_bytes += self._grown_bytes - self._size_bytes
                self._size_bytes = self._grown_bytes
        if self._owed_bytes * 2 < self._size_bytes:
            return 0
        grant_bytes, self._owed_bytes = self._owed_bytes, 0
        self.left_bytes += grant_bytes
        return grant_bytes
