"""What only its use can show of a configuration is told before anything starts."""

from pathlib import Path

import pytest

from tests.support.commands import vastar
from vastar_runtime.config import (
    AuditConfig,
    ConfigError,
    HttpConfig,
    PoolConfig,
    ProxyConfig,
    RuntimeConfig,
    ServerConfig,
    TlsConfig,
)
from vastar_runtime.unusable import refuse_unusable, transport_settings


def test_the_transport_is_told_what_the_configuration_says():
    config = RuntimeConfig(
        http=HttpConfig(
            connect_timeout_s=1.5,
            max_header_bytes=2048,
            dns_threads=3,
            pool=PoolConfig(
                max_connections_per_key=4, max_connections=5, idle_timeout_s=6.0, max_age_s=7.0
            ),
        ),
        tls=TlsConfig(
            ca_file="ca", client_cert_file="cert", client_key_file="key",
            client_key_password_file="password",
        ),
        proxy=ProxyConfig(http="http://p:1", no_proxy=("a",), use_environment=False),
    )  # fmt: skip
    settings = transport_settings(config)
    assert (settings.connect_timeout_s, settings.head_limit_bytes) == (1.5, 2048)
    assert (settings.connections_per_key, settings.connections_total) == (4, 5)
    assert settings.connections_per_tenant == 3, "what is not said is three quarters of all"
    assert (settings.idle_timeout_s, settings.max_age_s, settings.lookup_threads) == (6.0, 7.0, 3)
    tls = settings.tls
    assert (tls.ca_file, tls.certificate_file, tls.key_file) == ("ca", "cert", "key")
    assert tls.key_password_file == "password"
    proxy = settings.proxy
    assert (proxy.http, proxy.https, proxy.no_proxy) == ("http://p:1", None, ("a",))
    assert not proxy.environment


def test_the_default_configuration_is_a_valid_transport():
    assert transport_settings(RuntimeConfig()).proxy.no_proxy is None


def test_every_number_that_is_allowed_is_one_that_the_transport_takes():
    """The least that a configuration may say must not stop the runtime from starting."""
    pool = PoolConfig(
        max_connections_per_key=1, max_connections=1, idle_timeout_s=0.001, max_age_s=1.0
    )
    http = HttpConfig(
        connect_timeout_s=0.001, max_header_bytes=1024, dns_threads=1, max_redirects=0, pool=pool
    )
    assert transport_settings(RuntimeConfig(http=http)).connections_per_tenant == 1


def test_what_one_tenant_may_hold_can_be_said():
    pool = PoolConfig(max_connections_per_tenant=1000)
    assert (
        transport_settings(RuntimeConfig(http=HttpConfig(pool=pool))).connections_per_tenant == 1000
    )


def test_what_only_its_use_can_show_is_refused_before_anything_starts(tmp_path):
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("nothing\n")
    config = RuntimeConfig(tls=TlsConfig(ca_file=str(no_certificate)))
    with pytest.raises(ConfigError, match=r"ca\.pem: tls: .*; give PEM files"):
        refuse_unusable(config, {})
    secret = {"HTTPS_PROXY": "http://u:hunter2@:99999"}
    with pytest.raises(ConfigError, match="HTTPS_PROXY is no proxy URL") as caught:
        refuse_unusable(RuntimeConfig(), secret)
    assert "hunter2" not in str(caught.value)
    refuse_unusable(RuntimeConfig(), {"HTTP_PROXY": "socks5://localhost:1080"})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no/a.log", "the directory .*/no does not exist"),
        ("link", "is a symbolic link"),
        ("folder", "cannot be opened|is no plain file"),
        ("file/a.log", "cannot be opened"),
        ("a\0b", "cannot be opened"),
    ],
)
def test_an_audit_file_that_cannot_be_is_told(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=f"audit.path: .*({words})"):
        refuse_unusable(RuntimeConfig(audit=AuditConfig(path=f"{tmp_path}/{path}")), {})
    assert sorted(tmp_path.iterdir()) == before


def test_an_audit_file_that_can_be_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    refuse_unusable(RuntimeConfig(audit=AuditConfig(path=str(path))), {})
    assert not path.exists()
    path.write_text("before\n")
    refuse_unusable(RuntimeConfig(audit=AuditConfig(path=str(path))), {})
    assert path.read_text() == "before\n"


def test_a_directory_that_is_not_ours_to_write_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="its directory belongs to another user"):
        refuse_unusable(RuntimeConfig(audit=AuditConfig(path=str(tmp_path / "a.log"))), {})


def test_an_administrator_may_look_at_what_is_for_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    path.write_text("")
    config = RuntimeConfig(audit=AuditConfig(path=str(path)))
    mine = path.stat().st_uid
    for euid, refused in ((mine + 1, True), (0, False)):
        monkeypatch.setattr("os.geteuid", lambda euid=euid: euid)
        monkeypatch.setattr("os.lstat", lambda _, uid=mine + 1: _Owned(uid))
        if refused:
            with pytest.raises(ConfigError, match="not to you; choose another path"):
                refuse_unusable(config, {})
        else:
            refuse_unusable(config, {})


class _Owned:
    st_mode = 0o100600

    def __init__(self, uid: int) -> None:
        self.st_uid = uid


def test_a_group_that_is_not_there_is_told_where_it_matters() -> None:
    server = ServerConfig(socket_mode=0o660, socket_group="no-such-group")
    with pytest.raises(
        ConfigError, match='socket_group: there is no group "no-such-group"; create'
    ):
        refuse_unusable(RuntimeConfig(server=server), {})
    on_tcp = ServerConfig(socket_mode=0o660, socket_group="no-such-group", use_tcp=True)
    refuse_unusable(RuntimeConfig(server=on_tcp), {})


def test_check_config_refuses_what_serve_does(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[server]\nsocket_mode = 0o660\nsocket_group = "no-such-group"\n'
        f'[audit]\npath = "{tmp_path}/no/a.log"\n'
    )
    for command in ("check-config", "serve"):
        done = vastar(command, "--config", str(file), "--socket", str(tmp_path / "r.sock"))
        assert done.returncode == 2
        assert "no-such-group" in done.stderr
        assert "audit.path" in done.stderr
