"""The words for foreign exceptions: short, and without anything that was sent or received."""

import socket
import ssl

import pytest
import trio

from vastar_runtime.transport.errors import (
    ChannelStalled,
    InvalidResponse,
    reason,
)


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
