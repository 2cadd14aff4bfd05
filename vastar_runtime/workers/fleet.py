"""The lives of the workers: when each is started, what its end means, when all of it is over.

A state machine without processes, signals or a clock: the supervisor tells it what happened and
when, and does what it answers. So the restarts of a day are a test of a millisecond.

A worker is STARTING until it says that it is ready, READY while it serves, RESTING between its end
and its next start, and ENDED when it is not to come back. As long as not all workers have been
ready, the end of one ends the whole: what keeps it from starting (a port, a certificate, a bug)
keeps it from starting again. Later a worker that ends is replaced, after a pause that doubles, with
full jitter, and that is short again after the worker has been well for `healthy_s`.
"""

import signal
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final, TypeAlias

import attrs

from vastar_runtime.policy.backoff import BackoffSettings, backoff_s

__all__ = [
    "Action",
    "End",
    "Ended",
    "Fleet",
    "FleetSettings",
    "Phase",
    "Step",
    "Worker",
]

_FAILED: Final = 1


class Phase(Enum):
    """Where a worker is in its life; the value is for people."""

    STARTING = "starting"
    READY = "serving"
    RESTING = "restarting"
    ENDED = "ended"


class Step(Enum):
    """What the supervisor is to do with a worker, or with `ALL`."""

    START = auto()
    """Start its process, and call `started`."""
    GO = auto()
    """Have it accept callers."""
    DRAIN = auto()
    """Have it refuse new calls, finish the others, and end."""
    CUT = auto()
    """Have it end at once."""
    KILL = auto()
    """Kill it; `ended` is called when it is dead."""


@attrs.frozen
class Action:
    """One thing to do."""

    step: Step
    index: int


@attrs.frozen
class End:
    """All is over: leave with this exit status."""

    code: int


Answer: TypeAlias = Action | End


@attrs.frozen
class Ended:
    """How a process ended, as `os.waitstatus_to_exitcode` tells it: minus the signal, or a code."""

    status: int

    def __str__(self) -> str:
        """For the log: `SIGKILL`, or `exit code 3`."""
        if self.status >= 0:
            return f"exit code {self.status}"
        try:
            return signal.Signals(-self.status).name
        except ValueError:  # a real-time signal has no name
            return f"signal {-self.status}"


@attrs.frozen
class FleetSettings:
    """Times of the workers' lives, in seconds.

    Attributes:
        backoff: the pause before a worker is replaced.
        healthy_s: one that served so long begins with short pauses again.
        start_s: one that is not ready by then is killed.
        drain_s: the longest that a drain may take.
        grace_s: what a worker gets on top of a limit before it is killed.
        forced_code: the exit status of a worker that was told to end at once, and of all then.
    """

    backoff: BackoffSettings = attrs.field(factory=lambda: BackoffSettings(base_s=0.2, cap_s=30.0))
    healthy_s: float = 60.0
    start_s: float = 30.0
    drain_s: float = 600.0
    grace_s: float = 5.0
    forced_code: int = 6


@attrs.define(eq=False)
class Worker:
    """One worker over all its processes.

    Attributes:
        pid: of the process there is, else None.
        restarts: how often it was replaced.
        since_s: when its phase began.
        short_lives: ends in a row before it was well.
        due_s: when the phase has lasted too long, or the pause is over.
    """

    index: int
    phase: Phase = Phase.RESTING
    pid: int | None = None
    restarts: int = 0
    since_s: float = 0.0
    short_lives: int = 0
    due_s: float | None = None

    def enter(self, phase: Phase, now_s: float, due_s: float | None = None) -> None:
        """Begin a phase."""
        self.phase, self.since_s, self.due_s = phase, now_s, due_s


class Fleet:
    """All workers. Every method takes the time and answers with what is to be done now.

    Args:
        count: how many workers there are to be.
        settings: times.
        now_s: of any clock that only goes forward.
    """

    def __init__(self, count: int, settings: FleetSettings, now_s: float) -> None:
        self.settings = settings
        self.workers = tuple(Worker(index, due_s=now_s) for index in range(count))
        self.is_complete = False
        """All workers have been ready: from now on those that end are replaced."""
        self.is_draining = False
        self.is_cut = False
        self._code: int | None = None

    # --- what happened ------------------------------------------------------------------------

    def started(self, index: int, pid: int, now_s: float) -> None:
        """The process of a worker has begun."""
        worker = self.workers[index]
        worker.pid = pid
        worker.enter(Phase.STARTING, now_s, now_s + self.settings.start_s)

    def ready(self, index: int, now_s: float) -> list[Answer]:
        """A worker can serve: it goes on when all can, so that callers find all of them."""
        worker = self.workers[index]
        if worker.phase is not Phase.STARTING or self.is_draining:
            return []
        worker.enter(Phase.READY, now_s)
        if self.is_complete:
            return [Action(Step.GO, index)]
        if any(each.phase is not Phase.READY for each in self.workers):
            return []
        self.is_complete = True
        return [Action(Step.GO, each.index) for each in self.workers]

    def ended(self, index: int, how: Ended, now_s: float, random_ratio: float) -> list[Answer]:
        """The process of a worker is gone; `random_ratio` (uniform over [0, 1)) for the pause."""
        worker = self.workers[index]
        worker.pid = None
        if self.is_draining:
            worker.enter(Phase.ENDED, now_s)
            if how.status == self.settings.forced_code:
                self._code = self._code or how.status
            return self._over()
        if not self.is_complete:
            worker.enter(Phase.ENDED, now_s)
            self._code = how.status if how.status > 0 else _FAILED
            return self.cut(now_s)
        was_well = worker.phase is Phase.READY and now_s - worker.since_s >= self.settings.healthy_s
        worker.short_lives = 1 if was_well else worker.short_lives + 1
        worker.restarts += 1
        pause_s = backoff_s(
            self.settings.backoff, worker.short_lives, random_ratio, is_throttled=False
        )
        worker.enter(Phase.RESTING, now_s, now_s + pause_s)
        return []

    def could_not_start(self, index: int, now_s: float, random_ratio: float) -> list[Answer]:
        """There is no process: the system has no room for it."""
        return self.ended(index, Ended(_FAILED), now_s, random_ratio)

    def given_up(self, index: int, due_s: float) -> None:
        """A worker is of no use any more: it is killed at `due_s`, unless that is decided."""
        worker = self.workers[index]
        if worker.phase in {Phase.STARTING, Phase.READY}:
            worker.due_s = due_s if worker.due_s is None else min(due_s, worker.due_s)

    # --- what is wanted -----------------------------------------------------------------------

    def drain(self, now_s: float) -> list[Answer]:
        """Finish: those that serve drain, those that do not serve yet have nothing to finish."""
        if self.is_draining:
            return []
        self.is_draining = True
        limit_s = now_s + self.settings.drain_s + self.settings.grace_s
        answers: list[Answer] = []
        for worker in self.workers:
            if worker.phase is Phase.READY:
                worker.due_s = limit_s
                answers.append(Action(Step.DRAIN, worker.index))
            else:
                answers.extend(self._abandon(worker, now_s))
        return answers + self._over()

    def cut(self, now_s: float) -> list[Answer]:
        """Finish at once."""
        self.is_draining = self.is_cut = True
        answers: list[Answer] = []
        for worker in self.workers:
            if worker.phase is Phase.READY:
                worker.due_s = now_s + self.settings.grace_s
                answers.append(Action(Step.CUT, worker.index))
            else:
                answers.extend(self._abandon(worker, now_s))
        return answers + self._over()

    # --- time ---------------------------------------------------------------------------------

    def next_due_s(self) -> float | None:
        """When `tick` has something to do, None when only an event can change anything."""
        dues = [worker.due_s for worker in self.workers if worker.due_s is not None]
        return min(dues, default=None)

    def tick(self, now_s: float) -> list[Answer]:
        """What is due: pauses that are over, and workers that take too long."""
        answers: list[Answer] = []
        for worker in self.workers:
            if worker.due_s is None or worker.due_s > now_s:
                continue
            worker.due_s = None
            step = Step.START if worker.phase is Phase.RESTING else Step.KILL
            answers.append(Action(step, worker.index))
        return answers

    # --- inside -------------------------------------------------------------------------------

    @staticmethod
    def _abandon(worker: Worker, now_s: float) -> Iterable[Answer]:
        if worker.pid is not None:
            worker.due_s = None
            yield Action(Step.KILL, worker.index)
        else:
            worker.enter(Phase.ENDED, now_s)

    def _over(self) -> list[Answer]:
        if any(worker.phase is not Phase.ENDED for worker in self.workers):
            return []
        if self._code is None and self.is_cut:
            return [End(self.settings.forced_code)]
        return [End(self._code or 0)]
