"""The keys of credentials that the runtime adds to calls: for an origin, of a tenant or workspace.

They name places that hold secrets, never secrets (`_references`); what is read there is checked
when the daemon starts (`vastar_runtime.credentials`).
"""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from vastar_runtime.config._addresses import is_loopback
from vastar_runtime.config._names import shown_name
from vastar_runtime.config._references import BadReference, split_references
from vastar_runtime.config._toml import dotted
from vastar_runtime.redaction import redact_url

__all__ = [
    "CREDENTIALS",
    "DEFAULT_HEADER",
    "CredentialConfig",
    "Credentials",
    "OAuth2Config",
    "faults_of",
    "texts_of",
]

CREDENTIALS: Final = "credentials"
DEFAULT_HEADER: Final = "Authorization"

_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
_SECRET: Final = {"reference": True}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_OF_THE_TRANSPORT: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"}
    | {"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""What the transport says itself, or says to proxies only."""

_Path: TypeAlias = tuple[str, ...]
_Fault: TypeAlias = tuple[str, str, str]


class OAuth2Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token by the client credentials grant (RFC 6749, 4.4), sent as `Authorization: Bearer`."""

    token_url: Annotated[_Text | None, Meta(description="where tokens are to be had")] = None
    client_id: Annotated[_Text | None, Meta(description="who asks for them")] = None
    client_secret: Annotated[
        _Text | None, Meta(description="a reference: ${file:PATH} or ${env:NAME}", extra=_SECRET)
    ] = None
    scope: Annotated[_Text | None, Meta(description="what the token is to allow")] = None
    audience: Annotated[_Text | None, Meta(description="for whom, where the server asks")] = None
    client_auth: Annotated[
        Literal["basic", "body"],
        Meta(description="how the secret is sent: in the Authorization header, or in the body"),
    ] = "basic"
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=600, description="time that the token's server gets")
    ] = 10.0

    def __repr__(self) -> str:
        """Without values: not all of them were checked."""
        return "OAuth2Config(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return []


class CredentialConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is added to calls to an origin."""

    header: Annotated[
        _Text | None, Meta(description="the header that gets `value`; not set: Authorization")
    ] = None
    value: Annotated[
        _Text | None, Meta(description='such as "Bearer ${file:/run/secrets/key}"', extra=_SECRET)
    ] = None
    headers: Annotated[
        dict[str, str],
        Meta(description="further headers, each with such a value", extra=_SECRET),
    ] = {}
    oauth2: OAuth2Config | None = None

    def __repr__(self) -> str:
        """Without values: not all of them were checked."""
        return "CredentialConfig(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return []


Credentials: TypeAlias = dict[str, CredentialConfig]
"""By origin."""


def texts_of(credential: CredentialConfig) -> dict[str, str]:
    """The headers that a credential gives values to itself, and those values."""
    own = (
        {} if credential.value is None else {credential.header or DEFAULT_HEADER: credential.value}
    )
    return own | credential.headers


def faults_of(path: _Path, credential: CredentialConfig) -> Iterator[_Fault]:
    """Key, what is wrong, and what would be right. Nothing is quoted that may be a secret."""
    if credential.value is None and not credential.headers and credential.oauth2 is None:
        yield dotted((*path, "value")), "nothing is to be sent", "set value, headers or oauth2"
    if credential.header is not None:
        if credential.value is None:
            yield dotted((*path, "header")), "it is of no use without value", "set value too"
        else:
            yield from _fault_of_name((*path, "header"), credential.header)
    if credential.value is not None:
        yield from _fault_of_text((*path, "value"), credential.value)
    yield from _faults_of_headers((*path, "headers"), credential)
    if credential.oauth2 is not None:
        yield from _faults_of_oauth2((*path, "oauth2"), credential.oauth2)


def _faults_of_headers(path: _Path, credential: CredentialConfig) -> Iterator[_Fault]:
    taken: set[str] = set()
    if credential.value is not None:
        taken.add((credential.header or DEFAULT_HEADER).lower())
    if credential.oauth2 is not None:
        if DEFAULT_HEADER.lower() in taken:
            wrong = "oauth2 sends the Authorization header too"
            yield dotted((*path[:-1], "value")), wrong, "leave one of the two out"
        taken.add(DEFAULT_HEADER.lower())
    for name, text in credential.headers.items():
        yield from _fault_of_name(path, name)
        for key, wrong, right in _fault_of_text(path, text):
            yield key, f"the value of {shown_name(name)}: {wrong}", right
        if name.lower() in taken:
            yield dotted(path), f"{shown_name(name)} is given twice", "give each header once"
        taken.add(name.lower())


def _fault_of_name(path: _Path, name: str) -> Iterator[_Fault]:
    if not _TOKEN.fullmatch(name):
        yield dotted(path), f'"{shown_name(name)}" is no name of a header', 'such as "X-Api-Key"'
    elif name.lower() in _OF_THE_TRANSPORT:
        yield dotted(path), f"{name} is sent by the runtime itself", "name another header"


def _fault_of_text(path: _Path, text: str) -> Iterator[_Fault]:
    try:
        split_references(text)
    except BadReference as error:
        yield dotted(path), error.wrong, error.right


def _faults_of_oauth2(path: _Path, oauth2: OAuth2Config) -> Iterator[_Fault]:
    for name in ("token_url", "client_id", "client_secret"):
        if getattr(oauth2, name) is None:
            yield dotted((*path, name)), "it is missing", f"set {name}: a token needs it"
    if oauth2.token_url is not None and not _is_token_url(oauth2.token_url):
        yield (
            dotted((*path, "token_url")),
            "it is no URL that a secret may be sent to",
            "give https://HOST/PATH without user part and fragment (http to loopback only)",
        )
    if oauth2.client_secret is not None:
        yield from _fault_of_text((*path, "client_secret"), oauth2.client_secret)
    for name in ("client_id", "scope", "audience"):
        text: str | None = getattr(oauth2, name)
        if text is not None and not _PRINTABLE.fullmatch(text):
            wrong = "it has characters that do not belong there"
            yield dotted((*path, name)), wrong, "give printable ASCII"


def _is_token_url(url: str) -> bool:
    """RFC 6749, 3.2: TLS, no fragment. Where nothing leaves the host there is nothing to hide."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or port == 0 or "@" in parts.netloc or "#" in url or not _PRINTABLE.fullmatch(url):
        return False
    if redact_url(url) != url:  # a key in its query would be shown
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
