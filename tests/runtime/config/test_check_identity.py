"""What a configuration of identities is refused for, and what it is printed as."""

import os
from pathlib import Path

import pytest

from vastar_runtime.config import ConfigError, compare, load_config, render

OTHER = os.geteuid() + 1


def refusals(tmp_path: Path, text: str) -> str:
    file = tmp_path / "runtime.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=str(file), environ={})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tcp]\nallow_remote = true", "there is no certificate; set tcp.cert_file"),
        ("[tcp]\nallow_remote = true", "no tenant has any; set token_file"),
        ('[server]\ntcp_also = ["0.0.0.0:1"]', "may be reached from other machines"),
        ('[tcp]\nkey_file = "k"', "of no use without cert_file"),
        ('[tcp]\nclient_ca_file = "k"', "of no use without cert_file"),
        ("[tcp]\nrequire_client_cert = true", "set tcp.client_ca_file"),
        ('[tenants.acme]\nallow_subjects = ["x"]', "tenants.acme.allow_subjects: no certificate"),
        ('[tenants.acme]\ntoken_file = "none"', "cannot be read (no such file or directory)"),
        (f"[tenants.acme]\nallow_uids = [{OTHER}]", f"socket_mode 0o600 shuts {OTHER} out"),
        ("[tenants.acme]\nallow_gids = [7]", "tenants.acme.allow_gids: server.socket_mode"),
        ("[tenants.acme]\nallow_uids = [-1]", "tenants.acme.allow_uids"),
        ("[tenants.acme]\nallow_uid = [1]", 'did you mean "allow_uids"?'),
    ],
)
def test_it_is_refused_with_what_is_missing(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusals(tmp_path, text)


def test_a_token_file_that_others_read_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("planted-token-0123456789")
    (tmp_path / "tokens").chmod(0o644)
    told = refusals(tmp_path, '[tenants.acme]\ntoken_file = "tokens"')
    assert "may be read or changed by others (its mode is 0o644)" in told
    assert "planted" not in told


def test_what_is_printed_loads_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("planted-token-0123456789")
    (tmp_path / "tokens").chmod(0o600)
    file = tmp_path / "runtime.toml"
    file.write_text(
        f"[server]\nsocket_mode = 0o660\n[audit]\npath = 'audit.jsonl'\n"
        f"[tenants.'a b']\nallow_uids = [{OTHER}]\nallow_gids = [7, 8]\ntoken_file = 'tokens'\n"
        "[tenants.'a b'.queue]\ntenant_weight = 3\n"
    )
    loaded = load_config(file=str(file), environ={})
    tenant = loaded.config.tenants["a b"]
    assert (tenant.allow_uids, tenant.allow_gids) == ((OTHER,), (7, 8))
    assert tenant.token_file == str(tmp_path / "tokens")
    assert tenant.has_identity
    again = tmp_path / "again.toml"
    again.write_text(render(loaded, explain=True))
    assert load_config(file=str(again), environ={}).config == loaded.config
    file.write_text(f"[server]\nsocket_mode = 0o660\n[tenants.'a b']\nallow_uids = [{OTHER}]\n")
    changes = compare(loaded.config, load_config(file=str(file), environ={}).config)
    assert 'tenants."a b".token_file' in changes.applied
    assert "audit.path" in changes.applied
    assert not changes.needs_restart
