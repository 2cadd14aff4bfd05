"""How an event stream is taken up again after its end: WHATWG HTML, 9.2, with bounds of ours.

Shape: `EventPlan` decides and never waits, nor makes a call; the async and the blocking event
source do that. A stream that ends, well or not, is connected to again, behind the last event that
it dispatched. It is given up where the server says so (204), where it answers with something that
is no event stream, and where an error says that a repeat cannot help.

Two things are ours. The standard gives up at any status but 200; here those that mostly pass (408,
429, 500, 502, 503, 504) are tried again, as `Retry-After` asks. And the standard tries for ever.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vastar_client._stream_answer import StreamAnswer
from vastar_client.errors import ConnectorException
from vastar_client.request import HTTPRequest, RequestOptions, build_request
from vastar_client.wire import Disposition, ErrorClass

__all__ = ["EventPlan", "Reconnect", "event_plan", "event_request"]

_LONGEST_RETRY_MS: Final = 3_600_000
"""A stream that asks for a longer wait gets this: a slip of its server's, or worse."""

_LONGEST_RETRY_AFTER_MS: Final = 120_000
"""Being told to come back later than this means: not in this program's time (the OpenAI SDK's)."""

_FLOOR_JITTER_RATIO: Final = 0.25
"""So that those whom a restart cut off do not all come back together."""

_UNSENDABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_DOUBLINGS: Final = 32
_OK: Final = 200
_NO_CONTENT: Final = 204


@dataclass(frozen=True)
class Reconnect:
    """How often and how fast an event stream is connected to again.

    Args:
        max_attempts: connections in a row that bring no event, before the last failure is raised.
        initial_backoff_ms: the wait after a stream that brought events, where it set no `retry`.
            It doubles with each connection that brings none.
        max_backoff_ms: the longest wait that the server does not ask for.

    Raises:
        ValueError: a number is negative, or there is no attempt.
    """

    max_attempts: int = 10
    initial_backoff_ms: int = 1000
    max_backoff_ms: int = 30_000

    def __post_init__(self) -> None:
        for name, least in (("max_attempts", 1), ("initial_backoff_ms", 0), ("max_backoff_ms", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"Reconnect.{name} is {value!r}: it must be {least} or more")


def event_request(request: HTTPRequest | str, options: RequestOptions) -> HTTPRequest:
    """The request for an event stream: one that is given, or a GET of a URL.

    Raises:
        TypeError: it is neither, or both.
        ValueError: as `build_request`; or the body can be sent once only.
    """
    if isinstance(request, str):
        made = build_request("GET", request, **options)
    elif not isinstance(request, HTTPRequest) or options:
        raise TypeError("give an HTTPRequest alone, or a URL with options")
    else:
        made = request
    if made.streamed_body() is not None:
        raise ValueError("an event stream that is connected to again needs a body of bytes")
    for name, value in (("accept", "text/event-stream"), ("cache-control", "no-store")):
        if made.get_header(name) is None:
            made = made.with_header(name, value)
    return made


class EventPlan:
    """What is left of the attempts at one event stream, and where to go on.

    Args:
        request: from `event_request`.
        reconnect: how to; None where a stream that has ended has ended.
        last_event_id: where to begin.
        rand: numbers from 0 to 1; a test passes its own.

    Attributes:
        last_event_id: that of the last event that was received.
        retry_ms: what the stream asked for last, at most an hour; None where it never did.
    """

    def __init__(
        self,
        request: HTTPRequest,
        reconnect: Reconnect | None,
        last_event_id: str,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._request = request
        self._reconnect = reconnect
        self._rand = rand
        self._is_fruitful = False
        self._fruitless = 0

    def request(self) -> HTTPRequest:
        """What to ask for now; without an id that no header can hold (RFC 9110, 5.5)."""
        if not self.last_event_id or _UNSENDABLE.search(self.last_event_id):
            return self._request
        return self._request.with_header("last-event-id", self.last_event_id)

    def accepts(self, response: StreamAnswer) -> bool:
        """Whether `response`, whose status is no error, is an event stream; False: stop, all said.

        Raises:
            ConnectorException: PERMANENT: it is something else.
        """
        if response.status_code == _NO_CONTENT:
            return False
        if response.status_code == _OK and response.is_sse:
            return True
        kind = response.headers.get("content-type")
        raise ConnectorException(
            f"no event stream: the upstream answered with status {response.status_code} and "
            f"content type {kind!r}",
            ErrorClass.PERMANENT,
            response.request_id,
            disposition=Disposition.COMPLETED,
        )

    def received(self, event_id: str) -> None:
        """An event came; its connection was worth it."""
        self.last_event_id = event_id
        self._is_fruitful = True

    def ended(self, response: StreamAnswer) -> None:
        """All of `response` was read, as far as it came."""
        self.last_event_id = response.last_event_id
        if response.retry_ms is not None:
            self.retry_ms = min(response.retry_ms, _LONGEST_RETRY_MS)

    def wait_s(self, error: ConnectorException | None) -> float | None:
        """Seconds until the next connection, after one that ended; None: there is none.

        Args:
            error: what it ended with, None where it ended well.

        Raises:
            ConnectorException: `error`, where a repeat cannot help or was tried often enough.
        """
        self._fruitless = 0 if self._is_fruitful else self._fruitless + 1
        self._is_fruitful = False
        reconnect = self._reconnect
        if reconnect is not None and self._fruitless >= reconnect.max_attempts:
            reconnect, error = None, error or _fruitless(self._fruitless)
        if reconnect is not None and (error is None or _may_pass(error)):
            return self._backoff_s(reconnect, error.retry_after_ms if error else 0)
        if error is not None:
            raise error
        return None

    def _backoff_s(self, reconnect: Reconnect, asked_ms: int) -> float:
        retry_ms = self.retry_ms or 0
        doublings = min(max(self._fruitless - 1, 0), _MAX_DOUBLINGS)
        backoff_ms = max(retry_ms, reconnect.initial_backoff_ms) << doublings
        wait_ms = min(backoff_ms, reconnect.max_backoff_ms) * (0.5 + self._rand() / 2)
        floor_ms = max(asked_ms, retry_ms) * (1 + _FLOOR_JITTER_RATIO * self._rand())
        return max(wait_ms, floor_ms) / 1000


def event_plan(request: HTTPRequest, reconnect: Reconnect | bool, last_event_id: str) -> EventPlan:
    """The plan that `reconnect` stands for: the default, none, or one of the caller's."""
    if isinstance(reconnect, bool):
        return EventPlan(request, Reconnect() if reconnect else None, last_event_id)
    return EventPlan(request, reconnect, last_event_id)


def _may_pass(error: ConnectorException) -> bool:
    return error.is_retryable() and error.retry_after_ms <= _LONGEST_RETRY_AFTER_MS


def _fruitless(connections: int) -> ConnectorException:
    return ConnectorException(
        f"{connections} connections in a row ended without an event",
        ErrorClass.TRANSIENT,
        disposition=Disposition.COMPLETED,
    )
