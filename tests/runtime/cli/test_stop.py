"""`stop` asks, waits for the drain, and signals only whom the kernel names."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.commands import Caller, fake_runtime, serving, silent_upstream
from vastar_client.wire import ErrorClass, ExecuteResponse, Message
from vastar_runtime.cli import main
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
        assert process.poll() is None
        assert main(["stop", "--socket", path, "--now"]) == 0
        assert process.wait(10) == 6
        caller.close()
    assert list(Path(path).parent.iterdir()) == []


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


def test_a_refusal_over_the_socket_falls_back_to_the_signal(path: str) -> None:
    """Whom to signal the kernel says: here this very process listens."""

    def refuse(message: Message) -> Message:
        return ExecuteResponse(1, ErrorClass.INVALID_REQUEST, "Unknown connector: vastar")

    came = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        with fake_runtime(path, refuse):
            assert main(["stop", "--socket", path, "--timeout-s", "0.1"]) == 5
        assert came.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
