"""Each check of the decoder by an example of its own: the exact message, and the id it saves.

The message under attack is laid out by hand, so that every byte has a name.
"""

import struct
from collections.abc import Callable

import pytest

from tests.client.wire.reference import build, read
from vastar_client import wire
from vastar_client.wire import MessageType, codec, limits
from vastar_client.wire.codec import MalformedError

ID = 0x0102030405060708
# root offset 0 | vtable 4 | table 28 | three strings 60 | payload 96 | headers 108
ROOT, VTABLE, TABLE, TABLE_BYTES = 0, 4, 28, 32
SLOTS = (4, 12, 0, 0, 16, 20, 0, 24, 28)
"""Offsets in the table: request_id, tenant_id, -, -, connector_name, operation, -, payload,
headers."""
TENANT, CONNECTOR, OPERATION, PAYLOAD, HEADERS = 40, 44, 48, 52, 56
"""Where the offsets of those fields lie."""
TENANT_STRING, PAYLOAD_VECTOR, HEADER_VECTOR = 60, 96, 108
# behind the header vector's counter and two offsets: the pairs' vtable, then the pairs
PAIR_VTABLE, FIRST_PAIR, SECOND_PAIR, END = 120, 128, 156, 184


def string(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text + b"\0" * (4 - len(text) % 4)


def good() -> bytearray:
    """A valid ExecuteRequest with a payload and two header pairs."""
    message = bytearray(struct.pack("<IHH9H2x", TABLE, 22, TABLE_BYTES, *SLOTS))
    message += struct.pack("<iQ", TABLE - VTABLE, ID)
    for position, target in (
        (TENANT, TENANT_STRING),
        (CONNECTOR, 72),
        (OPERATION, 84),
        (PAYLOAD, PAYLOAD_VECTOR),
        (HEADERS, HEADER_VECTOR),
    ):
        message += struct.pack("<I", target - position)
    message += string(b"acme") + string(b"http") + string(b"request")
    message += struct.pack("<I", 5) + b"{...}\0\0\0"
    message += struct.pack("<III", 2, FIRST_PAIR - 112, SECOND_PAIR - 116)
    message += struct.pack("<HHHH", 8, 12, 4, 8)
    for at in (FIRST_PAIR, SECOND_PAIR):
        message += struct.pack("<iII", at - PAIR_VTABLE, 8, 12) + string(b"k") + string(b"v")
    assert len(message) == END
    return message


def decode(message: bytes | bytearray) -> wire.ExecuteRequest:
    decoded = codec.decode_message(MessageType.EXECUTE_REQUEST, message)
    assert isinstance(decoded, wire.ExecuteRequest)
    return decoded


def put(number: int, *positions: int) -> Callable[[bytearray], None]:
    """Overwrite a u32 (or an i32: modulo 2^32)."""

    def change(message: bytearray) -> None:
        for position in positions:
            struct.pack_into("<I", message, position, number % 2**32)

    return change


def put_u16(position: int, number: int) -> Callable[[bytearray], None]:
    def change(message: bytearray) -> None:
        struct.pack_into("<H", message, position, number)

    return change


def put_bytes(position: int, data: bytes) -> Callable[[bytearray], None]:
    def change(message: bytearray) -> None:
        message[position : position + len(data)] = data

    return change


def cut(length: int) -> Callable[[bytearray], None]:
    def change(message: bytearray) -> None:
        del message[length:]

    return change


def test_the_message_under_attack_is_good() -> None:
    assert decode(good()) == wire.ExecuteRequest(
        ID, "acme", "http", "request", payload=b"{...}", headers=(("k", "v"), ("k", "v"))
    )
    assert read("ExecuteRequest", bytes(good()))["headers"] == [("k", "v"), ("k", "v")]


LOST_ID = {
    "nothing at all": (cut(0), "0 bytes are too short"),
    "no root offset": (cut(3), "3 bytes are too short"),
    "root offset only": (cut(4), "table at 28 of 4 bytes"),
    "root beyond the end": (put(END, ROOT), "table at 184 of 184 bytes"),
    "root at the last three bytes": (put(END - 3, ROOT), "table at 181 of 184 bytes"),
    "root is itself": (put(0, ROOT), "table at 0 of 184 bytes"),
    "root inside its own offset": (put(3, ROOT), "table at 3 of 184 bytes"),
    "root as a negative number": (put(-4, ROOT), "table at 4294967292 of 184 bytes"),
    "vtable before the buffer": (put(TABLE + 1, TABLE), "vtable at -1 of 184 bytes"),
    "vtable far before the buffer": (put(2**31 - 1, TABLE), "vtable at -2147483619 of 184"),
    "vtable beyond the end": (put(TABLE - END + 3, TABLE), "vtable at 181 of 184 bytes"),
    "vtable far beyond the end": (put(-(2**31), TABLE), "vtable at 2147483676 of 184"),
    "vtable of odd size": (put_u16(VTABLE, 21), "vtable of 21 bytes at 4"),
    "vtable without its own sizes": (put_u16(VTABLE, 2), "vtable of 2 bytes at 4"),
    "vtable of size 0": (put_u16(VTABLE, 0), "vtable of 0 bytes at 4"),
    "vtable longer than the buffer": (put_u16(VTABLE, 182), "vtable of 182 bytes at 4 of 184"),
    "table without its own offset": (put_u16(VTABLE + 2, 3), "table of 3 bytes at 28"),
    "table longer than the buffer": (put_u16(VTABLE + 2, 157), "table of 157 bytes at 28 of 184"),
    "id outside the table": (put_u16(VTABLE + 4, 25), "request_id: field at 25 of a 32 byte"),
    "id over the table's own offset": (put_u16(VTABLE + 4, 3), "request_id: field at 3 of a 32"),
}

SAVED_ID = {
    "field beyond the table": (put_u16(VTABLE + 6, 29), "tenant_id: field at 29 of a 32 byte"),
    "field far beyond": (put_u16(VTABLE + 6, 65535), "tenant_id: field at 65535 of a 32 byte"),
    "string offset beyond the end": (put(END, TENANT), "tenant_id: offset to 224 of 184"),
    "string counter cut": (put(END - 3 - TENANT, TENANT), "tenant_id: offset to 181 of 184"),
    "string offset is negative": (put(-40, TENANT), "tenant_id: offset to 4294967296 of 184"),
    "string longer than the buffer": (
        put(END - TENANT_STRING - 3, TENANT_STRING),
        "tenant_id: 121 items of 1 bytes at 64 of 184",
    ),
    "string of 4 GiB": (put(-1, TENANT_STRING), "tenant_id: 4294967295 items of 1 bytes"),
    "text that is no UTF-8": (
        put_bytes(TENANT_STRING + 6, b"\xff"),
        "tenant_id: not UTF-8 at byte 2: invalid start byte",
    ),
    "a surrogate": (put_bytes(TENANT_STRING + 4, b"\xed\xa0\x80"), "tenant_id: not UTF-8 at byte"),
    "an overlong encoding": (put_bytes(TENANT_STRING + 4, b"\xc0\x80"), "tenant_id: not UTF-8"),
    "text cut in a character": (put_bytes(TENANT_STRING + 7, b"\xe2"), "tenant_id: not UTF-8"),
    "tenant missing": (put_u16(VTABLE + 6, 0), "required field missing: tenant_id"),
    "operation missing": (put_u16(VTABLE + 14, 0), "required field missing: operation"),
    "vtable that ends before what is required": (
        put_u16(VTABLE, 6),
        "required field missing: connector_name, operation, tenant_id",
    ),
    "payload longer than the buffer": (
        put(END - PAYLOAD_VECTOR - 3, PAYLOAD_VECTOR),
        "payload: 85 items of 1 bytes at 100 of 184",
    ),
    "more pairs than fit": (
        put(19, HEADER_VECTOR),
        "headers: 19 items of 4 bytes at 112 of 184",
    ),
    "pairs that would overflow": (put(2**30, HEADER_VECTOR), "headers: 1073741824 items of 4"),
    "pair beyond the end": (put(END, 112), "headers: [0]: table at 296 of 184"),
    "second pair beyond the end": (put(65, 116), "headers: [1]: table at 181 of 184"),
    "pair whose vtable is outside": (put(1000, FIRST_PAIR), "headers: [0]: vtable at -872 of 184"),
    "pair whose vtable is just outside": (
        put(FIRST_PAIR + 1, FIRST_PAIR),
        "headers: [0]: vtable at -1 of 184",
    ),
    "pair whose vtable is odd": (put_u16(PAIR_VTABLE, 7), "headers: [0]: vtable of 7 bytes"),
    "pair whose table is short": (
        put_u16(PAIR_VTABLE + 2, 11),
        "headers: [0]: fields at (4, 8) of a 11 byte table",
    ),
    "pair over its own offset": (
        put_u16(PAIR_VTABLE + 4, 3),
        "headers: [0]: fields at (3, 8) of a 12 byte table",
    ),
    "pair without value": (put_u16(PAIR_VTABLE, 6), "headers: [0]: required field missing"),
    "pair without key": (put_u16(PAIR_VTABLE + 4, 0), "headers: [0]: required field missing"),
    "value longer than the buffer": (
        put(END, SECOND_PAIR + 20),
        "headers: [1]: 184 items of 1 bytes at 180 of 184",
    ),
    "key that is no UTF-8": (
        put_bytes(FIRST_PAIR + 16, b"\x80"),
        "headers: [0]: not UTF-8 at byte 0",
    ),
}


@pytest.mark.parametrize(("change", "reason"), LOST_ID.values(), ids=LOST_ID)
def test_what_is_refused_before_the_id_is_read(
    change: Callable[[bytearray], None], reason: str
) -> None:
    assert_refused(change, reason, request_id=0)


@pytest.mark.parametrize(("change", "reason"), SAVED_ID.values(), ids=SAVED_ID)
def test_what_is_refused_with_its_id(change: Callable[[bytearray], None], reason: str) -> None:
    assert_refused(change, reason, request_id=ID)


def assert_refused(change: Callable[[bytearray], None], reason: str, *, request_id: int) -> None:
    message = good()
    change(message)
    with pytest.raises(MalformedError) as caught:
        decode(message)
    assert str(caught.value).startswith("Invalid FlatBuffers message: ExecuteRequest: " + reason)
    assert caught.value.request_id == request_id
    assert caught.value.error_class is wire.ErrorClass.INVALID_REQUEST
    assert caught.value.__suppress_context__


def test_the_last_places_that_are_inside_are_accepted() -> None:
    """The neighbours of the refused ones: no check is one too strict."""
    message = good()
    put(END - TENANT_STRING - 4, TENANT_STRING)(message)
    put_bytes(END - 1, b"\0")(message)
    with pytest.raises(MalformedError, match="not UTF-8"):  # long enough to reach other fields
        put_bytes(SECOND_PAIR, b"\xff")(message)
        decode(message)
    message = good()
    put(END - PAYLOAD_VECTOR - 4, PAYLOAD_VECTOR)(message)
    payload = decode(message).payload
    assert payload == message[PAYLOAD_VECTOR + 4 :]
    message = good() + bytes(4)
    put(END - TENANT, TENANT)(message)
    assert decode(message).tenant_id == ""


@pytest.mark.parametrize(
    ("table", "field", "name", "largest"),
    [
        ("ExecuteRequest", "payload_format", "PayloadFormat", 1),
        ("ExecuteRequest", "response_format", "ResponseFormat", 2),
        ("ExecuteResponse", "error_class", "ErrorClass", 5),
        ("ExecuteResponse", "disposition", "Disposition", 4),
        ("ExecuteResponse", "payload_format", "PayloadFormat", 1),
        ("StreamEnd", "error_class", "ErrorClass", 5),
        ("StreamEnd", "disposition", "Disposition", 4),
    ],
)
@pytest.mark.parametrize("beyond", [1, 100, None])
def test_a_number_that_the_enumeration_does_not_have(
    table: str, field: str, name: str, largest: int, beyond: int | None
) -> None:
    number = -1 if beyond is None else largest + beyond
    text = {"tenant_id": "t", "connector_name": "http", "operation": "request"}
    values = {"request_id": ID, field: number} | (text if table == "ExecuteRequest" else {})
    kind = {"ExecuteRequest": 0, "ExecuteResponse": 1, "StreamEnd": 7}[table]
    with pytest.raises(MalformedError) as caught:
        codec.decode_message(MessageType(kind), build(table, values))
    assert f"{field}: {number} is no {name} (0 to {largest})" in str(caught.value)
    assert caught.value.request_id == ID
    values[field] = largest
    decoded = codec.decode_message(MessageType(kind), build(table, values))
    assert getattr(decoded, field) == largest


def test_any_byte_but_0_is_true() -> None:
    """As the generated code reads it."""
    flatbuffer = bytearray(build("StreamStart", {"request_id": 1, "is_sse": True}))
    at = flatbuffer.rindex(b"\x01", 0, flatbuffer.index(struct.pack("<Q", 1)))
    flatbuffer[at] = 0x80
    decoded = codec.decode_message(MessageType.STREAM_START, flatbuffer)
    assert decoded == wire.StreamStart(1, is_sse=True)
    assert read("StreamStart", bytes(flatbuffer))["is_sse"] is True


@pytest.mark.parametrize("slots", [14, 15, 100, limits.MAX_VTABLE_SLOTS])
def test_slots_that_a_newer_peer_appended_are_not_read(slots: int) -> None:
    flatbuffer = with_vtable_of(slots)
    assert codec.decode_message(MessageType.KEEP_ALIVE, flatbuffer) == wire.KeepAlive(ID)


def test_a_vtable_of_too_many_slots() -> None:
    with pytest.raises(MalformedError, match="vtable of 2054 bytes"):
        codec.decode_message(MessageType.KEEP_ALIVE, with_vtable_of(limits.MAX_VTABLE_SLOTS + 1))


def with_vtable_of(slots: int) -> bytes:
    """A KeepAlive whose vtable has `slots` slots: all but the first lie outside the table."""
    vtable_bytes = 4 + 2 * slots
    offsets = [4] + [9999] * (slots - 1)
    head = struct.pack(f"<IHH{slots}H", 4 + vtable_bytes, vtable_bytes, 12, *offsets)
    return head + struct.pack("<iQ", vtable_bytes, ID)


def test_a_vtable_may_lie_behind_its_table() -> None:
    flatbuffer = struct.pack("<IiQ", 4, -12, ID) + struct.pack("<HHH", 6, 12, 4)
    assert codec.decode_message(MessageType.KEEP_ALIVE, flatbuffer) == wire.KeepAlive(ID)


def test_a_vtable_may_lie_at_the_first_byte() -> None:
    """Where the root offset, read as two sizes, happens to be one."""
    root = 0x0004_0004
    flatbuffer = struct.pack("<I", root) + bytes(root - 4) + struct.pack("<i", root)
    assert codec.decode_message(MessageType.KEEP_ALIVE, flatbuffer) == wire.KeepAlive(0)


def test_an_empty_table_is_all_defaults() -> None:
    flatbuffer = struct.pack("<IHHi", 8, 4, 4, 4)
    assert codec.decode_message(MessageType.CREDIT_UPDATE, flatbuffer) == wire.CreditUpdate()
    assert codec.decode_message(MessageType.CANCEL, flatbuffer) == wire.Cancel(0)


def test_more_pairs_than_a_message_may_have() -> None:
    pairs = [("k", "v")] * limits.MAX_HEADER_PAIRS
    most = build("StreamStart", {"request_id": ID, "headers": pairs}, share=True)
    decoded = codec.decode_message(MessageType.STREAM_START, most)
    assert isinstance(decoded, wire.StreamStart)
    assert len(decoded.headers or ()) == limits.MAX_HEADER_PAIRS
    over = build("StreamStart", {"request_id": ID, "headers": [*pairs, ("k", "v")]}, share=True)
    with pytest.raises(MalformedError, match="4097 pairs, more than 4096") as caught:
        codec.decode_message(MessageType.STREAM_START, over)
    assert caught.value.request_id == ID
