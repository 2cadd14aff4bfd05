"""Who accepts the next connection: the worker that has the fewest, through one shared page.

All workers wait on the same listening sockets, and the kernel wakes them all. Whoever is quickest
would take most, and long-lived connections would stay where they are: one worker full, its sibling
idle. So each worker writes how many it has into its slot of a page that all can read, and one that
has more than the fewest lets the others go first, for some milliseconds. One number a slot, one
writer each, aligned: no lock.

The worker with the fewest may hang, or be busy with one long turn. Each wait in vain halves the
patience of the next one, down to none, until a sibling's number changes and so tells that it is
awake. Fairness is worth milliseconds to a caller: a worker that hangs costs all of them together a
tenth of a second, once.
"""

import mmap
from typing import Final

__all__ = ["POLL_S", "Counts", "page_bytes"]

POLL_S: Final = 0.001
"""How long to wait before looking again."""
PATIENCE_S: Final = 0.05
"""How long a worker that has more lets the others go first, at most."""
_LEAST_PATIENCE_S: Final = POLL_S

_CLOSED: Final = 0
"""A slot holds one more than the connections of its worker; 0 when it accepts none. A fresh page is
all zeros."""
_SLOT_BYTES: Final = 8


def page_bytes(count: int) -> int:
    """The size of the page of so many workers."""
    return max(mmap.PAGESIZE, count * _SLOT_BYTES)


class Counts:
    """The shared page, as one worker or the supervisor sees it.

    Args:
        fd: of a file of at least `page_bytes(count)`; it may be closed afterwards.
        count: of workers.
    """

    def __init__(self, fd: int, count: int) -> None:
        self._map = mmap.mmap(fd, page_bytes(count))
        self._slots: memoryview[int] = memoryview(self._map).cast("q")[:count]

    def close(self) -> None:
        """Let go of the page."""
        self._slots.release()
        self._map.close()

    def all(self) -> list[int | None]:
        """The connections of each worker; None for one that accepts none."""
        return [each - 1 if each != _CLOSED else None for each in self._slots]

    def clear(self, index: int) -> None:
        """The worker accepts no connections, being dead or about to end."""
        self._slots[index] = _CLOSED

    def turn(self, index: int) -> "Turn":
        """The view of the worker that is to write this slot; it accepts from now on."""
        self._slots[index] = 1
        return Turn(self._slots, index)


class Turn:
    """Whether it is this worker's turn to accept.

    Attributes:
        is_open: the worker accepts.
    """

    def __init__(self, slots: "memoryview[int]", index: int) -> None:
        self._slots = slots
        self._index = index
        self._waiting_since_s: float | None = None
        self._patience_s = PATIENCE_S
        self._seen: list[int] = []
        self.is_open = True

    def taken(self) -> None:
        """This worker has one more connection."""
        self._waiting_since_s = None
        if self.is_open:
            self._slots[self._index] += 1

    def left(self) -> None:
        """It has one less."""
        if self.is_open:
            self._slots[self._index] -= 1

    def close(self) -> None:
        """This worker accepts no more."""
        self.is_open = False
        self._slots[self._index] = _CLOSED

    def missed(self) -> None:
        """Somebody else took the connection that was there."""
        self._waiting_since_s = None

    def is_mine(self, now_s: float) -> bool:
        """Whether to accept the connection that is there, or to look again in `POLL_S`."""
        mine = self._slots[self._index]
        if all(mine <= each or each == _CLOSED for each in self._slots):
            return True
        others = self._others()
        if others != self._seen:
            self._seen = others
            self._patience_s = PATIENCE_S
        if self._patience_s < _LEAST_PATIENCE_S:
            return True
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        if now_s - self._waiting_since_s < self._patience_s:
            return False
        self._patience_s /= 2
        return True

    def _others(self) -> list[int]:
        others = list(self._slots)
        others[self._index] = _CLOSED
        return others
