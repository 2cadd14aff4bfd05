"""What the kernel tells of processes, of this very one and of a child."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools import processes


def test_this_process_has_memory_files_and_threads():
    me = os.getpid()
    assert 1 << 20 < processes.resident_bytes(me) <= processes.peak_bytes(me)
    before, release = processes.threads(me), threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert processes.threads(me) > before
    finally:
        release.set()
        thread.join()
    files = processes.open_files(me)
    with Path(os.devnull).open():
        assert processes.open_files(me) == files + 1
    assert processes.family_cpu_s(me) >= processes.cpu_s(me) - 0.01 >= 0
    assert processes.waited_s(me) >= 0


def test_a_family_is_a_process_and_its_children():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in processes.family(os.getpid())
        assert processes.family(child.pid) == [child.pid]
    finally:
        child.communicate(b"\n", timeout=20)


def test_who_is_gone_has_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(20)
    with pytest.raises(OSError, match="No such"):
        processes.open_files(child.pid)
