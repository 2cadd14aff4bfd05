"""The driver of one limiter: whoever is in its line sleeps here until it may go.

Nobody goes before the head of the line, so only the head has an alarm clock; those behind it sleep
until they are let through. Whatever moves the line (somebody comes or leaves or gives something
back, the limit changes) lets through whose turn has come and sets the alarm of the head that is
then left, without waking it. So each waiter is looked after when it comes, when it goes and, if it
becomes the head, when its alarm rings: the work is in proportion to the waiters, however often the
limit changes meanwhile.
"""

from typing import Final, Generic, TypeVar

import attrs
import trio

from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Waiting

__all__ = ["Pacer"]

LimiterT = TypeVar("LimiterT", bound=RateLimiter)

_NO_LIMIT: Final = 10**12
"""The most that the settings take."""


class Pacer(Generic[LimiterT]):
    """A limiter and those who wait in its line.

    Attributes:
        limiter: decides; what it gives back goes through here, so that the line moves up.
    """

    __slots__ = ("_bells", "limiter")

    def __init__(self, limiter: LimiterT) -> None:
        self.limiter = limiter
        self._bells: dict[Waiting, trio.CancelScope] = {}

    async def wait(self, waiting: Waiting) -> Allowed:
        """Return when `waiting`, which `limiter` gave, may go. Cancelled, it leaves the line."""
        try:
            while waiting.permit is None:
                with trio.CancelScope() as bell:
                    self._bells[waiting] = bell
                    self.wake(trio.current_time())
                    if waiting.permit is None:
                        await trio.sleep_forever()
        except BaseException:
            del self._bells[waiting]
            now_s = trio.current_time()
            self.limiter.withdraw(now_s, waiting)
            self.wake(now_s)
            raise
        self._bells.pop(waiting, None)  # none where it was let through before it came here
        return waiting.permit

    def settle(self, now_s: float, permit: Allowed, used: int | None = None) -> None:
        """As `RateLimiter.settle`."""
        self.limiter.settle(now_s, permit, used)
        self.wake(now_s)

    def refund(self, now_s: float, permit: Allowed) -> None:
        """As `RateLimiter.refund`."""
        self.limiter.refund(now_s, permit)
        self.wake(now_s)

    def change(self, now_s: float, settings: RateLimitSettings) -> None:
        """As `RateLimiter.change`."""
        self.limiter.change(now_s, settings)
        self.wake(now_s)

    def lift(self, now_s: float) -> None:
        """The limit is gone: whoever waits for it goes."""
        unlimited = attrs.evolve(self.limiter.settings, limit=_NO_LIMIT, burst=None)
        self.change(now_s, unlimited)

    def wake(self, now_s: float) -> None:
        """Let go whose turn has come, and set the alarm of the head of the line."""
        if not self._bells:
            return
        for granted in self.limiter.grant_due(now_s):
            if granted in self._bells:
                self._bells[granted].cancel()
        head, next_at_s = self.limiter.first_in_line, self.limiter.next_at_s(now_s)
        if head is not None and next_at_s is not None:
            head.at_s = next_at_s
            if head in self._bells:
                self._bells[head].deadline = next_at_s
