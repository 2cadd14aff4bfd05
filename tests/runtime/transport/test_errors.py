"""The words for foreign exceptions: short, and without anything that was sent or received."""

import socket
import ssl

import pytest
import trio

from vastar_client.wire.enums import Disposition
from vastar_runtime.transport.errors import (
    ChannelStalled,
    InvalidResponse,
    TransportError,
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
        (KeyError("a secret"), "KeyError"),
    ],
)
def test_words(error: BaseException, words: str) -> None:
    assert reason(error).lower() == words.lower()
    assert "text of the library" not in reason(error)
    assert "secret" not in reason(error)


@pytest.mark.parametrize(
    ("facts", "disposition"),
    [
        ({}, Disposition.NOT_SENT),
        ({"request_begun": True}, Disposition.SENT_NO_RESPONSE),
        ({"request_begun": True, "request_sent": True}, Disposition.SENT_NO_RESPONSE),
        ({"request_begun": True, "response_started": True}, Disposition.RESPONSE_STARTED),
        ({"response_started": True, "completed": True}, Disposition.COMPLETED),
    ],
)
def test_an_error_carries_what_the_progress_knows(
    facts: dict[str, bool], disposition: Disposition
) -> None:
    progress = Progress(phase=Phase.HEAD, **facts)  # type: ignore[arg-type]
    error = TransportError.at(progress, "api.test:80", "connection reset", timed_out=True)
    assert (error.phase, error.disposition) == (Phase.HEAD, disposition)
    assert error.timed_out
