"""The values that go into the transport: where to, and what to send.

`Origin` is a plain tuple and the request a `msgspec.Struct`, not attrs: both are made or hashed on
every call, and these cost a fifth of a frozen attrs class.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec

__all__ = [
    "Body",
    "BodySource",
    "Buffer",
    "Headers",
    "Origin",
    "UpstreamRequest",
    "header_values",
    "is_event_stream",
    "rewind",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes of any kind. A memoryview must be one-dimensional over single bytes."""

Body: TypeAlias = Buffer | Sequence[Buffer] | None
Headers: TypeAlias = list[tuple[bytes, bytes]]

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port of an upstream (RFC 6454).

    Attributes:
        scheme: `http` or `https`.
        host: lower case ASCII name or address, an IPv6 address without brackets.
        port: 1 to 65535, always given.
    """

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """`host:port`, always with the port: what errors and CONNECT name."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """What the Host header says: without the scheme's default port (RFC 9110, 7.2)."""
        if self.port != _DEFAULT_PORTS.get(self.scheme):
            return self.address
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return _text_of(self)


class BodySource:
    """A request body that is still being made: derive from it.

    One task reads at a time. It is no protocol as whether a body is one is asked on every call, and
    `isinstance` of a protocol costs microseconds.

    Attributes:
        length_bytes: how long it says it is; `None` = not known: it is sent in chunks.
        consumed_bytes: read since its start, or since it began again.
    """

    __slots__ = ()
    length_bytes: int | None
    consumed_bytes: int

    async def read_some(self) -> Buffer:
        """The next bytes, at least one and best no more than 64 KiB; `b""` at the end and after it.

        Cancelling loses nothing.

        Raises:
            BodyAborted: whoever makes the body gave up; every later read raises it too.
        """
        raise NotImplementedError

    def rewind(self) -> bool:
        """Begin again from the start, and whether that can be; if not, nothing has changed.

        It can while no more than `REPLAY_BYTES` were ever read, as all of them are kept so long.
        """
        raise NotImplementedError


def rewind(body: Body | BodySource) -> bool:
    """Make `body` ready to be sent from its start, again or not; whether that can be."""
    return not isinstance(body, BodySource) or not body.consumed_bytes or body.rewind()


def header_values(headers: Headers, name: bytes) -> list[bytes]:
    """The values of header `name` (lower case), in order."""
    return [value for key, value in headers if key == name]


def is_event_stream(headers: Headers) -> bool:
    """Whether these are the headers of a stream of server-sent events (WHATWG)."""
    values = header_values(headers, b"content-type")
    return bool(values) and values[0].partition(b";")[0].strip().lower() == b"text/event-stream"


@lru_cache(maxsize=1024)
def _text_of(origin: Origin) -> str:
    """Asked for with every call, mostly for one of a few."""
    return f"{origin.scheme}://{origin.authority}"


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, ready to be written. The caller has validated every part (no CR, LF, NUL).

    Attributes:
        method: such as `b"GET"`; compared as it is.
        target: path and query, starting with `/`, or `b"*"`.
        headers: in order, with `host`, without `content-length` and `transfer-encoding`: framing
            is the transport's own.
        body: sent without a copy; `None` = no body. A source is read while it is sent.
        replayable: safe to send twice although the method is not idempotent, for example because
            it carries an idempotency key.
    """

    method: bytes
    origin: Origin
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: Body | BodySource = None
    replayable: bool = False

    def __repr__(self) -> str:
        """Without target, headers and body: they hold keys, cookies and what is private."""
        return f"UpstreamRequest({self.method!r}, {self.origin}, ...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for pretty printers, which msgspec would hand every field."""
        return [("method", self.method), ("origin", str(self.origin))]
