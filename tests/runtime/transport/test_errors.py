"""The words for foreign exceptions: short, and without what was sent or received; their kinds."""

import errno
import socket
import ssl

import pytest
import trio

from vastar_runtime.transport.errors import (
    ChannelStalled,
    FaultKind,
    InvalidResponse,
    LocalFault,
    ResponseCutShort,
    TransportError,
    fault_kind,
    reason,
)
from vastar_runtime.transport.progress import Phase, Progress


def broken_by(cause: Exception | None) -> trio.BrokenResourceError:
    error = trio.BrokenResourceError("text of the library")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "name not found"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "name lookup failed for now"),
        (socket.gaierror(socket.EAI_FAIL, "Hard Failure"), "name lookup failed: hard failure"),
        (UnicodeError("label too long"), "not a valid host name"),
        (ConnectionResetError(104, "x"), "connection reset"),
        (BrokenPipeError(32, "x"), "connection reset"),
        (OSError("no number"), "i/o error"),
        (broken_by(None), "connection reset"),
        (broken_by(ConnectionResetError(104, "x")), "connection reset"),
        (broken_by(ssl.SSLEOFError(8, "x")), "connection closed during TLS"),
        (ssl.SSLError(1, "x"), "TLS: protocol error"),
        (ChannelStalled("x"), "the peer stopped taking bytes"),
        (trio.ClosedResourceError("x"), "the transport was closed"),
        (InvalidResponse("closed before the response"), "closed before the response"),
        (LocalFault("not there"), "not there"),
        (KeyError("a secret"), "KeyError"),
    ],
)
def test_words(error: BaseException, words: str) -> None:
    assert reason(error).lower() == words.lower()
    assert "text of the library" not in reason(error)
    assert "secret" not in reason(error)


def tls_error(reason_name: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "x")
    error.reason = reason_name
    return error


USUAL = {
    Phase.POOL: FaultKind.LOCAL,
    Phase.DNS: FaultKind.LOOKUP,
    Phase.CONNECT: FaultKind.CONNECT,
    Phase.PROXY: FaultKind.CONNECT,
    Phase.TLS: FaultKind.TLS,
    Phase.SEND: FaultKind.RESET,
    Phase.HEAD: FaultKind.RESET,
    Phase.BODY: FaultKind.RESET,
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "error",
    [
        broken_by(None),
        broken_by(ConnectionResetError(errno.ECONNRESET, "x")),
        broken_by(ssl.SSLEOFError(8, "x")),
        tls_error("WRONG_VERSION_NUMBER"),
        # Numbers of other lists: 1 is EPERM and 13 EACCES in that of the system.
        ssl.SSLError(1, "x"),
        socket.gaierror(13, "x"),
        OSError("no number"),
        ResponseCutShort("x"),
        ChannelStalled("x"),
    ],
    ids=repr,
)
def test_most_failures_are_what_their_phase_makes_them(error: Exception, phase: Phase) -> None:
    assert fault_kind(error, phase) is USUAL[phase]
    at_phase = TransportError.at(Progress(phase=phase), "api.test:80", "x")
    assert at_phase.kind is USUAL[phase]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidResponse("x"), FaultKind.GARBLED),
        (LocalFault("x"), FaultKind.LOCAL),
        (trio.ClosedResourceError("x"), FaultKind.LOCAL),
        (UnicodeError("x"), FaultKind.LOCAL),
        (OSError(errno.ENOMEM, "x"), FaultKind.LOCAL),
        (broken_by(OSError(errno.ENOBUFS, "x")), FaultKind.LOCAL),
        (ssl.SSLCertVerificationError(1, "x"), FaultKind.UNTRUSTED),
        (broken_by(ssl.SSLCertVerificationError(1, "x")), FaultKind.UNTRUSTED),
        (broken_by(tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")), FaultKind.UNTRUSTED),
        (tls_error("SSLV3_ALERT_BAD_CERTIFICATE"), FaultKind.UNTRUSTED),
        (tls_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), FaultKind.UNTRUSTED),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), FaultKind.UNTRUSTED),
    ],
    ids=repr,
)
def test_some_failures_tell_more_than_their_phase(
    error: Exception, kind: FaultKind, phase: Phase
) -> None:
    assert fault_kind(error, phase) is kind
