"""What can go wrong on the way to an upstream, and the one place that names foreign exceptions.

`TransportError` is all that leaves this room (besides `BodyTooLarge` and `trio.Cancelled`): it says
in which phase, towards whom, why in short words, whose doing it was, and whether the upstream may
have acted. `reason` turns the exceptions of the socket, TLS, resolver, parser and proxy libraries
into those words; they never hold bytes that were sent or received, as these may be secrets.
`fault_kind` turns the same exceptions into the few kinds that policies tell apart: words are for
people, and may change.
"""

import errno
import socket
import ssl
import sys
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeGuard

import trio

from vastar_client.wire.enums import Disposition
from vastar_runtime.transport.progress import Phase, Progress

__all__ = [
    "BodyAborted",
    "BodyTooLarge",
    "ChannelStalled",
    "FaultKind",
    "InvalidResponse",
    "LocalFault",
    "ResponseCutShort",
    "TransportError",
    "fault_kind",
    "reason",
]


class FaultKind(Enum):
    """What went wrong, as far as policies care: whom it speaks of, and whether it may pass."""

    LOOKUP = auto()
    """The origin's name could not be looked up."""
    CONNECT = auto()
    """No connection: refused, unreachable, a proxy that failed, or `connect_timeout_s` ran out,
    whichever step took the time."""
    TLS = auto()
    """The handshake with the upstream broke."""
    UNTRUSTED = auto()
    """One side does not accept the other's certificate or TLS version: it depends on the settings
    of this call, and is the same again next time."""
    RESET = auto()
    """The connection ended under the request, at whatever byte of the response."""
    GARBLED = auto()
    """What came is not HTTP."""
    LOCAL = auto()
    """Nothing the upstream did: the transport was closed, an address or a name is not allowed, a
    proxy's rules forbid the call, this host has run out of something."""


class ChannelStalled(trio.BrokenResourceError):
    """The peer took no byte for the time allowed."""


class InvalidResponse(Exception):  # noqa: N818 - named by who is at fault, as h11's errors are
    """The upstream broke HTTP/1.1, or left before its response was whole. The text is the cause."""


class ResponseCutShort(InvalidResponse):
    """The connection ended in good order, the response had not."""


class LocalFault(Exception):  # noqa: N818 - named by who is at fault
    """This side's settings, rules or means do not allow it. The text is the cause."""


class BodyAborted(LocalFault):
    """Whoever makes a request body gave up before its end."""


class BodyTooLarge(Exception):  # noqa: N818 - what happened, and to what
    """A response body over the bound that the caller gave to `read_all`.

    Attributes:
        max_bytes: that bound.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the response body is longer than {max_bytes} bytes")
        self.max_bytes = max_bytes


class TransportError(Exception):
    """No whole response could be had from the upstream.

    Attributes:
        phase: where it failed.
        origin: `host:port` of the upstream, without secrets.
        cause: short words such as "connection refused", for people.
        kind: the same for policies.
        disposition: whether the upstream may have acted on the request.
        timed_out: a limit of the transport's own ran out (the caller's limits cancel instead).
    """

    def __init__(
        self,
        phase: Phase,
        origin: str,
        cause: str,
        disposition: Disposition,
        *,
        kind: FaultKind,
        timed_out: bool,
    ) -> None:
        super().__init__(f"{phase.value} failed for {origin}: {cause}")
        self.phase = phase
        self.origin = origin
        self.cause = cause
        self.kind = kind
        self.disposition = disposition
        self.timed_out = timed_out

    @classmethod
    def at(
        cls,
        progress: Progress,
        origin: str,
        cause: str,
        *,
        kind: FaultKind | None = None,
        timed_out: bool = False,
    ) -> "TransportError":
        """The error for the phase and disposition that `progress` stands at.

        Without a `kind` it is what a failure in that phase mostly is.
        """
        phase = progress.phase
        kind = kind or _KIND_BY_PHASE[phase]
        return cls(phase, origin, cause, progress.disposition, kind=kind, timed_out=timed_out)


_KIND_BY_PHASE = {
    Phase.POOL: FaultKind.LOCAL,
    Phase.DNS: FaultKind.LOOKUP,
    Phase.CONNECT: FaultKind.CONNECT,
    Phase.PROXY: FaultKind.CONNECT,
    Phase.TLS: FaultKind.TLS,
    Phase.SEND: FaultKind.RESET,
    Phase.HEAD: FaultKind.RESET,
    Phase.BODY: FaultKind.RESET,
}

_LOCAL_ERRNO = {
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
}

_UNTRUSTED_REASONS = (
    "UNSUPPORTED_PROTOCOL",
    "ALERT_PROTOCOL_VERSION",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_ACCESS_DENIED",
    "ALERT_UNKNOWN_CA",
    "CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
)
"""How OpenSSL's reasons end where the peer does not accept *our* certificate, or the lack of one,
or our oldest version. It tells with an alert (RFC 8446, 6.2), up to TLS 1.2 with the vague
handshake_failure. No tenant's settings may make a host look dead to the others."""


def fault_kind(error: BaseException, phase: Phase) -> FaultKind:
    """The kind of `error`, which happened in `phase`."""
    if isinstance(error, trio.BrokenResourceError) and error.__cause__ is not None:
        return fault_kind(error.__cause__, phase)
    if isinstance(error, InvalidResponse) and not isinstance(error, ResponseCutShort):
        return FaultKind.GARBLED
    if isinstance(error, LocalFault | trio.ClosedResourceError | UnicodeError):
        return FaultKind.LOCAL
    if _is_of_tls(error):
        words = getattr(error, "reason", None) or ""
        if isinstance(error, ssl.SSLCertVerificationError) or words.endswith(_UNTRUSTED_REASONS):
            return FaultKind.UNTRUSTED
    elif isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        # The numbers of the other two are not those of `errno`.
        return FaultKind.LOCAL if error.errno in _LOCAL_ERRNO else _KIND_BY_PHASE[phase]
    return _KIND_BY_PHASE[phase]


_ERRNO = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.ETIMEDOUT: "connection timed out",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EADDRNOTAVAIL: "no local address or port is left",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.EMFILE: "too many open files in the runtime",
    errno.ENFILE: "too many open files on this host",
}

# Not every platform has all of these names.
_NOT_FOUND = {
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
}


def reason(error: BaseException) -> str:
    """Short words for why `error` happened; the type's name where nothing better is known."""
    if _is_of_tls(error):
        return _tls_reason(error)
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words(error)
    return type(error).__name__


def _is_of_tls(error: BaseException) -> TypeGuard["ssl.SSLError"]:
    """Whether TLS raised it. Where TLS is not loaded it did not, and is not loaded to say so."""
    return "ssl" in sys.modules and isinstance(error, ssl.SSLError)


def _broken_reason(error: BaseException) -> str:
    return "connection reset" if error.__cause__ is None else reason(error.__cause__)


def _system_reason(error: OSError) -> str:
    return _ERRNO.get(error.errno or 0) or (error.strerror or "I/O error").lower()


def _lookup_reason(error: socket.gaierror) -> str:
    if error.errno in _NOT_FOUND:
        return "name not found"
    if error.errno == socket.EAI_AGAIN:
        return "name lookup failed for now"
    return f"name lookup failed: {(error.strerror or 'unknown').lower()}"


def _tls_reason(error: "ssl.SSLError") -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {getattr(error, 'verify_message', 'unknown')}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "connection closed during TLS"
    # Only errors that OpenSSL itself raised have the attribute.
    words: str = getattr(error, "reason", None) or "protocol error"
    return "TLS: " + words.lower().replace("_", " ")


# The first kind that fits; several are kinds of OSError, so that one is last.
_WORDS: list[tuple[type[BaseException], Callable[[Any], str]]] = [
    (ChannelStalled, lambda _: "the peer stopped taking bytes"),
    (trio.BrokenResourceError, _broken_reason),
    (trio.ClosedResourceError, lambda _: "the transport was closed"),
    (InvalidResponse, str),
    (LocalFault, str),
    (socket.gaierror, _lookup_reason),
    (UnicodeError, lambda _: "not a valid host name"),  # Python's IDNA, of a bad label
    (OSError, _system_reason),
]
