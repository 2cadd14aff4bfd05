"""One message of each action, connections in a given phase, and frames made by hand."""

from vastar_client import wire
from vastar_client.wire import (
    Connection,
    Message,
    Phase,
    RemoteProtocolError,
    Role,
    Signal,
    framing,
)
from vastar_client.wire.state import Action

__all__ = ["OF_ACTION", "SENDERS", "connection_in", "event_or_fault", "frame", "joined"]

OF_ACTION: dict[Action, Message] = {
    Action.CALL: wire.ExecuteRequest(7, "tenant", "http", "request", payload=b"{}"),
    Action.STREAM_CALL: wire.ExecuteRequest(8, "tenant", "http", "request", stream=True),
    Action.ANSWER: wire.ExecuteResponse(7, payload=b"{}"),
    Action.HEALTH_CHECK: wire.HealthCheck(),
    Action.HEALTH_RESPONSE: wire.HealthResponse(healthy=True),
    Action.REQUEST_CREDIT: wire.CreditUpdate(credit_delta=4),
    Action.STREAM_CREDIT: wire.CreditUpdate(credit_delta=4096, request_id=8),
    Action.STREAM_START: wire.StreamStart(8, status_code=200),
    Action.STREAM_CHUNK: wire.StreamChunk(8, data=b"part"),
    Action.STREAM_END: wire.StreamEnd(8, total_bytes=4),
    Action.CANCEL: wire.Cancel(8),
    Action.GOAWAY: wire.Goaway("restart"),
    Action.REQUEST_CHUNK: wire.RequestChunk(8, data=b"part", last=True),
    Action.KEEP_ALIVE: wire.KeepAlive(8),
    Action.AUTHENTICATE: wire.Authenticate("token"),
}

_BY_RUNTIME = {
    Action.ANSWER,
    Action.HEALTH_RESPONSE,
    Action.STREAM_START,
    Action.STREAM_CHUNK,
    Action.STREAM_END,
    Action.GOAWAY,
    Action.KEEP_ALIVE,
}
SENDERS = {a: Role.RUNTIME if a in _BY_RUNTIME else Role.CLIENT for a in Action}
"""An end that may send it."""

_OPENERS = {Phase.EXTENDED: wire.HealthCheck(), Phase.CREDITED: wire.CreditUpdate(credit_delta=1)}


def joined(connection: Connection, message: Message) -> bytes:
    """The frame of `message` as one run of bytes."""
    return b"".join(connection.send(message))


def connection_in(role: Role, phase: Phase) -> Connection:
    """A fresh end of `role`, brought into `phase` by what the client sends."""
    client, runtime = Connection(Role.CLIENT), Connection(Role.RUNTIME)
    if phase in _OPENERS:
        runtime.receive_data(joined(client, _OPENERS[phase]))
        runtime.next_event()
    connection = client if role is Role.CLIENT else runtime
    if phase is Phase.CLOSED:
        connection.send_failed()
    return connection


def event_or_fault(connection: Connection) -> Message | Signal | RemoteProtocolError:
    """What comes next, an error as a value."""
    try:
        return connection.next_event()
    except RemoteProtocolError as error:
        return error


def frame(message_type: int, flatbuffer: bytes) -> bytes:
    """A frame of any type byte and any content."""
    return framing.frame_header(message_type, len(flatbuffer)) + flatbuffer
