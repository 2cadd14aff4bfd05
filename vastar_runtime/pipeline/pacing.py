"""The driver of one limiter: whoever is in its line sleeps here until it may go.

Only the head of a line needs an alarm clock that is right: those behind it cannot go before it, and
each is woken when it becomes the head. So whenever somebody leaves the line, goes, or gives
something back, the new head is woken and asks anew; nobody else stirs.
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
        self._bells: dict[Waiting, trio.Event] = {}

    async def wait(self, waiting: Waiting) -> Allowed:
        """Return when `waiting`, which `limiter` gave, may go. Cancelled, it leaves the line."""
        try:
            while True:
                bell = self._bells[waiting] = trio.Event()
                with trio.CancelScope(deadline=waiting.at_s):
                    await bell.wait()
                verdict = self.limiter.claim(trio.current_time(), waiting)
                if isinstance(verdict, Allowed):
                    return verdict
        except BaseException:
            now_s = trio.current_time()
            self.limiter.withdraw(now_s, waiting)
            raise
        finally:
            del self._bells[waiting]
            self.wake(trio.current_time())

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
        """Let go whose turn has come, and have the head of the line look at the clock anew."""
        if self._bells:
            for granted in self.limiter.grant_due(now_s):
                self._ring(granted)
            head = self.limiter.first_in_line
            if head is not None:
                self._ring(head)

    def _ring(self, waiting: Waiting) -> None:
        bell = self._bells.get(waiting)
        if bell is not None:
            bell.set()
