"""Those who wait for something to happen to one object, of which there are thousands.

Trio's `ParkingLot` does the work; this makes it when somebody first waits. Nearly nobody ever does,
and an idle connection has three of these and is to stay small: 40 bytes each instead of 400.
"""

import trio

__all__ = ["Waiters"]


class Waiters:
    """Tasks that wait for the next `wake_all`."""

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot: trio.lowlevel.ParkingLot | None = None

    async def wait(self) -> None:
        """Return at the next `wake_all`. Whoever waits for a state asks for it again then."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()

    def wake_all(self) -> None:
        """Let all go on that wait now."""
        if self._lot is not None:
            self._lot.unpark_all()
