"""Several workers of a host in one process, in virtual time: each with a clock of its own.

```python
with shared_workers(3) as host:
    first, second, third = host.sharings
    host.now_s += 5
    first.rate_limiter(settings, ("a",)).decide(host.own_s(0))
```

The memory and the bells are real; only the time is not. `own_s` is what a worker's own clock shows.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vastar_runtime.sharing.bells import make_bells
from vastar_runtime.sharing.ground import reclaim
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.sharing import Sharing

__all__ = ["Host", "shared_workers"]

START_S = 1000.0
APART_S = 512.0
"""Clocks of workers lie so far apart; a power of two, so that sums are exact."""


class Host:
    """Some workers, and the time."""

    def __init__(self, memory: Memory, bells: tuple[tuple[int, int], ...]) -> None:
        self.memory = memory
        self.bells = bells
        self.now_s = START_S
        self.sharings = [self.start(worker) for worker in range(memory.layout.workers)]

    def start(self, worker: int) -> Sharing:
        """A worker that has just begun."""
        return Sharing(
            self.memory,
            worker,
            self.bells,
            ahead_s=(worker + 1) * APART_S,
            clock=lambda: self.now_s,
        )

    def own_s(self, worker: int) -> float:
        """The time of a worker."""
        return self.now_s + (worker + 1) * APART_S

    def kill(self, worker: int) -> Sharing:
        """A worker dies, what it held is reclaimed, and another one begins in its place."""
        reclaim(self.memory, worker, lambda: self.now_s)
        self.sharings[worker] = self.start(worker)
        return self.sharings[worker]


@contextmanager
def shared_workers(workers: int, capacity: int = 64) -> Iterator[Host]:
    """So many workers over a new memory."""
    with Memory.temporary(workers, capacity) as memory:
        bells = make_bells(workers)
        try:
            yield Host(memory, bells)
        finally:
            for fd in (fd for ends in bells for fd in ends):
                os.close(fd)
