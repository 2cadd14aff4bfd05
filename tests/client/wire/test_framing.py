"""Framing: any split gives the same frames, and nothing is kept that need not be."""

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.wire.strategies import chunks
from vastar_client.wire import framing, limits
from vastar_client.wire.framing import FrameDecoder

MIB = 2**20
frames_strategy = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=6)


def framed(message_type: int, body: bytes) -> bytes:
    return framing.frame_header(message_type, len(body)) + body


def drain(decoder: FrameDecoder) -> list[tuple[int, bytes]]:
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append((frame[0], bytes(frame[1])))
    return frames


def test_the_header_counts_the_type_byte() -> None:
    assert framing.frame_header(3, 0) == b"\0\0\0\x01\x03"
    assert framing.frame_header(12, 0x01020303) == b"\x01\x02\x03\x04\x0c"
    assert len(framing.frame_header(0, 0)) == limits.FRAME_HEADER_BYTES


@given(frames=frames_strategy, data=st.data())
def test_any_split_gives_the_same_frames(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(framed(*frame) for frame in frames)
    tail = data.draw(st.integers(0, 3))  # the beginning of one more
    decoder = FrameDecoder(1000)
    received = []
    for chunk in data.draw(chunks(stream + bytes(tail))):
        decoder.receive_data(chunk)
        received += drain(decoder)
    assert received == frames
    assert decoder.in_frame is (tail > 0)


@given(frames=frames_strategy, data=st.data())
def test_chunks_may_pile_up_before_they_are_read(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    decoder = FrameDecoder(1000)
    for chunk in data.draw(chunks(b"".join(framed(*frame) for frame in frames))):
        decoder.receive_data(chunk)
    assert drain(decoder) == frames
    assert not decoder.in_frame


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_frame_within_a_chunk_is_a_view_of_it(kind: type[bytes | bytearray]) -> None:
    decoder = FrameDecoder(1000)
    chunk = kind(framed(0, b"first") + framed(1, b"second") + b"\0")
    decoder.receive_data(chunk)
    for expected in (b"first", b"second"):
        frame = decoder.next_frame()
        assert frame is not None
        assert frame[1] == expected
        assert frame[1].obj is chunk
    assert decoder.next_frame() is None


def test_in_frame_is_true_from_the_first_byte_to_the_last_but_one() -> None:
    decoder = FrameDecoder(1000)
    assert not decoder.in_frame
    stream = framed(7, b"abc")
    for position in range(len(stream)):
        decoder.receive_data(stream[position : position + 1])
        frame = decoder.next_frame()
        last = position == len(stream) - 1
        assert (frame is not None) is last
        assert decoder.in_frame is not last


def test_a_zero_length_frame_loses_the_framing() -> None:
    decoder = FrameDecoder(1000)
    decoder.receive_data(framed(1, b"good") + bytes(4))
    assert decoder.next_frame() == (1, b"good")
    with pytest.raises(framing.ZeroLengthFrameError, match="length 0") as caught:
        decoder.next_frame()
    assert caught.value.closes


def test_the_limit_counts_as_the_prefix_does() -> None:
    body = bytes(99)
    fits = FrameDecoder(100)
    fits.receive_data(framed(1, body))
    assert fits.next_frame() == (1, body)
    refuses = FrameDecoder(99)
    refuses.receive_data(framed(1, body))
    with pytest.raises(framing.OversizeFrameError, match="100 bytes exceeds the limit of 99"):
        refuses.next_frame()


@pytest.mark.parametrize("prefix", [bytes(4), b"\xff\xff\xff\xff"], ids=["zero", "oversize"])
def test_a_refusal_needs_four_bytes_and_keeps_nothing(prefix: bytes) -> None:
    """Nor of what is fed after it, however long the driver goes on."""
    decoder = FrameDecoder(1000)
    decoder.receive_data(prefix[:3])
    assert decoder.next_frame() is None
    decoder.receive_data(prefix[3:])
    with pytest.raises(framing.FramingError):
        decoder.next_frame()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(16):
            decoder.receive_data(bytes(64 * 1024))
            with pytest.raises(framing.FramingError):
                decoder.next_frame()
        kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 32 * 1024
    assert peak_bytes < 160 * 1024
    assert not decoder.in_frame


def test_an_oversize_frame_in_one_chunk_lets_go_of_the_chunk() -> None:
    decoder = FrameDecoder(1000)
    tracemalloc.start()
    try:
        decoder.receive_data(b"\xff\xff\xff\xff" + bytes(8 * MIB))
        with pytest.raises(framing.OversizeFrameError):
            decoder.next_frame()
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()


def test_a_promise_of_64_mib_costs_no_memory() -> None:
    """Five bytes must not make the other end commit 64 MiB."""
    decoder = FrameDecoder(limits.MAX_REQUEST_FRAME_BYTES)
    tracemalloc.start()
    try:
        decoder.receive_data(limits.MAX_REQUEST_FRAME_BYTES.to_bytes(4) + b"\0")
        assert decoder.next_frame() is None
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()
    assert decoder.in_frame


def test_a_large_frame_is_held_once() -> None:
    """8 MiB in pieces peak at little more than 8 MiB: collected, not gathered and joined."""
    piece = bytes(64 * 1024)
    decoder = FrameDecoder(limits.MAX_REQUEST_FRAME_BYTES)
    frame = None
    tracemalloc.start()
    try:
        decoder.receive_data(framing.frame_header(0, 8 * MIB))
        for _ in range(8 * MIB // len(piece)):
            assert decoder.next_frame() is None
            decoder.receive_data(piece)
        frame = decoder.next_frame()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert frame is not None
    assert frame[1].nbytes == 8 * MIB
    assert peak_bytes < 1.25 * 8 * MIB


def test_feeding_byte_by_byte_is_linear() -> None:
    """Counted: between two feeds nothing is held uncollected but a piece of a prefix."""
    decoder = FrameDecoder(MIB)
    stream = framed(0, bytes(20_000)) + framed(1, bytes(100)) * 20
    touched_bytes, frames = 0, 0
    for position in range(len(stream)):
        decoder.receive_data(stream[position : position + 1])
        touched_bytes += len(decoder._data)
        while decoder.next_frame() is not None:
            frames += 1
    assert frames == 21
    assert touched_bytes <= 4 * len(stream)


def test_many_frames_of_one_chunk_are_cut_without_moving_it() -> None:
    decoder = FrameDecoder(MIB)
    chunk = framed(2, b"") * 1000
    decoder.receive_data(chunk)
    for _ in range(1000):
        assert decoder.next_frame() == (2, b"")
        assert decoder._data is chunk
    assert decoder.next_frame() is None


def test_what_was_handed_out_is_not_touched_by_what_comes_later() -> None:
    decoder = FrameDecoder(MIB)
    frames = []
    stream = framed(0, b"a" * 100) + framed(1, b"b" * 100)
    for start in range(0, len(stream), 30):
        decoder.receive_data(stream[start : start + 30])
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    assert frames == [(0, b"a" * 100), (1, b"b" * 100)]
