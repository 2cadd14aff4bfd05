"""One frozen value from four layers; whatever is wrong is told with its place and its remedy."""

from pathlib import Path

import pytest

from vastar_runtime.config import ConfigError, RuntimeConfig, Setting, TcpAddress, load_config


def _write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "vastar.toml"
    file.write_text(text)
    return str(file)


def test_each_layer_outranks_the_one_before(tmp_path: Path) -> None:
    file = _write(tmp_path, '[log]\nlevel = "debug"\n[server]\ntcp_port = 1\ndrain_s = 5\n')
    environ = {"VASTAR_CONFIG": file, "VASTAR_TCP_PORT": "2", "VASTAR_LOG_LEVEL": "error"}
    loaded = load_config(environ=environ, flags=[Setting("log.level", "info", "--log-level")])
    assert loaded.config.server.drain_s == 5.0
    assert loaded.config.server.tcp_port == 2
    assert loaded.config.log.level == "info"
    assert loaded.sources == {
        "server.drain_s": file,
        "server.tcp_port": "VASTAR_TCP_PORT",
        "log.level": "--log-level",
    }


def test_the_flag_outranks_the_variable_that_names_the_file(tmp_path: Path) -> None:
    file = _write(tmp_path, "[server]\ndrain_s = 5\n")
    loaded = load_config(file=file, environ={"VASTAR_CONFIG": "/nonexistent"})
    assert loaded.config.server.drain_s == 5


def test_the_variables_of_the_sdks() -> None:
    environ = {
        "VASTAR_USE_TCP": "TRUE",
        "VASTAR_TCP_HOST": "127.0.0.2",
        "VASTAR_TCP_PORT": "0",
        "VASTAR_SOCKET_PATH": "",
    }
    server = load_config(environ=environ).config.server
    assert server.addresses() == (TcpAddress("127.0.0.2", 0),)
    assert server.socket_path == RuntimeConfig().server.socket_path


def test_where_metrics_are_fetched() -> None:
    environ = {"VASTAR_METRICS_LISTEN": "127.0.0.1:9464"}
    assert load_config(environ=environ).config.metrics.listen == "127.0.0.1:9464"
    flags = [Setting("metrics.listen", "::1:1", "--metrics-listen")]
    with pytest.raises(ConfigError) as caught:
        load_config(environ={"VASTAR_METRICS_LISTEN": "0.0.0.0:9464"})
    assert str(caught.value) == (
        "VASTAR_METRICS_LISTEN: metrics.listen: 0.0.0.0 may be reached from other machines, which "
        "is not supported; listen on 127.0.0.1, ::1 or localhost"
    )
    with pytest.raises(ConfigError, match=r"--metrics-listen: metrics\.listen: "):
        load_config(environ=environ, flags=[Setting("metrics.listen", "x", "--metrics-listen")])
    assert load_config(environ=environ, flags=flags).config.metrics.listen == "::1:1"


def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    file = _write(tmp_path, '[tls]\nca_file = "ca.pem"\n[server]\nsocket_path = "run.sock"\n')
    config = load_config(file=file, environ={}).config
    assert config.tls.ca_file == str(tmp_path / "ca.pem")
    assert config.server.socket_path == str(tmp_path / "run.sock")


_BAD_FILES = [
    (
        "[server]\ndrian_s = 3",
        'server.drian_s: unknown key; remove it; did you mean "drain_s"?',
    ),
    (
        "[sevrer]\ndrain_s = 3",
        'sevrer: unknown key; remove it; did you mean "server"?',
    ),
    (
        "[log]\ncolour = 3",
        "log.colour: unknown key; remove it; known here: level, format",
    ),
    (
        "server = 3",
        "server: 3 is not a table; write [server]",
    ),
    (
        "[server]\ndrain_s = -1",
        "server.drain_s: -1 is out of range; give a number from 0 to 3600",
    ),
    (
        "[server]\ndrain_s = nan",
        "server.drain_s: nan is out of range; give a number from 0 to 3600",
    ),
    (
        '[server]\ndrain_s = "30"',
        'server.drain_s: "30" is not a number; give a number from 0 to 3600',
    ),
    (
        "[server]\ntcp_port = 1.5",
        "server.tcp_port: 1.5 is not a whole number; give a whole number from 0 to 65535",
    ),
    (
        "[server]\nuse_tcp = 1",
        "server.use_tcp: 1 is not true or false; give true or false",
    ),
    (
        "[server]\ntcp_port = true",
        "server.tcp_port: true is not a whole number; give a whole number from 0 to 65535",
    ),
    (
        '[server]\nsocket_path = ""',
        "server.socket_path: it is empty; give a text that is not empty",
    ),
    (
        '[server]\ntcp_also = "5000"',
        'server.tcp_also: "5000" is not a list of texts; give a list of texts',
    ),
    (
        '[server]\ntcp_also = ["x:y"]',
        (
            'server.tcp_also: "x:y" is no TCP address; give PORT, HOST:PORT or [IPV6]:PORT with a '
            "port from 0 to 65535, for example 5000 or 127.0.0.1:5000"
        ),
    ),
    (
        '[server]\ntcp_also = ["0.0.0.0:5000"]',
        (
            "server.tcp_also: 0.0.0.0 may be reached from other machines; listen on 127.0.0.1, ::1 "
            "or localhost, or on the Unix socket; or set tcp.allow_remote (--tcp-allow-remote), "
            "which needs TLS and tokens"
        ),
    ),
    (
        '[server]\nuse_tcp = true\ntcp_host = "example.test"',
        (
            "server.tcp_host: example.test may be reached from other machines; listen on "
            "127.0.0.1, ::1 or localhost, or on the Unix socket; or set tcp.allow_remote "
            "(--tcp-allow-remote), which needs TLS and tokens"
        ),
    ),
    (
        "[server]\nsocket_mode = 0o611",
        (
            "server.socket_mode: 0o611 is no mode of a socket that its owner can use; give 0o600 "
            "(yourself), 0o660 (a group) or 0o666 (everybody)"
        ),
    ),
    (
        '[server]\nsocket_group = "adm"',
        (
            "server.socket_group: socket_mode 0o600 shuts the group out; set server.socket_mode = "
            "0o660, or remove socket_group"
        ),
    ),
    (
        '[log]\nlevel = "inof"',
        (
            'log.level: "inof" is not known; give one of "critical", "debug", "error", "info", '
            '"warning"; did you mean "info"?'
        ),
    ),
    (
        "[log]\nformat = 3",
        'log.format: 3 is not known; give one of "auto", "console", "json"',
    ),
    (
        '[http]\naccept_encoding = "gzip\\nx"',
        (
            'http.accept_encoding: "gzip\nx" has characters that do not belong there; give a text '
            "that matches ^[A-Za-z0-9*;=., -]*\\Z"
        ),
    ),
    (
        "[http.pool]\nmax_connections = 10",
        (
            "configuration: http.pool.max_connections_per_key: 256 is more than max_connections, "
            "the bound of all; lower it, or raise http.pool.max_connections"
        ),
    ),
    (
        '[tls]\nca_file = "/nonexistent/ca.pem"',
        (
            'tls.ca_file: "/nonexistent/ca.pem" cannot be read (no such file or directory); name a '
            "readable file"
        ),
    ),
    (
        '[tls]\nclient_key_file = "/dev/null"',
        (
            "tls.client_key_file: it is of no use without client_cert_file; set "
            "tls.client_cert_file too"
        ),
    ),
    (
        '[proxy]\nhttp = "ftp://u:hunter2@h:1"',
        (
            "proxy.http: it is no proxy URL; give SCHEME://HOST:PORT with the scheme http, https, "
            "socks5 or socks5h"
        ),
    ),
    (
        '[proxy]\nno_proxy = "u:hunter2@h"',
        'proxy.no_proxy: "[redacted]" is not a list of texts; give a list of texts',
    ),
    ("[server", "is not valid TOML: "),
]


@pytest.mark.parametrize(("text", "message"), _BAD_FILES)
def test_a_bad_file_is_refused_with_place_fault_and_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    file = _write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=file, environ={})
    told = str(caught.value)
    expected = message if message.startswith("configuration:") else f"{file}: {message}"
    assert told == expected or (message.endswith(": ") and told.startswith(expected))
    assert "hunter2" not in told


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    file = _write(tmp_path, "[server]\ndrian_s = 3\ntcp_port = -1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(
            file=file,
            environ={"VASTAR_USE_TCP": "maybe"},
            flags=[Setting("server.drain_s", "x", "--drain-s")],
        )
    assert [(problem.source, problem.key) for problem in caught.value.problems] == [
        (file, "server.drian_s"),
        (file, "server.tcp_port"),
        ("VASTAR_USE_TCP", "server.use_tcp"),
        ("--drain-s", "server.drain_s"),
    ]


def test_a_bad_value_that_a_flag_hides_is_still_refused(tmp_path: Path) -> None:
    file = _write(tmp_path, "[server]\ndrain_s = -1\n")
    with pytest.raises(ConfigError):
        load_config(file=file, environ={}, flags=[Setting("server.drain_s", "5", "--drain-s")])


def test_an_unreadable_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(no such file or directory\)"):
        load_config(file=missing, environ={})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(file=str(binary), environ={})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "server.socket_mode = 0o777",
            "0o777 is no mode of a socket that its owner can use; give 0o600 (yourself), 0o660",
        ),
        ("server.socket_mode = 600", "or 0o666 (everybody); did you mean 0o600?"),
        ("server.socket_mode = 666", "did you mean 0o666?"),
        ("metrics.listen = 9464", '9464 is not a text; give "[HOST:]PORT", in quotes'),
        (
            'tenants.acme.allow_uids = [7, "root"]',
            'in the list "root" is not a whole number; give a list of whole numbers from 0',
        ),
        ("tenants.acme.allow_uids = [-1]", "in the list -1 is out of range"),
        ("tenants.acme.allow_subjects = [1]", "in the list 1 is not a text"),
        ('defaults.egress.schemes = ["http", "ftp"]', 'in the list "ftp"'),
    ],
)
def test_what_is_wrong_is_said_of_the_very_value(tmp_path: Path, lines: str, words: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(lines)
    with pytest.raises(ConfigError) as caught:
        load_config(file=str(file), environ={})
    assert words in str(caught.value)
