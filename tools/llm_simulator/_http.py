"""HTTP/1.1 as a server sees it, without I/O: bytes in, whole requests out, and heads of answers.

`RequestReader` is a callback object of httptools. Requests that arrive together are queued and
answered one after another, which is all that pipelining asks of a server.
"""

from collections import deque
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

import attrs
import httptools

HEAD_LIMIT_BYTES = 65_536
BODY_LIMIT_BYTES = 64 * 1024 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class BadRequestError(Exception):
    """Bytes that are no request, or one too large: the status to refuse with."""

    def __init__(self, status: int) -> None:
        super().__init__(HTTPStatus(status).phrase)
        self.status = status


@attrs.frozen
class Request:
    """One request. `path` is decoded and without query; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool
    chunked_ok: bool
    """False for HTTP/1.0, whose bodies end with the connection."""


class RequestReader:
    """The requests of one connection, from bytes in any split."""

    def __init__(self, body_limit_bytes: int = BODY_LIMIT_BYTES) -> None:
        self._body_limit_bytes = body_limit_bytes
        self._too_large = False
        self.ready: deque[Request] = deque()
        self.body_awaited = False
        """The client waits for `100 Continue`. Whoever sends that clears it."""
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._begin()

    @property
    def between_requests(self) -> bool:
        """Whether nothing of a next request has come."""
        return not self._started

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes; finished requests go to `ready`.

        Raises:
            BadRequestError: this is not HTTP, or beyond a limit; the connection is of no more use.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Nobody here speaks another protocol: an Upgrade is ignored, as RFC 9110 7.8 allows.
            rest = data[upgrade.args[0] :]
            self._parser = httptools.HttpRequestParser(self)
            if rest:
                self.feed(rest)
                return
        except httptools.HttpParserError:
            raise BadRequestError(400) from None
        self._check_limits(len(data))

    def _check_limits(self, fed_bytes: int) -> None:
        self._head_bytes = 0 if self._in_body or not self._started else self._head_bytes + fed_bytes
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise BadRequestError(431)
        if self._too_large:
            raise BadRequestError(413)

    def _begin(self) -> None:
        self._started = False
        self._in_body = False
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0

    # Called by httptools.

    def on_message_begin(self) -> None:
        """A request line starts."""
        self._begin()
        self._started = True

    def on_url(self, url: bytes) -> None:
        """A part of the target: it comes in several when the bytes did."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line, or a trailer."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        """The head has ended; what says how to answer is right only now."""
        self._in_body = True
        self._keep_alive = self._parser.should_keep_alive()
        self._chunked_ok = self._parser.get_http_version() != "1.0"
        self.body_awaited = self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        """A portion of the body, chunks already undone."""
        self._body_bytes += len(body)
        if self._body_bytes <= self._body_limit_bytes:
            self._body.append(body)
        else:
            self._too_large = True  # an exception from here would come out as another

    def on_message_complete(self) -> None:
        """A whole request."""
        self.ready.append(
            Request(
                method=self._parser.get_method().decode("ascii"),
                path=_path(self._url),
                headers=self._headers,
                body=b"".join(self._body),
                keep_alive=self._keep_alive,
                chunked_ok=self._chunked_ok,
            )
        )
        self.body_awaited = False
        self._begin()


def head(
    status: int,
    *,
    content_type: str = "",
    headers: tuple[tuple[str, str], ...] = (),
    content_length: int | None = None,
    chunked: bool = False,
    close: bool = False,
) -> bytes:
    """The head of an answer; neither length nor chunks means: the end of the connection ends it."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    if content_type:
        lines.append(f"content-type: {content_type}")
    lines += [f"{name}: {value}" for name, value in headers]
    if content_length is not None:
        lines.append(f"content-length: {content_length}")
    if chunked:
        lines.append("transfer-encoding: chunked")
    if close:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """`data` (not empty) as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Simulated"


def _path(target: bytes) -> str:
    """The path of a target in origin form (`/x?y`) or absolute form (`http://h/x`)."""
    text = target.decode("latin-1")
    if not text.startswith("/"):
        text = urlsplit(text).path
    return unquote(text.partition("?")[0])
