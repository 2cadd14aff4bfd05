"""The credentials of a configuration: which of them a call gets, and what they are now.

As with the policies, an immutable book for each configuration: a reload makes another one, and a
configuration that refers to something unusable leaves the old one in force. Tokens that are still
good are carried over.
"""

from collections.abc import Mapping
from typing import Final

from vastar_runtime.config import (
    ConfigError,
    CredentialConfig,
    OAuth2Config,
    Problem,
    Reference,
    RuntimeConfig,
    all_credentials,
    dotted,
    split_references,
    texts_of,
)
from vastar_runtime.credentials.injecting import with_headers
from vastar_runtime.credentials.secrets import SecretFile, SecretText, UnusableSecret
from vastar_runtime.credentials.tokens import TokenFetcher, TokenSource
from vastar_runtime.transport.messages import UpstreamRequest

__all__ = ["Credential", "CredentialBook", "unusable_secrets"]

_AUTHORIZATION: Final = b"authorization"
_Path = tuple[str, ...]
_Place = tuple[str, str | None, str]
"""Tenant, workspace (None: all of them), origin."""


class Credential:
    """What is added to the calls to one origin.

    Args:
        texts: by header.
        source: of a token, where there is one.
    """

    __slots__ = ("_names", "_source", "_texts")

    def __init__(self, texts: Mapping[str, SecretText], source: TokenSource | None) -> None:
        self._texts = tuple((name.lower().encode(), text) for name, text in texts.items())
        self._source = source
        names = {name for name, _ in self._texts}
        self._names = frozenset(names if source is None else {*names, _AUTHORIZATION})

    def __repr__(self) -> str:
        return "Credential(...)"

    @property
    def source(self) -> TokenSource | None:
        """Where its token is from."""
        return self._source

    def put_into(
        self, request: UpstreamRequest, token: str | None, now_s: float
    ) -> UpstreamRequest:
        """A new request with the credential."""
        headers = [(name, text.get(now_s).encode()) for name, text in self._texts]
        if token is not None:
            headers.append((_AUTHORIZATION, b"Bearer " + token.encode()))
        return with_headers(request, self._names, headers)


class CredentialBook:
    """Where the credentials of one configuration are looked up.

    Args:
        config: as loaded, so with canonical origins.
        environ: where variables are.
        fetcher: of tokens.
        before: the book whose tokens are taken over where nothing about them has changed.

    Raises:
        ConfigError: a secret cannot be read.
    """

    __slots__ = ("_by_place", "_sources", "tenants")

    def __init__(
        self,
        config: RuntimeConfig,
        environ: Mapping[str, str],
        fetcher: TokenFetcher,
        before: "CredentialBook | None" = None,
    ) -> None:
        files, problems = _open_files(config)
        self._by_place: dict[_Place, Credential] = {}
        self._sources: dict[_Path, tuple[TokenSource, str]] = {}
        for path, written in all_credentials(config):
            texts: dict[str, SecretText] = {}
            for name, text in _all_texts(written).items():
                try:
                    texts[name] = SecretText(split_references(text), files, environ)
                except UnusableSecret as error:
                    problems.append(_problem(path, written, name, "environment", error))
                except KeyError:
                    continue  # of a file that is a problem already
            if len(texts) == len(_all_texts(written)):
                self._by_place[_place_of(path)] = self._credential(
                    path, written, texts, fetcher, before
                )
        if problems:
            raise ConfigError(problems)
        self.tenants = frozenset(tenant for tenant, _, _ in self._by_place)
        """Those that have any."""

    def _credential(
        self,
        path: _Path,
        written: CredentialConfig,
        texts: dict[str, SecretText],
        fetcher: TokenFetcher,
        before: "CredentialBook | None",
    ) -> Credential:
        settings = written.oauth2
        if settings is None:
            return Credential(texts, None)
        secret = texts.pop(_CLIENT_SECRET)
        now = secret.get(float("-inf"))
        tenant, workspace, _ = _place_of(path)
        source = TokenSource(fetcher, (tenant, workspace or ""), settings, secret)
        if before is not None:
            source = before.token_source(path, settings, now) or source
        self._sources[path] = source, now
        return Credential(texts, source)

    def token_source(
        self, path: tuple[str, ...], settings: OAuth2Config, client_secret: str
    ) -> TokenSource | None:
        """The one at `path`, if it asks with these settings and this secret."""
        source, secret = self._sources.get(path, (None, ""))
        is_same = source is not None and source.settings == settings and secret == client_secret
        return source if is_same else None

    def __repr__(self) -> str:
        return f"CredentialBook({len(self._by_place)} credentials)"

    def find(self, tenant: str, workspace: str | None, origin: str) -> Credential | None:
        """What is added to the calls of a caller to an origin: the workspace's own, if it has."""
        of_workspace = self._by_place.get((tenant, workspace or "", origin))
        return of_workspace or self._by_place.get((tenant, None, origin))


_CLIENT_SECRET: Final = "oauth2.client_secret"  # noqa: S105 - where it stands, not what it is


def unusable_secrets(config: RuntimeConfig, environ: Mapping[str, str]) -> list[Problem]:
    """What of the secrets that `config` refers to cannot be read."""
    files, problems = _open_files(config)
    for path, written in all_credentials(config):
        for name, text in _all_texts(written).items():
            try:
                SecretText(split_references(text), files, environ)
            except UnusableSecret as error:
                problems.append(_problem(path, written, name, "environment", error))
            except KeyError:
                continue
    return problems


def _all_texts(written: CredentialConfig) -> dict[str, str]:
    """What has secrets in it, by header, and the client's."""
    texts = texts_of(written)
    if written.oauth2 is not None and written.oauth2.client_secret is not None:
        texts[_CLIENT_SECRET] = written.oauth2.client_secret
    return texts


def _open_files(config: RuntimeConfig) -> tuple[dict[str, SecretFile], list[Problem]]:
    """All files that are referred to, each once, and those that cannot be used."""
    files: dict[str, SecretFile] = {}
    problems: dict[str, Problem] = {}
    for path, written in all_credentials(config):
        for name, text in _all_texts(written).items():
            for part in split_references(text):
                if not isinstance(part, Reference) or part.kind != "file":
                    continue
                if part.name in files or part.name in problems:
                    continue
                try:
                    files[part.name] = SecretFile(part.name)
                except UnusableSecret as error:
                    problems[part.name] = _problem(path, written, name, part.name, error)
    return files, list(problems.values())


def _problem(
    path: _Path, written: CredentialConfig, name: str, source: str, error: UnusableSecret
) -> Problem:
    if name == _CLIENT_SECRET:
        key = tuple(name.split("."))
    else:
        key = ("headers", name) if name in written.headers else ("value",)
    return Problem(source, dotted((*path, *key)), error.wrong, error.right)


def _place_of(path: _Path) -> _Place:
    """Of `tenants.NAME.credentials.ORIGIN` or `tenants.NAME.workspaces.NAME.credentials.ORIGIN`."""
    return path[1], path[3] if len(path) > _LENGTH_OF_TENANTS else None, path[-1]


_LENGTH_OF_TENANTS: Final = 4
