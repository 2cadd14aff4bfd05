"""HTTP/1.1 responses from bytes, without I/O: httptools, and the rules that it leaves to others.

llhttp (inside httptools) does the grammar, strictly. Ours are: the bound on the header block, HEAD,
interim responses, bodies that end with the connection, transfer codings, what may follow a
response, and whether the connection can serve again. One `ResponseParser` lives as long as its
connection and is its own callback object; `begin` makes it ready for the next response.

A long body whose length was given needs no grammar: it is counted here, as it was received, which
saves a copy of it. The parser of the head has no end then, and another is made for what follows.

Bounds: a head (with all interim ones before it) and the trailers are held in memory, so each is cut
off at `head_limit_bytes`; the same bound holds for one chunk header with its extensions.
"""

import httptools

from vastar_runtime.transport.errors import InvalidResponse, ResponseCutShort
from vastar_runtime.transport.messages import Headers

__all__ = ["ResponseParser"]

_SWITCHING_PROTOCOLS = 101
_CONTROLS = bytes({*range(32), 127} - {9})  # RFC 9112, 4: a tab is allowed
_FIRST_FINAL_STATUS = 200
_FIRST_STATUS = 100
_OTHER_CODING = "transfer coding other than chunked, once"
_COUNTED_BYTES = 65536
"""Of a body to come from which on it is counted: a new parser costs as much as copying so much."""


class ResponseParser:
    """The responses of one connection, one at a time.

    Attributes (each is of the response begun last):
        status, reason, http_version ("1.1" or "1.0"), headers (names in lower case, in order).
        trailers: complete once `complete` is.
        body: pieces received and not yet taken; the reader empties the list.
        body_bytes: length of the body so far.
        head_complete, complete: what has been received.
        keep_alive: whether the upstream will take another request; true only once complete.
        broke_in_body: what it was refused for lies behind its head.
        excess: bytes came behind the end of the response: the connection must not be used again.
    """

    __slots__ = (
        "_counted_bytes",
        "_head_bytes",
        "_head_limit",
        "_is_head",
        "_parser",
        "_quiet_bytes",
        "_stale",
        "_violation",
        "body",
        "body_bytes",
        "broke_in_body",
        "complete",
        "excess",
        "head_complete",
        "headers",
        "http_version",
        "keep_alive",
        "reason",
        "status",
        "trailers",
    )

    def __init__(self, head_limit_bytes: int) -> None:
        self._head_limit = head_limit_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._stale = False
        self.broke_in_body = False  # never taken back: it serves no other response
        self.begin(b"GET")

    def begin(self, method: bytes) -> None:
        """Make ready for the response to a request with this method."""
        if self._stale:
            self._parser = httptools.HttpResponseParser(self)
            self._stale = False
        self._is_head = method == b"HEAD"
        self._head_bytes = 0
        self._counted_bytes = 0
        self._quiet_bytes = 0
        self._violation: str | None = None
        self.status = 0
        self.reason = b""
        self.http_version = "1.1"
        self.headers: Headers = []
        self.trailers: Headers = []
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self.excess = False

    def let_go(self) -> None:
        """Take no more: part from the C parser, which points back, so that both go at once."""
        self._parser = None

    def feed(self, data: bytes) -> None:
        """Take received bytes, at least one.

        Raises:
            InvalidResponse: they break HTTP/1.1. What came before the fault stays readable.
        """
        if self._counted_bytes:
            self._count_body(data)
        elif self.head_complete:
            self._feed_body(data)
        else:
            self._feed_head(data)
            self._count_from_here()
        if self._violation is not None:
            raise InvalidResponse(f"invalid HTTP: {self._violation}")

    def _feed_head(self, data: bytes) -> None:
        if not self._head_bytes and data[0] in b"RI":
            # llhttp also reads RTSP and ICE status lines.
            raise InvalidResponse("invalid HTTP: no HTTP/1.x status line")
        room = self._head_limit - self._head_bytes
        self._head_bytes += len(data)
        if len(data) <= room:
            self._parse(data)
            return
        # The head must end within the bound, wherever in this piece that is.
        self._parse(data[:room])
        if self.head_complete:
            self._parse(data[room:])
        elif self._violation is None:
            self._violation = f"header block over {self._head_limit} bytes"

    def _count_from_here(self) -> None:
        """Count what is left of the body, if it is long and its length is known."""
        if self.complete or not self.head_complete:
            return
        framing = self._framing()
        length = framing.get(b"content-length")
        if length is not None and len(framing) == 1:
            left_bytes = int(length) - self.body_bytes
            if left_bytes >= _COUNTED_BYTES:
                self._counted_bytes = left_bytes
                self._stale = True

    def _count_body(self, data: bytes) -> None:
        size = len(data)
        if size > self._counted_bytes:
            self.excess = True
            size = self._counted_bytes
            data = data[:size]
        self.body.append(data)
        self.body_bytes += size
        self._counted_bytes -= size
        self.complete = not self._counted_bytes

    def _feed_body(self, data: bytes) -> None:
        before = self.body_bytes
        self._parse(data)
        if self.body_bytes != before or self.complete:
            self._quiet_bytes = 0
            return
        # No body byte in all this: chunk extensions or trailers without end.
        self._quiet_bytes += len(data)
        if self._quiet_bytes > self._head_limit and self._violation is None:
            self._violation = f"chunk header or trailers over {self._head_limit} bytes"

    def _parse(self, data: bytes) -> None:
        try:
            if self._is_head:
                self._parse_lines(data)
            else:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:
                self.excess = True
            elif self._violation is None:
                self._violation = _words(error)
                self.broke_in_body = self.head_complete

    def _parse_lines(self, data: bytes) -> None:
        """Line by line, as llhttp would take what follows the head for the body it waits for."""
        for line in data.splitlines(keepends=True):
            if self.complete:
                self.excess = True
                return
            self._parser.feed_data(line)

    def feed_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            ResponseCutShort: the response was not whole; the text says how far it got.
        """
        if self.complete:
            return
        if not self.head_complete:
            raise ResponseCutShort(
                "closed inside the response head"
                if self._head_bytes
                else "closed before the response"
            )
        framing = self._framing()
        if not framing:
            self.complete = True
            return
        length = framing.get(b"content-length")
        of = "" if length is None else f" of {int(length)}"
        raise ResponseCutShort(f"response cut short: {self.body_bytes}{of} bytes")

    def _framing(self) -> dict[bytes, bytes]:
        """The headers that say where the body ends."""
        return {name: value for name, value in self.headers if name in _FRAMING}

    # The names below are httptools' own.

    def on_message_begin(self) -> None:
        """A status line starts: the first, one behind an interim response, or one too many."""
        if self.complete:
            self.excess = True
        else:
            self.reason = b""
            self.headers.clear()

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason phrase."""
        if self.complete:
            return
        self.reason += reason
        if reason.translate(None, _CONTROLS) != reason:
            self._violation = "control character in the reason phrase"

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or behind it of the trailers."""
        if self.complete:
            return
        fields = self.trailers if self.head_complete else self.headers
        name = name.lower()
        if name == b"transfer-encoding" and b"\t" in value:
            # llhttp takes `chunked` with a tab behind it for another coding, and reads on.
            self._violation = _OTHER_CODING
        fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The end of a head; an interim one is dropped when the next begins."""
        if self.complete:
            return
        parser = self._parser
        status = parser.get_status_code()
        self.status = status
        if status < _FIRST_FINAL_STATUS:
            if status == _SWITCHING_PROTOCOLS:
                self._violation = "101 without a request for an upgrade"
            elif status < _FIRST_STATUS:
                self._violation = "status code under 100"
            elif status not in _BODILESS_INTERIM and any(
                name in _FRAMING and value != b"0" for name, value in self.headers
            ):
                # It ends with its head (RFC 9110, 15.2), but llhttp would go by its framing.
                self._violation = "interim response with a body"
            return
        self.http_version = parser.get_http_version()
        if self.http_version not in {"1.1", "1.0"}:
            self._violation = "HTTP version other than 1.0 or 1.1"
            return
        self.head_complete = True
        is_chunked = False
        for name, value in self.headers:
            if name == b"transfer-encoding":
                if is_chunked or value.lower() != b"chunked":
                    self._violation = _OTHER_CODING
                is_chunked = True
        if self._is_head:
            # llhttp does not know the request: it waits for a body that will not come, unless it
            # says at once that the message ends. Until then it is no use for another response.
            self.keep_alive = self._persists()
            self.complete = True
            self._stale = True
        else:
            self.keep_alive = parser.should_keep_alive()
        if is_chunked and self.http_version == "1.0":
            self.keep_alive = False  # RFC 9112, 6.1: its framing is not to be trusted

    def _persists(self) -> bool:
        """RFC 9112, 9.3, for a response whose framing does not matter."""
        options = b",".join(v for n, v in self.headers if n == b"connection").lower()
        tokens = {token.strip() for token in options.split(b",")}
        if self.http_version == "1.0":
            return b"keep-alive" in tokens
        return b"close" not in tokens

    def on_body(self, piece: bytes) -> None:
        """Decoded body bytes."""
        if self.complete:
            self.excess = True
            return
        self.body.append(piece)
        self.body_bytes += len(piece)

    def on_message_complete(self) -> None:
        """The end of an interim or of the final response, as its framing tells."""
        if not self.head_complete:
            return
        if not self.complete:
            self.complete = True
        elif not self.excess:
            self._stale = False  # HEAD, and llhttp agrees that nothing follows


_FRAMING = {b"content-length", b"transfer-encoding"}
_BODILESS_INTERIM = {100, 102, 103}
"""Those that llhttp knows to have none, whatever they say."""


def _words(error: Exception) -> str:
    text = str(error)
    if text.startswith("Expected HTTP/"):
        return "no HTTP/1.x status line"
    return text[:1].lower() + text[1:]
