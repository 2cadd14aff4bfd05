"""Both ends of the protocol: the same bytes, cut in any way, give the same events and errors.

Input: the role, where to cut, then frames: type, and a message of any table or free bytes.
"""

from collections.abc import Sequence
from typing import Any, Final

from tools.fuzz.targets._inputs import Input, cut
from tools.fuzz.targets._made import KINDS, encode, made
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    MessageType,
    RemoteProtocolError,
    Role,
)
from vastar_client.wire._tables import TABLES

__all__ = ["check"]

_MOST_FRAMES: Final = 8
_LIMIT_BYTES: Final = 600
_TYPE_OF: Final = {table.name: int(type_) for type_, table in TABLES.items()}
_PREFIXES: Final = (b"\0\0\0\0", b"\0\0\xff\xff", b"\xff\xff\xff\xff", b"\0\0")


def check(data: bytes) -> bool:
    """Read one stream, whole and cut; whether nothing in it was at fault.

    Raises:
        AssertionError: the events differ, or go on behind an error that closes.
    """
    source = Input(data)
    role = source.pick((Role.RUNTIME, Role.CLIENT))
    cuts = source.cuts()
    stream = b"".join(_frame(source) for _ in range(_MOST_FRAMES) if source.has_more)
    whole = _events([stream] if stream else [], role)
    pieces = _events(cut(stream, cuts), role)
    assert whole == pieces, (whole, pieces)
    return not any(isinstance(event, tuple) for event in whole)


def _frame(source: Input) -> bytes:
    how = source.number() % 8
    if how == 0:  # framing that is none
        return source.pick(_PREFIXES)
    if how == 1:  # any type, any bytes
        body = source.take(1) + source.blob()
    elif how == 2:  # noqa: PLR2004 - a health check
        body = bytes([MessageType.HEALTH_CHECK])
    else:
        table = source.pick(KINDS[: len(TABLES)])
        body = bytes([_TYPE_OF[table.name]]) + encode(table, made(table, source))
    return len(body).to_bytes(4) + body


def _events(pieces: Sequence[bytes], role: Role) -> list[Any]:
    connection = Connection(role, max_received_frame_bytes=_LIMIT_BYTES)
    events: list[Any] = []
    for piece in (*pieces, b""):
        connection.receive_data(piece)
        while True:
            try:
                event = connection.next_event()
            except RemoteProtocolError as error:
                events.append((type(error).__name__, str(error), error.request_id, error.closes))
                if error.closes:
                    return events
                continue
            if event is NEED_DATA or event is END_OF_STREAM:
                break
            events.append(event)
    events.append(connection.phase)
    return events
