"""The codec against the generated code, both ways, for every table and any subset of fields."""

from array import array
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.wire.reference import (
    DECODE,
    ENCODE,
    VALUE_TYPES,
    build,
    expected,
    make,
    plain,
    read,
    same,
)
from tests.client.wire.schema import TABLES
from tests.client.wire.strategies import table_values
from vastar_client import wire
from vastar_client.wire import _generated, codec, limits

each_table = pytest.mark.parametrize("table", VALUE_TYPES)


def encoded(table: str, message: Any) -> bytes:
    return b"".join(ENCODE[table](message))


@each_table
@given(data=st.data())
def test_what_the_builder_writes_we_read(table: str, data: st.DataObject) -> None:
    values = data.draw(table_values(table))
    share, defaults = data.draw(st.booleans()), data.draw(st.booleans())
    flatbuffer = build(table, values, share=share, defaults=defaults)
    assert same(table, plain(table, DECODE[table](flatbuffer)), expected(table, values))


@each_table
@given(data=st.data())
def test_what_we_write_the_accessors_read(table: str, data: st.DataObject) -> None:
    values = data.draw(table_values(table))
    flatbuffer = encoded(table, make(table, values))
    assert same(table, read(table, flatbuffer), expected(table, values))
    assert_aligned(table, flatbuffer)


@each_table
@given(data=st.data())
def test_what_we_write_we_read(table: str, data: st.DataObject) -> None:
    message = make(table, data.draw(table_values(table)))
    junk = data.draw(st.binary(max_size=9))
    decoded = DECODE[table](encoded(table, message) + junk)
    assert decoded == message
    assert DECODE[table](encoded(table, decoded)) == message


def assert_aligned(table: str, flatbuffer: bytes) -> None:
    """Every number lies at a multiple of its size, a nested FlatBuffer at a multiple of 8."""
    root = getattr(_generated, table).GetRootAs(flatbuffer)._tab
    assert root.Pos % 4 == 0
    widths = {"bool": 1, "ushort": 2, "int": 4, "uint": 4, "long": 8, "ulong": 8}
    for field in TABLES[table]:
        offset = root.Offset(4 + 2 * field.slot)
        if not offset:
            continue
        at = root.Pos + offset
        width = widths.get(field.type, 1 if field.enum else 4)
        assert at % width == 0, field.name
        if field.type == "string":
            assert_string_is_whole(flatbuffer, root.Indirect(at))
        elif field.type == "[ubyte]":
            assert root.Vector(offset) % 8 == 0, field.name
        elif field.type == "[KeyValue]":
            assert_pairs_aligned(flatbuffer, root, offset)


def assert_string_is_whole(flatbuffer: bytes, at: int) -> None:
    """Aligned to its counter, and with the NUL that C readers need."""
    assert at % 4 == 0
    end = at + 4 + int.from_bytes(flatbuffer[at : at + 4], "little")
    assert flatbuffer[end] == 0


def assert_pairs_aligned(flatbuffer: bytes, root: Any, offset: int) -> None:
    first = root.Vector(offset)
    assert first % 4 == 0
    for index in range(root.VectorLen(offset)):
        pair = _generated.KeyValue()
        pair.Init(flatbuffer, root.Indirect(first + 4 * index))
        assert pair._tab.Pos % 4 == 0
        for slot in (4, 6):
            at = pair._tab.Pos + pair._tab.Offset(slot)
            assert_string_is_whole(flatbuffer, pair._tab.Indirect(at))


@given(request=table_values("HttpRequest"), response=table_values("HttpResponse"))
def test_a_native_payload_travels_inside_its_message(
    request: dict[str, Any], response: dict[str, Any]
) -> None:
    """Its own buffers go in as they are; its 8-byte grid is that of the message around it."""
    inner = make("HttpRequest", request)
    outer = wire.ExecuteRequest(1, "t", "http", "request", payload=wire.encode_http_request(inner))
    received = codec.decode_message(outer.TYPE, b"".join(codec.encode_message(outer)))
    assert wire.decode_http_request(received.payload) == inner
    answer = make("HttpResponse", response)
    carrier = wire.ExecuteResponse(1, payload=wire.encode_http_response(answer))
    frame = b"".join(codec.encode_message(carrier))
    assert_aligned("ExecuteResponse", frame)
    payload = codec.decode_message(carrier.TYPE, frame).payload
    assert wire.decode_http_response(payload) == answer
    assert_aligned("HttpResponse", bytes(payload))


@each_table
def test_absent_fields_read_as_the_schema_says(table: str) -> None:
    values = {f.name: "x" for f in TABLES[table] if f.required}
    decoded = DECODE[table](build(table, values))
    assert same(table, plain(table, decoded), expected(table, values))
    assert same(table, read(table, encoded(table, decoded)), expected(table, values))


def test_a_required_field_is_written_though_it_is_the_default() -> None:
    """The method GET is the default of the class, but the schema requires the slot."""
    flatbuffer = encoded("HttpRequest", wire.HttpRequest("http://h/"))
    assert _generated.HttpRequest.GetRootAs(flatbuffer).Method() == b"GET"


def test_a_required_field_that_is_none_is_refused_before_anything_is_sent() -> None:
    message = wire.ExecuteRequest(1, None, "http", "request")  # type: ignore[arg-type]
    with pytest.raises(wire.LocalProtocolError, match="tenant_id"):
        codec.encode_message(message)


def test_a_native_answer_without_status_has_status_0() -> None:
    assert wire.decode_http_response(build("HttpResponse", {})).status_code == 0


def test_equal_bytes_are_written_for_equal_combinations_of_fields() -> None:
    """A layout is computed once per combination; the second use gives what the first gave."""
    message = wire.Goaway("restart", 5)
    assert codec.encode_message(message) == codec.encode_message(message)


# Bodies


def test_a_body_leaves_as_the_object_that_came_in() -> None:
    view = memoryview(bytearray(b"x" * 1000))
    buffers = codec.encode_message(wire.StreamChunk(1, data=view))
    assert buffers[-1] is view


@pytest.mark.parametrize("sequence", [list, tuple, deque])
def test_a_body_may_be_a_sequence_of_buffers(sequence: Any) -> None:
    parts = [b"one", bytearray(b"two"), memoryview(b"three"), b""]
    buffers = codec.encode_message(wire.ExecuteResponse(1, payload=sequence(parts)))
    assert all(sent is part for sent, part in zip(buffers[1:], parts, strict=True))
    decoded = codec.decode_message(wire.MessageType.EXECUTE_RESPONSE, b"".join(buffers))
    assert decoded.payload == b"onetwothree"


def test_an_empty_body_is_present_and_empty() -> None:
    for empty in (b"", [], ()):
        flatbuffer = encoded("StreamChunk", wire.StreamChunk(1, data=empty))
        assert read("StreamChunk", flatbuffer)["data"] == b""


@pytest.mark.parametrize(
    "view",
    [
        memoryview(array("I", range(8))),
        memoryview(bytes(range(16))).cast("B", (4, 4)),
    ],
    ids=["items of 4 bytes", "two dimensions"],
)
def test_a_view_of_items_counts_by_its_bytes(view: memoryview) -> None:
    """A length in items would shift every frame behind it."""
    buffers = codec.encode_message(wire.StreamChunk(1, data=view))
    flatbuffer = b"".join(buffers)
    assert sum(map(len, buffers)) == len(flatbuffer)
    assert read("StreamChunk", flatbuffer)["data"] == view.tobytes()


def test_a_view_with_gaps_is_refused_before_anything_is_sent() -> None:
    """A socket would refuse it in the middle of the frame."""
    with pytest.raises(wire.LocalProtocolError, match="contiguous"):
        codec.encode_message(wire.StreamChunk(1, data=memoryview(b"0123456789")[::2]))


def test_a_decoded_body_is_a_view_of_the_received_buffer() -> None:
    """Of a small message a copy is cheaper than views; from 1 KiB on nothing is copied."""
    flatbuffer = encoded("StreamChunk", wire.StreamChunk(1, data=b"x" * 1024))
    decoded = codec.decode_message(wire.MessageType.STREAM_CHUNK, flatbuffer)
    assert decoded.data.obj is flatbuffer


def test_one_buffer_copies_only_what_is_in_pieces() -> None:
    for whole in (b"x", bytearray(b"x"), memoryview(b"x")):
        assert codec.one_buffer(whole) is whole
    assert codec.one_buffer([b"a", memoryview(b"b"), bytearray(b"c")]) == b"abc"
    assert codec.one_buffer(None) == codec.one_buffer([]) == b""


def test_the_length_of_a_payload_is_that_of_all_its_pieces() -> None:
    for whole in (b"abcd", memoryview(b"abcd"), bytearray(b"abcd")):
        assert codec.payload_bytes(whole) == codec.payload_bytes([whole]) == 4
    assert codec.payload_bytes((b"ab", memoryview(b"c"))) == 3
    assert codec.payload_bytes([]) == 0


# What cannot be written


@pytest.mark.parametrize(
    "message",
    [
        wire.Cancel(-1),
        wire.Cancel(2**64),
        wire.CreditUpdate(credit_delta=2**31),
        wire.Goaway(drain_ms=-1),
        wire.StreamStart(1, status_code=2**16),
        wire.Goaway(reason="\ud800"),
        wire.StreamStart(1, headers=[("k", "\udfff")]),
        wire.StreamStart(1, headers=[("k", "v")] * (limits.MAX_HEADER_PAIRS + 1)),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_our_callers_fault(message: wire.Message) -> None:
    with pytest.raises(wire.LocalProtocolError):
        codec.encode_message(message)


def test_the_most_headers_that_a_message_may_have() -> None:
    message = wire.StreamStart(1, headers=(("k", "v"),) * limits.MAX_HEADER_PAIRS)
    assert codec.decode_message(message.TYPE, encoded("StreamStart", message)) == message


def test_a_message_beyond_what_offsets_reach_is_refused() -> None:
    """2 GiB of body as many mentions of one buffer, so that nothing of that size exists."""
    body = [bytes(2**20)] * 2048
    with pytest.raises(wire.LocalProtocolError, match="exceeds 2147483647"):
        codec.encode_message(wire.ExecuteResponse(1, payload=body))


def test_a_health_check_has_no_table_and_its_payload_is_ignored() -> None:
    assert codec.encode_message(wire.HealthCheck()) == []
    for payload in (b"", b"\xff" * 7):
        decoded = codec.decode_message(wire.MessageType.HEALTH_CHECK, payload)
        assert decoded == wire.HealthCheck()
