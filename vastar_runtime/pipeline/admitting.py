"""Admission: the driver of the bulkhead and its fair queue.

A call is admitted once, with the origin of its first request, and keeps its place until the body
of its answer has ended: a redirect is the same call. Whoever waits is woken by whoever lets it
through, with its place already taken, so that nobody slips in between.
"""

from typing import Final

import trio

from vastar_runtime.pipeline.attempt import Attempt, Ended, Holdings, Hop, Layer
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.admission import Admitted, Queued
from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import Fault
from vastar_runtime.policy.verdicts import Refused

__all__ = ["AdmissionLayer", "leave"]

_SAYS_TOO_MUCH: Final = frozenset({Evidence.FAILURE, Evidence.THROTTLED})
"""5xx and 429, whether or not the request may be tried again. An attempt that timed out says it
too, but not every silence: a certificate that is not trusted is none of the upstream's load."""


class AdmissionLayer:
    """Lets a call in, has it wait, or refuses it."""

    name = "admission"
    name_of_policy = "bulkhead"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """Enter with the call's first hop."""
        hop = attempt.hop
        holdings, settings = hop.holdings, hop.policies.admission
        if holdings.is_in:
            return await self._inner(attempt)
        holdings.is_in = True
        decision = self._around.machines.admission.try_admit(
            attempt.at_s, hop.key, hop.call.request.stream, settings
        )
        gate = self._around.gates.of(self.name_of_policy, settings.mode)
        if isinstance(decision, Admitted):
            gate.apply(None)
            holdings.place = decision
        elif gate.apply(decision) is None:  # observed only: it goes without a place
            if isinstance(decision, Queued):
                self._around.machines.admission.withdraw(attempt.at_s, decision)
        elif isinstance(decision, Refused):
            return Ended.by_refusal(decision)
        else:
            await self._wait(hop, decision)
            attempt.at_s = trio.current_time()
        ended = await self._inner(attempt)
        if settings.concurrency.adaptive is not None:
            self._feel(hop, ended)
        return ended

    async def _wait(self, hop: Hop, queued: Queued) -> None:
        call, around = hop.call, self._around
        around.queued[queued] = trio.lowlevel.current_task()

        def leave_line(_: object) -> trio.lowlevel.Abort:
            around.queued.pop(queued, None)
            around.wake(around.machines.admission.withdraw(trio.current_time(), queued))
            return trio.lowlevel.Abort.SUCCEEDED

        with around.waiting(call, "queue", "waiting in line for a place"):
            await trio.lowlevel.wait_task_rescheduled(leave_line)
        hop.holdings.place = queued.permit

    def _feel(self, hop: Hop, ended: Ended) -> None:
        """Tell an adaptive bulkhead how its upstream bears the load."""
        place = hop.holdings.place
        if place is None:
            return
        admission = self._around.machines.admission
        if ended.meaning.is_clean:
            self._around.wake(admission.succeeded(trio.current_time(), place))
        elif ended.meaning.tenant in _SAYS_TOO_MUCH or (
            ended.result is not None and ended.result.fault is Fault.ATTEMPT_TIMEOUT
        ):
            admission.overloaded(trio.current_time(), place, hop.policies.admission)


def leave(holdings: Holdings, surroundings: Surroundings) -> None:
    """Give the place of a call back, and let through whom that lets through."""
    if holdings.place is not None:
        woken = surroundings.machines.admission.release(trio.current_time(), holdings.place)
        if woken:
            surroundings.wake(woken)
