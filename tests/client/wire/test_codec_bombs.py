"""A small message must not become a large value: offsets may share what they point to."""

import struct
import tracemalloc

import pytest

from tests.client.wire.reference import build
from vastar_client import wire
from vastar_client.wire import MessageType, _reading, codec, limits
from vastar_client.wire._reading import TableReader
from vastar_client.wire._tables import TABLES, Table
from vastar_client.wire.codec import MalformedError

MIB = 2**20


def peak_of_refusal(message_type: MessageType, flatbuffer: bytes) -> int:
    """Bytes that decoding took at its peak before it refused."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match="shared strings"):
            codec.decode_message(message_type, flatbuffer)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def one_pair_many_times(value: bytes) -> bytes:
    """StreamStart whose 4096 header offsets all name one pair with `value`."""
    count = limits.MAX_HEADER_PAIRS
    head = struct.pack("<IHHHHHHiI", 16, 10, 8, 0, 0, 4, 0, 12, 4)
    vector_at = len(head)
    pair_at = vector_at + 4 + 4 * count + 8
    offsets = [pair_at - (vector_at + 4 + 4 * index) for index in range(count)]
    vector = struct.pack(f"<{count + 1}I", count, *offsets)
    pair = struct.pack("<HHHHiII", 8, 12, 4, 8, 8, 8, 12) + struct.pack("<II", 1, ord("k"))
    return head + vector + pair + struct.pack("<I", len(value)) + value + b"\0"


def test_one_pair_may_be_named_often_when_it_is_small() -> None:
    decoded = codec.decode_message(MessageType.STREAM_START, one_pair_many_times(b"v" * 50))
    assert isinstance(decoded, wire.StreamStart)
    assert decoded.headers == (("k", "v" * 50),) * limits.MAX_HEADER_PAIRS


@pytest.mark.parametrize("value", [b"v" * MIB, "\N{GRINNING FACE}".encode() * (MIB // 4)])
def test_one_large_pair_named_4096_times(value: bytes) -> None:
    """4 GiB of text in 1 MiB of message: refused after 2 Mi characters and one pair more.

    A character takes up to four bytes, and so does its decoding.
    """
    peak_bytes = peak_of_refusal(MessageType.STREAM_START, one_pair_many_times(value))
    assert peak_bytes < (4 if value[0] == ord("v") else 16) * MIB


def test_a_key_shared_by_all_pairs() -> None:
    pairs = [("k" * 64_000, str(index)) for index in range(1000)]
    flatbuffer = build("StreamStart", {"request_id": 1, "headers": pairs}, share=True)
    assert len(flatbuffer) < MIB
    assert peak_of_refusal(MessageType.STREAM_START, flatbuffer) < 3 * MIB


def one_string_for_all_fields(text: bytes) -> bytes:
    """ExecuteRequest with its six strings in one place."""
    slots = (0, 4, 8, 12, 16, 20, 0, 0, 0, 0, 0, 24)
    head = struct.pack("<IHH12H", 32, 28, 28, *slots)
    table = struct.pack("<i6I", 28, *(28 - at for at in (4, 8, 12, 16, 20, 24)))
    return head + table + struct.pack("<I", len(text)) + text + b"\0"


def test_fields_may_share_a_string() -> None:
    flatbuffer = one_string_for_all_fields(b"x" * 1000)
    decoded = codec.decode_message(MessageType.EXECUTE_REQUEST, flatbuffer)
    assert isinstance(decoded, wire.ExecuteRequest)
    assert decoded.tenant_id == decoded.idempotency_key == "x" * 1000


def test_one_large_string_for_all_fields() -> None:
    """Six fields of 8 MiB in a message of 8 MiB."""
    flatbuffer = one_string_for_all_fields(b"x" * 8 * MIB)
    assert peak_of_refusal(MessageType.EXECUTE_REQUEST, flatbuffer) < 2.5 * 8 * MIB


def test_one_large_string_is_no_bomb() -> None:
    text = "x" * 8 * MIB
    flatbuffer = build("Goaway", {"reason": text})
    assert codec.decode_message(MessageType.GOAWAY, flatbuffer) == wire.Goaway(text)


def test_the_last_pair_of_the_longest_list_is_checked_as_the_first() -> None:
    flatbuffer = bytearray(one_pair_many_times(b"v"))
    last_offset_at = 24 + 4 + 4 * (limits.MAX_HEADER_PAIRS - 1)
    struct.pack_into("<I", flatbuffer, last_offset_at, 2**32 - 1)
    with pytest.raises(MalformedError, match=r"headers: \[4095\]: table at"):
        codec.decode_message(MessageType.STREAM_START, flatbuffer)


def test_ever_new_layouts_neither_fill_memory_nor_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    laid_out: list[bytes] = []

    def noting(table: Table, vtable: bytes) -> object:
        laid_out.append(vtable)
        return lay_out(table, vtable)

    lay_out = _reading._lay_out
    monkeypatch.setattr(_reading, "_lay_out", noting)
    reader = TableReader(TABLES[MessageType.CANCEL])
    for other in range(1000):
        reader.read(memoryview(struct.pack("<IHHHHiQ", 12, 8, 12, 4, other, 8, 7)))
        assert len(reader._layouts) <= 256
    honest = memoryview(struct.pack("<IHHHxxiQ", 12, 6, 12, 4, 8, 7))
    del laid_out[:]
    for _ in range(2):
        assert reader.read(honest) == wire.Cancel(7)
    assert len(laid_out) == 1
