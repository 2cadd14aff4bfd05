"""Keep secrets out of logs, errors and traces.

Plain functions over text and pairs, because they are called at many edges: the place that builds a
message redacts what it puts in, and the log pipeline redacts again as the second line of defence.
They work on any text, valid URL or not: a URL that does not parse is just what an error quotes.
When in doubt they hide: a parameter too many costs a reader little, a key in a log costs a lot.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

__all__ = [
    "REDACTED",
    "is_secret_header",
    "is_secret_parameter",
    "may_hold_secret",
    "redact_headers",
    "redact_text",
    "redact_url",
    "shorten",
]

REDACTED: Final = "[redacted]"

MAX_URL_CHARS: Final = 512
"""A URL in a log line: enough to tell endpoints apart, too little to smuggle a body."""

MAX_HEADER_VALUE_CHARS: Final = 256

_SECRET_PART: Final = re.compile(
    r"token|secret|passw|pwd|api_?key|apikey|credential|signature|cookie|oauth|authoriz|authentic"
    r"|session|bearer|private"
)
_SECRET_WORDS: Final = frozenset(
    {"access", "assertion", "auth", "code", "jwt", "key", "nonce", "otp", "pass", "pin", "sas"}
    | {"pat", "sid", "sig", "sign", "state", "ticket"}
)
_WORD_BREAK: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")

_SECRET_HEADER: Final = re.compile(r"auth|cookie|token|secret|key|passw|credential|signature|sess")

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[/\\]*")
_AUTHORITY_END: Final = re.compile(r"[/\\?#]")
_IGNORED_BY_URL_PARSERS: Final = re.compile(r"[\t\r\n]")
_PLAUSIBLE_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")

# Every repeat below is bounded or cannot overlap what follows it: the time is linear in the text.
_USERINFO_IN_TEXT: Final = re.compile(r"(:(?://|\\\\))[^\s/?#\\]{1,512}@")
_URL_IN_TEXT: Final = re.compile(r"""(:(?://|\\\\))([^\s"'<>]+)""")
_ASSIGNMENT_IN_TEXT: Final = re.compile(
    r"(?i)((?:authorization|api[_-]?key|token|secret|passw(?:or)?d|cookie)[\w\-]{0,40}[\"']?"
    r"\s{0,8}[:=]\s{0,8})(\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'"
    r"|(?:(?:Basic|Bearer|Digest|Token)\s{1,8})?[^\s,;&\"'}\])]+)"
)
_SECRET_SHAPES: Final = re.compile(
    r"(?i:\b(?:bearer|basic)\s{1,8})[A-Za-z0-9+/=_.~\-]{6,}"
    r"|\b(?:sk|pk|rk)[-_][A-Za-z0-9_\-]{8,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w\-]{16,}"
    r"|\bxox[abeoprs]-[A-Za-z0-9\-]{8,}|\bA[KS]IA[A-Z0-9]{16}\b|\bAIza[\w\-]{30,}"
    r"|\beyJ[\w\-]{4,}\.[\w\-]{4,}(?:\.[\w\-]*)?"
)
_URL_HINTS: Final = ("://", ":\\\\")
_WORD_HINTS: Final = ("authorization", "key", "token", "secret", "passw", "cookie")
_SHAPE_HINTS: Final = ("bearer", "basic", "k-", "k_", "gh", "glpat-", "xox", "ia", "eyj")


def redact_url(url: str, *, max_chars: int = MAX_URL_CHARS) -> str:
    """`url` without userinfo and fragment, with secret query values replaced, and not too long.

    Works on any text; what does not look like a URL is treated as one without a scheme.
    """
    text = _IGNORED_BY_URL_PARSERS.sub("", url).strip()
    # A WHATWG parser takes any number of slashes, either way round, after a special scheme. A
    # "host:8080" without a scheme reads as one here, which changes nothing below.
    scheme = _SCHEME.match(text)
    head = scheme.group() if scheme else ""
    authority = _AUTHORITY_END.split(text[len(head) :], maxsplit=1)[0]
    tail = text[len(head) + len(authority) :]
    authority = authority.rpartition("@")[2]
    if "@" in tail and not _PLAUSIBLE_AUTHORITY.fullmatch(authority):
        # "user:pa/ss@host": no parser takes it, so the error that quotes it must not show "pa".
        return shorten(head, max_chars) + REDACTED
    path, mark, query = tail.partition("#")[0].partition("?")
    clean = head + authority + path + mark + _redact_query(query)
    return shorten(_SECRET_SHAPES.sub(REDACTED, clean), max_chars)


def _redact_query(query: str) -> str:
    parts = re.split(r"([&;])", query)
    return "".join(_redact_parameter(part) for part in parts)


def _redact_parameter(part: str) -> str:
    name, equals, _value = part.partition("=")
    return f"{name}={REDACTED}" if equals and is_secret_parameter(unquote_plus(name)) else part


@lru_cache(maxsize=1024)
def is_secret_parameter(name: str) -> bool:
    """Whether the value of a query parameter (or form field) of this name is to be hidden."""
    if _SECRET_PART.search(name.lower().replace("-", "_")):
        return True
    return any(word.lower() in _SECRET_WORDS for word in _WORD_BREAK.split(name))


@lru_cache(maxsize=1024)
def is_secret_header(name: str) -> bool:
    """Whether the value of a header of this name is to be hidden."""
    return _SECRET_HEADER.search(name.lower()) is not None


def redact_headers(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same pairs in the same order, secret values replaced, the others bounded."""
    return [
        (name, REDACTED)
        if is_secret_header(name)
        else (name, redact_text(shorten(value, MAX_HEADER_VALUE_CHARS)))
        for name, value in pairs
    ]


def may_hold_secret(text: str) -> bool:
    """A quick look (1 us for 100 characters) that never misses what `redact_text` would hide."""
    # Spelled out: a generator over the hints above takes four times as long.
    low = text.lower()
    return (
        ("://" in low or ":\\\\" in low)
        or ("authorization" in low or "key" in low or "token" in low)
        or ("secret" in low or "passw" in low or "cookie" in low)
        or ("bearer" in low or "basic" in low or "k-" in low or "k_" in low or "gh" in low)
        or ("glpat-" in low or "xox" in low or "ia" in low or "eyj" in low)
    )


def redact_text(text: str) -> str:
    """Free text (a message, a traceback) with URLs, `name=value` secrets and known keys hidden."""
    lower = text.lower()
    if any(hint in lower for hint in _URL_HINTS):
        text = _URL_IN_TEXT.sub(_redact_found_url, _USERINFO_IN_TEXT.sub(r"\1", text))
    if any(hint in lower for hint in _WORD_HINTS):
        text = _ASSIGNMENT_IN_TEXT.sub(rf"\1{REDACTED}", text)
    if any(hint in lower for hint in _SHAPE_HINTS):
        text = _SECRET_SHAPES.sub(REDACTED, text)
    return text


def _redact_found_url(match: re.Match[str]) -> str:
    # The scheme in front of it is not looked for: that would be quadratic in a long word.
    return redact_url("x" + match.group())[1:]


def shorten(text: str, max_chars: int) -> str:
    """`text`, or its beginning and how much was left out."""
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}... ({len(text) - max_chars} more characters)"
