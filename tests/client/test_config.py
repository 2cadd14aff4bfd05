"""Where the client connects: the published precedence, and clear refusals."""

import dataclasses

import pytest

from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig, TcpAddress, UnixAddress

DEFAULT = UnixAddress("/tmp/vastar-connector-runtime.sock")


def test_the_published_fields_their_order_and_defaults():
    fields = [(f.name, f.default) for f in dataclasses.fields(RuntimeConfig)][:7]
    assert fields == [
        ("tenant_id", "default"),
        ("workspace_id", ""),
        ("timeout_ms", 60_000),
        ("socket_path", "/tmp/vastar-connector-runtime.sock"),
        ("use_tcp", False),
        ("tcp_host", "127.0.0.1"),
        ("tcp_port", 5000),
    ]


@pytest.mark.parametrize(
    ("environ", "fields", "address"),
    [
        ({}, {}, DEFAULT),
        ({}, {"socket_path": "/a"}, UnixAddress("/a")),
        ({"VASTAR_SOCKET_PATH": "/b"}, {"socket_path": "/a"}, UnixAddress("/b")),
        ({"VASTAR_SOCKET_PATH": ""}, {"socket_path": "/a"}, UnixAddress("/a")),
        ({"VASTAR_USE_TCP": "true"}, {}, TcpAddress("127.0.0.1", 5000)),
        ({"VASTAR_USE_TCP": "True"}, {}, TcpAddress("127.0.0.1", 5000)),
        ({"VASTAR_USE_TCP": "false"}, {}, DEFAULT),
        ({"VASTAR_USE_TCP": "false"}, {"use_tcp": True}, TcpAddress("127.0.0.1", 5000)),
        ({"VASTAR_TCP_PORT": "6000"}, {}, DEFAULT),
        ({"VASTAR_TCP_PORT": "6000"}, {"use_tcp": True}, TcpAddress("127.0.0.1", 6000)),
        ({"VASTAR_TCP_HOST": "::1"}, {"use_tcp": True}, TcpAddress("::1", 5000)),
        ({"VASTAR_SOCKET_PATH": "/b"}, {"use_environment": False}, DEFAULT),
    ],
)
def test_the_environment_wins_over_the_fields(environ, fields, address):
    assert RuntimeConfig(**fields).address(environ) == address


def test_the_environment_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("VASTAR_SOCKET_PATH", "/elsewhere")
    assert str(RuntimeConfig().address()) == "unix:/elsewhere"
    assert RuntimeConfig(use_environment=False).address() == DEFAULT


@pytest.mark.parametrize("text", ["x", "0", "65536", "-1"])
def test_a_bad_port_is_refused_by_name(text):
    with pytest.raises(ValueError, match=f"VASTAR_TCP_PORT is '?{text}'?: it must be a number"):
        RuntimeConfig(use_tcp=True).address({"VASTAR_TCP_PORT": text})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timeout_ms": 0}, "RuntimeConfig.timeout_ms is 0"),
        ({"timeout_ms": 1.5}, "RuntimeConfig.timeout_ms is 1.5"),
        ({"timeout_ms": True}, "RuntimeConfig.timeout_ms is True"),
        ({"timeout_ms": 10**18}, "RuntimeConfig.timeout_ms"),
        ({"connect_timeout_ms": -1}, "RuntimeConfig.connect_timeout_ms is -1"),
        ({"tcp_port": 0}, "RuntimeConfig.tcp_port is 0"),
        ({"payload_format": "xml"}, "payload_format is 'xml': it must be 'native' or 'json'"),
    ],
)
def test_bad_values_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        RuntimeConfig(**fields)


def test_it_is_a_dataclass_as_published():
    assert dataclasses.replace(RuntimeConfig(), tenant_id="t").tenant_id == "t"


@pytest.mark.parametrize("kind", [RuntimeClient, AsyncRuntimeClient])
@pytest.mark.parametrize("config", ["/tmp/x.sock", {}, 5])
def test_a_config_that_is_none_is_named_at_once(kind, config):
    with pytest.raises(TypeError, match=r"config is \w+: it must be a RuntimeConfig"):
        kind(config)


@pytest.mark.parametrize("port", ["5000", None, True, 0, 65_536])
def test_a_port_that_is_none_is_named(port):
    with pytest.raises(ValueError, match=f"tcp_port is {port!r}: it must be a number"):
        RuntimeConfig(tcp_port=port)
