"""What a route hands back: a status, headers, and a body or the events of a stream.

A value, not a writer: the connection alone decides when and in what portions it is sent.
"""

from collections.abc import Iterator

import attrs
import msgspec

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@attrs.frozen(eq=False)
class Reply:
    """One answer. `events` yields whole SSE events (`data: ...` and a blank line), or is None."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    events: Iterator[bytes] | None = None


class BadInputError(Exception):
    """A request that the API refuses with 400: what was wrong, and with which parameter."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def json_reply(body: object, status: int = 200) -> Reply:
    """Compact JSON."""
    return Reply(status, msgspec.json.encode(body), JSON)


def sse(body: object) -> bytes:
    """One server-sent event that holds compact JSON."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def error_reply(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """OpenAI's error body: `{"error": {message, type, param, code}}`."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Reply(status, msgspec.json.encode({"error": error}), JSON, headers)
