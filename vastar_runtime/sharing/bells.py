"""Workers wake each other: a pipe for each, into which all others write which record to look at.

A hint and nothing more: what is true stands in the memory. A bell that is full rings already, so
what does not fit is dropped; a worker that waits looks again after a moment in any case.

Pipes, because what several processes write into one in pieces of eight bytes is never mixed.
"""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

__all__ = ["Bells", "make_bells"]

_RECORD: Final = struct.Struct("@Q")
_MOST_BYTES: Final = 8 * 512


def make_bells(workers: int) -> tuple[tuple[int, int], ...]:
    """A pipe for each worker, ends for reading and for writing; nobody waits at either.

    Raises:
        OSError: there are no more descriptors.
    """
    made: list[tuple[int, int]] = []
    try:
        for _ in range(workers):
            made.append(os.pipe())
            for fd in made[-1]:
                os.set_blocking(fd, False)
    except OSError:
        for fd in (fd for ends in made for fd in ends):
            os.close(fd)
        raise
    return tuple(made)


class Bells:
    """All bells, as one worker has them.

    Args:
        ends: as `make_bells` gave them; none where workers only look now and then.
        worker: which of them is ours.
    """

    def __init__(self, ends: Sequence[tuple[int, int]], worker: int) -> None:
        self._ends = ends
        self.own_fd = ends[worker][0] if ends else None
        """To be waited for; None where nothing rings."""

    def ring(self, worker: int, record_at: int) -> None:
        """Have another worker look at a record."""
        if self._ends:
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._ends[worker][1], _RECORD.pack(record_at))

    def heard(self) -> list[int]:
        """The records that we are to look at, each once; none where nobody rang."""
        if self.own_fd is None:
            return []
        try:
            data = os.read(self.own_fd, _MOST_BYTES)
        except BlockingIOError:
            return []
        whole = len(data) // _RECORD.size * _RECORD.size
        return list(dict.fromkeys(at for (at,) in _RECORD.iter_unpack(data[:whole])))
