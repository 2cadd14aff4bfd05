"""Server-sent events, sans-IO: bytes in, events out, in any chunking.

Rules: WHATWG HTML, "Server-sent events", sections 9.2.5 and 9.2.6, with two bounds of ours.

Shape: lines are cut on bytes and decoded afterwards. That equals the standard's decoding of the
whole stream, because CR, LF and the colon are single bytes that no other UTF-8 sequence contains:
a sequence cut by a line end is replaced alike either way. So the state between chunks is small:
the unfinished line, whether the last byte was a CR, and the event being collected. Every byte is
looked at once, and kept once.

Here rather than beside the parser for connector authors, since the runtime reads events too.
"""

import re
from typing import Final

import msgspec

from vastar_client.wire.messages import Buffer

__all__ = ["MAX_EVENT_BYTES", "MAX_LINE_BYTES", "SSEDecoder", "SSEEvent", "SSELimitError"]

MAX_LINE_BYTES: Final = 1024 * 1024
"""Longest line, its end not counted."""

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of `data` and `event` values in one event."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_DIGITS: Final = re.compile(rb"[0-9]{1,15}")
"""ASCII digits only; more than 15 are no waiting time but an attack on `int`."""

assert MAX_LINE_BYTES < MAX_EVENT_BYTES


class SSEEvent(msgspec.Struct, frozen=True):
    """One dispatched event: its `data` lines joined by LF, its type, the last event id so far."""

    data: str
    event: str = "message"
    id: str = ""


class SSELimitError(ValueError):
    """A line or an event is longer than its bound: nothing after it can be trusted."""


class SSEDecoder:
    """The decoder of one stream.

    Args:
        last_event_id: what an earlier connection to the same stream ended with.
        max_line_bytes: longest line taken.
        max_event_bytes: longest event taken.

    Attributes:
        last_event_id: what a reconnecting client would send as Last-Event-ID: the last id that
            a blank line stood behind, since the events that it numbers have been dispatched.
        retry_ms: the reconnection time that the stream last set, None where it set none.
    """

    def __init__(
        self,
        *,
        last_event_id: str = "",
        max_line_bytes: int = MAX_LINE_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.last_event_id = self._next_event_id = last_event_id
        self.retry_ms: int | None = None
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data = bytearray()
        self._event_type = b""
        self._error: SSELimitError | None = None

    def feed(self, chunk: Buffer) -> list[SSEEvent]:
        """The events that `chunk` completes.

        When a bound is passed behind complete events of the same chunk, those are returned and
        the next call raises, so that what is delivered does not depend on the chunking.

        Raises:
            SSELimitError: a line or an event is too long; every further call raises it too.
        """
        if self._error is not None:
            raise self._error
        events: list[SSEEvent] = []
        try:
            self._take(bytes(chunk), events)
        except SSELimitError as error:
            self._error = error
            if not events:
                raise
        return events

    def finish(self) -> None:
        """The stream has ended: an unfinished event is discarded.

        Raises:
            SSELimitError: a bound was passed and no call has said so yet.
        """
        if self._error is not None:
            raise self._error
        self._line.clear()
        self._reset_event()
        self._next_event_id = self.last_event_id

    def _take(self, data: bytes, events: list[SSEEvent]) -> None:
        if not data:
            return
        begin = 1 if self._after_cr and data.startswith(b"\n") else 0
        self._after_cr = data.endswith(b"\r")
        for end in _LINE_END.finditer(data, begin):
            line = data[begin : end.start()]
            if self._line:
                self._check_line(len(self._line) + len(line))
                line = bytes(self._line) + line
                self._line.clear()
            else:
                self._check_line(len(line))
            begin = end.end()
            self._read_line(line, events)
        if begin < len(data):
            self._line += memoryview(data)[begin : begin + self._max_line_bytes + 1]
            self._check_line(len(self._line))

    def _check_line(self, line_bytes: int) -> None:
        if line_bytes > self._max_line_bytes:
            raise SSELimitError(
                f"a line of the event stream exceeds the limit of {self._max_line_bytes} bytes"
            )

    def _read_line(self, line: bytes, events: list[SSEEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data += value
                self._data += b"\n"
                self._check_event()
            case b"event":
                self._event_type = value
                self._check_event()
            case b"id" if b"\0" not in value:
                self._next_event_id = value.decode("utf-8", "replace")
            case b"retry" if _DIGITS.fullmatch(value):
                self.retry_ms = int(value)
            case _:
                pass  # a comment has an empty field name; unknown fields are ignored

    def _check_event(self) -> None:
        if len(self._data) + len(self._event_type) > self._max_event_bytes:
            raise SSELimitError(
                f"an event of the stream exceeds the limit of {self._max_event_bytes} bytes"
            )

    def _dispatch(self, events: list[SSEEvent]) -> None:
        self.last_event_id = self._next_event_id
        if self._data:
            del self._data[-1:]
            event_type = self._event_type.decode("utf-8", "replace") or "message"
            data = self._data.decode("utf-8", "replace")
            events.append(SSEEvent(data, event_type, self.last_event_id))
        self._reset_event()

    def _reset_event(self) -> None:
        self._data.clear()
        self._event_type = b""
