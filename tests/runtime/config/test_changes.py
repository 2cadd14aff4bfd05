"""Which keys differ, and which of them a running daemon takes up: keys, never values."""

from typing import Any

import pytest
from hypothesis import given

from tests.support.policy_files import Tree, documents, load_tree
from vastar_runtime.config import (
    Changes,
    ConfigError,
    RuntimeConfig,
    ServerConfig,
    Setting,
    TcpConfig,
    TenantConfig,
    compare,
    load_config,
    taken_up,
)
from vastar_runtime.config._load import VARIABLES


def _with(**values: Any) -> RuntimeConfig:
    flags = [
        Setting(key.replace("__", "."), value, "--flag", is_typed=True)
        for key, value in values.items()
    ]
    return load_config(environ={}, flags=flags).config


def test_equal_configurations_do_not_differ() -> None:
    assert compare(RuntimeConfig(), _with(log__level="info")) == Changes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.default_timeout_s", 3.0),
        ("http.max_redirects", 3),
        ("http.accept_encoding", "gzip"),
        ("log.level", "debug"),
        ("log.format", "json"),
        ("server.drain_s", 3.0),
        ("server.stream_drain_s", 3.0),
        ("http.stream_timeout_s", 3.0),
        ("http.stream_header_timeout_s", 3.0),
        ("http.stream_idle_timeout_s", 3.0),
        ("defaults.retry.attempts", 7),
        ("defaults.rate_limit.limit", 7),
    ],
)
def test_what_takes_effect_at_once(key: str, value: object) -> None:
    new = _with(**{key.replace(".", "__"): value})
    assert compare(RuntimeConfig(), new) == Changes(applied=(key,))
    assert compare(new, RuntimeConfig()) == Changes(applied=(key,))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.socket_path", "/x"),
        ("server.tcp_also", ("5000",)),
        ("http.connect_timeout_s", 3.0),
        ("http.pool.idle_timeout_s", 3.0),
        ("tls.min_version", "1.3"),
        ("proxy.all", "http://user:hunter2@h:1"),
        ("metrics.listen", "9464"),
    ],
)
def test_what_needs_a_restart(key: str, value: object) -> None:
    changes = compare(RuntimeConfig(), _with(**{key.replace(".", "__"): value}))
    assert changes == Changes(needs_restart=(key,))
    assert "hunter2" not in repr(changes)


def test_places_that_come_and_go(tmp_path: Any) -> None:
    old: Tree = {"tenants": {"a.b": {"retry": {"attempts": 3}, "workspaces": {}}}}
    new: Tree = {
        "origins": {"https://h": {"breaker": {"mode": "off"}}},
        "tenants": {"a.b": {"workspaces": {"w": {"retry": {"attempts": 3}}}}},
        "server": {"tcp_port": 1},
    }
    before, after = (load_tree(tree, tmp_path).config for tree in (old, new))
    assert compare(before, after) == Changes(
        applied=(
            'origins."https://h".breaker.mode',
            'tenants."a.b".retry.attempts',
            'tenants."a.b".workspaces.w.retry.attempts',
        ),
        needs_restart=("server.tcp_port",),
    )


@given(old=documents(), new=documents())
def test_it_tells_whether_two_differ(
    old: Tree, new: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("c")
    before, after = (load_tree(tree, folder).config for tree in (old, new))
    changes = compare(before, after)
    assert (changes == Changes()) is (before == after)
    assert not changes.needs_restart
    assert changes == compare(after, before)


def test_what_runs_after_a_reload() -> None:
    old = _with(server__tcp_port=1, server__drain_s=1.0, log__level="debug")
    new = _with(server__tcp_port=2, http__max_redirects=2, defaults__retry__attempts=2)
    running = taken_up(old, new)
    assert compare(old, running) == Changes(applied=compare(old, new).applied)
    assert compare(running, new) == Changes(needs_restart=("server.tcp_port",))
    assert (running.server.drain_s, running.http.max_redirects, running.log.level) == (
        30,
        2,
        "info",
    )
    assert taken_up(old, old) == old


def test_no_reload_takes_the_guards_from_sockets_that_stay_open() -> None:
    guarded: Any = {
        "tcp": TcpConfig(allow_remote=True, cert_file="server.pem"),
        "tenants": {"acme": TenantConfig(token_file="tokens")},
    }
    remote = RuntimeConfig(server=ServerConfig(tcp_also=("0.0.0.0:9000",)), **guarded)
    local = RuntimeConfig(server=ServerConfig(tcp_also=("127.0.0.1:9000",)), **guarded)
    with pytest.raises(ConfigError) as caught:
        taken_up(remote, RuntimeConfig())
    told = str(caught.value)
    assert "listens on 0.0.0.0 until it is restarted: callers from other machines need TLS" in told
    assert "need tokens, and no tenant has any" in told
    for old, new in ((remote, local), (local, RuntimeConfig()), (RuntimeConfig(), remote)):
        assert taken_up(old, new).tenants == new.tenants


def test_every_variable_is_a_key_that_is_compared() -> None:
    for key in VARIABLES.values():
        assert key.split(".")[0] in RuntimeConfig.__struct_fields__
