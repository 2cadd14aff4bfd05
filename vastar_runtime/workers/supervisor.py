"""The process above the workers: it listens, starts them, replaces them, and serves nobody.

One thread around one selector; no event loop, because it does nothing but wait for signals, for the
words of its workers, and for the time. What to do about an end or a signal is decided by `fleet`,
who is waited for by `gathering`, what a reload may change by `reloading`; here is what they need of
the system.

The supervisor holds the sockets, the lock and the pid file: from outside it is the runtime. When it
dies, its end of each control socket closes with it, and the workers drain.
"""

import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import attrs

from vastar_runtime._version import __version__
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.listeners import Listener
from vastar_runtime.notify import notify
from vastar_runtime.workers.counts import Counts
from vastar_runtime.workers.fleet import Action, Answer, End, Ended, Fleet, Phase, Step
from vastar_runtime.workers.frames import Begin, Cut, Drain, Go, Message, Ready, Refused
from vastar_runtime.workers.journal import Journal
from vastar_runtime.workers.place import NO_DESCRIPTOR, WorkerPlace
from vastar_runtime.workers.questions import Questions
from vastar_runtime.workers.spawning import command, control_pair, spawn
from vastar_runtime.workers.wire_end import WireEnd

__all__ = ["Given", "Shared", "Supervisor"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_LAST_WORDS_S: Final = 1.0
"""What a worker's drain takes longer for, so that those who are cut read it."""


class Shared(Protocol):
    """What all workers keep together."""

    fd: int
    """Of the memory."""
    bells: tuple[tuple[int, int], ...]
    """Pipes with which workers wake each other."""

    def reclaim(self, index: int) -> None:
        """The worker is dead: what it held is everybody's again. Called before it is replaced."""


@attrs.frozen
class Given:
    """What the supervisor has and the workers inherit.

    Attributes:
        listeners: open, the main address first.
        metrics: where scrapers are served, if they are.
        counts_fd: of the page of `counts`.
        counts: the same, mapped.
        shared: what the policies share, if they do.
    """

    listeners: Sequence[Listener]
    metrics: Listener | None
    counts_fd: int
    counts: Counts
    shared: Shared | None = None

    def place(self, index: int, count: int, control_fd: int) -> WorkerPlace:
        """What one worker is told."""
        metrics = self.metrics
        return WorkerPlace(
            index=index,
            count=count,
            control_fd=control_fd,
            memory_fd=NO_DESCRIPTOR if self.shared is None else self.shared.fd,
            counts_fd=self.counts_fd,
            bells=() if self.shared is None else self.shared.bells,
            listeners=tuple((str(each.address), each.socket.fileno()) for each in self.listeners),
            metrics=None if metrics is None else (str(metrics.address), metrics.socket.fileno()),
        )


class Supervisor:
    """All workers of one runtime, until they have ended.

    Args:
        fleet: their lives; none has begun.
        config: what to serve with.
        load: reads it anew, for SIGHUP and `reload`.
        given: what they inherit.
        journal: the log.
        environ: the environment of the workers.
        argv: the command line of a worker.
    """

    def __init__(
        self,
        fleet: Fleet,
        config: RuntimeConfig,
        load: Callable[[], RuntimeConfig],
        *,
        given: Given,
        journal: Journal,
        environ: Mapping[str, str],
        argv: Callable[[WorkerPlace], list[str]] = command,
    ) -> None:
        self.refusal: str | None = None
        """Why a worker could not serve, in its own words."""
        self._fleet = fleet
        self._given = given
        self._journal = journal
        self._environ = environ
        self._argv = argv
        self._chance = random.Random().random  # noqa: S311 - spreads restarts, guards nothing
        self._ends: dict[int, WireEnd] = {}
        self._code: int | None = None
        self._selector = selectors.DefaultSelector()
        self._questions = Questions(
            fleet=fleet,
            config=config,
            load=load,
            send=self._send,
            drain=self._drain,
            journal=journal,
            started_at_s=time.monotonic(),
        )

    def run(self) -> int:
        """Serve until all is over; the exit status."""
        before = self._take_signals()
        try:
            self._obey(self._fleet.tick(time.monotonic()))
            while self._code is None:
                self._turn()
            return self._code
        finally:
            self._leave()
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- the loop -----------------------------------------------------------------------------

    def _turn(self) -> None:
        dues = (self._fleet.next_due_s(), self._questions.next_due_s())
        due_s = min((each for each in dues if each is not None), default=None)
        timeout_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        for key, mask in self._selector.select(timeout_s):
            if key.data is None:
                self._hear_signals()
            else:
                self._hear_worker(key.data, mask)
        now_s = time.monotonic()
        self._obey(self._fleet.tick(now_s))
        self._questions.tick(now_s)

    def _obey(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            match answer:
                case End(code):
                    self._code = code
                case Action(Step.START, index):
                    self._start(index)
                case Action(Step.GO, index):
                    self._go(index)
                case Action(Step.DRAIN, index):
                    self._send(index, Drain())
                case Action(Step.CUT, index):
                    self._send(index, Cut())
                case Action(Step.KILL, index):
                    self._kill(index)

    # --- signals ------------------------------------------------------------------------------

    def _take_signals(self) -> dict[int, Callable[..., object] | int | None]:
        self._signals, waker = socket.socketpair()
        self._signals.setblocking(False)
        waker.setblocking(False)
        self._waker = waker
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._signals, selectors.EVENT_READ)
        return before  # type: ignore[return-value] # what `signal.signal` gives, it takes

    def _hear_signals(self) -> None:
        with suppress(BlockingIOError):
            heard = self._signals.recv(4096)
            # Children first: who has ended is not told to.
            if signal.SIGCHLD in heard:
                self._reap()
            for number in heard:
                if number in {signal.SIGTERM, signal.SIGINT}:
                    self._stop(signal.Signals(number).name)
                elif number == signal.SIGHUP:
                    self._questions.reload(None)

    def _stop(self, name: str) -> None:
        if not self._fleet.is_draining:
            self._journal.info("stopping", signal=name)
            self._drain()
            return
        self._journal.warning("stopping at once: calls in flight are cut", signal=name)
        self._obey(self._fleet.cut(time.monotonic()))

    def _drain(self) -> None:
        times = self._questions.config.server
        self._fleet.settings = attrs.evolve(
            self._fleet.settings, drain_s=max(times.drain_s, times.stream_drain_s) + _LAST_WORDS_S
        )
        notify("STOPPING=1", self._environ)
        # From here on nobody is let in: the workers close their copies as they begin to drain.
        for listener in self._given.listeners:
            listener.leave()
        self._obey(self._fleet.drain(time.monotonic()))

    # --- workers ------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        ours, theirs = control_pair()
        place = self._given.place(index, len(self._fleet.workers), theirs.fileno())
        try:
            with theirs:
                pid = spawn(self._argv(place), place.descriptors(), self._environ)
        except OSError as error:
            ours.close()
            self._journal.error("a worker cannot be started", worker=index, reason=str(error))
            self._obey(self._fleet.could_not_start(index, time.monotonic(), self._chance()))
            return
        self._fleet.started(index, pid, time.monotonic())
        end = self._ends[index] = WireEnd(ours)
        self._selector.register(ours, selectors.EVENT_READ, index)
        self._questions.begun(index)
        end.send(Begin(self._questions.config))
        self._watch(index)
        self._journal.info("worker started", worker=index, worker_pid=pid)

    def _go(self, index: int) -> None:
        self._questions.bring_up_to_date(index)
        self._send(index, Go())
        if self._fleet.workers[index].restarts == 0 and index == len(self._fleet.workers) - 1:
            self._tell_ready()

    def _tell_ready(self) -> None:
        addresses = [str(listener.address) for listener in self._given.listeners]
        with suppress(OSError):  # nobody has to be able to read it
            print(  # noqa: T201 - its contract
                f"vastar-runtime {__version__} ready on {', '.join(addresses)}", flush=True
            )
        notify("READY=1", self._environ)
        self._journal.info(
            "ready",
            version=__version__,
            listeners=addresses,
            workers=len(self._fleet.workers),
        )

    def _hear_worker(self, index: int, mask: int) -> None:
        end = self._ends.get(index)
        if end is None:
            return
        if mask & selectors.EVENT_WRITE:
            end.write()
            self._watch(index)
        if not mask & selectors.EVENT_READ:
            return
        messages = end.read()
        if messages is None:
            # It ends, and the system will say how; one that only lost its socket is of no use.
            self._forget(index)
            grace_s = self._fleet.settings.grace_s
            self._fleet.given_up(index, time.monotonic() + grace_s)
            return
        for message in messages:
            self._hear(index, message)

    def _hear(self, index: int, message: Message) -> None:
        match message:
            case Ready():
                self._obey(self._fleet.ready(index, time.monotonic()))
            case Refused(words):
                self.refusal = self.refusal or words
                self._journal.error("a worker cannot serve", worker=index, reason=words)
            case _:
                self._questions.hear(index, message)

    def _send(self, index: int, message: Message) -> bool:
        end = self._ends.get(index)
        if end is None or not end.send(message):
            return False
        self._watch(index)
        return True

    def _watch(self, index: int) -> None:
        """Wait for room in the socket only while something waits for it."""
        end = self._ends[index]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if end.wants_to_write else 0)
        if self._selector.get_key(end.socket).events != events:
            self._selector.modify(end.socket, events, index)

    def _reap(self) -> None:
        for worker in self._fleet.workers:
            if worker.pid is None:
                continue
            try:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else waited for it
                pid, status = worker.pid, 0
            if pid:
                self._ended(worker.index, Ended(os.waitstatus_to_exitcode(status)))

    def _ended(self, index: int, how: Ended) -> None:
        worker, now_s = self._fleet.workers[index], time.monotonic()
        if (end := self._ends.get(index)) is not None:
            # Its last words may say why.
            for message in end.read() or ():
                if isinstance(message, Refused):
                    self._hear(index, message)
        self._forget(index)
        self._given.counts.clear(index)
        if self._given.shared is not None:
            self._given.shared.reclaim(index)
        expected = self._fleet.is_draining and worker.phase is not Phase.STARTING
        tell = self._journal.info if expected else self._journal.warning
        tell(
            "worker ended",
            worker=index,
            worker_pid=worker.pid,
            reason=str(how),
            after_s=round(now_s - worker.since_s, 3),
        )
        self._obey(self._fleet.ended(index, how, now_s, self._chance()))
        if worker.phase is Phase.RESTING and worker.due_s is not None:
            self._journal.info("worker restarts", worker=index, in_s=round(worker.due_s - now_s, 3))

    def _forget(self, index: int) -> None:
        """Its socket leads nowhere any more."""
        end = self._ends.pop(index, None)
        if end is not None:
            self._selector.unregister(end.socket)
            end.close()
        self._questions.gone(index)

    def _kill(self, index: int) -> None:
        worker = self._fleet.workers[index]
        self._journal.warning("worker killed", worker=index, worker_pid=worker.pid)
        self._kill_now(worker.pid)

    @staticmethod
    def _kill_now(pid: int | None) -> None:
        # Not waited for yet, so the number is still this process's.
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leave(self) -> None:
        """Leave nobody behind, whatever went wrong."""
        for worker in self._fleet.workers:
            self._kill_now(worker.pid)
        for worker in self._fleet.workers:
            if worker.pid is not None:
                with suppress(ChildProcessError):
                    os.waitpid(worker.pid, 0)
            self._forget(worker.index)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._signals.close()
        self._waker.close()
