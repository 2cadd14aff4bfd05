"""The lock keeps two runtimes apart and believes nothing that another user may have put there."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vastar_runtime.runtime_files import (
    AlreadyRunningError,
    RuntimeFileError,
    RuntimeLock,
    holder_of,
    is_leaving,
    lock_path_of_port,
    lock_path_of_socket,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x.sock.lock")


def test_it_holds_the_pid_and_goes_when_released(path: str) -> None:
    lock = RuntimeLock.acquire(path, "unix:x")
    assert Path(path).read_text() == f"{os.getpid()}\n"
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert holder_of(path) == os.getpid()
    lock.release()
    lock.release()
    assert not Path(path).exists()
    assert holder_of(path) is None


def test_it_says_when_its_holder_leaves(path: str) -> None:
    assert not is_leaving(path)
    lock = RuntimeLock.acquire(path, "unix:x")
    assert not is_leaving(path)
    lock.tell_leaving()
    assert Path(path).read_text() == f"{os.getpid()}\nleaving\n"
    assert is_leaving(path)
    assert holder_of(path) == os.getpid()
    with pytest.raises(AlreadyRunningError, match=rf"pid {os.getpid()}$"):
        RuntimeLock.acquire(path, "unix:x")
    lock.release()
    lock.tell_leaving()
    assert not Path(path).exists()
    Path(path).write_text("1\nleaving\n")
    Path(path).chmod(0o600)
    lock = RuntimeLock.acquire(path, "unix:x")
    assert not is_leaving(path)
    lock.release()


def test_a_second_taker_is_told_the_pid(path: str) -> None:
    lock = RuntimeLock.acquire(path, "unix:x")
    with pytest.raises(AlreadyRunningError, match=rf"^unix:x: already running, pid {os.getpid()}$"):
        RuntimeLock.acquire(path, "unix:x")
    lock.release()
    RuntimeLock.acquire(path, "unix:x").release()


def test_a_lock_file_of_a_dead_process_is_taken_over(path: str) -> None:
    code = "import sys, vastar_runtime.runtime_files as f; f.RuntimeLock.acquire(sys.argv[1], 'x')"
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=30)
    assert Path(path).read_text() != f"{os.getpid()}\n"
    assert holder_of(path) is None
    RuntimeLock.acquire(path, "x").release()


def test_asking_for_the_holder_does_not_keep_a_starter_out(path: str) -> None:
    """`status` beside `start`: the asker's shared lock is outwaited."""
    Path(path).write_text("1\n")
    Path(path).chmod(0o600)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            holder_of(path)
            stop.wait(0.0005)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(50):
            RuntimeLock.acquire(path, "x").release()
    finally:
        stop.set()
        asker.join()


def test_a_symbolic_link_is_refused_and_its_target_untouched(path: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    Path(path).symlink_to(target)
    for attempt in (lambda: RuntimeLock.acquire(path, "x"), lambda: holder_of(path)):
        with pytest.raises(RuntimeFileError, match="is a symbolic link"):
            attempt()
    assert target.read_text() == "data"


def test_a_hard_link_is_refused_and_its_target_untouched(path: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    Path(path).hardlink_to(target)
    with pytest.raises(RuntimeFileError, match="hard link"):
        RuntimeLock.acquire(path, "x")
    assert target.read_text() == "data"


def test_a_fifo_is_refused_without_waiting(path: str) -> None:
    os.mkfifo(path)
    for attempt in (lambda: RuntimeLock.acquire(path, "x"), lambda: holder_of(path)):
        with pytest.raises(RuntimeFileError, match="is no plain file"):
            attempt()


def test_a_directory_is_refused(path: str) -> None:
    Path(path).mkdir()
    with pytest.raises(RuntimeFileError, match="cannot be opened"):
        RuntimeLock.acquire(path, "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path: str) -> None:
    Path(path).write_text("1\n")
    os.chown(path, 54321, -1)
    for attempt in (lambda: RuntimeLock.acquire(path, "x"), lambda: holder_of(path)):
        with pytest.raises(RuntimeFileError, match="belongs to uid 54321, not to you"):
            attempt()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFileError, match=r"the directory .*/no does not exist; create it"):
        RuntimeLock.acquire(str(tmp_path / "no" / "x.lock"), "x")


def test_releasing_leaves_a_file_that_somebody_else_put_there(path: str) -> None:
    lock = RuntimeLock.acquire(path, "x")
    Path(path).unlink()
    Path(path).write_text("other")
    lock.release()
    assert Path(path).read_text() == "other"


def test_a_holder_without_a_pid_is_told(path: str) -> None:
    lock = RuntimeLock.acquire(path, "x")
    os.truncate(path, 0)
    with pytest.raises(RuntimeFileError, match="did not write its pid"):
        holder_of(path)
    with pytest.raises(AlreadyRunningError, match="pid unknown"):
        RuntimeLock.acquire(path, "x")
    lock.release()


def test_where_locks_live() -> None:
    assert lock_path_of_socket("/run/x.sock") == "/run/x.sock.lock"
    assert lock_path_of_port(5000).endswith("-tcp-5000.lock")
