"""What can go wrong with a call, as exceptions that print a sentence a person can act on.

Shape: everything that a call can fail with is a `ConnectorException`, the one exception of the
published SDK, so that code written for that SDK (`except ConnectorException as e: if
e.is_retryable(): ...`) treats a runtime that is not running, a lost connection and a timeout as
what they are. The subclasses exist for callers who want to tell them apart. They share one
signature, so that each can be pickled and sent to another process.

`disposition` answers the question behind every retry: may the upstream have acted on it?
"""

from typing import TYPE_CHECKING, ClassVar, Final

from vastar_client.wire.enums import Disposition, ErrorClass

if TYPE_CHECKING:
    from vastar_client.response import HTTPResponse

__all__ = [
    "CallTimeout",
    "ConnectionClosed",
    "ConnectorException",
    "HTTPStatusError",
    "RuntimeUnavailable",
    "VastarError",
    "WrongThreadError",
]

_RETRYABLE: Final = frozenset(
    {ErrorClass.TRANSIENT, ErrorClass.RATE_LIMITED, ErrorClass.TIMEOUT},
)

_HOW_FAR: Final = {
    Disposition.UNKNOWN: "",
    Disposition.NOT_SENT: "the request was not sent upstream",
    Disposition.SENT_NO_RESPONSE: "the request was sent and may have been acted on",
    Disposition.RESPONSE_STARTED: "the upstream had begun to answer",
    Disposition.COMPLETED: "the upstream had answered",
}


class VastarError(Exception):
    """Base of all errors of this package."""


class ConnectorException(VastarError):  # noqa: N818  # the published SDK's name
    """A call failed: the runtime said so, or could not be reached to say so.

    Args:
        message: what happened, naming cause and place.
        error_class: what to do about it; `is_retryable()` is the short form.
        request_id: the id of the call, as in the runtime's log; 0 where there was none.
        disposition: how far the call got.
        retry_after_ms: the earliest sensible retry from now, 0 where nobody said.
        attempts: how often the runtime tried the upstream.
        refused_by: `policy:scope` of the runtime's own policy that refused the call, or a further
            attempt at it, such as `rate_limit:tenant`; None where none did.
        queued_us: microseconds spent in the runtime's lines: for a place, a rate, a connection.
        backoff_us: microseconds spent between attempts.
    """

    DEFAULT_CLASS: ClassVar = ErrorClass.PERMANENT

    def __init__(
        self,
        message: str,
        error_class: ErrorClass | None = None,
        request_id: int = 0,
        *,
        disposition: Disposition = Disposition.UNKNOWN,
        retry_after_ms: int = 0,
        attempts: int = 0,
        refused_by: str | None = None,
        queued_us: int = 0,
        backoff_us: int = 0,
    ) -> None:
        error_class = self.DEFAULT_CLASS if error_class is None else error_class
        super().__init__(message, error_class, request_id)
        self.message = message
        self.error_class = ErrorClass(error_class)
        self.request_id = request_id
        self.disposition = disposition
        self.retry_after_ms = retry_after_ms
        self.attempts = attempts
        self.refused_by = refused_by
        self.queued_us = queued_us
        self.backoff_us = backoff_us

    def is_retryable(self) -> bool:
        """Whether the same call may succeed later: TRANSIENT, RATE_LIMITED or TIMEOUT.

        It says nothing about whether a repeat is safe; `disposition` does.
        """
        return self.error_class in _RETRYABLE

    def get_error_class_name(self) -> str:
        """The name of the class, such as "TRANSIENT"."""
        return self.error_class.name

    def __str__(self) -> str:
        details = [self.get_error_class_name(), _HOW_FAR[self.disposition]]
        if self.attempts > 1:
            details.append(f"tried {self.attempts} times")
        if self.refused_by:
            details.append(f"refused by {self.refused_by}")
        if self.retry_after_ms:
            details.append(f"retry in {self.retry_after_ms / 1000:g} s")
        if self.request_id:
            details.append(f"request {self.request_id}")
        return f"{self.message} ({'; '.join(filter(None, details))})"


class RuntimeUnavailable(ConnectorException):
    """There is no runtime at the address, or none that could be reached in time."""

    DEFAULT_CLASS: ClassVar = ErrorClass.TRANSIENT


class ConnectionClosed(ConnectorException):
    """The connection to the runtime ended before the answer; `disposition` says how far it got."""

    DEFAULT_CLASS: ClassVar = ErrorClass.TRANSIENT


class CallTimeout(ConnectorException):
    """No answer before the deadline, by the runtime's clock or by the client's own timer."""

    DEFAULT_CLASS: ClassVar = ErrorClass.TIMEOUT


class HTTPStatusError(ConnectorException):
    """`raise_for_status()` found a status of 400 or more.

    429 is RATE_LIMITED, 408 is TIMEOUT, 500, 502, 503 and 504 are TRANSIENT, the rest PERMANENT:
    so `retry_with_backoff` repeats what the runtime's own retry policy would.

    Attributes:
        response: the whole answer; its body is not part of the message, which may be logged.
    """

    response: "HTTPResponse | None" = None


class WrongThreadError(VastarError, RuntimeError):
    """The blocking client was called where waiting would stop the very loop that must answer."""
