"""Framing: `u32 big-endian L | u8 type | L-1 bytes`, in any split, sans-IO.

Shape: a frame that lies whole in one received chunk is handed out as a view of that chunk. A
frame that does not is collected in a buffer of exactly its own length, made when its prefix is
known, so each of its bytes is copied once, however the peer splits it. The pages of a fresh
buffer cost no memory before they are written, so a header that promises 64 MiB reserves
address space only.

A frame over the limit is refused from its prefix, before any of its body is kept.
"""

from typing import Final

from vastar_client.wire.errors import RemoteProtocolError
from vastar_client.wire.limits import FRAME_HEADER_BYTES, LENGTH_PREFIX_BYTES

__all__ = [
    "FrameDecoder",
    "FramingError",
    "OversizeFrameError",
    "ZeroLengthFrameError",
    "frame_header",
]


class FramingError(RemoteProtocolError):
    """The boundaries of the frames are lost: nothing after this can be understood."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, closes=True)


class ZeroLengthFrameError(FramingError):
    """A length prefix of 0: there is not even a type byte."""


class OversizeFrameError(FramingError):
    """A length prefix above the limit of this side."""


class FrameDecoder:
    """Cuts received bytes into frames.

    Feed with `receive_data`, then call `next_frame` until it returns None.

    Attributes:
        max_frame_bytes: largest length prefix accepted (type byte and FlatBuffer).
    """

    __slots__ = ("_collected", "_collected_bytes", "_data", "_position", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes: Final = max_frame_bytes
        self._data: bytes | bytearray = b""
        self._position = 0
        self._collected: bytearray | None = None
        self._collected_bytes = 0

    @property
    def in_frame(self) -> bool:
        """Whether a frame was begun and is not whole yet."""
        return self._collected is not None or self._position < len(self._data)

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the stream. `data` must not change afterwards."""
        if self._position < len(self._data):
            self._data = self._data[self._position :] + data
        else:
            self._data = data
        self._position = 0

    def next_frame(self) -> tuple[int, memoryview] | None:
        """The next whole frame as (type byte, FlatBuffer), or None when more data is needed.

        Raises:
            ZeroLengthFrameError: the prefix is 0.
            OversizeFrameError: the prefix is above `max_frame_bytes`.
        """
        if self._collected is not None:
            return self._collect()
        data, start = self._data, self._position
        available_bytes = len(data) - start - LENGTH_PREFIX_BYTES
        if available_bytes < 0:
            return None
        body_at = start + LENGTH_PREFIX_BYTES
        frame_bytes = int.from_bytes(data[start:body_at])
        if not 0 < frame_bytes <= self.max_frame_bytes:
            self._refuse(frame_bytes)
        if available_bytes >= frame_bytes:
            self._position = end = body_at + frame_bytes
            return data[body_at], memoryview(data)[body_at + 1 : end]
        self._collected = bytearray(frame_bytes)
        self._collected_bytes = 0
        self._position = body_at
        return self._collect()

    def _collect(self) -> tuple[int, memoryview] | None:
        """Move what is there into the frame being collected; hand it out when it is whole."""
        frame = self._collected
        assert frame is not None
        begun = self._collected_bytes
        take = min(len(frame) - begun, len(self._data) - self._position)
        end = self._position + take
        frame[begun : begun + take] = memoryview(self._data)[self._position : end]
        self._position = end
        self._collected_bytes = begun + take
        if self._collected_bytes < len(frame):
            self._data, self._position = b"", 0
            return None
        self._collected = None
        return frame[0], memoryview(frame)[1:]

    def _refuse(self, frame_bytes: int) -> None:
        if frame_bytes == 0:
            raise ZeroLengthFrameError(
                "a frame of length 0: the length counts at least the type byte"
            )
        raise OversizeFrameError(
            f"a frame of {frame_bytes} bytes exceeds the limit of {self.max_frame_bytes} bytes"
        )


def frame_header(message_type: int, flatbuffer_bytes: int) -> bytes:
    """The five bytes in front of a FlatBuffer of `flatbuffer_bytes` bytes."""
    prefix = (flatbuffer_bytes + FRAME_HEADER_BYTES - LENGTH_PREFIX_BYTES).to_bytes(
        LENGTH_PREFIX_BYTES
    )
    return prefix + bytes((message_type,))
