"""Misbehaviours of the connection: it ends early, is reset, falls silent, drips, or lies."""

from typing import Final

from tools.faults._misbehaviour import Misbehaviour, fails, passes
from tools.faults._steps import (
    Close,
    HalfClose,
    Pause,
    Request,
    RequestHead,
    Reset,
    Send,
    Step,
    Wait,
)
from vastar_client.wire import Disposition, ErrorClass

__all__ = ["CONNECTIONS"]

_SETTLES: Final = Wait(0.02)
"""So that what came before and the fault do not arrive as one."""
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_COUNTED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_IN_HEAD: Final = "waiting for the response failed for .*: "
_IN_BODY: Final = "reading the response body failed for .*: "
_UNSEEN: Final = (Disposition.SENT_NO_RESPONSE, Disposition.NOT_SENT)


def _ends(name: str, about: str, sent: bytes, message: str) -> Misbehaviour:
    """It closes behind those bytes of its response."""
    steps: tuple[Step, ...] = (Request(), Send(sent), _SETTLES, Close())
    return Misbehaviour(f"ends-{name}", f"it closes {about}", steps, fails(message))


_CUT = _IN_HEAD + "closed inside the response head"

_ENDS: Final = (
    Misbehaviour(
        "ends-at-once",
        "it closes before it has read a byte",
        (Close(),),
        fails("closed before the response|connection reset", *_UNSEEN),
    ),
    Misbehaviour(
        "ends-before-response",
        "it reads the request and closes without a word",
        (Request(), Close()),
        fails(_IN_HEAD + "closed before the response", Disposition.SENT_NO_RESPONSE),
    ),
    Misbehaviour(
        "ends-its-half-before-response",
        "it reads the request, ends its half and stays",
        (Request(), HalfClose(), Wait()),
        fails(_IN_HEAD + "closed before the response", Disposition.SENT_NO_RESPONSE),
    ),
    _ends("in-status-line", "inside the status line", b"HTTP/1.1 20", _CUT),
    _ends("in-header-name", "inside a header's name", b"HTTP/1.1 200 OK\r\nContent-Le", _CUT),
    _ends("in-header-value", "inside a header's value", b"HTTP/1.1 200 OK\r\nX: y", _CUT),
    _ends("before-blank-line", "before the head's last line", b"HTTP/1.1 200 OK\r\nX: y\r\n", _CUT),
    _ends("behind-interim", "behind a 100 Continue", b"HTTP/1.1 100 Continue\r\n\r\n", _CUT),
    _ends("behind-head", "where the body should begin", _COUNTED, _IN_BODY + ".*0 of 10 bytes"),
    _ends("in-body", "inside the body", _COUNTED + b"12345", _IN_BODY + ".*5 of 10 bytes"),
    _ends("one-byte-short", "one byte too early", _COUNTED + b"123456789", ".*9 of 10 bytes"),
    _ends("in-chunk-size", "inside a chunk's size", _CHUNKED + b"1", _IN_BODY + ".*0 bytes"),
    _ends("in-chunk", "inside a chunk", _CHUNKED + b"5\r\nhel", _IN_BODY + ".*3 bytes"),
    _ends("behind-chunk", "between two chunks", _CHUNKED + b"5\r\nhello\r\n", ".*5 bytes"),
    _ends("in-trailers", "inside the trailers", _CHUNKED + b"2\r\nok\r\n0\r\nX: y", ".*2 bytes"),
    _ends(
        "in-event",
        "inside an event of a stream that is not over",
        _CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")
        + b"7\r\ndata: 1\r\n",
        _IN_BODY + ".*7 bytes",
    ),
)

_RESETS: Final = (
    Misbehaviour(
        "resets-at-once",
        "it resets before it has read a byte",
        (Reset(),),
        fails("connection reset", *_UNSEEN),
    ),
    Misbehaviour(
        "resets-before-response",
        "it reads the request and resets",
        (Request(), Reset()),
        fails("connection reset", Disposition.SENT_NO_RESPONSE),
    ),
    Misbehaviour(
        "resets-in-head",
        "it resets inside the response head",
        (Request(), Send(b"HTTP/1.1 200 OK\r\nX: "), _SETTLES, Reset()),
        fails(_IN_HEAD + "connection reset"),
    ),
    Misbehaviour(
        "resets-in-body",
        "it resets inside a counted body",
        (Request(), Send(_COUNTED + b"12345"), _SETTLES, Reset()),
        fails(_IN_BODY + "connection reset"),
    ),
    Misbehaviour(
        "resets-in-chunk",
        "it resets inside a chunk",
        (Request(), Send(_CHUNKED + b"5\r\nhel"), _SETTLES, Reset()),
        fails(_IN_BODY + "connection reset"),
    ),
    Misbehaviour(
        "resets-in-upload",
        "it resets while the request's body is on its way",
        (RequestHead(), Reset()),
        fails("connection reset", Disposition.SENT_NO_RESPONSE),
        method="POST",
        body_bytes=16_000_000,
    ),
)


def _stops(name: str, about: str, sent: bytes, message: str) -> Misbehaviour:
    """It sends so much and then nothing for ever."""
    early = Disposition.RESPONSE_STARTED if sent else Disposition.SENT_NO_RESPONSE
    expected = fails(message, early, error_class=ErrorClass.TIMEOUT)
    steps = (Request(), Send(sent), Wait())
    return Misbehaviour(f"stops-{name}", about, steps, expected, timeout_ms=400)


_WAITING: Final = "timeout_ms of 400 ms passed while waiting for the response"
_READING: Final = "timeout_ms of 400 ms passed while reading the response body"

_STOPS: Final = (
    _stops("before-response", "it takes the request and never answers", b"", _WAITING),
    _stops("in-status-line", "it stops inside the status line", b"HTTP/1.1 2", _WAITING),
    _stops("in-head", "it stops inside the head", b"HTTP/1.1 200 OK\r\nX: y\r\n", _WAITING),
    _stops("behind-interim", "it stops behind an interim", b"HTTP/1.1 102 X\r\n\r\n", _WAITING),
    _stops("in-body", "it stops inside the body", _COUNTED + b"12345", _READING),
    _stops("in-chunk", "it stops inside a chunk", _CHUNKED + b"5\r\nhel", _READING),
    _stops(
        "behind-head-of-terabyte",
        "it promises a terabyte and stops",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n1",
        _READING,
    ),
    Misbehaviour(
        "stops-reading",
        "it takes no byte of a long request",
        (Pause(),),
        fails(
            "timeout_ms of 400 ms passed while sending the request",
            Disposition.SENT_NO_RESPONSE,
            error_class=ErrorClass.TIMEOUT,
        ),
        method="POST",
        body_bytes=16_000_000,
        timeout_ms=400,
    ),
    Misbehaviour(
        "drips-head",
        "it sends a byte of its head every 100 ms",
        (Request(), Send(_OK, piece_bytes=1, gap_s=0.1), Wait()),
        fails(_WAITING, error_class=ErrorClass.TIMEOUT),
        timeout_ms=400,
    ),
    Misbehaviour(
        "drips-body",
        "it sends a byte of its body every 100 ms",
        (Request(), Send(_COUNTED), Send(b"1234567890", piece_bytes=1, gap_s=0.1), Wait()),
        fails(_READING, error_class=ErrorClass.TIMEOUT),
        timeout_ms=400,
    ),
    Misbehaviour(
        "drips-in-time",
        "it sends everything byte by byte, but in time",
        (Request(), Send(_OK, piece_bytes=1, gap_s=0.002), Wait()),
        passes(reusable=True),
    ),
)

_LIES: Final = (
    Misbehaviour(
        "lies-kept-alive-and-closed",
        "it promises to keep the connection and closes it while nobody uses it",
        (Request(), Send(_OK), _SETTLES, Close()),
        passes(),
        idle_s=0.2,
    ),
    Misbehaviour(
        "lies-kept-alive-and-reset",
        "it promises to keep the connection and resets it while nobody uses it",
        (Request(), Send(_OK), _SETTLES, Reset()),
        passes(),
        idle_s=0.2,
    ),
    Misbehaviour(
        "lies-speaks-unasked",
        "it says 408 on a connection that nobody uses, and stays",
        (
            Request(),
            Send(_OK),
            _SETTLES,
            Send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
            Wait(),
        ),
        passes(),
        idle_s=0.2,
    ),
    Misbehaviour(
        "lies-closing-and-stays",
        "it says that it closes and does not",
        (
            Request(),
            Send(_OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
            Wait(),
        ),
        passes(),
    ),
    Misbehaviour(
        "lies-answers-before-request",
        "it answers before there was a request: the late answer would be the next call's",
        (Send(_OK), Request(), _SETTLES, Send(_OK.replace(b"ok", b"no")), Wait()),
        passes(),
        idle_s=0.2,
    ),
    Misbehaviour(
        "lies-answers-before-body",
        "it answers a long upload from its head alone, and reads no more",
        (RequestHead(), Send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), Pause()),
        passes("^no$", status_code=413),
        method="POST",
        body_bytes=16_000_000,
    ),
    Misbehaviour(
        "lies-more-behind-answer",
        "bytes follow the end of its answer",
        (Request(), Send(_OK + b"surplus"), Wait()),
        passes(),
    ),
    Misbehaviour(
        "lies-two-answers",
        "it gives two answers to one request: the second would be the next call's",
        (Request(), Send(_OK + _OK.replace(b"ok", b"no")), Wait()),
        passes(),
    ),
    Misbehaviour(
        "lies-body-of-head",
        "it sends a body in answer to HEAD",
        (Request(), Send(_OK), Wait()),
        passes("^$"),
        method="HEAD",
    ),
    Misbehaviour(
        "lies-body-of-204",
        "it sends a body with 204",
        (
            Request(),
            Send(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"),
            Wait(),
        ),
        passes("^$", status_code=204),
    ),
    Misbehaviour(
        "lies-old-version-kept-alive",
        "HTTP/1.0 with an explicit keep-alive, then closed",
        (
            Request(),
            Send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
            _SETTLES,
            Close(),
        ),
        passes(),
        idle_s=0.2,
    ),
)

CONNECTIONS: Final = (*_ENDS, *_RESETS, *_STOPS, *_LIES)
"""All of them, in the order of a connection's life."""
