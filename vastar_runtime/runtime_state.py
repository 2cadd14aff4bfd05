"""What the runtime as a whole knows of itself: counts, and whether it is leaving.

One value shared by the sessions, which change it, and by the server and the control connector,
which read it. Nobody waits on it by polling: who waits for the last call's end is woken by it.
"""

import attrs
import trio

__all__ = ["Resting", "RuntimeState"]


@attrs.define(eq=False)
class Resting:
    """How many tasks of calls rest, of all connections.

    Attributes:
        tasks: now.
    """

    tasks: int = 0


@attrs.define(eq=False)
class RuntimeState:
    """Counts of the running daemon.

    Attributes:
        started_at_s: on Trio's clock.
        draining: no new calls are taken.
        calls_in_flight: calls accepted and not answered yet, over all connections.
        connections: open connections of callers.
        calls_accepted: since the start.
        drain_requested: set when somebody asked the runtime to leave.
        resting: tasks of calls, between two calls.
    """

    started_at_s: float
    draining: bool = False
    calls_in_flight: int = 0
    connections: int = 0
    calls_accepted: int = 0
    drain_requested: trio.Event = attrs.field(factory=trio.Event)
    resting: Resting = attrs.field(factory=Resting)
    _idle: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def call_begins(self) -> None:
        """A call was accepted."""
        self.calls_in_flight += 1
        self.calls_accepted += 1

    def call_ends(self) -> None:
        """Its answer is on its way, or nobody wants it any more."""
        self.calls_in_flight -= 1
        if not self.calls_in_flight:
            self._idle.unpark_all()

    async def wait_idle(self) -> None:
        """Return when no call is in flight."""
        while self.calls_in_flight:
            await self._idle.park()
