"""The one background Trio thread of a process, in which all blocking clients run their calls.

Shape: a daemon thread, started at first use and never stopped: it costs nothing while idle, a call
in an `atexit` handler still works, and the end of the process closes its sockets. It runs a nursery
of its own: a call is a child task with its own cancel scope, never one of Trio's system nursery.

Calls come in through a deque and one wake-up for all of it: threads that submit together share it,
which alone doubles the throughput of 16 threads over `trio.from_thread.run`. The result comes back
through a plain lock, which a KeyboardInterrupt can interrupt. Whatever is submitted begins in one
go, and what that wants written is written once, behind the last of it. A `Job` runs as a task of
its own; a unary call needs none (`_thread_calls`).

A thread that finds a wake-up promised asks for none, which saves it a system call, and everybody a
fight for the interpreter. The emptyings of the deque are counted, and a promise is for one of them:
so none can be taken for a later one. The main thread promises only what it has done already, since
a signal handler may come between any two of its steps, take its time, and make calls itself.

The wake-up is an idempotent `run_sync_soon`, as is everything else that is asked of the loop; on
Linux it is an eventfd that a task of the loop reads. Trio's own way in makes three system calls
where this makes one, and around each of them the two threads may change places: a call of one
thread takes 130 us instead of 144 (measured).

Forks. A child has the memory of this thread but not the thread. So it forgets the thread (the dead
one's objects are kept, never collected: running their `finally` blocks in the child would touch the
epoll descriptor that it shares with its parent) and closes its copies of the sockets, which, unlike
a shutdown, leaves the parent's connections alone.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import anyio
import trio
from anyio.abc import ByteStream, SocketAttribute

import vastar_client._trio_stream  # noqa: F401 - so that no first dial imports it, while others fork
from vastar_client.errors import ConnectionClosed, WrongThreadError
from vastar_client.wire.enums import Disposition

__all__ = ["Job", "LoopThread", "Pushed", "Submitted", "current_loop", "lost", "refuse_loop_thread"]

_T = TypeVar("_T")


class Pushed(Protocol):
    """A connection on which something was lined up."""

    def push(self) -> None:
        """Send it."""


class Submitted(Protocol):
    """What a thread leaves with the loop thread and waits for."""

    def begin(self) -> Pushed | None:
        """Begin it, in the loop thread; what is to be pushed once all others have begun."""

    def settle(self, error: Exception) -> None:
        """Let the waiting thread go with an error, if it still waits."""


class Job(Generic[_T]):
    """One coroutine function to run in the loop thread, and its outcome for one waiting thread."""

    __slots__ = ("_cancelled", "_error", "_finished", "_function", "_loop", "_result", "_scope")

    def __init__(self, loop: "LoopThread", function: Callable[[], Awaitable[_T]]) -> None:
        self._loop = loop
        self._function = function
        self._finished = threading.Lock()
        self._finished.acquire()  # released by `settle`, acquired again by `wait`
        self._scope: trio.CancelScope | None = None
        self._cancelled = False
        self._result: Any = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Start its task."""
        self._loop.under_way.add(self)
        self._loop.start_soon(self._run)

    async def _run(self) -> None:
        try:
            await self.run()
        finally:
            self._loop.under_way.discard(self)

    async def run(self) -> None:
        """Run it, in the loop thread. Only Trio's own Cancelled leaves it."""
        error: BaseException | None = lost()  # what a cancellation leaves behind
        try:
            with trio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                try:
                    self._result = await self._function()
                    error = None
                except Exception as raised:  # noqa: BLE001  # it is raised in the waiting thread
                    error = raised
        finally:
            self.settle(error)

    def settle(self, error: BaseException | None) -> None:
        """Let the waiting thread go, with an error or with the result; the first time counts."""
        if self._finished.locked():
            self._error = error
            self._finished.release()

    def wait(self) -> _T:
        """The result, once, in any thread but the loop's. Whatever interrupts it cancels the job.

        Raises:
            Exception: what the function raised.
            ConnectionClosed: the loop died.
        """
        settled = False
        try:
            settled = self._finished.acquire()
        finally:
            if not settled:
                self.cancel_soon()
        if self._error is not None:
            raise self._error
        result: _T = self._result
        return result

    def cancel_soon(self) -> None:
        """Cancel it, from any thread: its waiting thread gets a ConnectionClosed."""
        self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


class LoopThread:
    """A Trio run in a daemon thread."""

    def __init__(self) -> None:
        self.pid: Final = os.getpid()
        self.sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self.under_way: set[Submitted] = set()
        self._submitted: deque[Submitted] = deque()
        self._emptied = 0
        self._promised = -1
        self._main_ident = threading.main_thread().ident
        self._bell: int | None = None
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._run, name="vastar-client", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def alive(self) -> bool:
        """Whether jobs can be given to it, in this process.

        None can at the interpreter's end: a daemon thread runs no more then, and a generator that
        is closed by the collector, with a stream in its hands, would wait for ever.
        """
        return self._token is not None and self.pid == os.getpid() and not sys.is_finalizing()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in this very thread."""
        return threading.get_ident() == self._thread.ident

    def _run(self) -> None:
        try:
            trio.run(self._main)
        finally:
            self._token = None
            self._started.set()
            for submitted in (*self.under_way, *self._submitted):
                submitted.settle(lost())

    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            if sys.platform == "linux":
                # Never closed: a thread could write to what has its number by then.
                self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._nursery.start_soon(self._answer_bell, self._bell)
            anyio.current_time()  # imports what anyio needs, while no fork can happen
            self._started.set()
            await trio.sleep_forever()

    def submit(self, function: Callable[[], Awaitable[_T]]) -> Job[_T]:
        """Start `function` as a task of its own; from any thread.

        Raises:
            ConnectionClosed: the loop is dead.
        """
        job = Job(self, function)
        self.post(job)
        return job

    def post(self, submitted: Submitted) -> None:
        """Have `submitted` begun; from any thread.

        Raises:
            ConnectionClosed: the loop is dead.
        """
        self._submitted.append(submitted)
        emptied = self._emptied
        # Behind the append: a loop that dies now settles what it finds in the deque. And a forked
        # child has copies of the promises of its parent, which nobody keeps there.
        if self._promised == emptied and self.alive:
            return
        if threading.get_ident() != self._main_ident:
            self._promised = emptied
        try:
            has_loop = self._wake()
        except BaseException:  # thrown in from outside: others rely on the promise
            self._wake()
            raise
        if not has_loop:
            raise lost()
        self._promised = emptied

    def _wake(self) -> bool:
        """Have the deque emptied; whether there is a loop to do it."""
        if sys.platform == "linux" and self._bell is not None and self.alive:
            os.eventfd_write(self._bell, 1)
            return True
        return self.call_soon(self._begin_submitted)

    if sys.platform == "linux":

        async def _answer_bell(self, bell: int) -> None:
            while True:
                await trio.lowlevel.wait_readable(bell)
                os.eventfd_read(bell)
                self._begin_submitted()

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have `function` called in the loop thread, once for any number of calls before it.

        Returns:
            Whether there is a loop to call it.
        """
        token = self._token
        if token is None or not self.alive:
            return False
        try:
            token.run_sync_soon(function, idempotent=True)
        except trio.RunFinishedError:
            return False
        return True

    def _begin_submitted(self) -> None:
        self._emptied += 1  # before anything is taken: who submits from now on wakes it again
        pushed: set[Pushed] = set()
        while self._submitted:
            to_push = self._submitted.popleft().begin()
            if to_push is not None:
                pushed.add(to_push)
        for connection in pushed:
            connection.push()

    def start_soon(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run `function` as a task of its own; from the loop thread."""
        self._nursery.start_soon(function)

    def remember(self, stream: ByteStream) -> None:
        """Note the socket of `stream`, so that a forked child can close its copy."""
        raw = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # not Django's
        if raw is not None:
            self.sockets.add(raw)


def lost() -> ConnectionClosed:
    """What a call ends with that was cancelled, or whose loop has died."""
    return ConnectionClosed(
        "the call was cancelled, or the background thread of the client has ended",
        disposition=Disposition.UNKNOWN,
    )


class _Current:
    """The loop of this process."""

    loop: LoopThread | None = None
    forgotten: Final[list[LoopThread]] = []
    """Loops of parent processes, kept from the garbage collector (see the module's text)."""


def current_loop() -> LoopThread:
    """The loop of this process, started if need be. One thread at a time: `blocking` locks.

    Raises:
        ConnectionClosed: the interpreter ends, and no thread can be started any more.
    """
    if sys.is_finalizing():
        raise lost()
    loop = _Current.loop
    if loop is not None and loop.pid != os.getpid():
        _forget(loop)  # a fork that did not call the hooks
        loop = None
    if loop is None or not loop.alive:
        loop = _Current.loop = LoopThread()
    return loop


def refuse_loop_thread() -> None:
    """Raise where a blocking call would stop the loop that has to answer it.

    Raises:
        WrongThreadError: the caller runs inside a Trio loop, the client's own or another.
    """
    loop = _Current.loop
    if loop is not None and loop.is_current_thread and loop.alive:
        raise WrongThreadError(
            "RuntimeClient was called in its own background thread, where waiting would be for "
            "ever: call it from another thread, or use AsyncRuntimeClient"
        )
    if trio.lowlevel.in_trio_run():
        raise WrongThreadError(
            "RuntimeClient blocks and would stop the Trio loop of this thread: use "
            "AsyncRuntimeClient, or trio.to_thread.run_sync"
        )


def _forget(loop: LoopThread) -> None:
    """Let go of a parent's loop, in a child."""
    _Current.forgotten.append(loop)
    _Current.loop = None
    for raw in list(loop.sockets):
        raw.close()


def _after_fork_in_child() -> None:
    if _Current.loop is not None:
        _forget(_Current.loop)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
