"""The mapped memory: laid out once, refused when it is not, locked by process."""

import os
import subprocess
import sys

import pytest

from vastar_runtime.sharing.layout import Header, Layout
from vastar_runtime.sharing.memory import Memory, lay_out

HOLDS_AND_DIES = """
import os, signal, sys
from vastar_runtime.sharing.memory import Memory
memory = Memory(int(sys.argv[1]))
memory.table_lock.__enter__()
memory.words[int(sys.argv[2])] = 7
print("held", flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_new_memory_is_empty_and_has_a_key_of_its_own():
    with Memory.temporary(3, 16) as first, Memory.temporary(3, 16) as second:
        assert first.layout == Layout(3, 16)
        assert first.hash_key != second.hash_key
        assert first.words[Header.ZERO] == first.words[Header.USED] == first.words[Header.FREE] == 0
        first.times[100] = 0.5
        assert first.words[100] == second.words[100] + 0x3FE0_0000_0000_0000


def test_pages_that_nobody_used_take_no_memory():
    with Memory.temporary(4, 65_536) as memory:
        assert os.fstat(memory.fd).st_size == memory.layout.size_bytes > 2**25
        assert os.fstat(memory.fd).st_blocks * 512 <= 8192


@pytest.mark.parametrize("spoil", ["empty", "zeros", "short"])
def test_another_file_is_refused(spoil):
    fd = os.memfd_create("test")
    try:
        if spoil == "zeros":
            os.ftruncate(fd, 1 << 20)
        elif spoil == "short":
            lay_out(fd, Layout(2, 16))
            os.ftruncate(fd, 4096)
        with pytest.raises(ValueError, match="memory"):
            Memory(fd)
    finally:
        os.close(fd)


def test_a_lock_excludes_other_processes_and_dies_with_its_holder():
    with Memory.temporary(2, 16) as memory:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS_AND_DIES, str(memory.fd), str(int(Header.TICKETS))],
            pass_fds=[memory.fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            assert memory.words[Header.TICKETS] == 7
            with pytest.raises(BlockingIOError):
                try_lock(memory.fd)
            assert process.stdin is not None
            process.stdin.write(b"x")
            process.stdin.flush()
            with memory.table_lock:  # waits for the death of its holder, and no longer
                assert memory.words[Header.TICKETS] == 7
        assert process.returncode == -9


def try_lock(fd: int) -> None:
    import fcntl  # noqa: PLC0415 - only here

    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
