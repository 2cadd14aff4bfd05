"""What workers ask of the supervisor, and what it asks of them: status, metrics, reload, drain.

Whoever calls `status` has reached some worker, which knows only itself: it asks the supervisor, who
asks all, waits a moment, and answers with one account. The supervisor's own waiting never holds
anything up: each question is a `Gathering` with a time.

A reload has two steps, so that all workers serve with the same configuration: all try the new one,
and only when none refuses do all take it up. One that then does not is replaced.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from vastar_runtime._version import __version__
from vastar_runtime.config import ConfigError, RuntimeConfig, compare, taken_up
from vastar_runtime.workers.fleet import Fleet, Phase, Worker
from vastar_runtime.workers.frames import (
    CHECK,
    METRICS,
    STATUS,
    TAKE_UP,
    Answer,
    Ask,
    FrameError,
    Message,
)
from vastar_runtime.workers.gathering import MAX_GATHERINGS, Gathered, Gatherings, Said
from vastar_runtime.workers.journal import Journal
from vastar_runtime.workers.merging import merged_metrics, merged_status

__all__ = ["RELOAD_STEP_S", "STATUS_S", "TEAM_METRICS", "Questions"]

STATUS_S: Final = 1.0
METRICS_S: Final = 3.0
RELOAD_STEP_S: Final = 2.0
"""How long workers have for an answer. Whoever asks over the wire waits 5 s."""

TEAM_METRICS: Final = ("vastar_workers", "vastar_worker_restarts_total")
"""What a text of several workers has on top of one worker's."""

_SILENT: Final = "not answering"
_TOO_MANY: Final = "too many questions at once; ask again"

_Reply: TypeAlias = Callable[[Any, str | None], None]


class Questions:
    """The conversations between the supervisor and its workers.

    Attributes:
        config: what the workers serve with.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        config: RuntimeConfig,
        load: Callable[[], RuntimeConfig],
        send: Callable[[int, Message], bool],
        drain: Callable[[], None],
        journal: Journal,
        started_at_s: float,
    ) -> None:
        self.config = config
        self._fleet = fleet
        self._load = load
        self._send = send
        self._drain = drain
        self._journal = journal
        self._started_at_s = started_at_s
        self._gatherings = Gatherings()
        self._is_reloading = False
        self._waiting: list[_Reply] = []
        self._version = 0
        self._versions: dict[int, int] = {}
        self._last_metrics: dict[int, str] = {}
        self._counted = ""
        """The counters of workers that are no more."""

    def next_due_s(self) -> float | None:
        """When `tick` has something to do."""
        return self._gatherings.next_due_s()

    def tick(self, now_s: float) -> None:
        """End what has waited long enough."""
        self._gatherings.tick(now_s)

    # --- the workers' lives -------------------------------------------------------------------

    def begun(self, index: int) -> None:
        """A worker is started with the configuration of now."""
        self._versions[index] = self._version

    def bring_up_to_date(self, index: int) -> None:
        """A worker is to serve: with what has become the configuration since it was started."""
        if self._versions.get(index) != self._version:
            self._versions[index] = self._version
            self._send(index, Ask(0, TAKE_UP, self.config))

    def gone(self, index: int) -> None:
        """A worker is no more; what it counted still counts."""
        text = self._last_metrics.pop(index, None)
        if text is not None:
            self._counted = merged_metrics((), (self._counted, text))
        self._gatherings.gone(index)

    def hear(self, index: int, message: Message) -> None:
        """A question of a worker, or its answer to one."""
        match message:
            case Answer(number, value, fault):
                self._gatherings.answered(number, index, Said(value, fault))
            case Ask(number, what, about):
                self._asked(
                    what, about, lambda value, fault: self._reply(index, number, value, fault)
                )

    def _reply(self, index: int, number: int, value: Any, fault: str | None) -> None:
        try:
            self._send(index, Answer(number, value, fault))
        except FrameError as error:
            self._send(index, Answer(number, fault=str(error)))

    def _asked(self, what: str, about: Any, reply: _Reply) -> None:
        match what:
            case "status":
                verbose = bool(about)
                self._gather(STATUS, verbose, STATUS_S, reply, self._status)
            case "metrics":
                self._gather(METRICS, None, METRICS_S, reply, self._metrics)
            case "reload":
                self.reload(reply)
            case "drain":
                times = self.config.server
                drain_s = max(times.drain_s, times.stream_drain_s)
                reply({"pid": os.getpid(), "draining": True, "drain_s": drain_s}, None)
                self._drain()
            case _:
                reply(None, f"nobody knows what {what} is")

    def _gather(
        self,
        what: str,
        about: Any,
        within_s: float,
        reply: _Reply,
        result: Callable[[Gathered], Any],
    ) -> None:
        if not self._ask(what, about, within_s, lambda said: reply(result(said), None)):
            reply(None, _TOO_MANY)

    def _ask(
        self, what: str, about: Any, within_s: float, then: Callable[[Gathered], None]
    ) -> bool:
        """Ask all that serve; False when there are too many questions already."""
        asked = [each.index for each in self._fleet.workers if each.phase is Phase.READY]
        number = self._gatherings.begin(asked, time.monotonic() + within_s, then)
        if number is None:
            return False
        for index in asked:
            # One that takes no more does not answer, and is told of as such.
            self._send(index, Ask(number, what, about))
        return True

    # --- what they add up to ------------------------------------------------------------------

    def _status(self, said: Gathered) -> dict[str, Any]:
        now_s = time.monotonic()
        accounts = [each.value for each in said.values() if isinstance(each.value, dict)]
        rows = []
        for worker in self._fleet.workers:
            told = said.get(worker.index)
            answer = told.value if told is not None and isinstance(told.value, dict) else {}
            rows.append(
                {
                    "worker": worker.index,
                    "pid": worker.pid,
                    "state": _state(worker, is_heard=bool(answer)),
                    "uptime_s": answer.get("uptime_s"),
                    "restarts": worker.restarts,
                    "connections": answer.get("connections"),
                    "in_flight": answer.get("in_flight"),
                    "calls_accepted": answer.get("calls_accepted"),
                }
            )
        whole = merged_status(accounts[0], accounts[1:]) if accounts else {}
        return {
            **whole,
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": round(now_s - self._started_at_s, 3),
            "draining": self._fleet.is_draining or bool(whole.get("draining")),
            "workers": rows,
        }

    def _metrics(self, said: Gathered) -> str:
        for index, each in said.items():
            if isinstance(each.value, str):
                self._last_metrics[index] = each.value
        living = [each.value for each in said.values() if isinstance(each.value, str)]
        silent = [text for index, text in self._last_metrics.items() if index not in said]
        states = dict.fromkeys([*(phase.value for phase in Phase), _SILENT], 0)
        for worker in self._fleet.workers:
            states[_state(worker, is_heard=worker.index in said)] += 1
        restarts = sum(worker.restarts for worker in self._fleet.workers)
        there_are, replaced = TEAM_METRICS
        lines = (
            f"# HELP {there_are} Workers by what they do.",
            f"# TYPE {there_are} gauge",
            *(f'{there_are}{{state="{name}"}} {count}.0' for name, count in states.items()),
            f"# HELP {replaced} Workers that ended and were replaced.",
            f"# TYPE {replaced} counter",
            f"{replaced} {restarts}.0",
            "",
        )
        return merged_metrics(living, (*silent, self._counted)) + "\n".join(lines)

    # --- reload -------------------------------------------------------------------------------

    def reload(self, reply: _Reply | None) -> None:
        """Read the configuration anew and have all take it up, or none.

        While one reload is under way, all who ask share the one after it.

        Args:
            reply: told what changed, or what was refused; None for a signal: the log is told.
        """
        if len(self._waiting) >= MAX_GATHERINGS:
            if reply is not None:
                reply(None, _TOO_MANY)
            return
        self._waiting.append(reply or _nobody)
        if not self._is_reloading:
            self._reload_now()

    def _reload_now(self) -> None:
        replies, self._waiting = self._waiting, []
        self._is_reloading = True

        def done(value: Any, fault: str | None) -> None:
            self._is_reloading = False
            if fault is None:
                self._journal.info("configuration reloaded", **value)
            else:
                self._journal.error(
                    "the new configuration is refused, the old one holds",
                    problems=fault.splitlines(),
                )
            for reply in replies:
                reply(value, fault)
            if self._waiting:
                self._reload_now()

        try:
            new = self._load()
        except ConfigError as error:
            done(None, str(error))
            return
        if not self._ask(CHECK, new, RELOAD_STEP_S, lambda said: self._checked(new, said, done)):
            done(None, _TOO_MANY)

    def _checked(self, new: RuntimeConfig, said: Gathered, done: _Reply) -> None:
        faults = [
            f"worker {worker.index}, pid {worker.pid}: "
            + ("it does not answer" if worker.index not in said else said[worker.index].fault or "")
            for worker in self._fleet.workers
            if worker.phase is Phase.READY
            and (worker.index not in said or said[worker.index].fault is not None)
        ]
        if faults:
            done(None, "\n".join(faults))
            return
        if self._fleet.is_draining:
            done(None, "the runtime is about to stop")
            return
        changes = compare(self.config, new)
        self.config = taken_up(self.config, new)
        self._journal.configure(self.config.log.level, self.config.log.format)
        self._version += 1
        for worker in self._fleet.workers:
            if worker.phase is Phase.READY:
                self._versions[worker.index] = self._version
        changed = {"applied": changes.applied, "needs_restart": changes.needs_restart}
        if not self._ask(
            TAKE_UP, new, RELOAD_STEP_S, lambda said: self._taken_up(changed, said, done)
        ):
            done(None, _TOO_MANY)

    def _taken_up(self, changed: dict[str, Any], said: Gathered, done: _Reply) -> None:
        """Replace those that did not: they would go on with the old one."""
        for worker in self._fleet.workers:
            told = said.get(worker.index)
            is_stale = told is None or told.fault is not None
            if worker.phase is Phase.READY and is_stale and not self._fleet.is_draining:
                self._journal.error(
                    "a worker did not take up the configuration and is replaced",
                    worker=worker.index,
                    reason="it does not answer" if told is None else told.fault,
                )
                self._fleet.given_up(worker.index, time.monotonic())
        done(changed, None)


def _nobody(_value: Any, _fault: str | None) -> None:
    """Whoever sent a signal reads the log."""


def _state(worker: Worker, *, is_heard: bool) -> str:
    """What a worker does, for people."""
    return _SILENT if worker.phase is Phase.READY and not is_heard else worker.phase.value
