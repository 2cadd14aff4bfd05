"""Hedging: a second attempt beside a slow first one; the first good answer wins. Off by default.

The only place where two attempts of a call are under way at once. Each has its own progress, goes
through the layers below on its own and pays for itself there; the loser is cancelled, which tells
the breakers nothing. An attempt that fails while the other is still under way is not the end.
"""

from typing import Final

import attrs
import trio

from vastar_runtime.pipeline.attempt import Attempt, Ended, Hop, Layer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.classify import Retry
from vastar_runtime.policy.hedging import HedgeSettings, Hedging
from vastar_runtime.transport.messages import BodySource
from vastar_runtime.transport.progress import Progress

__all__ = ["HedgingLayer"]


class HedgingLayer:
    """Sends a second attempt where the first one is slow, and there is a budget for it."""

    name = "hedging"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """The end of the attempt, or of the one beside it."""
        hop = attempt.hop
        hedging = hop.of_tenant.hedging
        if hedging is None:
            hedging = hop.of_tenant.hedging = Hedging(self._settings_of(hop))
        at_s = None
        is_whole = not isinstance(hop.request.body, BodySource)  # two cannot read one source
        if (
            attempt.number == 1 and is_whole
        ):  # a retry has waited long enough, and is paid for elsewhere
            at_s = hedging.plan(hop.method, trio.current_time(), hop.call.deadline.expires_at_s)
        if at_s is None or hedging.budget < 1:
            return await self._inner(attempt)
        race = _Race([attempt], self._inner)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(race.run, attempt)
                with trio.move_on_at(at_s):
                    await race.decided.wait()
                if not race.decided.is_set() and self._takes(attempt):
                    race.attempts.append(
                        Attempt(hop, attempt.number, Progress(), trio.current_time())
                    )
                    nursery.start_soon(race.run, race.attempts[-1])
                await race.decided.wait()
                nursery.cancel_scope.cancel()
        except BaseException:
            race.abandon()
            raise
        winner, ended = race.finish()
        if len(race.attempts) > 1:
            self._account(attempt, winner, race.attempts[-1])
        return ended

    def _settings_of(self, hop: Hop) -> HedgeSettings:
        """Of all calls of the tenant to the origin, as the budget is theirs."""
        tenant, _, origin = hop.key
        return self._around.machines.book.of(tenant=tenant, origin=origin).hedging

    def _takes(self, attempt: Attempt) -> bool:
        """Whether to send a second attempt now; charges the budget if so, observed only too."""
        if attempt.begun_at_s is None:
            return False  # it waits in a line of ours: a second one would only lengthen that
        hop = attempt.hop
        hedging = hop.of_tenant.hedging
        assert hedging is not None, "it was made before the race"
        if not hedging.take(has_answer_begun=attempt.progress.response_started):
            return False
        return self._around.gates.of("hedging", hop.policies.hedging.mode).acts()

    def _account(self, first: Attempt, winner: Attempt, hedge: Attempt) -> None:
        hedging = first.hop.of_tenant.hedging
        if hedge.begun_at_s is None and hedging is not None:
            hedging.give_back()  # it was never sent
        self._around.meters.hedged("lost" if winner is first else "won")


@attrs.define(eq=False)
class _Race:
    """One or two attempts under way at once.

    Attributes:
        attempts: those that were started.
        decided: set with the first good answer, or when all have ended.
    """

    attempts: list[Attempt]
    inner: Layer
    ends: list[tuple[Attempt, Ended]] = attrs.field(factory=list)
    decided: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, attempt: Attempt) -> None:
        """Make `attempt`, one of those of the race."""
        ended = await self.inner(attempt)
        self.ends.append((attempt, ended))
        if _rank(ended) == _GOOD or len(self.ends) == len(self.attempts):
            self.decided.set()

    def finish(self) -> tuple[Attempt, Ended]:
        """The winner; what the others brought is let go."""
        winner, best = min(self.ends, key=lambda end: _rank(end[1]))
        for attempt, ended in self.ends:
            if attempt is not winner and ended.response is not None:
                ended.response.abort()
        self._tell_reached(but=winner)
        hop = winner.hop
        hop.call.progress = winner.progress
        hop.call.waiting_for = ""  # whatever the loser was torn out of
        if winner in hop.shown:
            hop.shown.remove(winner)  # what it showed is what counts
            hop.shown.append(winner)
        return winner, best

    def abandon(self) -> None:
        """Cancelled: let go of what was brought."""
        for _, ended in self.ends:
            if ended.response is not None:
                ended.response.abort()
        self._tell_reached()

    def _tell_reached(self, but: Attempt | None = None) -> None:
        """An upstream may have acted on any of them, whoever won, and if nobody did.

        The winner's own progress becomes the call's: it may be a redirect, whose end is none.
        """
        for attempt in self.attempts:
            if attempt is not but:
                attempt.hop.call.also_reached(attempt.progress.disposition)


_GOOD: Final = 0


def _rank(ended: Ended) -> int:
    """Lower is better: an answer that is final, one that is not, an error, a refusal."""
    if ended.response is not None:
        return _GOOD if ended.meaning.retry is Retry.NEVER else 1
    return 2 if ended.error is not None else 3
