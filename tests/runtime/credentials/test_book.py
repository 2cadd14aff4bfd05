"""Which credential a call gets, and what of a configuration cannot be used."""

from pathlib import Path

import pytest
import trio

from tests.support.policy_files import Tree, load_tree
from tests.support.token_server import oauth2
from vastar_runtime.config import ConfigError, RuntimeConfig
from vastar_runtime.credentials import CredentialBook, TokenFetcher, unusable_secrets
from vastar_runtime.credentials.book import Credential
from vastar_runtime.transport import HttpTransport
from vastar_runtime.transport.messages import Origin, UpstreamRequest

ONE, TWO = "https://one.test", "https://two.test"
SET = "set it, or refer to a file"


def fetcher() -> TokenFetcher:
    return TokenFetcher(HttpTransport(environ={}), lambda: 0.0, lambda: 0.0)


def load(tmp_path: Path, tenants: Tree) -> RuntimeConfig:
    return load_tree({"tenants": tenants}, tmp_path).config


def sent(credential: Credential | None, token: str | None = None) -> list[tuple[bytes, bytes]]:
    assert credential is not None
    request = UpstreamRequest(
        method=b"GET", origin=Origin("https", "one.test", 443), target=b"/", headers=[]
    )
    return list(credential.put_into(request, token, trio.current_time()).headers)


async def test_the_workspace_outranks_its_tenant_and_nobody_gets_anothers(tmp_path):
    (tmp_path / "k").write_text("planted-file")
    config = load(
        tmp_path,
        {
            "a": {
                "credentials": {
                    ONE: {"value": "Bearer ${env:A}", "headers": {"X-Key": "${file:k}"}},
                    TWO: {"header": "Api-Key", "value": "${env:B}"},
                },
                "workspaces": {
                    "w": {"credentials": {ONE: {"value": "w ${env:A}"}}},
                    "": {"credentials": {TWO: {"value": "none ${env:A}"}}},
                },
            },
            "b": {"workspaces": {"w": {"credentials": {ONE: {"value": "b ${env:A}"}}}}},
            "c": {"retry": {"attempts": 1}},
        },
    )
    book = CredentialBook(config, {"A": "planted-a", "B": "planted-b"}, fetcher())
    assert book.tenants == {"a", "b"}
    of_tenant = [(b"authorization", b"Bearer planted-a"), (b"x-key", b"planted-file")]
    assert sent(book.find("a", None, ONE)) == of_tenant
    assert sent(book.find("a", "other", ONE)) == of_tenant
    assert sent(book.find("a", "w", ONE)) == [(b"authorization", b"w planted-a")]
    assert sent(book.find("a", "w", TWO)) == [(b"api-key", b"planted-b")]
    assert sent(book.find("a", None, TWO)) == [(b"authorization", b"none planted-a")]
    assert sent(book.find("b", "w", ONE)) == [(b"authorization", b"b planted-a")]
    for place in (("b", None, ONE), ("c", "w", ONE), ("a", "w", "http://one.test"), ("", "", ONE)):
        assert book.find(*place) is None
    assert "planted" not in f"{book!r} {book.find('a', None, ONE)!r}"


async def test_all_that_cannot_be_read_is_told_at_once_and_none_of_it_quoted(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "good").write_text("planted")
    config = load(
        tmp_path,
        {
            "a": {
                "credentials": {
                    ONE: {
                        "value": "${file:none}${file:good}",
                        "headers": {
                            "X": "${file:none}",
                            "Y": "${env:MISSING}",
                            "Z": "${env:EMPTY}",
                        },
                    },
                    TWO: {
                        "oauth2": {
                            "token_url": "https://auth.test/",
                            "client_id": "me",
                            "client_secret": "${file:empty}",
                        }
                    },
                }
            }
        },
    )
    environ = {"EMPTY": " ", "OTHER": "planted"}
    told = [str(problem) for problem in unusable_secrets(config, environ)]
    one, two = (f'tenants.a.credentials."{origin}"' for origin in (ONE, TWO))
    right = "name a readable file that holds the secret and nothing else"
    none = "it cannot be read (no such file or directory)"
    assert told == [
        f"{tmp_path}/none: {one}.value: {none}; {right}",
        f"{tmp_path}/empty: {two}.oauth2.client_secret: it is empty; {right}",
        f"environment: {one}.headers.Y: the variable MISSING is not set; {SET}",
        f"environment: {one}.headers.Z: the variable EMPTY is empty; {right}",
    ]
    with pytest.raises(ConfigError) as error:
        CredentialBook(config, environ, fetcher())
    assert str(error.value) == "\n".join(told)


async def test_a_source_of_tokens_is_kept_while_nothing_about_it_changes(tmp_path):
    def source(config: RuntimeConfig, before: CredentialBook | None) -> CredentialBook:
        return CredentialBook(config, {}, fetcher(), before)

    def of(book: CredentialBook) -> object:
        (credential,) = book._by_place.values()
        assert credential.source is not None
        return credential.source

    book = source(oauth2(tmp_path), None)
    assert of(source(oauth2(tmp_path), book)) is of(book)
    assert of(source(oauth2(tmp_path, scope="x"), book)) is not of(book)
    (tmp_path / "client-secret").write_text("planted-another")
    config = oauth2(tmp_path)
    (tmp_path / "client-secret").write_text("planted-another")
    assert of(source(config, book)) is not of(book)
    assert "planted" not in repr(of(book))
