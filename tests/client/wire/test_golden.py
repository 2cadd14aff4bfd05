"""Frames of the published SDKs and runtime decode to what their index says, field for field."""

from typing import Any

import pytest

from tests.client.wire.reference import plain, read
from tests.client.wire.schema import TABLES
from tests.support import golden
from vastar_client import wire
from vastar_client.wire import Connection, Role

FRAMES = golden.load()
each_frame = pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)

# What the index of a capture has beside the fields of the message.
NOT_FIELDS = {"present", "headers_present", "error_class_name"}


def table_of(frame: golden.GoldenFrame) -> str:
    return "ExecuteRequest" if frame.is_request else "ExecuteResponse"


def received(frame: golden.GoldenFrame) -> Any:
    """The message, through a whole connection of the end that it was meant for."""
    connection = Connection(Role.RUNTIME if frame.is_request else Role.CLIENT)
    connection.receive_data(frame.frame)
    message = connection.next_event()
    assert connection.next_event() is wire.NEED_DATA
    assert not connection.opted_in
    return message


@each_frame
def test_every_field_is_what_the_index_says(frame: golden.GoldenFrame) -> None:
    message = received(frame)
    fields = plain(table_of(frame), message)
    told = {name: value for name, value in frame.fields.items() if name not in NOT_FIELDS}
    assert {name: fields[name] for name in told} == told
    published = {f.name for f in TABLES[table_of(frame)][: 9 if frame.is_request else 5]}
    assert published - told.keys() <= {"payload", "headers"}, "the index tells every field"
    if frame.is_request:
        assert (message.headers is not None) is frame.fields["headers_present"]
    else:
        assert message.error_class.name == wire.ErrorClass[snake(frame)].name


def snake(frame: golden.GoldenFrame) -> str:
    name: str = frame.fields["error_class_name"]
    return "".join(f"_{c}" if c.isupper() else c for c in name).upper().strip("_")


@each_frame
def test_what_is_present_is_what_the_index_says(frame: golden.GoldenFrame) -> None:
    """A slot that the sender wrote is not the default, and the other way round.

    A sender may write a number that equals its default; no captured one did.
    """
    fields = plain(table_of(frame), received(frame))
    schema = TABLES[table_of(frame)]
    not_default = [f.slot for f in schema if fields[f.name] != f.default]
    assert not_default == frame.fields["present"]


@each_frame
def test_the_payload_is_what_the_index_says(frame: golden.GoldenFrame) -> None:
    payload = received(frame).payload
    has_payload = (7 if frame.is_request else 3) in frame.fields["present"]
    assert (payload is not None) is has_payload
    assert len(payload or b"") == frame.payload_bytes
    if frame.payload is not None:
        assert str(payload, "utf-8") == frame.payload


@each_frame
def test_our_extensions_are_at_their_defaults(frame: golden.GoldenFrame) -> None:
    message = received(frame)
    for field in TABLES[table_of(frame)][9 if frame.is_request else 5 :]:
        assert getattr(message, field.name) == field.default


@each_frame
def test_what_we_encode_again_reads_the_same(frame: golden.GoldenFrame) -> None:
    """By the generated accessors, of both the captured frame and ours."""
    message = received(frame)
    sender = Connection(Role.CLIENT if frame.is_request else Role.RUNTIME)
    ours = b"".join(sender.send(message))
    assert ours[4] == frame.message_type
    assert int.from_bytes(ours[:4]) == len(ours) - 4
    table = table_of(frame)
    assert read(table, ours[5:]) == read(table, frame.flatbuffer) == plain(table, message)


def test_all_frames_of_a_role_on_one_connection_byte_by_byte() -> None:
    for role in Role:
        frames = [f for f in FRAMES if f.is_request is (role is Role.RUNTIME)]
        connection = Connection(role)
        ids = []
        for byte in b"".join(frame.frame for frame in frames):
            connection.receive_data(bytes([byte]))
            while not isinstance(message := connection.next_event(), wire.Signal):
                ids.append(message.request_id)
        assert ids == [frame.fields["request_id"] for frame in frames]
