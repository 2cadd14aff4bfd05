"""The answer to an HTTP call.

`HTTPResponse` is the published SDK's dataclass with the same fields in the same order, then what
only this runtime tells. An HTTP status is an answer, not an error: 404 and 503 arrive here too,
and `raise_for_status()` is there for those who want an exception.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Self

import msgspec

from vastar_client._headers import Headers
from vastar_client.errors import HTTPStatusError
from vastar_client.wire.enums import Disposition, ErrorClass

__all__ = ["FIRST_ERROR_STATUS", "HTTPResponse", "charset_of", "is_event_stream"]

_CLASS_OF_STATUS: Final = {
    408: ErrorClass.TIMEOUT,
    429: ErrorClass.RATE_LIMITED,
    500: ErrorClass.TRANSIENT,
    502: ErrorClass.TRANSIENT,
    503: ErrorClass.TRANSIENT,
    504: ErrorClass.TRANSIENT,
}
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:+-]+)", re.ASCII | re.IGNORECASE)
FIRST_ERROR_STATUS: Final = 400


@dataclass(repr=False)
class HTTPResponse:
    """What the upstream answered.

    Args:
        request_id: the id of the call, as in the runtime's log.
        status_code: the HTTP status.
        headers: names in lower case, found in any case; repeats joined (see `Headers`).
        body: the body, decoded from its content encoding.
        duration_us: how long the runtime took, in microseconds.
        error_class: SUCCESS: failures are raised.
        error_message: None: failures are raised.
        headers_list: the header fields exactly as received, in order.
        url: the URL that answered, after redirects; None from a JSON answer.
        http_version: "1.1" or "1.0"; None from a JSON answer.
        attempts: how often the runtime tried upstreams, over all hops of a redirect.
        disposition: how far the call got.
        queued_us: microseconds spent in the runtime's lines: for a place, a rate, a connection.
        backoff_us: microseconds spent between attempts.
        refused_by: `policy:scope` of the runtime's own policy that refused a further attempt, so
            that this answer is the last one there was; None where none did.
        retry_after_ms: when that policy or the upstream says to come back, in milliseconds from
            now, as the runtime understood it; 0 where nobody said.
    """

    request_id: int
    status_code: int
    headers: dict[str, str]
    body: bytes
    duration_us: int = 0
    error_class: ErrorClass = ErrorClass.SUCCESS
    error_message: str | None = None
    _: KW_ONLY
    headers_list: Sequence[tuple[str, str]] = field(default=())
    url: str | None = None
    http_version: str | None = None
    attempts: int = 0
    disposition: Disposition = Disposition.UNKNOWN
    queued_us: int = 0
    backoff_us: int = 0
    refused_by: str | None = None
    retry_after_ms: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            self.headers = Headers(self.headers)
        if not self.headers_list:
            self.headers_list = list(self.headers.items())

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < FIRST_ERROR_STATUS

    @property
    def is_sse(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return is_event_stream(self.headers)

    @property
    def text(self) -> str:
        """The body as text, by the charset of its content type, else UTF-8; never fails."""
        try:
            return self.body.decode(charset_of(self.headers) or "utf-8", errors="replace")
        except (LookupError, UnicodeError):  # an unknown charset, or a codec that is none for text
            return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none (as `json.JSONDecodeError`, like the published SDK).
        """
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return json.loads(self.body)  # what that one takes, and its error otherwise

    def raise_for_status(self) -> Self:
        """This answer, when its status is below 400.

        Raises:
            HTTPStatusError: the status is 400 or more. Its class is RATE_LIMITED for 429, TIMEOUT
                for 408, TRANSIENT for 500, 502, 503 and 504, else PERMANENT; `retry_after_ms` is
                the later of what the upstream asked for and what the runtime says.
        """
        if self.ok:
            return self
        error = HTTPStatusError(
            f"the upstream answered with status {self.status_code}",
            _CLASS_OF_STATUS.get(self.status_code, ErrorClass.PERMANENT),
            self.request_id,
            disposition=Disposition.COMPLETED,
            retry_after_ms=max(self.retry_after_ms, retry_after_ms(self.headers, time.time())),
            attempts=self.attempts,
            refused_by=self.refused_by,
            queued_us=self.queued_us,
            backoff_us=self.backoff_us,
        )
        error.response = self
        raise error

    def __repr__(self) -> str:
        return (
            f"<HTTPResponse {self.status_code} body={len(self.body)} bytes "
            f"request_id={self.request_id}>"
        )


def charset_of(headers: dict[str, str]) -> str | None:
    """The charset that the content type of an answer names, None where it names none."""
    match = _CHARSET.search(headers.get("content-type", ""))
    return match[1] if match else None


def is_event_stream(headers: dict[str, str]) -> bool:
    """Whether an answer with these header fields is a stream of server-sent events."""
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def retry_after_ms(headers: Headers | dict[str, str], now_s: float) -> int:
    """What the answer's `retry-after-ms` or `Retry-After` asks for, 0 where neither makes sense.

    RFC 9110 section 10.2.3: seconds or an HTTP-date. Values of 0 and below are none.
    """
    try:
        return max(0, round(float(headers.get("retry-after-ms", ""))))
    except (ValueError, OverflowError):
        pass
    text = headers.get("retry-after", "").strip()
    try:
        if text.isascii() and text.isdigit():
            return int(text) * 1000
        from email.utils import parsedate_to_datetime  # noqa: PLC0415  # a tenth of the import time

        return max(0, round((parsedate_to_datetime(text).timestamp() - now_s) * 1000))
    except (ValueError, OverflowError):
        return 0
