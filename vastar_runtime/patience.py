"""How long a connection's reader waits for its caller's next bytes.

Three limits, told apart because what they end differs. Inside a frame: silence, and slowness. A
frame that drips a byte a minute is never silent and never whole, so beside the silence the frame as
a whole has a time: that of the silence, and a second more for each 64 KiB that came. No more of it
is read while its caller holds too much memory, which may last as long as a silence. Between
frames: idleness, where it is limited, of a connection that has no call under way. A stranger, who
has yet to say who it is, gets no longer than a frame.
"""

import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

from vastar_client.wire import Connection, RemoteProtocolError
from vastar_runtime.identity.guests import Guest
from vastar_runtime.identity.visas import Visa
from vastar_runtime.transport.channel import Channel

__all__ = ["MIN_BYTES_PER_S", "FrameGivenUp", "Idle", "Patience"]

MIN_BYTES_PER_S: Final = 64 * 1024
"""What a frame must come at on the whole, beyond its first silence: 64 MiB in 17 minutes."""
_LOOK_AGAIN_S: Final = 0.05
"""For room, which comes back in many places, and is seldom waited for."""


class Idle(Exception):  # noqa: N818 - it is no error of anybody
    """The connection has been idle for as long as it may; the caller is told nothing."""


class FrameGivenUp(RemoteProtocolError):  # noqa: N818 - as its base, for the caller
    """A frame is not waited for any longer; it closes the connection.

    Attributes:
        rule: what refused it, as the audit log names it.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason, closes=True)
        self.rule = rule


@attrs.define(eq=False)
class Patience:
    """The waiting of one connection.

    Attributes:
        silence_s: within a frame.
        idle_s: between frames, without a call; 0 is for ever.
        visa: tells whether the caller has yet to say who it is.
        guest: for whom the bytes of a frame that is not whole yet are held.
        frame_began_s: when the frame that is not whole yet was first waited for; whoever gets a
            frame says so (`frame_ended`).
    """

    silence_s: float
    idle_s: float
    visa: Visa | None = None
    guest: Guest = attrs.field(factory=Guest)
    frame_began_s: float | None = None
    _frame_bytes: int = 0

    async def receive(
        self, channel: Channel, connection: Connection, is_busy: Callable[[], bool]
    ) -> int:
        """Receive some bytes into `connection`; `is_busy` says whether calls are under way.

        Returns:
            How many there were.

        Raises:
            FrameGivenUp: too little came of a frame, or more than its caller has room for.
            Idle: nothing came between frames.
            trio.BrokenResourceError: the connection failed.
        """
        if connection.in_frame:
            data = await self._within_frame(channel)
        elif self.idle_s or (self.visa is not None and self.visa.is_stranger):
            data = await self._between_frames(channel, is_busy)
        else:
            data = await channel.receive_some()
        connection.receive_data(data)
        return len(data)

    def frame_ended(self) -> None:
        """The frame that was waited for is whole, or never will be."""
        self.guest.held_bytes -= self._frame_bytes
        self._frame_bytes = 0
        self.frame_began_s = None

    async def _within_frame(self, channel: Channel) -> bytes:
        now_s = trio.current_time()
        if self.frame_began_s is None:
            self.frame_began_s = now_s
        if self._lacks_room():
            await self._wait_for_room()
            waited_s = trio.current_time() - now_s
            now_s += waited_s
            self.frame_began_s += waited_s  # which is not its caller's slowness
        due_s = self.frame_began_s + self.silence_s + self._frame_bytes / MIN_BYTES_PER_S
        with trio.move_on_at(min(now_s + self.silence_s, due_s)):
            data = await channel.receive_some()
            self._frame_bytes += len(data)
            self.guest.held_bytes += len(data)
            return data
        raise FrameGivenUp(
            "frame:connection",
            f"an unfinished frame got no byte for {self.silence_s:g} s"
            if now_s + self.silence_s <= due_s
            else f"a frame came too slowly: {self._frame_bytes} bytes of it in "
            f"{trio.current_time() - self.frame_began_s:.0f} s",
        )

    def _lacks_room(self) -> bool:
        """Whether what others of its caller's hold fills its memory: one frame can always come."""
        return self.guest.held_bytes - self._frame_bytes > self.guest.max_held_bytes

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self.silence_s):
            while self._lacks_room():  # noqa: ASYNC110 - as said at the constant
                await trio.sleep(_LOOK_AGAIN_S)
            return
        raise FrameGivenUp(
            "memory:user",
            f"no room for a frame: {self.guest.held_bytes} bytes of requests and answers of this "
            f"caller are in memory, the most is {self.guest.max_held_bytes:.0f}",
        )

    async def _between_frames(self, channel: Channel, is_busy: Callable[[], bool]) -> bytes:
        while True:
            limit_s = self.idle_s or math.inf
            if self.visa is not None and self.visa.is_stranger:
                limit_s = min(limit_s, self.silence_s)
            with trio.move_on_after(limit_s):
                return await channel.receive_some()
            if not is_busy():
                raise Idle
