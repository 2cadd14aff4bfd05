"""Hypothesis strategies for frames of the Vastar wire protocol, at three levels.

For the tests of any implementation, in any Python program:

    from hypothesis import given
    from tools.fuzz import strategies as vastar

    @given(vastar.byte_level())
    def test_reader_never_crashes(data): ...

Level 1, `byte_level`: the framing lies. Frames merged into one piece, cut short, one inside
another, a length a little wrong, 0 or gigantic, unknown types, noise. `splits(data)` cuts any bytes
into pieces. A reader has to answer what it can and close the connection where framing is lost.

Level 2, `buffer_level`: the framing holds, the FlatBuffer lies. Offsets and vtables spoiled, fields
outside of their table, strings behind the end, things that contain themselves, a pair named
thousands of times. A reader has to refuse the frame and go on.

Level 3, `message_level`: every reader understands it, and the values are hostile. Ids that are used
again or need 64 bits, deadlines at all extremes, huge headers, unknown connectors, credit that is
negative or overflows, cancels of what is not there, chunks out of order.

All draw bytes that are to be sent by a caller. None reaches a network: the connectors that they
call run nothing (`http_request` makes calls that do, for a URL of yours). With `is_base=True` only
the published protocol (type 0, its nine fields) is spoken.
"""

from hypothesis import strategies as st

from tools.fuzz._buffers import cycles, hostile_buffers, hostile_frames, spoiled
from tools.fuzz._framing import (
    framed,
    framing,
    interleaved,
    merged,
    noise,
    splits,
    truncated,
)
from tools.fuzz._messages import (
    DEADLINES_MS,
    REQUEST_IDS,
    chunks,
    credits_of,
    frame_of,
    http_request,
    ids,
    other_messages,
    requests,
)

__all__ = [
    "DEADLINES_MS",
    "REQUEST_IDS",
    "buffer_level",
    "byte_level",
    "chunks",
    "credits_of",
    "cycles",
    "frame_of",
    "framed",
    "framing",
    "hostile_buffers",
    "hostile_frames",
    "http_request",
    "ids",
    "interleaved",
    "merged",
    "message_level",
    "noise",
    "other_messages",
    "requests",
    "splits",
    "spoiled",
    "truncated",
]


def message_level(*, is_base: bool = False) -> st.SearchStrategy[bytes]:
    """Level 3: whole frames of sound messages with hostile values."""
    messages = requests(is_base=is_base)
    if not is_base:
        messages = messages | messages | other_messages(ids())
    return messages.map(frame_of)


def buffer_level(*, is_base: bool = False) -> st.SearchStrategy[bytes]:
    """Level 2: sound frames around hostile FlatBuffers."""
    good = message_level(is_base=is_base).map(lambda frame: (frame[4], frame[5:]))
    return hostile_frames(good, is_base=is_base)


def byte_level() -> st.SearchStrategy[bytes]:
    """Level 1: bytes with hostile framing; what follows them on a connection may be lost."""
    return framing(message_level())
