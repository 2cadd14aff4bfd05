"""The memory that the workers of a host share, and the locks in it.

A file without a name, mapped by everybody. Its locks are those of the kernel on ranges of a file
(`fcntl`, POSIX): taking and giving one back costs 1.4 us together (measured), and when a process
dies, however it dies, the kernel gives back what it held. So there is no lock whose holder is gone.
They belong to the process, which brings two rules: only one thread of a worker touches the memory
(the one that runs Trio), and nobody opens or closes the file a second time, since closing any
descriptor of it lets go of all locks.

Locks are nested in one order only: table, then record. Nobody waits for anything while holding one,
but a worker that is *stopped* (SIGSTOP) within these few microseconds stops its siblings too.

The clock is CLOCK_MONOTONIC, which all processes of a host share. Trio's is not: it begins
somewhere else in each process.
"""

import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from vastar_runtime.sharing.layout import WORD_BYTES, Header, Layout

__all__ = ["Lock", "Memory", "lay_out"]

_MAGIC: Final = 0x5661_7374_6172_0001
"""Changes with the layout."""
_TABLE_BYTE: Final = 0
_ADMISSION_BYTE: Final = 1


class Lock:
    """One lock, by the byte of the file that stands for it. A context manager; not to be nested.

    Two objects for one byte are one lock.
    """

    __slots__ = ("_byte", "_fd", "_lockf")

    def __init__(self, fd: int, byte: int) -> None:
        self._fd = fd
        self._byte = byte
        self._lockf = fcntl.lockf

    def __enter__(self) -> Self:
        self._lockf(self._fd, fcntl.LOCK_EX, 1, self._byte)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lockf(self._fd, fcntl.LOCK_UN, 1, self._byte)


def lay_out(fd: int, layout: Layout) -> None:
    """Make the file `fd`, which is empty or zeros, a memory that nobody has used.

    For the supervisor, before it starts a worker.
    """
    os.ftruncate(fd, layout.size_bytes)
    header = [0] * Header.WORDS
    header[Header.MAGIC] = _MAGIC
    header[Header.WORKERS] = layout.workers
    header[Header.CAPACITY] = layout.capacity
    header[Header.KEY_FIRST] = secrets.randbits(64)
    header[Header.KEY_SECOND] = secrets.randbits(64)
    os.pwrite(fd, struct.pack(f"@{len(header)}Q", *header), 0)


class Memory:
    """The mapped memory.

    Args:
        fd: a file that `lay_out` was called for; it stays the caller's, and has to stay open.

    Attributes:
        layout: where what lies.
        words: all of it as 64-bit numbers.
        times: all of it as floats, for the words that are times or amounts.
        data: all of it as bytes, for `struct`.
        table_lock: for who finds, makes and drops records.
        admission_lock: for who moves places from worker to worker; there is one, as a call takes
            three of them in one step.
        hash_key: of the keyed hash.

    Raises:
        ValueError: nobody laid it out, or another version did.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        size_bytes = os.fstat(fd).st_size
        start = os.pread(fd, Header.WORDS * WORD_BYTES, 0)
        if len(start) < Header.WORDS * WORD_BYTES:
            raise ValueError("this is no memory of workers")
        header = struct.unpack(f"@{int(Header.WORDS)}Q", start)
        if header[Header.MAGIC] != _MAGIC:
            raise ValueError("this is no memory of workers")
        self.layout = Layout(header[Header.WORKERS], header[Header.CAPACITY])
        if size_bytes < self.layout.size_bytes:
            raise ValueError(f"a memory of {size_bytes} bytes is cut short")
        self.data = mmap.mmap(fd, self.layout.size_bytes)
        view = memoryview(self.data)
        self.words: memoryview[int] = view.cast("Q")
        self.times: memoryview[float] = view.cast("d")
        self.table_lock = Lock(fd, _TABLE_BYTE)
        self.admission_lock = Lock(fd, _ADMISSION_BYTE)
        key = header[Header.KEY_FIRST], header[Header.KEY_SECOND]
        self.hash_key = struct.pack("@2Q", *key)

    @classmethod
    @contextmanager
    def temporary(cls, workers: int, capacity: int = 1024) -> Iterator["Memory"]:
        """A memory for tests and benchmarks, gone with the block."""
        fd = os.memfd_create("vastar-sharing")
        try:
            lay_out(fd, Layout(workers, capacity))
            memory = cls(fd)
            try:
                yield memory
            finally:
                memory.close()
        finally:
            os.close(fd)

    def record_lock(self, record_at: int) -> Lock:
        """The lock of the record that begins at word `record_at`: its first byte."""
        return Lock(self.fd, record_at * WORD_BYTES)

    def close(self) -> None:
        """Unmap it. The descriptor stays open."""
        self.words.release()
        self.times.release()
        self.data.close()
