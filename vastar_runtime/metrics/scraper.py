"""Render in a worker thread, from a snapshot taken in the loop, and never all the time.

The thread holds the interpreter while it renders, so that the event loop gets it back only every
few milliseconds: somebody who asks for the text without a pause would slow every call down. So
renders follow one another, each after a pause of nine times what it took (at most a tenth of one
core), and all who ask meanwhile share the next one. Nobody ever gets a text from a snapshot that
was taken before the question.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from vastar_runtime.metrics.meters import Meters
from vastar_runtime.metrics.snapshot import Snapshot

__all__ = ["Scraper"]

_PAUSE_RATIO: Final = 9.0


class Scraper:
    """The text of one runtime's metrics, for the listener and the control connector.

    Args:
        meters: what is counted.
        take: the state of now; called in the event loop.
    """

    def __init__(self, meters: Meters, take: Callable[[], Snapshot]) -> None:
        self._meters = meters
        self._take = take
        self._turn = trio.Lock()
        self._snapshots = 0
        self._rendered = 0
        self._text = b""
        self._free_at_s = float("-inf")

    async def render(self) -> bytes:
        """The text, from a snapshot taken after the call of this."""
        wanted = self._snapshots + 1
        async with self._turn:
            if self._rendered < wanted:
                await trio.sleep_until(self._free_at_s)
                await self._render_now()
            return self._text

    async def _render_now(self) -> None:
        self._snapshots += 1
        number, snapshot = self._snapshots, self._take()
        began_s = trio.current_time()
        self._text = await trio.to_thread.run_sync(partial(self._meters.render, snapshot))
        self._rendered = number
        ended_s = trio.current_time()
        self._free_at_s = ended_s + _PAUSE_RATIO * (ended_s - began_s)
