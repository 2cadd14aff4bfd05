"""A connection: faults and what they cost, ends of the stream, limits, and bodies uncopied."""

import ctypes
import gc
import tracemalloc

import pytest

from tests.client.wire.samples import OF_ACTION, connection_in, frame, joined
from vastar_client import wire
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    MessageType,
    Phase,
    Role,
    codec,
    limits,
)
from vastar_client.wire.state import Action

CALL, ANSWER = OF_ACTION[Action.CALL], OF_ACTION[Action.ANSWER]
GOOD = {Role.RUNTIME: CALL, Role.CLIENT: ANSWER}
"""What an end of that role may receive in any phase."""
each_role = pytest.mark.parametrize("role", Role, ids=lambda role: role.name)


def credit(**amounts: int) -> bytes:
    update = wire.CreditUpdate(**amounts)
    return frame(MessageType.CREDIT_UPDATE, b"".join(codec.encode_message(update)))


def good_frame(role: Role) -> bytes:
    return joined(Connection(Role.CLIENT if role is Role.RUNTIME else Role.RUNTIME), GOOD[role])


FAULTS = {
    "unknown type": frame(13, b""),
    "highest unknown type": frame(255, b"\x04\0\0\0"),
    "bad buffer": frame(MessageType.CREDIT_UPDATE, b"\xff" * 20),
    "empty buffer": frame(MessageType.CREDIT_UPDATE, b""),
}
CLOSING = {
    "zero length": bytes(4),
    "oversize": b"\xff\xff\xff\xff",
    "negative credit": credit(credit_delta=-1),
    "negative window": credit(connection_bytes=-1),
    "overflowing window": credit(connection_bytes=2**31),
}


@each_role
@pytest.mark.parametrize("fault", FAULTS)
def test_a_runtime_forgives_what_leaves_the_framing_intact(role: Role, fault: str) -> None:
    """The next frame comes through; a client forgives nothing."""
    connection = Connection(role)
    connection.receive_data(FAULTS[fault] + good_frame(role))
    with pytest.raises(wire.RemoteProtocolError) as caught:
        connection.next_event()
    assert caught.value.error_class is wire.ErrorClass.INVALID_REQUEST
    assert caught.value.request_id == 0
    assert caught.value.closes is (role is Role.CLIENT)
    if role is Role.RUNTIME:
        assert connection.next_event() == CALL
        assert connection.next_event() is NEED_DATA
    else:
        with pytest.raises(wire.RemoteProtocolError):
            connection.next_event()


@each_role
@pytest.mark.parametrize("fault", CLOSING)
def test_what_loses_the_connection_repeats(role: Role, fault: str) -> None:
    """The same error on every call, whatever is fed, as an exception of its own each time."""
    connection = connection_in(role, Phase.CREDITED)
    connection.receive_data(CLOSING[fault])
    raised = []
    for _ in range(3):
        with pytest.raises(wire.RemoteProtocolError) as caught:
            connection.next_event()
        assert caught.value.closes
        raised.append(caught.value)
        connection.receive_data(good_frame(role))
    assert len({(type(error), str(error), error.request_id) for error in raised}) == 1
    assert len({id(error) for error in raised}) == 3


def test_a_lost_connection_keeps_nothing_that_is_fed() -> None:
    client = Connection(Role.CLIENT)
    client.receive_data(FAULTS["unknown type"])
    tracemalloc.start()
    try:
        for _ in range(32):
            with pytest.raises(wire.RemoteProtocolError):
                client.next_event()
            client.receive_data(bytes(64 * 1024))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 96 * 1024
    finally:
        tracemalloc.stop()


def test_a_lost_connection_can_still_send() -> None:
    """A runtime says why before it closes."""
    runtime = Connection(Role.RUNTIME)
    runtime.receive_data(bytes(4))
    with pytest.raises(wire.RemoteProtocolError):
        runtime.next_event()
    assert runtime.send(wire.ExecuteResponse(0, wire.ErrorClass.INVALID_REQUEST, "why"))


@pytest.mark.parametrize("message_type", [1, 3, 5, 6, 7, 9, 11])
def test_a_type_that_only_a_runtime_sends_is_refused_unread(message_type: int) -> None:
    runtime = Connection(Role.RUNTIME)
    runtime.receive_data(frame(message_type, b"not even a FlatBuffer") + good_frame(Role.RUNTIME))
    with pytest.raises(wire.RemoteProtocolError, match="never sent by a client") as caught:
        runtime.next_event()
    assert (caught.value.request_id, caught.value.closes) == (0, False)
    assert runtime.next_event() == CALL


@pytest.mark.parametrize("message_type", [0, 2, 8, 10, 12])
def test_a_type_that_only_a_client_sends_loses_a_client(message_type: int) -> None:
    client = connection_in(Role.CLIENT, Phase.CREDITED)
    client.receive_data(frame(message_type, b""))
    with pytest.raises(wire.RemoteProtocolError, match="never sent by a runtime") as caught:
        client.next_event()
    assert caught.value.closes


def test_a_client_that_has_not_opted_in_takes_nothing_unsolicited() -> None:
    client = Connection(Role.CLIENT)
    client.receive_data(joined(connection_in(Role.RUNTIME, Phase.CREDITED), wire.Goaway()))
    with pytest.raises(wire.RemoteProtocolError, match=r"GOAWAY .* BASE"):
        client.next_event()


def test_the_id_of_a_bad_message_survives() -> None:
    message = wire.ExecuteRequest(2**64 - 1, "tenant", "http", "request")
    flatbuffer = b"".join(codec.encode_message(message)).replace(b"http", b"ht\xffp")
    runtime = Connection(Role.RUNTIME)
    runtime.receive_data(frame(0, flatbuffer))
    with pytest.raises(wire.RemoteProtocolError, match="Invalid FlatBuffers message") as caught:
        runtime.next_event()
    assert caught.value.request_id == 2**64 - 1


@pytest.mark.parametrize(
    "amounts",
    [{"credit_delta": -1}, {"connection_bytes": -1}, {"connection_bytes": 2**31}],
    ids=str,
)
@each_role
def test_credit_that_the_peer_would_refuse_is_not_sent(role: Role, amounts: dict[str, int]) -> None:
    connection = connection_in(role, Phase.CREDITED)
    with pytest.raises(wire.LocalProtocolError, match="credit"):
        connection.send(wire.CreditUpdate(**amounts))
    assert connection.send(wire.CreditUpdate(credit_delta=1))


# The end of the stream


@each_role
def test_the_end_between_two_frames_is_an_event_that_stays(role: Role) -> None:
    connection = Connection(role)
    assert connection.next_event() is NEED_DATA
    connection.receive_data(good_frame(role))
    connection.receive_data(b"")
    assert connection.next_event() == GOOD[role]
    assert connection.next_event() is END_OF_STREAM
    assert connection.next_event() is END_OF_STREAM
    assert connection.send(GOOD[Role.CLIENT if role is Role.RUNTIME else Role.RUNTIME])


@each_role
@pytest.mark.parametrize("kept", [1, 4, 5, -1])
def test_the_end_inside_a_frame_is_a_fault(role: Role, kept: int) -> None:
    connection = Connection(role)
    connection.receive_data(good_frame(role)[:kept])
    assert connection.next_event() is NEED_DATA
    assert connection.in_frame
    connection.receive_data(b"")
    for _ in range(2):
        with pytest.raises(wire.RemoteProtocolError, match="ended inside a frame") as caught:
            connection.next_event()
        assert caught.value.closes


# Sending


@each_role
def test_after_a_failed_write_nothing_is_sent_but_the_rest_is_received(role: Role) -> None:
    connection = Connection(role)
    connection.send_failed()
    assert connection.phase is Phase.CLOSED
    with pytest.raises(wire.LocalProtocolError, match="failed write"):
        connection.send(GOOD[Role.CLIENT if role is Role.RUNTIME else Role.RUNTIME])
    connection.receive_data(good_frame(role))
    assert connection.next_event() == GOOD[role]


def test_a_message_too_long_leaves_the_connection_as_it_was() -> None:
    client = Connection(Role.CLIENT, max_sent_frame_bytes=200)
    opener = wire.ExecuteRequest(1, "t", "http", "request", payload=bytes(200), stream=True)
    with pytest.raises(wire.FrameTooLongError, match="limit of 200 bytes") as caught:
        client.send(opener)
    assert caught.value.limit_bytes == 200
    assert client.phase is Phase.BASE
    runtime = Connection(Role.RUNTIME)
    runtime.receive_data(joined(client, CALL))
    assert runtime.next_event() == CALL


def test_the_limit_of_what_is_sent_counts_as_the_prefix_does() -> None:
    answer = wire.ExecuteResponse(1, payload=bytes(100))
    counted_bytes = len(joined(Connection(Role.RUNTIME), answer)) - 4
    exact = Connection(Role.RUNTIME, max_sent_frame_bytes=counted_bytes)
    assert exact.send(answer)
    with pytest.raises(wire.FrameTooLongError):
        Connection(Role.RUNTIME, max_sent_frame_bytes=counted_bytes - 1).send(answer)


@each_role
def test_by_default_each_end_sends_at_most_what_the_other_takes(role: Role) -> None:
    longest = {
        Role.CLIENT: limits.MAX_REQUEST_FRAME_BYTES,
        Role.RUNTIME: limits.MAX_ANSWER_FRAME_BYTES,
    }
    assert Connection(role).max_sent_frame_bytes == longest[role]
    peer = Connection(Role.CLIENT if role is Role.RUNTIME else Role.RUNTIME)
    peer.receive_data(longest[role].to_bytes(4))
    assert peer.next_event() is NEED_DATA
    peer = Connection(peer.role)
    peer.receive_data((longest[role] + 1).to_bytes(4))
    with pytest.raises(wire.RemoteProtocolError, match="exceeds the limit") as caught:
        peer.next_event()
    assert caught.value.closes


def test_a_value_that_cannot_be_written_leaves_the_connection_as_it_was() -> None:
    client = Connection(Role.CLIENT)
    with pytest.raises(wire.LocalProtocolError):
        client.send(wire.Cancel(-1))
    assert client.phase is Phase.BASE
    assert client.send(CALL)


# Bodies


def test_a_body_is_sent_as_the_object_that_came_in() -> None:
    body = memoryview(bytearray(b"x" * 4096))
    request = wire.ExecuteRequest(1, "t", "http", "request", payload=body)
    buffers = Connection(Role.CLIENT).send(request)
    assert buffers[-1] is body
    parts = [b"head", body]
    buffers = Connection(Role.RUNTIME).send(wire.ExecuteResponse(1, payload=parts))
    assert all(sent is part for sent, part in zip(buffers[1:], parts, strict=True))


def address(buffer: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def test_a_received_body_shares_memory_with_the_received_chunk() -> None:
    """Through the message and the native request nested in it."""
    native = wire.HttpRequest("http://h/", method="POST", body=b"y" * 5000)
    payload = wire.encode_http_request(native)
    call = wire.ExecuteRequest(1, "t", "http", "request", payload=payload)
    chunk = bytearray(joined(Connection(Role.CLIENT), call))
    runtime = Connection(Role.RUNTIME)
    runtime.receive_data(chunk)
    message = runtime.next_event()
    assert isinstance(message, wire.ExecuteRequest)
    body = wire.decode_http_request(message.payload).body
    assert body == native.body
    assert body.obj is chunk
    start = address(chunk)
    assert start <= address(body) <= start + len(chunk) - len(body)


def test_a_large_body_is_copied_once_on_its_way_in() -> None:
    """8 MiB in pieces: the frame itself, and no second body."""
    size = 8 * 2**20
    chunk = joined(Connection(Role.RUNTIME), wire.ExecuteResponse(1, payload=bytes(size)))
    client = Connection(Role.CLIENT)
    message = None
    tracemalloc.start()
    try:
        for start in range(0, len(chunk), 2**16):
            client.receive_data(chunk[start : start + 2**16])
            message = client.next_event()
        assert isinstance(message, wire.ExecuteResponse)
        assert len(message.payload) == size
        assert tracemalloc.get_traced_memory()[1] < 1.25 * size
    finally:
        tracemalloc.stop()
