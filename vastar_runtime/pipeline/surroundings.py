"""What every layer is given besides what is inside it: machines, gates, chance, counters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import attrs
import trio

from vastar_runtime.calls import Call
from vastar_runtime.metrics import Meters
from vastar_runtime.pipeline.guarding import EgressGuard
from vastar_runtime.pipeline.machines import Machines
from vastar_runtime.pipeline.policies import Gates
from vastar_runtime.policy.admission import Queued
from vastar_runtime.transport import HttpTransport

__all__ = ["Surroundings"]


@attrs.define(eq=False)
class Surroundings:
    """Shared by all layers of a runtime.

    Attributes:
        random_ratio: uniform over [0, 1).
        wall_clock_s: seconds since the Unix epoch, for the dates in answers.
        guard: of where calls may go.
        queued: the tasks of those in line for a place.
    """

    machines: Machines
    transport: HttpTransport
    meters: Meters
    random_ratio: Callable[[], float]
    wall_clock_s: Callable[[], float]
    gates: Gates = attrs.field(factory=Gates)
    guard: EgressGuard = attrs.field()
    queued: dict[Queued, trio.lowlevel.Task] = attrs.field(factory=dict)

    @guard.default
    def _names_only(self) -> EgressGuard:
        return EgressGuard(self.machines, self.gates, lambda _: False)

    def wake(self, woken: Iterable[Queued]) -> None:
        """Let those go on who were let through; their places are theirs already."""
        for queued in woken:
            task = self.queued.pop(queued, None)
            if task is not None:
                trio.lowlevel.reschedule(task)

    @contextmanager
    def waiting(self, call: Call, policy: str, words: str) -> Iterator[None]:
        """Account for a wait in a line: the call tells what it waits for, and how long it did."""
        started_s = trio.current_time()
        call.waiting_for = words
        try:
            yield
        finally:
            waited_s = trio.current_time() - started_s
            call.queued_us += round(waited_s * 1e6)
            self.meters.waited(policy, waited_s)
        # Not where it was torn out: the deadline then tells what the call waited for.
        call.waiting_for = ""
