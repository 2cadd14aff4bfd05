"""Any split of the same bytes gives the frames and errors of a reader that has them all.

Input: the limit on frames, where to cut, then the bytes of the stream: frames of small lengths, of
which each begins with three bytes of prefix that are 0 so that lengths are seldom gigantic, or
free bytes.
"""

from typing import Final

from tools.fuzz.targets._inputs import Input, cut
from vastar_client.wire.framing import FrameDecoder, FramingError

__all__ = ["check"]

_LIMITS: Final = (1, 5, 64, 70_000)
_PREFIX_BYTES: Final = 4


def check(data: bytes) -> bool:
    """Cut one stream and read it; whether all of it was frames.

    Raises:
        AssertionError: the frames or the error are others than those of the slow reader.
    """
    source = Input(data)
    limit = source.pick(_LIMITS)
    cuts = source.cuts()
    stream = source.rest() if source.chance() else _small_frames(source)
    expected = _slowly(stream, limit)
    for pieces in ([stream], cut(stream, cuts)):
        found = _read(pieces, limit)
        assert found == expected, (found, expected)
    return not expected[1] and not expected[2]


def _small_frames(source: Input) -> bytes:
    stream = b""
    while source.has_more:
        stream += b"\0\0\0" + source.take(1) + source.take(source.number() % 32)
    return stream


def _slowly(stream: bytes, limit: int) -> tuple[list[tuple[int, bytes]], str, bool]:
    """Frames, the name of the error, whether a frame is unfinished: written from the protocol."""
    frames: list[tuple[int, bytes]] = []
    while len(stream) >= _PREFIX_BYTES:
        length = int.from_bytes(stream[:_PREFIX_BYTES])
        if length == 0:
            return frames, "ZeroLengthFrameError", False
        if length > limit:
            return frames, "OversizeFrameError", False
        frame = stream[_PREFIX_BYTES : _PREFIX_BYTES + length]
        if len(frame) < length:
            break
        frames.append((frame[0], frame[1:]))
        stream = stream[_PREFIX_BYTES + length :]
    return frames, "", bool(stream)


def _read(pieces: list[bytes], limit: int) -> tuple[list[tuple[int, bytes]], str, bool]:
    decoder = FrameDecoder(limit)
    frames = []
    errors: list[str] = []
    for piece in pieces:
        decoder.receive_data(piece)
        try:
            while (frame := decoder.next_frame()) is not None:
                frames.append((frame[0], bytes(frame[1])))
        except FramingError as broken:
            errors.append(type(broken).__name__ if broken.closes else "an error that goes on")
    assert len(set(errors)) <= 1, errors
    return frames, errors[0] if errors else "", decoder.in_frame
