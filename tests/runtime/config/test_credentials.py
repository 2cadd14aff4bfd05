"""Keys of credentials: read, checked, merged, printed and compared, never with a secret in them."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.policy_files import Tree, load_tree
from vastar_runtime.config import (
    ConfigError,
    CredentialConfig,
    RuntimeConfig,
    compare,
    load_config,
    render,
    render_for,
    taken_up,
    texts_of,
)
from vastar_runtime.config._merge import all_credentials, credential_for

ORIGIN = "https://api.test"
OAUTH2 = {"token_url": "https://auth.test/t", "client_id": "me", "client_secret": "${env:S}"}


def written(credential: Tree, **more: Any) -> Tree:
    return {"tenants": {"acme": {"credentials": {ORIGIN: credential}, **more}}}


def problems_of(tree: Tree, folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_tree(tree, folder)
    assert "planted" not in str(error.value)
    return str(error.value)


def test_all_of_it_is_read_and_origins_are_canonical(tmp_path):
    tree = {
        "tenants": {
            "acme": {
                "retry": {"attempts": 2},
                "credentials": {
                    "https://API.test:443": {
                        "header": "X-Key",
                        "value": "a ${file:k}",
                        "headers": {"X-Org": "${env:ORG}", "X-File": "${file:/abs}"},
                    }
                },
                "workspaces": {
                    "prod": {"credentials": {ORIGIN: {"oauth2": OAUTH2}}, "retry": {"attempts": 1}}
                },
            }
        }
    }
    loaded = load_tree(tree, tmp_path)
    acme = loaded.config.tenants["acme"]
    found = acme.credentials[ORIGIN]
    assert texts_of(found) == {
        "X-Key": f"a ${{file:{tmp_path}/k}}",
        "X-Org": "${env:ORG}",
        "X-File": "${file:/abs}",
    }
    assert acme.policies == {"retry": {"attempts": 2}}
    assert acme.workspaces == {"prod": {"retry": {"attempts": 1}}}
    of_workspace = acme.workspace_credentials["prod"][ORIGIN]
    assert of_workspace.oauth2 is not None
    assert of_workspace.oauth2.client_auth == "basic"
    of_tenant = (("tenants", "acme", "credentials", ORIGIN), found)
    assert credential_for(loaded.config, "acme", None, ORIGIN) == of_tenant
    assert credential_for(loaded.config, "acme", "test", ORIGIN) == of_tenant
    path = ("tenants", "acme", "workspaces", "prod", "credentials", ORIGIN)
    assert credential_for(loaded.config, "acme", "prod", ORIGIN) == (path, of_workspace)
    assert credential_for(loaded.config, "acme", None, "https://other.test") is None
    assert credential_for(loaded.config, "other", None, ORIGIN) is None
    assert dict(all_credentials(loaded.config)) == {of_tenant[0]: found, path: of_workspace}


def test_without_a_header_it_is_authorization():
    assert texts_of(CredentialConfig(value="${env:A}")) == {"Authorization": "${env:A}"}
    assert texts_of(CredentialConfig(oauth2=None)) == {}


@pytest.mark.parametrize(
    ("credential", "key", "words"),
    [
        ({"header": "X-Key"}, "value", "nothing is to be sent"),
        ({"headers": {}}, "value", "nothing is to be sent"),
        ({"header": "X", "oauth2": OAUTH2}, "header", "of no use without value"),
        ({"value": "planted"}, "value", "a secret does not belong"),
        ({"value": ""}, "value", "it is empty"),
        ({"value": 12345}, "value", "of another kind"),
        ({"value": ["planted"]}, "value", "of another kind"),
        ({"headers": "planted"}, "headers", "of another kind; give a table of texts"),
        ({"headers": {"a": 5}}, "headers", "of another kind"),
        ({"headers": {"X-A": "planted"}}, "headers", "the value of X-A: a secret does not"),
        ({"headers": {"a b": "${env:A}"}}, "headers", '"a b" is no name of a header'),
        ({"headers": {"x@planted": "${env:A}"}}, "headers", "is no name of a header"),
        ({"header": "Host", "value": "${env:A}"}, "header", "sent by the runtime itself"),
        ({"headers": {"Content-Length": "${env:A}"}}, "headers", "sent by the runtime itself"),
        ({"headers": {"A": "${env:A}", "a": "${env:A}"}}, "headers", "a is given twice"),
        (
            {"value": "${env:A}", "headers": {"authorization": "${env:A}"}},
            "headers",
            "authorization is given twice",
        ),
        ({"value": "${env:A}", "oauth2": OAUTH2}, "value", "oauth2 sends the Authorization"),
        ({"headers": {"Authorization": "${env:A}"}, "oauth2": OAUTH2}, "headers", "given twice"),
        ({"oauth2": {"scope": "x"}}, "oauth2.token_url", "it is missing"),
        ({"oauth2": {"scope": "x"}}, "oauth2.client_id", "it is missing"),
        ({"oauth2": {"scope": "x"}}, "oauth2.client_secret", "it is missing"),
        ({"oauth2": {**OAUTH2, "client_secret": "planted"}}, "oauth2.client_secret", "belong"),
        ({"oauth2": {**OAUTH2, "scope": "a\nb"}}, "oauth2.scope", "do not belong there"),
        ({"oauth2": {**OAUTH2, "client_auth": "jwt"}}, "oauth2.client_auth", "is not known"),
        ({"oauth2": {**OAUTH2, "timeout_s": 0}}, "oauth2.timeout_s", "out of range"),
    ],
)
def test_what_is_wrong_is_told_and_no_value_is_quoted(credential, key, words, tmp_path):
    told = problems_of(written(credential), tmp_path)
    (line,) = [
        line for line in told.splitlines() if f'"{ORIGIN}".{key}: ' in line and words in line
    ]
    assert line.count(";") >= 1


@pytest.mark.parametrize(
    "url",
    [
        "http://auth.test/t",
        "ftp://auth.test/t",
        "https://me:planted@auth.test/t",
        "https://auth.test/t#planted",
        "https://auth.test/t?api_key=planted",
        "https:///t",
        "https://auth.test:0/t",
        "https://auth.test:x/t",
        "https://auth.test/t\u00e9",
        "auth.test",
    ],
)
def test_a_secret_goes_only_to_a_url_that_is_safe_for_it(url, tmp_path):
    told = problems_of(written({"oauth2": {**OAUTH2, "token_url": url}}), tmp_path)
    assert "no URL that a secret may be sent to" in told


@pytest.mark.parametrize(
    "url", ["https://a.test/t?tenant=x", "http://127.0.0.1:1/", "http://[::1]"]
)
def test_urls_that_are(url, tmp_path):
    load_tree(written({"oauth2": {**OAUTH2, "token_url": url}}), tmp_path)


def test_elsewhere_the_table_says_where_it_belongs(tmp_path):
    right = 'write it in [tenants.NAME.credentials."https://HOST"]'
    for tree in ({"credentials": {ORIGIN: {}}}, {"origins": {ORIGIN: {"credentials": {}}}}):
        assert right in problems_of(tree, tmp_path)
    for place in ("planted", {ORIGIN: "planted"}, {ORIGIN: {"oauth2": "planted"}}):
        told = problems_of({"tenants": {"a": {"credentials": place}}}, tmp_path)
        assert "it is not a table" in told
    told = problems_of({"tenants": {"a": {"credentials": {"https://u:planted@h": {}}}}}, tmp_path)
    assert "it has a user part" in told


CREDENTIALS = [
    {"value": "Bearer ${file:/k}"},
    {"header": "X", "value": "${env:A}${env:B}", "headers": {"X y".replace(" ", "-"): "${env:C}"}},
    {"oauth2": OAUTH2},
    {"oauth2": {**OAUTH2, "scope": "a b", "audience": 'x"y', "client_auth": "body"}},
]


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_what_is_printed_loads_to_the_same(credential, tmp_path):
    workspaces = {"w x": {"credentials": {ORIGIN: credential}}}
    tree = written(credential, workspaces=workspaces)
    loaded = load_tree(tree, tmp_path)
    for explain in (False, True):
        text = render(loaded, explain=explain)
        tomllib.loads(text)
        file = tmp_path / "again.toml"
        file.write_text(text)
        assert load_config(file=str(file), environ={}).config == loaded.config


def test_what_holds_for_a_caller_is_shown_by_reference(tmp_path):
    loaded = load_tree(written({"value": "Bearer ${file:/k}"}), tmp_path)
    text = render_for(loaded, tenant="acme", workspace="w", origin=ORIGIN)
    assert f'[tenants.acme.credentials."{ORIGIN}"]' in text
    assert 'value = "Bearer ${file:/k}"' in text
    for names in ({"tenant": "acme"}, {"tenant": "acme", "origin": "https://other.test"}):
        assert "credentials" not in render_for(loaded, **names)


def test_changes_are_told_by_key_and_taken_up_at_once(tmp_path):
    plain = RuntimeConfig()
    one = load_tree(written({"value": "${env:A}"}), tmp_path).config
    two = load_tree(written({"value": "${env:B}", "headers": {"X": "${env:C}"}}), tmp_path).config
    place = f'tenants.acme.credentials."{ORIGIN}"'
    assert compare(plain, one).applied == (f"{place}.value",)
    assert compare(one, two).applied == (f"{place}.headers", f"{place}.value")
    assert compare(two, two).applied == ()
    assert taken_up(one, two) == two
    changed = compare(plain, load_tree(written({"oauth2": OAUTH2}), tmp_path).config)
    assert f"{place}.oauth2.client_secret" in changed.applied
    assert not changed.needs_restart


def test_a_configuration_goes_to_workers_whole_and_shows_nothing(tmp_path):
    config = load_tree(written(CREDENTIALS[1], workspaces={}), tmp_path).config
    assert msgspec.json.decode(msgspec.json.encode(config), type=RuntimeConfig) == config
    for credential in CREDENTIALS:
        made = msgspec.convert(credential, CredentialConfig)
        shown = f"{made!r} {made.oauth2!r} {made.__rich_repr__()}"
        if made.oauth2 is not None:
            shown += str(made.oauth2.__rich_repr__())
        assert "env" not in shown
        assert "file" not in shown
