"""What only the whole can tell, blamed on the key it is about."""

from pathlib import Path

import pytest

from vastar_runtime.config import (
    HttpConfig,
    PoolConfig,
    ProxyConfig,
    RuntimeConfig,
    ServerConfig,
    TlsConfig,
)
from vastar_runtime.config._check import check_whole


def test_the_defaults_are_sound() -> None:
    assert list(check_whole(RuntimeConfig(), {})) == []


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (RuntimeConfig(server=ServerConfig(tcp_also=("::2:1",))), "server.tcp_also"),
        (RuntimeConfig(server=ServerConfig(use_tcp=True, tcp_host="::")), "server.tcp_host"),
        (RuntimeConfig(server=ServerConfig(socket_mode=0o611)), "server.socket_mode"),
        (RuntimeConfig(server=ServerConfig(socket_group="0")), "server.socket_group"),
        (RuntimeConfig(tls=TlsConfig(ca_file="/nonexistent")), "tls.ca_file"),
        (RuntimeConfig(tls=TlsConfig(ca_file="a\0b")), "tls.ca_file"),
        (RuntimeConfig(tls=TlsConfig(client_key_file="/dev/null")), "tls.client_key_file"),
        (RuntimeConfig(proxy=ProxyConfig(all="proxy:3128")), "proxy.all"),
        (RuntimeConfig(proxy=ProxyConfig(http="http://[::1:80")), "proxy.http"),
        (RuntimeConfig(proxy=ProxyConfig(https="http://h:99999")), "proxy.https"),
        (
            RuntimeConfig(http=HttpConfig(pool=PoolConfig(max_connections=1))),
            "http.pool.max_connections_per_key",
        ),
        (
            RuntimeConfig(http=HttpConfig(pool=PoolConfig(max_connections_per_tenant=1001))),
            "http.pool.max_connections_per_tenant",
        ),
    ],
)
def test_each_is_blamed_on_its_key_and_source(config: RuntimeConfig, key: str) -> None:
    (problem,) = check_whole(config, {key: "a file"})
    assert (problem.key, problem.source) == (key, "a file")


def test_what_is_sound(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("x")
    config = RuntimeConfig(
        server=ServerConfig(
            tcp_host="0.0.0.0", tcp_also=("[::1]:1",), socket_mode=0o660, socket_group="adm"
        ),
        tls=TlsConfig(client_cert_file=str(pem), client_key_file=str(pem)),
        proxy=ProxyConfig(all="socks5h://u:p@h:1080"),
    )
    assert list(check_whole(config, {})) == [], "tcp_host matters only with use_tcp"
