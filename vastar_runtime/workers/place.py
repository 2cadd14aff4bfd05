"""What a worker is given by its supervisor: who it is among its siblings, and open descriptors.

One frozen value, handed over as text in a hidden option of `serve`. Descriptors are inherited at
exec under their own numbers; what each of them is stands here and nowhere else.
"""

from typing import Final

import attrs
import msgspec

__all__ = ["MAX_WORKERS", "NO_DESCRIPTOR", "WorkerPlace"]

MAX_WORKERS: Final = 64
"""More than one host has use for: a worker keeps a core busy."""
NO_DESCRIPTOR: Final = -1


@attrs.frozen
class WorkerPlace:
    """The place of one worker.

    Attributes:
        index: 0 to `count` - 1; a worker that replaces a dead one has the same.
        count: how many workers there are, this one included.
        control_fd: a stream socket to the supervisor; its end of stream means that the supervisor
            is gone.
        memory_fd: what `vastar_runtime.sharing` keeps for all workers, of the size that it asked
            for, zeros at first; `NO_DESCRIPTOR` where nothing is shared.
        counts_fd: one page with the number of connections of each worker.
        bells: pipes, for reading and for writing, with which `vastar_runtime.sharing` has workers
            wake each other; one for each worker, or none.
        listeners: address as text and listening descriptor, the main address first.
        metrics: the same for scrapers, where they are served.
    """

    index: int
    count: int
    control_fd: int
    memory_fd: int = NO_DESCRIPTOR
    counts_fd: int = NO_DESCRIPTOR
    bells: tuple[tuple[int, int], ...] = ()
    listeners: tuple[tuple[str, int], ...] = ()
    metrics: tuple[str, int] | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse an impossible place.

        Raises:
            ValueError: the index is none of `count` workers.
        """
        if not 0 <= self.index < self.count <= MAX_WORKERS:
            raise ValueError(f"there is no worker {self.index} of {self.count}")

    def descriptors(self) -> tuple[int, ...]:
        """All that the worker has to inherit."""
        named = (self.control_fd, self.memory_fd, self.counts_fd)
        sockets = (*self.listeners, *(() if self.metrics is None else (self.metrics,)))
        pipes = (fd for ends in self.bells for fd in ends)
        every = (*named, *pipes, *(fd for _, fd in sockets))
        return tuple(fd for fd in every if fd != NO_DESCRIPTOR)

    def to_text(self) -> str:
        """What `from_text` reads: one line of JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_text(cls, text: str) -> "WorkerPlace":
        """The place that a supervisor wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"no place of a worker: {error}") from None
