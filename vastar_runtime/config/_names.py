"""The names that an operator chooses: of tenants, workspaces and origins.

An origin has one canonical text, the one that a call's URL leads to (`transport.messages.Origin`),
because settings are found by it. The same parser makes both (WHATWG's rules), so a name in a file
cannot miss its calls by spelling.
"""

import re
from typing import Final

from vastar_runtime.redaction import REDACTED, redact_text, shorten

__all__ = ["BadName", "any_name", "canonical_origin", "shown_name"]

MAX_NAME_CHARS: Final = 1024
_MAX_SHOWN_CHARS: Final = 80

_SCHEME: Final = re.compile(r"(?i)([a-z][a-z0-9+.-]*)://")
_EXAMPLE: Final = 'write scheme://host or scheme://host:port, such as "https://api.example.com"'
_SCHEMES: Final = ("http", "https")
_NEVER_IN_ORIGINS: Final = re.compile(r"[\s\\\x00-\x1f]")
"""What the parser strips or takes for something else, and nobody writes on purpose."""
_AFTER_AUTHORITY: Final = re.compile(r"[/?#]")


class BadName(ValueError):  # noqa: N818 - it is the name that is bad
    """A name that cannot be used; `wrong` and `right` are as in a `Problem`, without secrets."""

    def __init__(self, wrong: str, right: str) -> None:
        self.wrong = wrong
        self.right = right
        super().__init__(f"{wrong}; {right}")


def shown_name(name: str) -> str:
    """A name that could not be used, as an error may quote it: without secrets, and short."""
    return REDACTED if "@" in name else shorten(redact_text(name), _MAX_SHOWN_CHARS)


def any_name(name: str) -> str:
    """The name of a tenant or workspace, as it is; the empty one is of callers that give none.

    Raises:
        BadName: it is too long.
    """
    if len(name) > MAX_NAME_CHARS:
        raise BadName(
            f"the name has {len(name)} characters",
            f"give one of at most {MAX_NAME_CHARS}, as callers may send",
        )
    return name


def canonical_origin(name: str) -> str:
    """The one text of an origin: `scheme://host`, with `:port` where it is not the scheme's own.

    Raises:
        BadName: it is no origin, or says more than one.
    """
    if "@" in name:
        raise BadName("it has a user part", f"leave that out: {_EXAMPLE}")
    if _NEVER_IN_ORIGINS.search(name):
        raise BadName("it has characters that do not belong there", _EXAMPLE)
    scheme = _SCHEME.match(name)
    if scheme is None:
        guess = _parsed(f"https://{name}")
        raise BadName("it has no scheme", f'write "{guess}"' if guess else _EXAMPLE)
    if scheme[1].lower() not in _SCHEMES:
        raise BadName(f"the scheme {scheme[1][:20]} is not supported", _EXAMPLE)
    origin = _parsed(name)
    if origin is None:
        raise BadName("it is no origin", _EXAMPLE)
    if origin.endswith(":0"):
        raise BadName("port 0 cannot be connected to", "give a port from 1 to 65535, or none")
    if _AFTER_AUTHORITY.search(name, scheme.end()):
        raise BadName("it has more than scheme, host and port", f'write "{origin}"')
    return origin


def _parsed(url: str) -> str | None:
    # Loaded here because it takes 14 ms, and few files name an origin.
    import ada_url  # noqa: PLC0415 - as said

    try:
        parsed = ada_url.URL(url)
    except (ValueError, UnicodeEncodeError):
        return None
    return f"{parsed.protocol}//{parsed.host}"
