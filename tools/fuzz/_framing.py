"""Level 1: bytes, and how frames lie in them. Nothing here knows what a FlatBuffer is."""

from itertools import pairwise
from struct import pack
from typing import Final

from hypothesis import strategies as st

__all__ = ["framed", "framing", "interleaved", "merged", "noise", "splits", "truncated"]

_KINDS: Final = (*range(14), 0x7F, 0x80, 0xFF)
_LENGTHS: Final = (0, 64 * 2**20 + 1, 2**31 - 1, 2**31, 2**32 - 1)
"""None of them may be believed: 0 has no type byte, the others are above the limit."""


def framed(kind: int, flatbuffer: bytes) -> bytes:
    """One sound frame: length, type byte, FlatBuffer."""
    return pack(">IB", len(flatbuffer) + 1, kind & 0xFF) + flatbuffer


def noise() -> st.SearchStrategy[bytes]:
    """Bytes that are no frame, or any type byte in front of bytes that are no table.

    What a runtime may not believe: a length of 0 or far above the limit, unknown types, types that
    only a runtime sends, no byte behind the type.
    """
    frame = st.builds(framed, st.sampled_from(_KINDS), st.binary(max_size=60))
    length = st.builds(
        lambda length, rest: pack(">I", length) + rest,
        st.sampled_from(_LENGTHS),
        st.binary(max_size=20),
    )
    return frame | frame | length | st.binary(min_size=1, max_size=60)


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in pieces to be sent one by one: whole, byte by byte, at the header, or anywhere."""
    how = draw(st.sampled_from(("whole", "bytes", "header", "random")))
    if how == "bytes" and len(data) <= 64:  # noqa: PLR2004 - each is a packet
        return [data[at : at + 1] for at in range(len(data))]
    if how == "header":
        return [piece for piece in (data[:4], data[4:5], data[5:]) if piece]
    if how == "random" and len(data) > 1:
        cuts = draw(st.lists(st.integers(1, len(data) - 1), max_size=4, unique=True))
        return [data[a:b] for a, b in pairwise([0, *sorted(cuts), len(data)])]
    return [data]


def merged(frames: st.SearchStrategy[bytes], most: int = 8) -> st.SearchStrategy[bytes]:
    """Several frames in one piece."""
    return st.lists(frames, min_size=2, max_size=most).map(b"".join)


@st.composite
def truncated(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """The beginning of a frame, at least a byte, never all of it."""
    frame = draw(frames)
    return frame[: draw(st.integers(1, max(1, len(frame) - 1)))]


@st.composite
def interleaved(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """One frame in the middle of another: both are lost, and the framing mostly with them."""
    outer, inner = draw(frames), draw(frames)
    at = draw(st.integers(1, max(1, len(outer) - 1)))
    return outer[:at] + inner + outer[at:]


@st.composite
def _over_long(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """A frame with bytes behind its FlatBuffer but inside its length, which are tolerated."""
    frame = draw(frames)
    extra = draw(st.binary(min_size=1, max_size=40))
    return pack(">I", len(frame) - 4 + len(extra)) + frame[4:] + extra


@st.composite
def _miscounted(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """A length that is a little wrong: what follows is read at the wrong place."""
    frame = draw(frames)
    length = max(0, len(frame) - 4 + draw(st.integers(-6, 6)))
    return pack(">I", length) + frame[4:]


def framing(frames: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Sound frames, framed in every bad way; what follows them may be lost."""
    return st.one_of(
        merged(frames),
        _over_long(frames),
        _miscounted(frames),
        interleaved(frames),
        truncated(frames),
        noise(),
    )
