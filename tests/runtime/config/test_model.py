"""The defaults are the published ones, and nothing changes them."""

import msgspec
import msgspec.inspect
import pytest

from vastar_runtime.config import (
    MetricsConfig,
    RuntimeConfig,
    Setting,
    TcpAddress,
    UnixAddress,
    load_config,
)
from vastar_runtime.config._expect import fields_of, outline, plain


def test_defaults_are_the_published_ones() -> None:
    config = load_config(environ={}).config
    assert config == RuntimeConfig()
    assert config.server.addresses() == (UnixAddress("/tmp/vastar-connector-runtime.sock"),)
    assert config.server.socket_mode == 0o600
    assert config.server.drain_s == 30.0
    assert config.server.max_request_frame_bytes == 64 * 1024 * 1024
    assert config.server.max_in_flight_per_connection == 256
    assert config.server.max_queued_answer_bytes == 32 * 1024 * 1024
    assert config.http.default_timeout_s == 30.0
    assert config.http.stream_timeout_s == config.server.stream_drain_s == 600.0
    assert config.http.stream_header_timeout_s == 60.0
    assert config.http.stream_idle_timeout_s == 300.0
    assert config.http.pool.max_connections_per_key == 256


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        RuntimeConfig().server.drain_s = 1  # type: ignore[misc]


def test_tcp_also_stands_beside_the_unix_socket() -> None:
    flags = [Setting("server.tcp_also", ("5000", "[::1]:5001", "127.0.0.1:5000"), "--tcp")]
    server = load_config(environ={}, flags=flags).config.server
    assert server.addresses() == (
        UnixAddress(server.socket_path),
        TcpAddress("127.0.0.1", 5000),
        TcpAddress("::1", 5001),
    )


def test_metrics_are_off_or_at_one_address() -> None:
    assert MetricsConfig().address() is None
    assert MetricsConfig(listen="[::1]:9464").address() == TcpAddress("::1", 9464)


def test_every_key_is_described_and_every_number_bounded() -> None:
    def walk(type_: msgspec.inspect.Type, prefix: str) -> None:
        for name, field in (fields_of(type_) or {}).items():
            if fields_of(field.type) is not None:
                walk(field.type, prefix + name + ".")
                continue
            assert outline(field.type)[0], f"{prefix}{name} has no description"
            kind = plain(field.type)
            if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
                assert None not in {kind.ge, kind.le}, f"{prefix}{name} is not bounded"

    walk(msgspec.inspect.type_info(RuntimeConfig), "")
