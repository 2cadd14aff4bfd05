"""What a streamed answer tells and how it is read, but for the waiting.

Shape: the async and the blocking response are this, and differ in how they wait. The head is here
from the start; what the end tells is empty until it has come.
"""

from collections.abc import Callable
from typing import Final

from vastar_client._decoding import (
    MAX_LINE_CHARACTERS,
    BytesDecoder,
    Decoder,
    DeltaDecoder,
    EventDecoder,
    LineDecoder,
    Reading,
    TextDecoder,
    too_long,
)
from vastar_client._headers import Headers
from vastar_client._streams import LiveStream
from vastar_client.response import FIRST_ERROR_STATUS, HTTPResponse, charset_of, is_event_stream
from vastar_client.wire import Disposition, StreamStart
from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES

__all__ = ["MAX_ERROR_BODY_BYTES", "MAX_ERROR_BODY_S", "MAX_READ_BYTES", "StreamAnswer"]

MAX_READ_BYTES: Final = MAX_ANSWER_FRAME_BYTES
"""What `aread` gives at most by default: as much as an answer that is no stream may have."""

MAX_ERROR_BODY_BYTES: Final = 65_536
"""What `raise_for_status` reads of the body that says what was wrong."""

MAX_ERROR_BODY_S: Final = 5.0
"""How long it reads at most: the status alone says most of it."""


class StreamAnswer:
    """The head of a streamed answer, and its end once that has come.

    Attributes:
        request_id: the id of the call, as in the runtime's log.
        status_code: the HTTP status.
        headers: names in lower case, found in any case; repeats joined (see `Headers`).
        headers_list: the header fields exactly as received, in order.
        received_bytes: how much of the body has been read so far.
    """

    def __init__(self, live: LiveStream, head: StreamStart, label: str) -> None:
        self.request_id = live.request_id
        self.status_code = head.status_code
        self.headers_list = list(head.headers or ())
        self.headers = Headers(self.headers_list)
        self.received_bytes = 0
        self._live = live
        self._reading = Reading()
        live.label = f"the stream of {label}"

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < FIRST_ERROR_STATUS

    @property
    def is_sse(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return is_event_stream(self.headers)

    @property
    def has_ended(self) -> bool:
        """Whether the end has come, so that what follows here is known."""
        return self._live.end is not None

    @property
    def trailers(self) -> Headers:
        """The header fields behind the body; empty before the end."""
        end = self._live.end
        return Headers(end.trailers or () if end else ())

    @property
    def total_bytes(self) -> int:
        """The length of the body; 0 before the end."""
        end = self._live.end
        return end.total_bytes if end else 0

    @property
    def duration_us(self) -> int:
        """How long the runtime took, in microseconds; 0 before the end."""
        end = self._live.end
        return end.duration_us if end else 0

    @property
    def attempts(self) -> int:
        """How often the runtime tried upstreams; 0 before the end."""
        end = self._live.end
        return end.attempts if end else 0

    @property
    def queued_us(self) -> int:
        """Microseconds spent in the runtime's lines, of `duration_us`; 0 before the end."""
        end = self._live.end
        return end.queued_us if end else 0

    @property
    def backoff_us(self) -> int:
        """Microseconds spent between attempts, of `duration_us`; 0 before the end."""
        end = self._live.end
        return end.backoff_us if end else 0

    @property
    def refused_by(self) -> str | None:
        """Which of the runtime's own policies refused a further attempt; None before the end."""
        end = self._live.end
        return end.refused_by if end else None

    @property
    def retry_after_ms(self) -> int:
        """When that policy or the upstream says to come back; 0 if unknown, or before the end."""
        end = self._live.end
        return end.retry_after_ms if end else 0

    @property
    def disposition(self) -> Disposition:
        """How far the call got."""
        end = self._live.end
        return end.disposition if end else Disposition.RESPONSE_STARTED

    @property
    def last_event_id(self) -> str:
        """What to send as Last-Event-ID to go on behind this stream, while `events` reads it."""
        sse = self._reading.sse
        return sse.last_event_id if sse else ""

    @property
    def retry_ms(self) -> int | None:
        """How long the stream asks to wait before coming back, None where it does not."""
        sse = self._reading.sse
        return sse.retry_ms if sse else None

    def _begin(
        self,
        what: str,
        max_line_characters: int = MAX_LINE_CHARACTERS,
        last_event_id: str = "",
    ) -> None:
        """Read the body as the method `what` does."""
        charset = charset_of(self.headers)
        decoders: dict[str, Callable[[], Decoder]] = {
            "iter_bytes": BytesDecoder,
            "iter_text": lambda: TextDecoder(charset),
            "iter_lines": lambda: LineDecoder(
                charset, max_line_characters, lambda what: too_long(what, self.request_id)
            ),
            "events": lambda: EventDecoder(last_event_id),
            "content_deltas": DeltaDecoder,
        }
        self._reading.begin(what, decoders[what])

    def _received(self, data: bytes) -> None:
        """Take the next data of the stream; none is the end."""
        self.received_bytes += len(data)
        self._reading.feed(data)

    def _check_open(self) -> None:
        """Raise where the response was closed before all of it was read.

        Raises:
            ConnectionClosed: it was.
        """
        if self._live.closed and (self._reading.ready or not self._reading.has_ended):
            raise self._live.closed_error()

    def _as_response(self, body: bytes) -> HTTPResponse:
        """What an `HTTPStatusError` shows of this answer."""
        return HTTPResponse(
            self.request_id,
            self.status_code,
            self.headers,
            body,
            self.duration_us,
            headers_list=self.headers_list,
            attempts=self.attempts,
            disposition=self.disposition,
            queued_us=self.queued_us,
            backoff_us=self.backoff_us,
            refused_by=self.refused_by,
            retry_after_ms=self.retry_after_ms,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status_code} request_id={self.request_id}>"
