"""`clean` removes what the dead left, and only that."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import ROOT, environment, serving
from vastar_runtime.cli import main


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "r.sock")


def test_after_a_killed_runtime(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving("--socket", path) as process:
        process.kill()
        process.wait()
    assert sorted(os.listdir(Path(path).parent)) == ["r.sock", "r.sock.lock"]  # noqa: PTH208
    assert main(["clean", "--socket", path]) == 0
    assert capsys.readouterr().out == f"removed: {path}, {path}.lock\n"
    assert list(Path(path).parent.iterdir()) == []
    assert main(["clean", "--socket", path]) == 0
    assert capsys.readouterr().out == f"nothing to clean at unix:{path}\n"


def test_a_live_runtime_is_left_alone(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving("--socket", path) as process:
        assert main(["clean", "--socket", path]) == 4
        assert f"already running, pid {process.pid}" in capsys.readouterr().err
        assert main(["status", "--socket", path]) == 0


def test_a_live_server_without_a_lock_is_left_alone(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        assert main(["clean", "--socket", path]) == 1
    assert Path(path).exists()


def test_a_file_that_is_no_socket_is_left_alone(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(path).write_text("precious")
    assert main(["clean", "--socket", path]) == 1
    assert "no socket, which is left alone" in capsys.readouterr().err
    assert Path(path).read_text() == "precious"


def test_the_script_of_the_same_purpose(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    done = subprocess.run(
        [ROOT / "tools" / "clean_vcr.sh", "--socket", path],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"removed: {path}\n"), done.stderr
