"""The client credentials grant of OAuth 2.0 (RFC 6749, 4.4): bytes out, bytes in, no I/O.

The token's server is the operator's choice, and still not trusted with our log: of what it answers
only the status, the error codes that the RFC knows, and the lifetime are ever told.
"""

from base64 import b64encode
from typing import Final, TypeAlias
from urllib.parse import quote_plus, urlencode

import attrs
import msgspec

from vastar_runtime.config import OAuth2Config
from vastar_runtime.outcomes import FailureKind
from vastar_runtime.transport.messages import Headers, Origin, UpstreamRequest

__all__ = ["DEFAULT_LIFETIME_S", "MAX_ANSWER_BYTES", "Denied", "Granted", "read_answer",
           "token_request"]  # fmt: skip

MAX_ANSWER_BYTES: Final = 256 * 1024
DEFAULT_LIFETIME_S: Final = 300.0
"""Of a token that says none; ours: the RFC leaves it open."""

_LONGEST_LIFETIME_S: Final = 10 * 366 * 24 * 3600.0
_MAX_TOKEN_CHARS: Final = 16 * 1024
_OK: Final = 200
_FIRST_ERROR: Final = 400
_TOO_MANY: Final = 429
_FIRST_SERVER_ERROR: Final = 500
_MAY_PASS: Final = frozenset({408, 425})
_CODES: Final = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""RFC 6749, 5.2, and what servers borrow from 4.1.2.1 and RFC 8707. Others are not repeated."""


@attrs.frozen
class Granted:
    """A token, and how long it may be used from when it was asked for."""

    token: str = attrs.field(repr=False)
    lifetime_s: float


@attrs.frozen
class Denied:
    """Why there is no token.

    Attributes:
        kind: whose doing it is, as for any call.
        words: for people.
        retry_after_s: when the server said to come back.
    """

    kind: FailureKind
    words: str
    retry_after_s: float | None = None


Answer: TypeAlias = Granted | Denied


class _Answer(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float | int | str | None = None

    def __repr__(self) -> str:
        return "_Answer(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return []


class _Error(msgspec.Struct):
    error: str


def token_request(
    settings: OAuth2Config, origin: Origin, target: bytes, client_secret: str
) -> UpstreamRequest:
    """The request for a token.

    Args:
        settings: as checked: with an id.
        origin: of the token's URL.
        target: its path and query.
        client_secret: as it is now.
    """
    client_id = settings.client_id or ""
    fields = {"grant_type": "client_credentials"}
    if settings.scope is not None:
        fields["scope"] = settings.scope
    if settings.audience is not None:
        fields["audience"] = settings.audience
    headers: Headers = [
        (b"host", origin.authority.encode()),
        (b"accept", b"application/json"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    if settings.client_auth == "body":
        fields |= {"client_id": client_id, "client_secret": client_secret}
    else:
        # RFC 6749, 2.3.1: both are encoded as a form's, and only then joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        headers.append((b"authorization", b"Basic " + b64encode(pair.encode())))
    return UpstreamRequest(
        method=b"POST",
        origin=origin,
        target=target,
        headers=headers,
        body=urlencode(fields).encode(),
        replayable=True,  # asking twice gives two tokens, which harms nobody
    )


def read_answer(status: int, body: bytes, retry_after_s: float | None = None) -> Answer:
    """What the token's server answered.

    Args:
        status: of HTTP.
        body: all of it.
        retry_after_s: what the answer's headers ask for.
    """
    if status != _OK:
        return Denied(_kind_of(status), _words_of(status, body), retry_after_s)
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _no_token("its answer holds no token")
    if answer.token_type.lower() != "bearer":
        return Denied(FailureKind.UPSTREAM_PERMANENT, "its token is of a type other than Bearer")
    token = answer.access_token
    if not (0 < len(token) <= _MAX_TOKEN_CHARS) or not token.isascii() or not token.isprintable():
        return _no_token("its token is empty, too long, or nothing that a header can hold")
    if " " in token:
        return _no_token("its token has blanks in it")
    lifetime_s = _lifetime(answer.expires_in)
    if lifetime_s <= 0:
        return _no_token("its token has expired already")
    return Granted(token, lifetime_s)


def _no_token(words: str) -> Denied:
    return Denied(FailureKind.UPSTREAM, words)


def _kind_of(status: int) -> FailureKind:
    if status == _TOO_MANY:
        return FailureKind.RATE_LIMITED
    if status >= _FIRST_SERVER_ERROR or status in _MAY_PASS:
        return FailureKind.UPSTREAM
    return FailureKind.UPSTREAM_PERMANENT


def _words_of(status: int, body: bytes) -> str:
    words = f"it answered {status}"
    if status < _FIRST_ERROR:
        return f"{words}; redirects are not followed"
    try:
        code = msgspec.json.decode(body, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return words
    return f"{words} ({code})" if code in _CODES else words


def _lifetime(said: float | str | None) -> float:
    """Seconds; some servers write the number as a text."""
    try:
        lifetime_s = DEFAULT_LIFETIME_S if said is None else float(said)
    except ValueError:
        return DEFAULT_LIFETIME_S
    # A NaN compares false with everything.
    return min(lifetime_s, _LONGEST_LIFETIME_S) if lifetime_s == lifetime_s else 0.0  # noqa: PLR0124 - as said
