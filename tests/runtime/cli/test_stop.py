"""`stop` asks, waits for the drain, and signals only whom the kernel names."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.commands import Caller, fake_runtime, serving, silent_upstream
from vastar_client.wire import (
    ErrorClass,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    Message,
    StreamChunk,
    StreamEnd,
    StreamStart,
)
from vastar_runtime.cli import main
from vastar_runtime.cli._stop import Waiting
from vastar_runtime.runtime_files import lock_path_of_port

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "r.sock")


def test_an_idle_runtime_goes_and_leaves_nothing(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving("--socket", path) as process:
        assert main(["stop", "--socket", path]) == 0
        assert process.wait(10) == 0
    assert capsys.readouterr().out == f"stopped: unix:{path}\n"
    assert list(Path(path).parent.iterdir()) == []


def test_stopping_what_does_not_run_is_fine(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--socket", path]) == 0
    assert "not running" in capsys.readouterr().out


def test_it_says_when_calls_keep_the_runtime_and_now_cuts_them(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with silent_upstream() as (url, wait_taken), serving("--socket", path) as process:
        caller = Caller(path)
        caller.get(url)
        wait_taken()
        assert main(["stop", "--socket", path, "--timeout-s", "0.3"]) == 5
        assert "stop --now" in capsys.readouterr().err
        # Asked again it waits again: another signal would cut the call.
        assert main(["stop", "--socket", path, "--timeout-s", "1.2"]) == 5
        assert f"unix:{path}: finishing calls, 1 s of at most 2 s\n" in capsys.readouterr().err
        assert process.poll() is None
        assert main(["stop", "--socket", path, "--now"]) == 0
        assert process.wait(10) == 6
        caller.close()
    assert list(Path(path).parent.iterdir()) == []


def test_it_waits_as_long_as_the_runtime_gives_its_streams(
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "other.toml"
    config.write_text("[server]\ndrain_s = 0.5\nstream_drain_s = 77\n")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        serving("--socket", path, "--config", str(config)) as process,
    ):
        server.settimeout(20)
        caller = Caller(path)
        caller.get(f"http://127.0.0.1:{server.getsockname()[1]}/", stream=True)
        upstream, _ = server.accept()
        upstream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        assert isinstance(caller.receive(), StreamStart)
        assert isinstance(caller.receive(), StreamChunk)
        tell = Waiting.tell

        def tell_and_end(self: Waiting, now_s: float, calls: int | None) -> None:
            tell(self, now_s, calls)
            upstream.sendall(b"cd")

        monkeypatch.setattr(Waiting, "tell", tell_and_end)
        assert main(["stop", "--socket", path]) == 0
        assert process.wait(10) == 0
        assert isinstance(caller.receive(), StreamChunk)
        end = caller.receive()
        assert isinstance(end, StreamEnd)
        assert (end.error_class, end.total_bytes) == (ErrorClass.SUCCESS, 4)
        caller.close()
        upstream.close()
    told = capsys.readouterr()
    assert told.err == f"unix:{path}: finishing 1 call, 1 s of at most 87 s\n"
    assert told.out == f"stopped: unix:{path}\n"


def test_on_a_terminal_the_line_is_drawn_anew(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting("x", 100.0, 610.0, is_terminal=True)
    assert [waiting.is_due(now_s) for now_s in (100.9, 101.0)] == [False, True]
    waiting.tell(101.0, 12)
    assert [waiting.is_due(now_s) for now_s in (101.9, 102.0)] == [False, True]
    waiting.tell(102.5, 1)
    waiting.over()
    assert waiting.left_s(102.5) == 607.5
    first, second = "x: finishing 12 calls, 1 s of at most 610 s", "x: finishing 1 call, 2 s of at"
    assert capsys.readouterr().err == f"\r{first}\r{second} most 610 s  \n"


def test_elsewhere_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting("x", 100.0, 30.5, is_terminal=False)
    assert waiting.is_due(101.0)
    waiting.tell(101.0, None)
    assert [waiting.is_due(now_s) for now_s in (160.9, 161.0)] == [False, True]
    waiting.over()
    assert capsys.readouterr().err == "x: finishing calls, 1 s of at most 31 s\n"


def test_now_without_asking_first(path: str) -> None:
    with silent_upstream() as (url, wait_taken), serving("--socket", path) as process:
        caller = Caller(path)
        caller.get(url)
        wait_taken()
        assert main(["stop", "--socket", path, "--now", "--timeout-s", "10"]) == 0
        assert process.wait(10) == 6
        caller.close()


def test_now_on_an_idle_runtime_leaves_nothing(path: str) -> None:
    with serving("--socket", path) as process:
        assert main(["stop", "--socket", path, "--now"]) == 0
        assert process.wait(10) == 0
    assert list(Path(path).parent.iterdir()) == []


def test_a_runtime_on_tcp_alone_is_signalled_by_its_lock(
    capsys: pytest.CaptureFixture[str],
) -> None:
    variables = {"VASTAR_USE_TCP": "true", "VASTAR_TCP_PORT": "0"}
    with serving(variables=variables) as process:
        port = process.ready.rpartition(":")[2].strip()  # type: ignore[attr-defined]
        assert main(["stop", "--tcp", port]) == 0
        assert process.wait(10) == 0
    assert not Path(lock_path_of_port(int(port))).exists()


_HUNG = """
import signal, sys
from vastar_runtime.runtime_files import RuntimeLock
lock = RuntimeLock.acquire(sys.argv[1], "x")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print("locked", flush=True)
signal.pause()
"""


def test_one_that_does_not_answer_is_signalled_by_its_lock(path: str) -> None:
    command = [sys.executable, "-c", _HUNG, path + ".lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hung:
        assert hung.stdout is not None
        assert hung.stdout.readline() == "locked\n"
        assert main(["stop", "--socket", path]) == 0
        assert hung.wait(10) == 9


def test_a_stale_lock_names_nobody_to_signal(path: str) -> None:
    """The pid in it may be anybody's by now: here, this test's."""
    Path(path + ".lock").write_text(f"{os.getpid()}\n")
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    try:
        assert main(["stop", "--socket", path]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signals == []


@pytest.mark.parametrize("now", [[], ["--now"]])
@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-other\r\n"])
@pytest.mark.cap_s(60)
def test_a_program_that_is_no_runtime_is_left_alone(
    path: str,
    greeting: bytes,
    now: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its path may have been given by mistake: nothing that runs there may die of it."""
    monkeypatch.setattr("vastar_runtime.cli._stop._ANSWER_S", 0.2)
    command = [sys.executable, "-c", _FOREIGN, path, greeting.decode()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as foreign:
        assert foreign.stdin is not None
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == "listening\n"
        assert main(["stop", "--socket", path, *now]) == 1
        left = f"another program listens there (pid {foreign.pid}); it is left alone"
        assert left in capsys.readouterr().err
        foreign.stdin.close()
        assert foreign.wait(20) == 0


_FOREIGN = """
import socket, sys, threading
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    accepted = []
    def accept():
        while True:
            caller, _ = listener.accept()
            caller.sendall(sys.argv[2].encode())
            accepted.append(caller)
    threading.Thread(target=accept, daemon=True).start()
    print("listening", flush=True)
    sys.stdin.read()
"""


def test_a_refusal_over_the_socket_falls_back_to_the_signal(path: str) -> None:
    """Whom to signal the kernel says, and a health check that it is a runtime: here this very
    process listens."""

    def refuse(message: Message) -> Message:
        if isinstance(message, HealthCheck):
            return HealthResponse(healthy=True, active_requests=0)
        return ExecuteResponse(1, ErrorClass.INVALID_REQUEST, "Unknown connector: vastar")

    came = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        with fake_runtime(path, refuse):
            assert main(["stop", "--socket", path, "--timeout-s", "0.1"]) == 5
        assert came.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
