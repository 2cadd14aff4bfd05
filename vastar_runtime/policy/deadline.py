"""When a call must have ended: one point in time out of several limits.

A caller may give `deadline_at_ms` (absolute, on the wall clock, 0 = none) and a timeout of the
operation itself (relative to arrival, 0 = none). The earlier one binds; where there is neither,
the configured default does. The wall clock is read once, at arrival: after that a step of the
system's clock changes nothing.
"""

from enum import Enum
from typing import Final, NamedTuple

__all__ = ["LONGEST_S", "Deadline", "Limit"]

LONGEST_S: Final = 366 * 24 * 3600.0
"""A deadline further away is cut to this: u64 milliseconds reach beyond what clocks can add."""


class Limit(Enum):
    """Which limit of a call binds; the value is how a message names it."""

    CALLER = "deadline"
    TIMEOUT = "timeout_ms"
    DEFAULT = "default timeout"


class Deadline(NamedTuple):
    """The binding limit of one call.

    Attributes:
        expires_at_s: on the monotonic clock that `arrive` was given.
        budget_s: how much time there was at arrival; not positive when it was over by then.
        limit: where it comes from.
    """

    expires_at_s: float
    budget_s: float
    limit: Limit

    @classmethod
    def arrive(
        cls, now_s: float, wall_now_ms: float, deadline_at_ms: int, default_timeout_s: float
    ) -> "Deadline":
        """The deadline of a call that arrives now.

        Args:
            now_s: the monotonic clock, seconds.
            wall_now_ms: the wall clock, milliseconds since the Unix epoch.
            deadline_at_ms: the caller's deadline on that wall clock, 0 for none.
            default_timeout_s: what holds where the caller gives no limit.
        """
        if not deadline_at_ms:
            return cls(now_s + default_timeout_s, default_timeout_s, Limit.DEFAULT)
        budget_s = min((deadline_at_ms - wall_now_ms) / 1000, LONGEST_S)
        return cls(now_s + budget_s, budget_s, Limit.CALLER)

    def with_timeout(self, timeout_ms: int) -> "Deadline":
        """The deadline once the operation's own timeout is known (0 = none)."""
        timeout_s = min(timeout_ms / 1000, LONGEST_S)
        if not timeout_ms or (self.limit is not Limit.DEFAULT and timeout_s >= self.budget_s):
            return self
        arrived_at_s = self.expires_at_s - self.budget_s
        return Deadline(arrived_at_s + timeout_s, timeout_s, Limit.TIMEOUT)

    @property
    def had_passed_at_arrival(self) -> bool:
        """Whether there never was any time."""
        return self.budget_s <= 0

    def has_passed(self, now_s: float) -> bool:
        """Whether there is no time left."""
        return now_s >= self.expires_at_s
