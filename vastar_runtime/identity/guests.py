"""What one user, or one address over TCP, has in the runtime: connections, and bytes in memory.

Frames, answers and calls in flight are bounded one by one; the sum of them is bounded here, so that
who opens many connections cannot fill the memory of everybody. Counted is what callers can make
large: frames that are not whole yet, the payloads of calls in flight, HTTP answers that are being
collected, answers that wait to be read.
Above its bound a guest gets no new call begun, and its unfinished frames wait; what is under way
goes on, so the bound is passed by what that still brings.
"""

import math

import attrs

__all__ = ["Guest"]


@attrs.define(eq=False)
class Guest:
    """One user or address, for as long as it has connections.

    Attributes:
        connections: open ones.
        held_bytes: in memory for it.
        max_held_bytes: above which nothing new is begun.
    """

    max_held_bytes: float = math.inf
    connections: int = 0
    held_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing new is to be begun for it."""
        return self.held_bytes > self.max_held_bytes
