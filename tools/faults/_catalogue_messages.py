"""Misbehaviours of the message: status lines, headers, framing, interim responses, codings."""

import gzip
import zlib
from functools import cache
from typing import Final

from tools.faults._misbehaviour import Expected, Misbehaviour, fails, passes
from tools.faults._steps import Close, Flood, Request, Send, Step, Wait
from vastar_client.wire import Disposition, ErrorClass

__all__ = ["MESSAGES"]

_OVER_A_FRAME_BYTES: Final = 12 << 20
_LINE: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = _LINE + b"Transfer-Encoding: chunked\r\n\r\n"
_IN_HEAD: Final = "waiting for the response failed for .*: invalid HTTP: "
_IN_BODY: Final = "reading the response body failed for .*: invalid HTTP: "
_BAD_HEAD: Final = fails(_IN_HEAD)
_NO_LINE: Final = fails(_IN_HEAD + "no HTTP/1.x status line")


def _says(name: str, about: str, data: bytes, expected: Expected) -> Misbehaviour:
    """It sends these bytes and keeps the connection open."""
    return Misbehaviour(name, about, (Request(), Send(data), Wait()), expected)


def _floods(name: str, about: str, head: bytes, again: bytes, expected: Expected) -> Misbehaviour:
    """It begins with `head` and goes on with `again` for ever."""
    steps: tuple[Step, ...] = (Request(), Send(head), Flood(again))
    return Misbehaviour(name, about, steps, expected)


def _line(name: str, about: str, line: bytes, expected: Expected = _BAD_HEAD) -> Misbehaviour:
    """A status line that is none, with a good rest."""
    return _says(f"status-{name}", about, line + b"\r\nContent-Length: 2\r\n\r\nok", expected)


_STATUS_LINES: Final = (
    _says("status-garbage", "what comes is no HTTP", b"this is not http\r\n\r\n", _NO_LINE),
    _says("status-tls", "it speaks TLS on a plain port", b"\x15\x03\x01\x00\x02\x02\x28", _NO_LINE),
    _says("status-ssh", "an SSH server", b"SSH-2.0-OpenSSH_9.6\r\n", _NO_LINE),
    _says("status-http09", "a body without any head", b"<html>hello</html>\r\n", _NO_LINE),
    _line("rtsp", "another protocol of the same shape", b"RTSP/1.0 200 OK", _NO_LINE),
    _line("icy", "the same, of radio streams", b"ICY 200 OK", _NO_LINE),
    _line("http2", "a version that this cannot be", b"HTTP/2.0 200 OK"),
    _line("http3", "a version that does not exist like this", b"HTTP/1.7 200 OK"),
    _line("lower-case", "the protocol's name in lower case", b"http/1.1 200 OK", _NO_LINE),
    _line("no-code", "no status code", b"HTTP/1.1 OK"),
    _line("two-digits", "a status code of two digits", b"HTTP/1.1 20 OK"),
    _line("four-digits", "a status code of four digits", b"HTTP/1.1 2000 OK"),
    _line("under-100", "a status code that means nothing", b"HTTP/1.1 099 OK"),
    _line("negative", "a negative status code", b"HTTP/1.1 -20 OK"),
    _line("control", "a control character in the reason", b"HTTP/1.1 200 O\x01K"),
    _line("switching", "101, though nobody asked", b"HTTP/1.1 101 Switching Protocols"),
    _floods("status-blank-flood", "blank lines without end", b"", b"\r\n", _BAD_HEAD),
    _floods("status-reason-flood", "a reason without end", b"HTTP/1.1 200 ", b"a", _BAD_HEAD),
)


def _headers(name: str, about: str, lines: bytes, expected: Expected = _BAD_HEAD) -> Misbehaviour:
    """These header lines before a body of two bytes."""
    return _says(f"header-{name}", about, _LINE + lines + b"\r\n\r\nok", expected)


_LENGTH_2: Final = b"Content-Length: 2\r\n"

_HEADERS: Final = (
    _floods("header-flood", "headers without end", _LINE, b"X-Y: z\r\n", _BAD_HEAD),
    _floods("header-value-flood", "a header's value without end", _LINE + b"X: ", b"a", _BAD_HEAD),
    _floods("header-name-flood", "a header's name without end", _LINE, b"a", _BAD_HEAD),
    _headers("no-colon", "a line without a colon", _LENGTH_2 + b"nonsense"),
    _headers("space-before-colon", "a space before the colon", _LENGTH_2 + b"X : y"),
    _headers("empty-name", "a header without a name", _LENGTH_2 + b": y"),
    _headers("bad-name", "a name that is no token", _LENGTH_2 + b"X(y): z"),
    _headers("null-byte", "a NUL in a value", _LENGTH_2 + b"X: a\x00b"),
    _headers("bare-return", "a bare CR in a value", _LENGTH_2 + b"X: a\rY: b"),
    _headers("folded", "a value over two lines, long obsolete", _LENGTH_2 + b"X: a\r\n b"),
    _headers(
        "smuggled-chunks",
        "a length and chunks: two readers would see two bodies",
        _LENGTH_2 + b"Transfer-Encoding: chunked",
    ),
    _headers("two-lengths", "two lengths that differ", _LENGTH_2 + b"Content-Length: 3"),
    _headers("length-list", "a list of lengths", b"Content-Length: 2, 3"),
    _headers("negative-length", "a negative length", b"Content-Length: -2"),
    _headers("signed-length", "a length with a sign", b"Content-Length: +2"),
    _headers("hex-length", "a length that is no decimal", b"Content-Length: 0x2"),
    _headers("long-length", "a length beyond 64 bits", b"Content-Length: 99999999999999999999"),
    _headers("empty-length", "a length of nothing", b"Content-Length: "),
    _headers("spaced-length", "a length with a gap", b"Content-Length: 1 2"),
    _headers("unknown-coding", "a coding that nobody knows", b"Transfer-Encoding: xchunked"),
    _headers("coding-behind", "chunks inside another coding", b"Transfer-Encoding: chunked, gzip"),
    _headers("coding-before", "a coding inside chunks", b"Transfer-Encoding: gzip, chunked"),
    _headers(
        "twice-chunked",
        "chunks within chunks",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ),
)


def _chunks(name: str, about: str, data: bytes, expected: Expected | None = None) -> Misbehaviour:
    """These bytes as a chunked body."""
    return _says(f"chunk-{name}", about, _CHUNKED + data, expected or fails(_IN_BODY))


_BODIES: Final = (
    _chunks("no-number", "a size that is no number", b"zz\r\nok\r\n"),
    _chunks("negative", "a negative size", b"-2\r\nok\r\n"),
    _chunks("prefixed", "a size with 0x", b"0x2\r\nok\r\n"),
    _chunks("overflow", "a size beyond 64 bits", b"fffffffffffffffff\r\nok\r\n"),
    _chunks("empty-size", "no size", b"\r\nok\r\n"),
    _chunks("longer", "more bytes than its size", b"2\r\nokok\r\n0\r\n\r\n"),
    _chunks("bare-newline", "a size ended by LF alone", b"2\nok\r\n0\r\n\r\n"),
    _chunks("bad-trailer", "a trailer without a colon", b"2\r\nok\r\n0\r\nnonsense\r\n\r\n"),
    _floods(
        "chunk-extension-flood",
        "a chunk's extension without end",
        _CHUNKED + b"2;x=",
        b"a",
        fails(_IN_BODY + "chunk header or trailers over"),
    ),
    _floods(
        "chunk-trailer-flood",
        "trailers without end",
        _CHUNKED + b"2\r\nok\r\n0\r\n",
        b"X: y\r\n",
        fails(_IN_BODY + "chunk header or trailers over"),
    ),
    _says(
        "body-longer",
        "a body longer than its length",
        _LINE + b"Content-Length: 2\r\n\r\nok, and more",
        passes(),
    ),
    _says(
        "body-same-length-twice",
        "the same length twice: one answer, sloppily told",
        _LINE + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        _BAD_HEAD,
    ),
    _floods(
        "body-flood",
        "a body without end",
        _LINE + b"\r\n",
        b"a",
        fails("exceeds the frame limit of 10485760 bytes", error_class=ErrorClass.PERMANENT),
    ),
    _floods(
        "event-flood",
        "an event without end",
        _LINE + b"Content-Type: text/event-stream\r\n\r\ndata: ",
        b"a",
        fails("exceeds the frame limit of 10485760 bytes", error_class=ErrorClass.PERMANENT),
    ),
)

_INTERIM: Final = (
    _says(
        "interim-thousand",
        "a thousand interim responses, then the answer",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + _LINE + b"Content-Length: 2\r\n\r\nok",
        passes(reusable=True),
    ),
    _floods(
        "interim-flood",
        "interim responses without end",
        b"",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        _BAD_HEAD,
    ),
    _says(
        "interim-with-body",
        "an interim response that claims a body: the answer might be read as it",
        b"HTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\n" + _LINE + b"Content-Length: 2\r\n\r\nok",
        fails(_IN_HEAD + "interim response with a body"),
    ),
)


def _coded(name: str, about: str, coding: bytes, data: bytes, expected: Expected) -> Misbehaviour:
    """A body with that Content-Encoding."""
    head = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(data))
    return _says(f"coding-{name}", about, _LINE + head + data, expected)


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(_OVER_A_FRAME_BYTES), mtime=0)


def _bomb_response() -> bytes:
    data = _bomb()
    return _LINE + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def _nested_bomb_response() -> bytes:
    data = gzip.compress(_bomb(), mtime=0)
    head = b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(data)
    return _LINE + head + data


_TOO_LONG: Final = Expected(
    ErrorClass.PERMANENT,
    "exceeds the frame limit of 10485760 bytes|decodes to more than 1000 times its length",
    (Disposition.RESPONSE_STARTED, Disposition.COMPLETED),
    reusable=True,
)
_NOT_DECODED: Final = Expected(
    ErrorClass.TRANSIENT,
    "the body is not valid|ends before its end",
    (Disposition.RESPONSE_STARTED, Disposition.COMPLETED),
    reusable=True,
)
_GZIPPED: Final = gzip.compress(b"ok", mtime=0)

_CODINGS: Final = (
    Misbehaviour(
        "coding-bomb",
        "a thousandth of what it unpacks to",
        (Request(), Send(_bomb_response), Wait()),
        _TOO_LONG,
    ),
    Misbehaviour(
        "coding-bomb-in-bomb",
        "the same, packed twice",
        (Request(), Send(_nested_bomb_response), Wait()),
        _TOO_LONG,
    ),
    _coded("cut", "gzip that ends before its end", b"gzip", _GZIPPED[:-6], _NOT_DECODED),
    _coded("not-gzip", "text that claims to be gzip", b"gzip", b"ok", _NOT_DECODED),
    _coded(
        "bad-sum", "gzip whose checksum is wrong", b"gzip", _GZIPPED[:-8] + bytes(8), _NOT_DECODED
    ),
    _coded("not-br", "text that claims to be br", b"br", b"ok, not br", _NOT_DECODED),
    _coded(
        "not-deflate", "text that claims to be deflate", b"deflate", b"\xff\xff\xff", _NOT_DECODED
    ),
    _coded(
        "unknown", "a coding that nobody knows: handed on", b"x-none", b"ok", passes(reusable=True)
    ),
    _coded("surplus", "rubbish behind gzip", b"gzip", _GZIPPED + b"rubbish", passes(reusable=True)),
    _coded(
        "members",
        "gzip of thousands of empty members: work for nothing",
        b"gzip",
        gzip.compress(b"", mtime=0) * 3000,
        Expected(
            ErrorClass.PERMANENT,
            "more than 1000 members",
            (Disposition.RESPONSE_STARTED, Disposition.COMPLETED),
            reusable=True,
        ),
    ),
    _coded(
        "deflate-raw",
        "deflate without its header, as some servers send it",
        b"deflate",
        zlib.compress(b"ok")[2:-4],
        passes(reusable=True),
    ),
)


def _redirect(name: str, about: str, location: bytes, expected: Expected) -> Misbehaviour:
    """A 302 with such a Location, and a closed connection."""
    data = b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 2\r\n\r\nok"
    steps: tuple[Step, ...] = (Request(), Send(data), Wait(0.02), Close())
    return Misbehaviour(f"redirect-{name}", about, steps, expected)


_MOVED: Final = passes(status_code=302)

_REDIRECTS: Final = (
    _redirect("nowhere", "a redirect without Location", b"", _MOVED),
    _redirect("file", "a redirect to a file", b"Location: file:///etc/passwd\r\n", _MOVED),
    _redirect("two-ways", "two Locations that differ", b"Location: /a\r\nLocation: /b\r\n", _MOVED),
    _redirect("bad-port", "a redirect to a port that is none", b"Location: //h:99999/\r\n", _MOVED),
)

MESSAGES: Final = (*_STATUS_LINES, *_HEADERS, *_BODIES, *_INTERIM, *_CODINGS, *_REDIRECTS)
"""All of them, in the order of a response."""
