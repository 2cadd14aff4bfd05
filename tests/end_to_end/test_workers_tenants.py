"""Several workers and who may call: over TCP from anywhere, with TLS and tokens; the audit log."""

import json
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.test_workers import answering, callers, serve
from tests.support.commands import end, vastar
from tests.support.http_tls import Authority
from tests.support.workers import Team, wait_until
from vastar_client import ConnectorException, RuntimeClient, RuntimeConfig, RuntimeUnavailable
from vastar_client.wire import ErrorClass, ExecuteResponse
from vastar_runtime.cli.exit_codes import ExitCode

TOKEN = "planted-token-0123456789"


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(str(tmp_path / "runtime.sock"))


def configured(folder: Path, more: str = "") -> str:
    """A file in which acme is for those with a token, and may call this host."""
    tokens = folder / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o600)
    file = folder / "vastar.toml"
    file.write_text(
        f'{more}\n[tenants.acme]\ntoken_file = "{tokens}"\n'
        '[tenants.acme.egress]\nallow_ranges = ["127.0.0.0/8"]\n'
    )
    return str(file)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def test_each_worker_asks_who_calls_over_tcp_from_anywhere(team: Team, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    certificate = tmp_path / "server.pem"
    authority.ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(certificate)
    )
    file = configured(tmp_path, f'[tcp]\ncert_file = "{certificate}"')
    port = free_port()
    access = {
        "use_tcp": True, "tcp_port": port, "tls_ca_file": authority.ca_file,
        "use_environment": False,
    }  # fmt: skip
    remote = ("--tcp", f"0.0.0.0:{port}", "--tcp-allow-remote", "--config", file)
    with answering() as url, serve(team, *remote) as process:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(RuntimeClient(RuntimeConfig(token=TOKEN, **access)))
                for _ in range(6)
            ]
            for client in clients:
                assert client.get(url, tenant_id="acme").status_code == 204
                with pytest.raises(ConnectorException, match="not allowed"):
                    client.get(url, tenant_id="rival")
            # Both had some of them.
            assert all(row["connections"] for row in team.rows())
            assert sum(row["connections"] for row in team.rows()) >= len(clients)
        without = RuntimeClient(RuntimeConfig(**access))
        with without, pytest.raises(ConnectorException, match="not allowed"):
            without.get(url, tenant_id="acme")
        in_the_clear = RuntimeConfig(**{**access, "tls_ca_file": None}, token=TOKEN)
        with pytest.raises(RuntimeUnavailable), RuntimeClient(in_the_clear) as plain:
            plain.get(url, tenant_id="acme")
        code, logged = end(process, signal.SIGTERM)
    assert code == ExitCode.OK
    assert TOKEN not in logged


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "--tcp-allow-remote"), (["--tcp-allow-remote"], "cert_file")],
)
def test_beyond_loopback_nothing_is_served_without_being_asked_for_and_tls(
    team: Team, tmp_path: Path, arguments: list[str], words: str
) -> None:
    file = configured(tmp_path)
    done = vastar(
        "serve", "--socket", team.socket, "--workers", "2", "--config", file,
        "--tcp", f"0.0.0.0:{free_port()}", *arguments,
    )  # fmt: skip
    assert done.returncode == ExitCode.USAGE
    assert words in done.stderr
    assert done.stderr.count("vastar: ") <= 3


def refused_lines(path: Path) -> int:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return sum(1 for line in lines if line.get("rule") == "identity:tenant")


def test_a_rotated_audit_log_is_let_go_of_by_every_worker(team: Team, tmp_path: Path) -> None:
    audit, rotated = tmp_path / "audit.log", tmp_path / "audit.log.1"
    file = configured(tmp_path, f'[audit]\npath = "{audit}"')
    count = 12
    with answering() as url, serve(team, "--config", file) as process:
        with callers(team, count) as connected:

            def be_refused() -> None:
                for caller in connected:
                    caller.get(url)
                for caller in connected:
                    answer = caller.receive()
                    assert isinstance(answer, ExecuteResponse)
                    assert answer.error_class is ErrorClass.INVALID_REQUEST

            be_refused()
            assert all(row["connections"] for row in team.rows())
            wait_until(lambda: refused_lines(audit) == count, "all are told")
            audit.rename(rotated)
            be_refused()  # into the file that they have
            wait_until(lambda: refused_lines(rotated) == 2 * count, "all are told")
            assert not audit.exists()
            team.call("reload")
            be_refused()
            wait_until(lambda: refused_lines(audit) == count, "all are told in the new file")
        assert refused_lines(rotated) == 2 * count
        events = [json.loads(line)["event"] for line in audit.read_text().splitlines()]
        assert "reload" in " ".join(events)
        assert audit.stat().st_mode & 0o777 == 0o600
        assert end(process, signal.SIGTERM)[0] == ExitCode.OK
