"""A process that inherits what it is given, and nothing else."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from vastar_runtime.workers import spawning
from vastar_runtime.workers.place import WorkerPlace
from vastar_runtime.workers.spawning import command, control_pair, shared_file, spawn

TELLS = """
import os, sys
given, other = int(sys.argv[1]), int(sys.argv[2])
def is_open(fd):
    try: os.fstat(fd)
    except OSError: return False
    return True
words = [is_open(given), is_open(other), os.getpgrp() == os.getpid(), "NOTIFY_SOCKET" in os.environ]
os.write(given, repr(words).encode())
"""


def test_it_has_its_descriptors_and_a_group_of_its_own():
    ours, theirs = control_pair()
    assert not ours.getblocking()
    ours.setblocking(True)
    read, write = os.pipe()
    with ours, theirs:
        arguments = [sys.executable, "-c", TELLS, str(theirs.fileno()), str(write)]
        pid = spawn(arguments, [theirs.fileno()], {**os.environ, "NOTIFY_SOCKET": "/x"})
        assert not os.get_inheritable(theirs.fileno())
        _, status = os.waitpid(pid, 0)
        assert status == 0
        assert ours.recv(100) == b"[True, False, True, False]"
    os.close(read)
    os.close(write)


def test_a_program_that_is_not_there_is_an_error():
    with pytest.raises(OSError, match="No such file"):
        spawn(["/nowhere/python"], [], {})


def test_a_shared_file_is_zeros_and_has_no_name():
    fd = shared_file("test", 100)
    try:
        assert os.pread(fd, 200, 0) == bytes(100)
        assert os.fstat(fd).st_nlink == 0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Invalid argument"):
        shared_file("test", -1)


def test_a_worker_is_this_program_with_a_place():
    place = WorkerPlace(0, 2, 5)
    words = command(place)
    assert words[0] == sys.executable
    assert words[-5:] == ["-m", "vastar_runtime", "serve", "--worker-place", place.to_text()]


@pytest.mark.parametrize(
    ("isolated", "safe_path", "searched", "flag"),
    [
        (1, True, "elsewhere", "-I"),
        (0, True, "here", "-P"),
        (0, False, "elsewhere", "-P"),
        (0, False, "here", "-m"),
        (0, False, "", "-m"),
    ],
)
def test_a_safe_interpreter_stays_safe(  # noqa: PLR0917 - pytest's
    isolated, safe_path, searched, flag, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    flags = SimpleNamespace(isolated=isolated, safe_path=safe_path)
    path = {"here": str(tmp_path), "elsewhere": "/usr/bin", "": ""}[searched]
    fake = SimpleNamespace(flags=flags, executable="/usr/bin/python3", path=[path])
    monkeypatch.setattr(spawning, "sys", fake)
    assert command(WorkerPlace(0, 1, 3))[:2] == ["/usr/bin/python3", flag]


def test_in_a_directory_that_was_removed_nothing_is_searched(tmp_path, monkeypatch):
    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    assert {"-P", "-I"} & {*command(WorkerPlace(0, 1, 3))}


def test_signals_that_python_ignores_are_usual_again():
    ours, theirs = control_pair()
    with ours, theirs:
        ours.setblocking(True)
        shell = "sleep 0; kill -PIPE $$; echo survived"
        pid = spawn(["/bin/sh", "-c", shell], [], os.environ)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGPIPE
