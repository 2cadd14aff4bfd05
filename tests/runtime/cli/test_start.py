"""`start` comes back when the runtime serves, or says why it does not."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import ROOT, environment, vastar
from tests.support.http_tls import Authority
from vastar_runtime.cli import main
from vastar_runtime.cli._process import Process
from vastar_runtime.cli._start import _serve_arguments

pytestmark = pytest.mark.slow

TOKEN = "planted-token-0123456789"


class Place:
    """A directory for one background runtime, which is ended with the test."""

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "r.sock")
        self.log = directory / "r.log"
        self.arguments = ["start", "--socket", self.socket, "--log-file", str(self.log)]

    def start(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return vastar(*self.arguments, *more, **variables)

    def pid(self) -> int:
        return int(json.loads(vastar("status", "--json", "--socket", self.socket).stdout)["pid"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    assert vastar("stop", "--socket", place.socket, "--now").returncode == 0


def test_what_it_was_told_it_tells_serve() -> None:
    options = argparse.Namespace(
        socket="/s", config="c", log_level="info", log_format="json", drain_s="3", tcp=["1", "2"],
        workers="4", metrics_listen="9464", log_file="not for serve", timeout_s=3.0,
        tcp_allow_remote=True,
    )  # fmt: skip
    assert list(_serve_arguments(options)) == [
        "--socket=/s",
        "--config=c",
        "--log-level=info",
        "--log-format=json",
        "--drain-s=3",
        "--workers=4",
        "--metrics-listen=9464",
        "--tcp=1",
        "--tcp=2",
        "--tcp-allow-remote",
    ]


def test_it_serves_in_a_session_of_its_own(place: Place) -> None:
    place.log.write_text("what was there before\n")
    place.log.chmod(0o600)
    done = place.start("--drain-s", "3", "--log-format", "console")
    assert done.returncode == 0, done.stderr
    pid = place.pid()
    assert done.stdout == f"started: unix:{place.socket}, pid {pid}, log {place.log}\n"
    assert os.getsid(pid) == pid
    again = place.start()
    assert again.returncode == 4
    assert f"already running, pid {pid}" in again.stderr
    process = Process(pid)
    assert vastar("stop", "--socket", place.socket).returncode == 0
    assert process.wait(10)
    process.close()
    logged = place.log.read_text()
    assert logged.startswith("what was there before\nvastar-runtime ")
    assert "drain_s=3.0" in logged


def test_a_new_log_file_is_for_its_owner_alone(place: Place) -> None:
    assert place.start().returncode == 0
    assert place.log.stat().st_mode & 0o777 == 0o600


def test_a_bad_configuration_is_told_before_anything_starts(place: Place) -> None:
    done = place.start("--drain-s", "soon")
    assert done.returncode == 2
    assert done.stderr == (
        'vastar: --drain-s: server.drain_s: "soon" is not a number; give a number from 0 to 3600\n'
    )
    assert not place.log.exists()


def test_one_that_dies_at_once_tells_why(place: Place) -> None:
    Path(place.socket).write_text("no socket")
    done = place.start()
    Path(place.socket).unlink()
    assert done.returncode == 1
    assert "something that is no socket" in done.stderr
    assert "exit status 1" in done.stderr


def test_one_that_is_not_ready_in_time(place: Place) -> None:
    done = place.start("--timeout-s", "0")
    assert done.returncode == 5
    assert "is not ready yet" in done.stderr
    pid = int(done.stderr.split("pid ")[1].split()[0])
    process = Process(pid)
    deadline_s = time.monotonic() + 20
    while vastar("status", "--socket", place.socket).returncode != 0:
        assert time.monotonic() < deadline_s
    assert vastar("stop", "--socket", place.socket).returncode == 0
    assert process.wait(10)
    process.close()


def test_a_log_file_that_is_a_link_is_refused(place: Place) -> None:
    place.log.symlink_to("/dev/null")
    done = place.start()
    assert done.returncode == 1
    assert "is a symbolic link" in done.stderr


def test_port_0_cannot_be_found_again(place: Place) -> None:
    done = vastar("start", "--log-file", str(place.log), VASTAR_USE_TCP="true", VASTAR_TCP_PORT="0")
    assert done.returncode == 2
    assert "fixed port" in done.stderr


def test_modules_in_the_working_directory_are_not_imported(place: Place, tmp_path: Path) -> None:
    """Starting it in a directory that anybody may write to must not run what lies there."""
    (tmp_path / "trio.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vastar_runtime", *place.arguments],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_script_of_the_same_purpose(place: Place) -> None:
    done = subprocess.run(
        [ROOT / "tools" / "start_runtime.sh", *place.arguments[1:]],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("started: ")


class SecurePlace:
    """A port for one background runtime that meets callers with TLS, for those with a token."""

    def __init__(self, directory: Path, *, require_client_cert: bool = False) -> None:
        self.authority = Authority.make(directory)
        leaf = self.authority.ca.issue_cert("127.0.0.1")
        certificate, tokens = directory / "server.pem", directory / "tokens"
        leaf.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        tokens.write_text(TOKEN)
        tokens.chmod(0o600)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        config = directory / "runtime.toml"
        config.write_text(
            f"""
[server]
use_tcp = true
tcp_port = {self.port}

[tcp]
cert_file = "{certificate}"
client_ca_file = "{self.authority.ca_file}"
require_client_cert = {str(require_client_cert).lower()}

[tenants.acme]
token_file = "{tokens}"
"""
        )
        self.place = ["--config", str(config)]
        self.log = directory / "r.log"
        self.access = {
            "VASTAR_TLS_CA_FILE": self.authority.ca_file,
            "VASTAR_TOKEN_FILE": str(tokens),
        }

    def run(self, command: str, *more: str, **access: str) -> subprocess.CompletedProcess[str]:
        return vastar(command, *self.place, *more, **access)


@pytest.fixture
def secure(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SecurePlace]:
    place = SecurePlace(tmp_path, require_client_cert=getattr(request, "param", False))
    yield place
    assert place.run("stop", "--now", **place.access).returncode == 0


@pytest.mark.parametrize("knows", ["its own certificate", "its authority"])
def test_over_tls_it_is_started_asked_used_and_stopped(secure: SecurePlace, knows: str) -> None:
    access = secure.access if knows == "its authority" else {}
    started = secure.run("start", "--log-file", str(secure.log), **access)
    assert (started.returncode, started.stderr) == (0, "")
    again = secure.run("start", "--log-file", str(secure.log), **access)
    assert again.returncode == 4

    access = secure.access
    told = secure.run("status", **access)
    assert told.returncode == 0
    assert told.stdout.startswith("running")
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        url = f"http://127.0.0.1:{upstream.getsockname()[1]}/"
        refused = secure.run("call", url, "--tenant", "acme", "--timeout-s", "9",
                             VASTAR_TLS_CA_FILE=access["VASTAR_TLS_CA_FILE"])  # fmt: skip
        assert (refused.returncode, "not allowed" in refused.stderr) == (10, True)
        # With the token it is let in, and stands before the next rule: loopback is out of reach.
        called = secure.run("call", url, "--tenant", "acme", "--timeout-s", "9", **access)
        assert "egress" in called.stderr
    # What only its own user may, the kernel vouches for, which TCP does not.
    reloaded = secure.run("reload", **access)
    assert (reloaded.returncode, "over TCP nobody may" in reloaded.stderr) == (1, True)
    stopped = secure.run("stop", **access)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert secure.run("status", **access).returncode == 3


@pytest.mark.parametrize("secure", [True], indirect=True)
def test_one_that_wants_certificates_of_callers_is_known_by_its_lock(secure: SecurePlace) -> None:
    started = secure.run("start", "--log-file", str(secure.log))
    assert (started.returncode, started.stderr) == (0, "")
    assert secure.run("start", "--log-file", str(secure.log)).returncode == 4
    assert secure.run("stop").returncode == 0


def test_a_certificate_that_cannot_be_read_is_named_before_anything_starts(
    secure: SecurePlace, tmp_path: Path
) -> None:
    (tmp_path / "server.pem").write_text("no certificate")
    done = secure.run("start", "--log-file", str(secure.log))
    assert done.returncode != 0
    assert "server.pem" in done.stderr
    assert not secure.log.exists()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("/dev/null", "/dev/null: is no plain file; choose another with --log-file"),
        ("link", "is a symbolic link; remove it if it is yours; choose another with --log-file"),
    ],
)
def test_a_log_file_that_cannot_be_used_is_told_with_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str, words: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    path = str(tmp_path / log)  # an absolute one stays what it is
    assert main(["start", "--socket", str(tmp_path / "r.sock"), "--log-file", path]) == 1
    assert words in capsys.readouterr().err
