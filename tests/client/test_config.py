"""Where the client connects: the published precedence, and clear refusals."""

import dataclasses
import ssl

import pytest

from tests.support.http_tls import Authority
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


# --- who calls, and TLS -------------------------------------------------------------------------

TOKEN = "planted-token-0123456789"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN} \nplanted-second-0123456789\n")
    return path


def test_without_a_word_nothing_is_shown_and_nothing_is_encrypted():
    assert RuntimeConfig().current_token({}) is None
    assert RuntimeConfig().current_tls({}) is None
    empty = {"VASTAR_TOKEN_FILE": "", "VASTAR_TLS_CA_FILE": ""}
    assert RuntimeConfig().current_token(empty) is None
    assert RuntimeConfig().current_tls(empty) is None


def test_the_token_is_the_field_else_the_first_line_of_a_file(token_file, tmp_path):
    other = tmp_path / "other"
    other.write_text("planted-other-0123456789")
    environ = {"VASTAR_TOKEN_FILE": str(other)}
    path = str(token_file)
    for fields, variables, token in (
        ({"token": "mine", "token_file": path}, environ, "mine"),
        ({"token_file": path}, {}, TOKEN),
        ({"token_file": path}, environ, "planted-other-0123456789"),
        ({"token_file": path, "use_environment": False}, environ, TOKEN),
        ({"use_environment": False}, environ, None),
    ):
        assert RuntimeConfig(**fields).current_token(variables) == token


def test_a_file_is_read_anew_each_time(token_file):
    config = RuntimeConfig(token_file=str(token_file))
    assert config.current_token({}) == TOKEN
    token_file.write_text("planted-renewed-0123456789")
    assert config.current_token({}) == "planted-renewed-0123456789"


@pytest.mark.parametrize("text", ["", "\n", " \nsecond", "gehe\u00efm"])
def test_a_file_without_a_token_is_named_and_not_quoted(text, token_file):
    token_file.write_text(text)
    with pytest.raises(ValueError, match="its first line is no token") as caught:
        RuntimeConfig(token_file=str(token_file)).current_token({})
    assert str(caught.value) == f"{token_file}: its first line is no token"


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"^/no/such: cannot be read \(No such file"):
        RuntimeConfig(token_file="/no/such").current_token({})
    with pytest.raises(ValueError, match=r"^/no/such: holds no certificates \(No such file"):
        RuntimeConfig(tls_ca_file="/no/such").current_tls({})


def test_tokens_and_contexts_are_not_printed(token_file):
    config = RuntimeConfig(
        token=TOKEN, token_file=str(token_file), tls_context=ssl.create_default_context()
    )
    assert TOKEN not in repr(config)
    assert "SSLContext" not in repr(config)


def test_tls_trusts_the_authorities_of_the_file_and_no_others(tmp_path):
    authority, other = Authority.make(tmp_path), Authority.make(tmp_path_of(tmp_path, "other"))
    by_field = RuntimeConfig(tls_ca_file=authority.ca_file)
    context = by_field.current_tls({})
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    own = trusted(context)
    assert len(own) == 1
    wins = by_field.current_tls({"VASTAR_TLS_CA_FILE": other.ca_file})
    assert wins is not None
    assert trusted(wins) != own
    mine = ssl.create_default_context()
    assert RuntimeConfig(tls_context=mine, tls_ca_file=authority.ca_file).current_tls({}) is mine


def tmp_path_of(folder, name):
    path = folder / name
    path.mkdir()
    return path


def trusted(context):
    return context.get_ca_certs(binary_form=True)


def test_a_file_that_holds_no_certificates_is_named(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("none")
    with pytest.raises(ValueError, match=r"ca\.pem: holds no certificates"):
        RuntimeConfig(tls_ca_file=str(path)).current_tls({})


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
