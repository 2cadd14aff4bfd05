"""URLs: from the caller's text to an origin and a request target, by WHATWG's rules.

`ada_url` parses as browsers and the published runtime do: spaces and non-ASCII are
percent-encoded, host names go through IDNA, odd IPv4 spellings are normalised. The results are
cached, because a connector calls the same few URLs again and again.
"""

import re
from base64 import b64encode
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import ada_url
import attrs

from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.redaction import REDACTED, redact_url
from vastar_runtime.transport.messages import Origin

__all__ = ["Target", "parse_target", "resolve_location", "with_query"]

_PORTS: Final = {"http:": 80, "https:": 443}
_CACHED_URLS: Final = 2048
_MAX_CACHED_URL_CHARACTERS: Final = 1024
"""Longer ones are made for one call, and would let the cache grow to hundreds of megabytes."""
_MAX_URL_BYTES: Final = 64 * 1024
"""As the limit of a header block: no server takes a longer request line."""
_AROUND: Final = "".join(map(chr, range(0x21)))
_LINE_END: Final = re.compile(r"[\r\n]")
"""Inside of a URL the parser drops line ends, as browsers do, and nothing is smuggled; but whoever
writes one means something else than would be sent."""
_PRINTABLE: Final = " :/?#[]@!$&'()*+,;=%<>\\^`{|}~\""


@attrs.frozen
class Target:
    """Where a request goes.

    Attributes:
        path_and_query: the request target in origin form (RFC 9112 section 3.2.1).
        authorization: Basic credentials from the URL's userinfo, or None.
        href: the normalised URL with query, without userinfo and fragment.
    """

    origin: Origin
    path_and_query: bytes = attrs.field(repr=False)
    authorization: bytes | None = attrs.field(repr=False)
    href: str = attrs.field(repr=False)


def parse_target(url: str) -> Target:
    """The target of `url`.

    Raises:
        InvalidCall: no http or https URL with a host.
    """
    if not url:
        raise InvalidCall("Invalid URL: it is empty; expected http://host/... or https://host/...")
    if len(url) > _MAX_URL_BYTES:
        raise InvalidCall(f"Invalid URL: {len(url)} characters, more than {_MAX_URL_BYTES}")
    return _parse_cached(url) if len(url) <= _MAX_CACHED_URL_CHARACTERS else _parse(url)


def _parse(url: str) -> Target:
    if _LINE_END.search(url.strip(_AROUND)):
        raise InvalidCall("Invalid URL: it has a line end (CR or LF) inside; write it on one line")
    try:
        parsed = ada_url.URL(url)
    except (ValueError, UnicodeEncodeError):
        raise InvalidCall(
            f"Invalid URL: cannot parse {_shown(url)!r}; expected http://host[:port]/path"
        ) from None
    return _target_of(parsed)


_parse_cached = lru_cache(maxsize=_CACHED_URLS)(_parse)


def resolve_location(base: Target, location: bytes) -> Target | None:
    """Where a `Location` header leads, or None when it leads nowhere that can be followed.

    A location is text of unknown encoding: UTF-8 where it is that, else Latin-1 (as browsers do).
    """
    try:
        text = location.decode()
    except UnicodeDecodeError:
        text = location.decode("latin-1")
    if not text.strip():
        return None
    try:
        return _target_of(ada_url.URL(text, base.href))
    except (ValueError, InvalidCall):
        return None


def with_query(url: str, query: str) -> str:
    """`url` with the encoded `query` appended to what query it has."""
    if not query:
        return url
    main, hash_, fragment = url.partition("#")
    joint = "&" if "?" in main and not main.endswith(("?", "&")) else "" if "?" in main else "?"
    return f"{main}{joint}{query}{hash_}{fragment}"


def _target_of(parsed: "ada_url.URL") -> Target:
    default_port = _PORTS.get(parsed.protocol)
    if default_port is None:
        raise InvalidCall(
            f"Invalid URL: scheme {parsed.protocol[:-1][:20]!r} is not supported; "
            "expected http or https"
        )
    port = int(parsed.port) if parsed.port else default_port
    if port == 0:
        raise InvalidCall("Invalid URL: port 0 cannot be connected to; expected 1 to 65535")
    path_and_query = parsed.pathname + parsed.search
    if len(path_and_query) > _MAX_URL_BYTES:
        raise InvalidCall(
            f"Invalid URL: {len(path_and_query)} bytes when encoded, more than {_MAX_URL_BYTES}"
        )
    scheme = parsed.protocol[:-1]
    origin = Origin(scheme, parsed.hostname.strip("[]"), port)
    return Target(
        origin=origin,
        path_and_query=path_and_query.encode(),
        authorization=_basic(parsed.username, parsed.password),
        href=f"{scheme}://{parsed.host}{path_and_query}",
    )


def _basic(username: str, password: str) -> bytes | None:
    """RFC 7617 credentials of percent-encoded userinfo."""
    if not username and not password:
        return None
    pair = unquote_to_bytes(username) + b":" + unquote_to_bytes(password)
    return b"Basic " + b64encode(pair)


def _shown(url: str) -> str:
    """`url` as an error may show it: short, no secrets, printable."""
    before_query, mark, query = redact_url(url).partition("?")
    # What does not parse has its userinfo anywhere: nothing in front of an "@" is shown.
    hidden = "@" in before_query
    shown = f"{REDACTED}@{before_query.rpartition('@')[2]}" if hidden else before_query
    return quote(f"{shown}{mark}{query}", safe=_PRINTABLE, errors="replace")[:200]
