"""Request bodies whose pieces come as a test tells."""

from collections.abc import Sequence

import trio

from vastar_runtime.transport import BodyAborted, Buffer, StreamedBody

__all__ = ["ScriptedBody", "Step"]

Step = bytes | float | BodyAborted
"""A piece, seconds to wait, or the maker's giving up, which it stays at."""


class ScriptedBody(StreamedBody):
    """A body of steps, and then its end.

    Attributes:
        made_bytes: of the pieces that were taken from the maker so far.
    """

    __slots__ = ("_steps", "made_bytes")

    def __init__(self, steps: Sequence[Step], length_bytes: int | None = None) -> None:
        super().__init__(self._make, length_bytes)
        self._steps = [*steps]
        self.made_bytes = 0

    async def _make(self) -> Buffer:
        await trio.lowlevel.checkpoint()
        while self._steps:
            step = self._steps[0]
            if isinstance(step, BodyAborted):
                raise step
            if isinstance(step, bytes):
                self.made_bytes += len(step)
                del self._steps[0]
                return step
            await trio.sleep(step)
            del self._steps[0]
        return b""
