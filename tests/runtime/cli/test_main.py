"""The words of the command line, and `serve` as scripts and service managers see it."""

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.support.commands import Caller, end, environment, serving, silent_upstream, vastar
from vastar_client.wire import Disposition, ErrorClass, ExecuteResponse
from vastar_runtime.cli import main


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "r.sock")


def test_help_names_every_command_status_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("serve", "start", "status", "stop", "clean", "check-config", "VASTAR_USE_TCP"):
        assert word in out
    assert "\n    4  serve, start, clean: a runtime is alive there\n" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["serve", "--sock", "x"],
        ["stop", "extra"],
        ["status", "--tcp", "x:y"],
        ["stop", "--timeout-s", "nan"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_check_config_prints_what_would_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VASTAR_CONFIG", raising=False)
    file = tmp_path / "c.toml"
    file.write_text("[server]\ndrain_s = 7\n")
    assert main(["check-config", "--config", str(file), "--tcp", "5001", "--explain"]) == 0
    out = capsys.readouterr().out
    assert tomllib.loads(out)["server"]["drain_s"] == 7
    assert f"# from {file}" in out
    assert "# from --tcp" in out
    file.write_text("[server]\ndrain = 7\n")
    assert main(["check-config", "--config", str(file)]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_check_config_prints_what_holds_for_one_caller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VASTAR_CONFIG", raising=False)
    file = tmp_path / "c.toml"
    file.write_text(
        "[tenants.acme.retry]\nattempts = 5\n"
        "[tenants.acme.workspaces.w.retry]\ncap_s = 7\n"
        '[origins."https://api.test".retry]\nbase_s = 0.5\n'
    )
    check = ["check-config", "--config", str(file)]
    caller = ["--tenant", "acme", "--workspace", "w", "--origin", "HTTPS://api.test:443"]
    assert main([*check, *caller]) == 0
    retry = tomllib.loads(out := capsys.readouterr().out)["retry"]
    assert (retry["attempts"], retry["cap_s"], retry["base_s"]) == (5, 7, 0.5)
    assert f"# [tenants.acme.workspaces.w.retry], {file}" in out
    assert main([*check, "--tenant", ""]) == 0
    assert tomllib.loads(capsys.readouterr().out)["retry"]["attempts"] == 3
    assert main([*check, "--workspace", "w"]) == 2
    assert "--workspace needs --tenant" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*check, "--origin", "api.test"])
    assert ended.value.code == 2
    assert 'it has no scheme; write "https://api.test"' in capsys.readouterr().err


def test_where_metrics_are_fetched_outranks_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VASTAR_CONFIG", raising=False)
    monkeypatch.setenv("VASTAR_METRICS_LISTEN", "127.0.0.1:9464")
    assert main(["check-config"]) == 0
    assert "# from VASTAR_METRICS_LISTEN" in (out := capsys.readouterr().out)
    assert tomllib.loads(out)["metrics"]["listen"] == "127.0.0.1:9464"
    assert main(["check-config", "--metrics-listen", "9465"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["metrics"]["listen"] == "9465"


def test_a_tcp_address_that_is_not_loopback_is_refused(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--socket", path, "--tcp", "0.0.0.0:5000"]) == 2
    assert "may be reached from other machines" in capsys.readouterr().err


def test_commands_that_only_ask_load_neither_logs_nor_http(path: str) -> None:
    code = (
        "import sys; from vastar_runtime.cli import main\n"
        f"assert main(['status', '--socket', {path!r}]) == 3\n"
        "print([name for name in ('structlog', 'httptools', 'httpcore', 'rich') "
        "if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_serve_says_it_is_ready_in_one_line(path: str) -> None:
    with serving("--socket", path, "--tcp", "0") as process:
        ready = process.ready  # type: ignore[attr-defined]
        assert ready.startswith("vastar-runtime ")
        assert f"ready on unix:{path}, tcp:127.0.0.1:" in ready
        port = int(ready.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
        code, logged = end(process, signal.SIGTERM)
    assert code == 0
    assert '"event":"stopped"' in logged
    assert list(Path(path).parent.iterdir()) == []


def test_use_tcp_replaces_the_unix_socket(path: str) -> None:
    variables = {"VASTAR_USE_TCP": "true", "VASTAR_TCP_PORT": "0", "VASTAR_SOCKET_PATH": path}
    with serving(variables=variables) as process:
        assert "ready on tcp:127.0.0.1:" in process.ready  # type: ignore[attr-defined]
        assert not Path(path).exists()
        assert end(process, signal.SIGINT)[0] == 0


def test_systemd_is_told(path: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(20)
        with serving("--socket", path, variables={"NOTIFY_SOCKET": name}) as process:
            assert manager.recv(100) == b"READY=1"
            assert end(process, signal.SIGTERM)[0] == 0
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.slow
def test_a_second_runtime_is_refused_with_the_pid_of_the_first(path: str) -> None:
    with serving("--socket", path) as process:
        second = vastar("serve", "--socket", path)
        assert second.returncode == 4
        assert second.stderr == f"vastar: {path}: already running, pid {process.pid}\n"
        assert vastar("status", "--socket", path).returncode == 0


def test_a_path_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    done = vastar("serve", "--socket", path)
    assert done.returncode == 1
    assert "no socket, which is left alone" in done.stderr
    assert Path(path).read_text() == "precious"


def test_a_killed_runtime_is_replaced(path: str) -> None:
    with serving("--socket", path) as first:
        first.kill()
        first.wait()
    assert Path(path).exists()
    with serving("--socket", path) as second:
        assert end(second, signal.SIGTERM)[0] == 0


@pytest.mark.slow
def test_the_end_of_the_drain_time_cuts_calls_and_is_no_failure(path: str) -> None:
    with (
        silent_upstream() as (url, wait_taken),
        serving("--socket", path, "--drain-s", "0.3") as process,
    ):
        caller = Caller(path)
        caller.get(url)
        wait_taken()
        code, logged = end(process, signal.SIGTERM)
        caller.close()
    assert code == 0
    assert "the drain time is over" in logged


@pytest.mark.slow
def test_while_it_drains_new_calls_are_refused_and_a_second_signal_ends_it(path: str) -> None:
    with silent_upstream() as (url, wait_taken), serving("--socket", path) as process:
        caller, other = Caller(path), Caller(path)
        caller.get(url)
        wait_taken()
        process.send_signal(signal.SIGTERM)
        answer: object = None
        while not isinstance(answer, ExecuteResponse):
            # Until the signal has arrived the call is taken; the upstream never answers it.
            other.get("http://127.0.0.1:1/")
            answer = other.receive()
            if isinstance(answer, ExecuteResponse) and "draining" not in str(answer.error_message):
                answer = None
        assert answer.error_class is ErrorClass.TRANSIENT
        assert answer.disposition is Disposition.NOT_SENT
        code, logged = end(process, signal.SIGINT)
        caller.close()
        other.close()
    assert code == 6
    assert "calls in flight are cut" in logged
    assert list(Path(path).parent.iterdir()) == []


def test_secrets_of_the_environment_are_not_logged(path: str) -> None:
    """Proxy passwords come by variable: neither ready line nor log shows them."""
    variables = {"HTTP_PROXY": "http://user:XYZZYPLUGH@127.0.0.1:1", "VASTAR_LOG_LEVEL": "debug"}
    with serving("--socket", path, variables=variables) as process:
        caller = Caller(path)
        caller.get("http://user:XYZZYPLUGH@upstream.test/?api_key=XYZZYPLUGH")
        answer = caller.receive()
        caller.close()
        ready = process.ready  # type: ignore[attr-defined]
        _, logged = end(process, signal.SIGTERM)
    assert "upstream.test" in logged
    assert "XYZZYPLUGH" not in ready + logged + str(getattr(answer, "error_message", ""))
    assert os.path.basename(path) in ready  # noqa: PTH119 - it is text


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_standard_descriptor_is_given_to_nobody_else(path: str, closed: str) -> None:
    """Else the lock file or a socket would get its number, and whatever is printed."""
    command = f'exec "$0" -m vastar_runtime serve --socket "$1" {closed}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, path], env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end_s = time.monotonic() + 20
        while vastar("status", "--socket", path).returncode != 0:
            assert process.poll() is None
            assert time.monotonic() < end_s
        files = [str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) for fd in range(3)]
        assert files == [os.devnull] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_failure_with_standard_error_closed_does_not_go_to_standard_output(path: str) -> None:
    command = 'exec "$0" -m vastar_runtime check-config --config "$1" 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, path], env=environment(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_proxy_variable_that_is_none_is_refused_with_its_name(command, tmp_path):
    done = vastar(command, "--socket", str(tmp_path / "x.sock"), HTTP_PROXY="foo://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("vastar: proxies: HTTP_PROXY is no proxy URL")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["status", "check-config"])
def test_a_full_disk_behind_standard_output_is_said(
    path: str, command: str, unbuffered: str
) -> None:
    """`--explain` prints more than the buffer holds, `status` less."""
    line = f'exec "$0" -m vastar_runtime {command} --socket "$1" "$2" >/dev/full'
    option = "--explain" if command == "check-config" else "--json"
    done = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, path, option],
        env=environment(PYTHONUNBUFFERED=unbuffered),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "vastar: standard output: no space left on device\n"


_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_what_the_terminal_has_no_characters_for_is_escaped(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[tenants."Zürich☕".retry]\nattempts = 7\n', encoding="utf-8")
    path = str(tmp_path / "Ü.sock")
    for more in ([], ["--tenant", "Zürich☕"]):
        done = vastar("check-config", "--config", str(file), "--socket", path, *more, **_ASCII)
        assert (done.returncode, done.stderr) == (0, "")
        assert r"Z\xfcrich\u2615" in done.stdout
        assert "attempts = 7" in done.stdout
    done = vastar("status", "--socket", path, **_ASCII)
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr


def test_a_name_that_is_no_text_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vastar_runtime", "check-config", "--tenant", b"\xff"],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "argument --tenant: give a name in UTF-8" in done.stderr


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    line = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" -m vastar_runtime "$@"'
    for arguments in (["start", "--log-file", "x.log"], ["serve", "--socket", "x.sock"]):
        done = subprocess.run(
            ["/bin/sh", "-c", line, sys.executable, *arguments], env=environment(), cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "the working directory does not exist; create it or choose" in done.stderr
        assert "Traceback" not in done.stderr
