"""The supervisor's end of the socket to one worker: never waits, never holds too much.

A worker that hangs reads nothing. What is for it is held up to a bound, and what comes then is
dropped: questions have deadlines, and orders are repeated by a signal.
"""

import socket
from typing import Final

from vastar_runtime.workers.frames import FrameError, FrameReader, Message, encode

__all__ = ["MAX_HELD_BYTES", "WireEnd"]

MAX_HELD_BYTES: Final = 32 * 1024 * 1024
_READ_BYTES: Final = 262_144


class WireEnd:
    """One end; closed when the worker is gone.

    Args:
        sock: a non-blocking stream socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._reader = FrameReader()
        self._held = bytearray()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for the socket to take it."""
        return bool(self._held)

    def send(self, message: Message) -> bool:
        """Send now or soon; whether there was room for it.

        Raises:
            FrameError: the message is too long for any worker.
        """
        frame = encode(message)
        if len(self._held) + len(frame) > MAX_HELD_BYTES:
            return False
        self._held += frame
        self.write()
        return True

    def write(self) -> None:
        """Write what the socket takes."""
        while self._held:
            try:
                sent = self.socket.send(self._held)
            except BlockingIOError:
                return
            except OSError:  # it is gone; its end is told by the process
                self._held.clear()
                return
            del self._held[:sent]

    def read(self) -> list[Message] | None:
        """What came; None at the end of the stream, or when what came is no message."""
        try:
            data = self.socket.recv(_READ_BYTES)
            return self._reader.feed(data) if data else None
        except BlockingIOError:
            return []
        except (OSError, FrameError):
            return None

    def close(self) -> None:
        """Close it."""
        self.socket.close()
