"""What the supervisor has of the shared memory: it makes it, and tidies up behind the dead."""

import os
import struct
import time
from collections.abc import Callable
from typing import Final

from vastar_runtime.sharing import breaker, places, rate_limit
from vastar_runtime.sharing.bells import make_bells
from vastar_runtime.sharing.layout import WORD_BYTES, Kind, Layout, RecordWord
from vastar_runtime.sharing.memory import Memory, lay_out
from vastar_runtime.sharing.table import Table

__all__ = ["Ground", "reclaim"]

_WAITING_FOR_WORDS: Final = 2  # the sort of column of `learning`


class Ground:
    """The memory and the bells of all workers of a runtime. Close it at the end.

    Args:
        workers: how many there will be at once.
        capacity: keys that there is room for; a power of two.

    Attributes:
        fd: of the memory, for workers to inherit.
        bells: pipes, for workers to inherit; see `make_bells`.

    Raises:
        OSError: the system has no room for it, or no memory files (other than Linux).
    """

    def __init__(self, workers: int, capacity: int | None = None) -> None:
        layout = Layout(workers) if capacity is None else Layout(workers, capacity)
        self.fd = os.memfd_create("vastar-policies")
        try:
            lay_out(self.fd, layout)
            self.bells = make_bells(workers)
        except OSError:
            os.close(self.fd)
            raise
        self.memory = Memory(self.fd)

    def reclaim(self, index: int) -> None:
        """The worker is dead: what it held is everybody's again. Before another one is started."""
        reclaim(self.memory, index)

    def close(self) -> None:
        """Let go of all; the workers keep what they inherited."""
        self.memory.close()
        os.close(self.fd)
        for ends in self.bells:
            for fd in ends:
                os.close(fd)


def reclaim(memory: Memory, worker: int, clock: Callable[[], float] = time.monotonic) -> None:
    """Give what a dead worker held to all.

    Its places are free, its probes' leases end, its calls in flight are spent from rates and
    purses, and nobody waits for it. Calling it twice changes nothing.
    """
    table = Table(memory, worker)
    now_s = clock()
    with memory.table_lock:
        records = tuple(table.attached_to(worker))
        for at in records:
            _forget(memory, at, worker, now_s)
        table.detach_all(now_s, worker)
        table.rebuild_free()


def _forget(memory: Memory, at: int, worker: int, now_s: float) -> None:
    words, layout = memory.words, memory.layout
    kind = words[at + RecordWord.KIND]
    if kind == Kind.PLACES:
        with memory.admission_lock:
            bit = 1 << worker
            tail_at = layout.tail_at(at)
            if words[tail_at + places.HUNGRY] & bit:
                words[tail_at + places.HUNGRY] ^= bit
            for sort in (places.HELD, places.TICKET, places.WAITING):
                words[layout.columns_at(at, sort) + worker] = 0
            memory.times[tail_at + places.FREED_AT] = now_s
    elif kind == Kind.LEARNING:
        words[layout.columns_at(at, _WAITING_FOR_WORDS) + worker] = 0
    elif kind == Kind.BREAKER:
        _rewrite(memory, at, lambda state: breaker.without_leases(state, worker))
    elif kind == Kind.RATE_LIMIT:
        workers = layout.workers
        _rewrite(memory, at, lambda state: rate_limit.without_worker(state, workers, worker, now_s))


def _rewrite(memory: Memory, at: int, step: Callable[[bytes], bytes]) -> None:
    """Let `step` of a record's state be its state, if it has one."""
    words, layout = memory.words, memory.layout
    with memory.record_lock(at):
        version = words[at + RecordWord.VERSION]
        if not version:
            return
        state_at = layout.state_at(at, version) * WORD_BYTES
        state = step(memory.data[state_at : state_at + layout.state_words * WORD_BYTES])
        next_at = layout.state_at(at, version + 1) * WORD_BYTES
        struct.pack_into(f"{len(state)}s", memory.data, next_at, state)
        words[at + RecordWord.VERSION] = version + 1
