"""Server-sent events: ours against a slow reader written from the WHATWG text, in any split.

Input: how long a line and an event may be, where to cut, then the stream.
"""

import re
from typing import Final

from tools.fuzz.targets._inputs import Input, cut
from vastar_client.wire.sse import SSEDecoder, SSELimitError

__all__ = ["check"]

_BOUNDS: Final = ((1_000_000, 4_000_000), (1_000_000, 4_000_000), (8, 12), (40, 20))
_UNBOUNDED: Final = 1_000_000

Events = list[tuple[str, str, str]]


def check(data: bytes) -> bool:
    """Read one stream, whole, cut, and slowly; whether there were events in it.

    Raises:
        AssertionError: they are not the same.
    """
    source = Input(data)
    line_bytes, event_bytes = source.pick(_BOUNDS)
    cuts = source.cuts()
    stream = source.rest()
    whole = _read([stream], line_bytes, event_bytes)
    pieces = _read(cut(stream, cuts), line_bytes, event_bytes)
    assert whole == pieces, (whole, pieces)
    if line_bytes == _UNBOUNDED:
        expected = (*_slowly(stream), "")
        assert whole == expected, (whole, expected)
    return bool(whole[0])


def _read(
    pieces: list[bytes], line_bytes: int, event_bytes: int
) -> tuple[Events, str, int | None, str]:
    """Events, last event id, reconnection time, what was wrong."""
    decoder = SSEDecoder(max_line_bytes=line_bytes, max_event_bytes=event_bytes)
    events: Events = []
    try:
        for piece in pieces:
            events += [(event.data, event.event, event.id) for event in decoder.feed(piece)]
        decoder.finish()
    except SSELimitError as error:
        return events, "", None, str(error)
    return events, decoder.last_event_id, decoder.retry_ms, ""


def _slowly(stream: bytes) -> tuple[Events, str, int | None]:
    """The steps of 9.2.5 and 9.2.6 as they are written there.

    A last line without a line end is dropped with the event that it belongs to. The id of an
    event that has not been dispatched is not yet that of the stream.
    """
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\r|\n", text)
    data, kind, last_id, retry_ms = "", "", "", None
    dispatched_id = ""
    events: Events = []
    for line in lines:
        if not line:
            dispatched_id = last_id
            if data:
                events.append((data.removesuffix("\n"), kind or "message", last_id))
            data = kind = ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and re.fullmatch("[0-9]{1,15}", value):  # ours: no longer number
            retry_ms = int(value)
    return events, dispatched_id, retry_ms
