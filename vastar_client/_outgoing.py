"""What waits to be written on a connection, and in which order it goes.

Shape: three lines. Cancels and credits go ahead of everything, since they must never wait behind
what they are about. Then come messages, in their order. Chunks of bodies come last, one of each
body in turn; they are cut as they are written, when it is known what both windows allow.

No I/O, and no checkpoint but in `wait`.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

import anyio

from vastar_client._entries import StreamEntry, UnaryEntry
from vastar_client.wire import Buffer, Cancel, Connection, CreditUpdate, LocalProtocolError
from vastar_client.wire.limits import INITIAL_CONNECTION_WINDOW_BYTES
from vastar_client.wire.windows import SendWindow

__all__ = ["AnyEntry", "Outgoing"]

_BATCH_BYTES: Final = 65_536
"""Frames are gathered into one write up to about this size; a longer buffer goes out uncopied."""

AnyEntry: TypeAlias = UnaryEntry | StreamEntry


class Outgoing:
    """The lines of one connection.

    Args:
        connection: encodes the frames.
        refuse: told of an entry whose message cannot be encoded.
    """

    def __init__(
        self, connection: Connection, refuse: Callable[[AnyEntry, LocalProtocolError], None]
    ) -> None:
        self._connection = connection
        self._refuse = refuse
        self._urgent: deque[Cancel | CreditUpdate] = deque()
        self._messages: deque[AnyEntry] = deque()
        self._uploads: deque[AnyEntry] = deque()
        self._window = SendWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._wake = anyio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._messages) + len(self._uploads)

    def put(self, entry: AnyEntry) -> None:
        """Send the message of `entry` in its turn, and then what its upload has."""
        self._messages.append(entry)
        self._wake.set()

    def line_up(self, entry: AnyEntry) -> None:
        """As `put`, but whoever does it has the lines sent: by `gather`, or by `wake`."""
        self._messages.append(entry)

    def wake(self) -> None:
        """Have the writer look."""
        self._wake.set()

    def put_first(self, control: Cancel | CreditUpdate) -> None:
        """Send `control` before anything else."""
        self._urgent.append(control)
        self._wake.set()

    def remove(self, entry: AnyEntry) -> None:
        """Do not send the message of `entry`, if it has not been yet."""
        with suppress(ValueError):
            self._messages.remove(entry)

    def offer(self, entry: AnyEntry) -> None:
        """There may be a chunk of the body of `entry` to send."""
        upload = entry.upload
        if upload is None or upload.queued or not (entry.written and upload.has_chunk):
            return
        upload.queued = True
        self._uploads.append(entry)
        self._wake.set()

    def grant(self, data_bytes: int) -> None:
        """The runtime takes so much more of all bodies together.

        Raises:
            RemoteProtocolError: the window would overflow.
        """
        self._window.grant(data_bytes)
        self._wake.set()

    def clear(self) -> None:
        """Nothing can be sent any more."""
        for line in (self._urgent, self._messages, self._uploads):
            line.clear()

    async def wait(self) -> None:
        """Wait until something new may be there; only the writer does."""
        await self._wake.wait()
        self._wake = anyio.Event()

    def gather(self) -> list[Buffer]:
        """The next frames, up to about `_BATCH_BYTES`, in as few buffers as need no big copy."""
        buffers: list[Buffer] = []
        small: list[Buffer] = []
        gathered_bytes = 0
        while gathered_bytes < _BATCH_BYTES and (frame := self._next_frame()) is not None:
            for buffer in frame:
                gathered_bytes += len(buffer)
                if len(buffer) < _BATCH_BYTES:
                    small.append(buffer)
                    continue
                if small:
                    buffers.append(b"".join(small))
                    small = []
                buffers.append(buffer)
        if small:
            buffers.append(b"".join(small))
        return buffers

    def _next_frame(self) -> list[Buffer] | None:
        """The frame that goes next; None when there is none that may be sent."""
        if self._urgent:
            return self._connection.send(self._urgent.popleft())
        if self._messages:
            return self._encode(self._messages.popleft())
        return self._next_chunk()

    def _encode(self, entry: AnyEntry) -> list[Buffer]:
        """The frame of the message of `entry`; nothing when it cannot be written."""
        try:
            buffers = self._connection.send(entry.message)
        except LocalProtocolError as error:
            self._refuse(entry, error)
            return []
        entry.written = True
        self.offer(entry)
        return buffers

    def _next_chunk(self) -> list[Buffer] | None:
        """The chunk whose turn it is; None when no body has one, or the window is spent."""
        while self._uploads:
            entry = self._uploads.popleft()
            upload = entry.upload
            assert upload is not None, "`offer` has seen it"
            upload.queued = False
            if not upload.has_chunk:  # the call has ended meanwhile
                continue
            chunk = upload.next_chunk(entry.request_id, self._window)
            if chunk is not None:
                self.offer(entry)
                return self._connection.send(chunk)
            upload.queued = True
            self._uploads.appendleft(entry)
            return None
        return None
