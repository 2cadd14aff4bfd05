"""Commands reach a runtime over TCP with TLS and a token, or say in a sentence why not."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import fake_runtime
from tests.support.http_tls import Authority
from vastar_client.wire import (
    NEED_DATA,
    Authenticate,
    Connection,
    HealthCheck,
    HealthResponse,
    Message,
    Role,
)
from vastar_runtime.cli._dialing import trusting
from vastar_runtime.cli._line import ControlError, Line
from vastar_runtime.cli.control import ControlClient
from vastar_runtime.config import TcpAddress, UnixAddress

TOKEN = "planted-token-0123456789"


def _serve(accepted: socket.socket, heard: list[Message]) -> None:
    connection = Connection(Role.RUNTIME)
    while data := accepted.recv(65_536):
        connection.receive_data(data)
        while not isinstance(event := connection.next_event(), type(NEED_DATA)):
            heard.append(event)
            is_good = not isinstance(event, Authenticate) or event.token == TOKEN
            words = "well" if is_good else "not allowed: this token is not known"
            # Longer than a record of TLS, so that it comes in several.
            said = HealthResponse(healthy=True, message=words + " " * 100_000 * is_good)
            accepted.sendall(b"".join(connection.send(said)))


@contextmanager
def listening(context: ssl.SSLContext | None) -> Iterator[tuple[TcpAddress, list[Message]]]:
    """A runtime on a port of its own, with what it heard."""
    heard: list[Message] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                accepted.settimeout(20)
                try:
                    if context is not None:
                        accepted = context.wrap_socket(accepted, server_side=True)
                    with accepted:
                        _serve(accepted, heard)
                except OSError:
                    accepted.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield TcpAddress("127.0.0.1", server.getsockname()[1]), heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    monkeypatch.setenv("VASTAR_TOKEN_FILE", str(path))
    return path


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VASTAR_TOKEN_FILE", "VASTAR_TLS_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_tls_with_the_authority_that_the_environment_names(
    authority: Authority, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VASTAR_TLS_CA_FILE", authority.ca_file)
    with (
        listening(authority.server("127.0.0.1")) as (address, heard),
        ControlClient(address) as client,
    ):
        assert client.peer is None
        assert client.health().healthy
        assert heard == [Authenticate(token=TOKEN), HealthCheck()]


def test_tls_with_the_certificate_itself(authority: Authority, tmp_path: Path) -> None:
    """Whatever its name, and without its authority; no other one is trusted."""
    leaf = authority.ca.issue_cert("elsewhere.test")
    path = tmp_path / "leaf.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with (
        listening(context) as (address, _),
        ControlClient(address, tls=trusting(str(path))) as client,
    ):
        assert client.health().healthy
    with (
        listening(authority.server("elsewhere.test")) as (address, heard),
        pytest.raises(ControlError, match="certificate"),
    ):
        ControlClient(address, tls=trusting(str(path)))
    assert heard == []


@pytest.mark.parametrize("names", [["elsewhere.test"], ["127.0.0.1"]])
def test_who_is_not_trusted_hears_nothing(
    names: list[str],
    authority: Authority,
    token_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its name is another, or its authority."""
    is_other = names == ["127.0.0.1"]
    trusted = Authority.make(tmp_path_factory.mktemp("other")) if is_other else authority
    monkeypatch.setenv("VASTAR_TLS_CA_FILE", trusted.ca_file)
    with (
        listening(authority.server(*names)) as (address, heard),
        pytest.raises(ControlError, match=r"IP address mismatch|unable to get local issuer"),
    ):
        Line(address, 5)
    assert heard == []


def test_without_tls_a_runtime_that_speaks_it_is_hinted_at(authority: Authority) -> None:
    with (
        listening(authority.server("127.0.0.1")) as (address, _),
        ControlClient(address) as client,
        pytest.raises(ControlError, match=r"VASTAR_TLS_CA_FILE|connection lost|no Vastar runtime"),
    ):
        client.health()


def test_a_token_goes_over_a_unix_socket_only_for_calls(token_file: Path, tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "r.sock"))
    with fake_runtime(address.path, lambda _: HealthResponse(healthy=True)) as heard:
        with ControlClient(address) as client:
            client.health()
        Line(address, 5, calls=True).close()
    assert heard == [HealthCheck(), Authenticate(token=TOKEN)]


def test_a_token_that_is_not_taken_is_told_without_being_quoted(token_file: Path) -> None:
    token_file.write_text("another-token-0123456789")
    with listening(None) as (address, _), pytest.raises(ControlError) as caught:
        Line(address, 5)
    assert str(caught.value) == f"{address}: not allowed: this token is not known"


@pytest.mark.parametrize("name", ["VASTAR_TOKEN_FILE", "VASTAR_TLS_CA_FILE"])
def test_files_that_cannot_be_used_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/no/such/file")
    with listening(None) as (address, _), pytest.raises(ControlError, match=r"^/no/such/file: "):
        Line(address, 5)


@pytest.mark.parametrize("text", ["", "\n", " \nsecond", "s\u00e9cret"])
def test_a_file_without_a_token_is_told_without_being_quoted(text: str, token_file: Path) -> None:
    token_file.write_text(text)
    with listening(None) as (address, heard), pytest.raises(ControlError) as caught:
        Line(address, 5)
    assert str(caught.value) == f"{token_file}: its first line is no token"
    assert heard == []
