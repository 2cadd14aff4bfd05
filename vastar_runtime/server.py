"""The daemon: listens, accepts, drains, ends.

Life: open the listeners (before the event loop runs, all or none) > say that it is ready > accept,
each connection a session in one nursery > on SIGTERM, SIGINT or `drain` stop accepting, refuse new
calls, wait for those in flight > close everything. A second signal ends it at once.
"""

import errno
import gc
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any, Final

import attrs
import trio

from vastar_runtime import audit, logs
from vastar_runtime._version import __version__
from vastar_runtime.assembly import Runtime
from vastar_runtime.config import ConfigError, RuntimeConfig, parse_tcp_address, taken_up
from vastar_runtime.listeners import (
    Listener,
    close_listeners,
    inherited,
    is_readable,
    open_listeners,
)
from vastar_runtime.logs import get_logger
from vastar_runtime.notify import notify
from vastar_runtime.pipeline.making import SharedMaker
from vastar_runtime.receiving import receive
from vastar_runtime.runtime_files import RuntimeFileError
from vastar_runtime.unusable import refuse_unusable
from vastar_runtime.workers.counts import POLL_S, Counts, Turn
from vastar_runtime.workers.link import Link, receive_begin, refuse
from vastar_runtime.workers.place import NO_DESCRIPTOR, WorkerPlace
from vastar_runtime.workers.team import TeamError

__all__ = ["Ending", "run", "run_worker", "serve_listeners"]

_ACCEPT_PAUSE_S: Final = 0.1
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = get_logger(__name__)


class Ending(Enum):
    """How the daemon came to its end."""

    DRAINED = auto()
    """All calls were answered."""
    DRAIN_TIME_OVER = auto()
    """Calls that were still under way after the drain time were cut."""
    FORCED = auto()
    """A second signal cut the calls under way."""


def run(config: RuntimeConfig, load: Callable[[], RuntimeConfig] | None = None) -> Ending:
    """Serve until told to stop.

    Args:
        config: what to serve with.
        load: reads it anew, for SIGHUP and `reload`; the same again by default.

    Raises:
        AlreadyRunningError: a runtime serves one of the addresses.
        RuntimeFileError: an address cannot be used.
        ConfigError: a certificate file or a proxy cannot be used.
    """
    refuse_unusable(config, os.environ)
    audit.configure(config.audit.path)
    listeners = open_listeners(config.server)
    metrics: Listener | None = None
    _settle_garbage_collector()
    _raise_descriptor_limit()
    try:
        if config.metrics.listen is not None:
            # It loads an HTTP server, which nobody else needs.
            from vastar_runtime.metrics_listener import open_metrics_listener  # noqa: PLC0415 - as said

            metrics = open_metrics_listener(parse_tcp_address(config.metrics.listen))
        return trio.run(partial(serve_listeners, config, listeners, metrics=metrics, load=load))
    finally:
        close_listeners(listeners)
        if metrics is not None:
            metrics.socket.close()
        _log.info("stopped")


def run_worker(place: WorkerPlace) -> Ending:
    """Serve as one of several workers, until the supervisor says otherwise or is gone.

    Raises:
        ConfigError: it cannot serve with what the supervisor gave it, who is told why.
        FrameError: there is no supervisor at the other end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for fd in place.descriptors():
        os.set_inheritable(fd, False)
    control = socket.socket(fileno=place.control_fd)
    config = receive_begin(control)
    logs.configure(config.log.level, config.log.format)
    try:
        refuse_unusable(config, os.environ)
        audit.configure(config.audit.path)
    except (ConfigError, RuntimeFileError) as error:
        refuse(control, str(error))
        raise
    # Only workers share anything.
    from vastar_runtime.sharing.sharing import Sharing  # noqa: PLC0415 - as said

    _settle_garbage_collector()
    _raise_descriptor_limit()
    listeners = [inherited(address, fd) for address, fd in place.listeners]
    metrics = None if place.metrics is None else inherited(*place.metrics)
    counts = Counts(place.counts_fd, place.count)

    async def serve() -> Ending:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(control))
        link = Link(place, stream, counts)
        sharing = None
        if place.memory_fd != NO_DESCRIPTOR:
            sharing = Sharing.join(place.memory_fd, place.index, place.bells)
        return await serve_listeners(config, listeners, metrics=metrics, link=link, sharing=sharing)

    return trio.run(serve)


async def serve_listeners(
    config: RuntimeConfig,
    listeners: Sequence[Listener],
    *,
    metrics: Listener | None = None,
    load: Callable[[], RuntimeConfig] | None = None,
    link: Link | None = None,
    sharing: SharedMaker | None = None,
) -> Ending:
    """Serve callers of `listeners` until a signal or `drain` says to stop, and then drain.

    Args:
        config: what to serve with.
        listeners: open; closed when the drain begins.
        metrics: open too, for `GET /metrics`; it is served to the end.
        load: reads the configuration anew.
        link: to the supervisor, where this is one of several workers: it tells when to accept, to
            drain and to reload.
        sharing: makes what its policies share with the other workers.
    """
    runtime = Runtime(config, load=load, team=link, sharing=sharing)
    stop = _Stop(runtime.state.drain_requested, is_worker=link is not None)
    # A worker hears of Ctrl-C from its supervisor.
    stopping = (signal.SIGTERM, signal.SIGINT) if link is None else (signal.SIGTERM,)
    with (
        trio.open_signal_receiver(*stopping) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        async with trio.open_nursery() as nursery:
            stop.scope = nursery.cancel_scope
            nursery.start_soon(stop.watch, signals)
            nursery.start_soon(_reload_on, hangups, runtime, link)
            if link is not None:
                nursery.start_soon(link.run, _Host(runtime, stop))
            if metrics is not None:
                from vastar_runtime.metrics_listener import serve_metrics  # noqa: PLC0415 - as above

                render = runtime.metrics if link is None else link.metrics
                nursery.start_soon(serve_metrics, metrics.socket, render)
                where = str(metrics.address).removeprefix("tcp:")
                _log.info("metrics", url=f"http://{where}/metrics")
            nursery.start_soon(runtime.run)
            nursery.start_soon(_write_log)
            runtime.listeners[:] = [str(listener.address) for listener in listeners]
            with trio.CancelScope() as accepting:
                async with trio.open_nursery() as acceptors:
                    if link is not None:
                        await link.begin()
                    for listener in listeners:
                        acceptors.start_soon(_accept, listener, runtime, nursery, link)
                    if link is None:
                        _tell_ready(runtime)
                    await runtime.state.drain_requested.wait()
                    accepting.cancel()
            if link is not None:
                link.turn.close()
            for listener in listeners:
                listener.leave()
            await _drain(runtime, stop)
            nursery.cancel_scope.cancel()
    return stop.ending


@attrs.define(eq=False)
class _Stop:
    """Signals and what they lead to: the first begins the drain, the second ends it."""

    requested: trio.Event
    scope: trio.CancelScope | None = None
    ending: Ending = Ending.DRAINED
    is_worker: bool = False

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Turn signals into the end, for ever."""
        heard = 0
        async for number in signals:
            heard += 1
            name = signal.Signals(number).name
            if not self.requested.is_set():
                _log.info("stopping", signal=name)
                self.requested.set()
                continue
            if self.is_worker and heard == 1:
                # systemd tells all processes of the service what the supervisor tells too.
                continue
            _log.warning("stopping at once: calls in flight are cut", signal=name)
            self.cut()

    def cut(self) -> None:
        """End it at once."""
        self.ending = Ending.FORCED
        if self.scope is not None:
            self.scope.cancel()


@attrs.frozen
class _Host:
    """This worker, as its supervisor sees it."""

    runtime: Runtime
    stop: _Stop

    def account(self, *, verbose: bool) -> dict[str, Any]:
        """What `status` tells of it."""
        return self.runtime.account(verbose=verbose)

    async def metrics(self) -> bytes:
        """The text of this worker alone."""
        return await self.runtime.metrics()

    def check(self, config: RuntimeConfig) -> None:
        """Raises ConfigError when it cannot serve with this."""
        refuse_unusable(config, os.environ)
        taken_up(self.runtime.config, config)

    def take_up(self, config: RuntimeConfig) -> Mapping[str, Any]:
        """Serve with this; raises ConfigError, and then nothing has changed."""
        return self.runtime.take_up(config)

    def drain(self) -> None:
        """Refuse new calls, finish the others, end."""
        self.stop.requested.set()

    def cut(self) -> None:
        """End now."""
        self.stop.cut()


async def _reload_on(hangups: AsyncIterator[int], runtime: Runtime, link: Link | None) -> None:
    """Take up the configuration anew with each SIGHUP; a bad one is refused whole, and told."""
    async for _ in hangups:
        try:
            if link is not None:
                with suppress(TeamError):  # the supervisor logs why
                    await link.reload()
                continue
            runtime.reload()
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
            _log.error("the new configuration is refused, the old one holds", problems=problems)


async def _drain(runtime: Runtime, stop: _Stop) -> None:
    times = runtime.config.server
    _log.info(
        "draining",
        in_flight=runtime.state.calls_in_flight,
        drain_s=times.drain_s,
        stream_drain_s=times.stream_drain_s,
    )
    audit.audit("draining", in_flight=runtime.state.calls_in_flight)
    notify("STOPPING=1")
    if not await runtime.drain(times.drain_s, times.stream_drain_s):
        stop.ending = Ending.DRAIN_TIME_OVER


def _tell_ready(runtime: Runtime) -> None:
    """One line for people and scripts, one datagram for systemd."""
    where = ", ".join(runtime.listeners)
    with suppress(OSError):  # nobody has to be able to read it
        print(f"vastar-runtime {__version__} ready on {where}", flush=True)  # noqa: T201 - its contract
    notify("READY=1")
    _log.info("ready", version=__version__, listeners=runtime.listeners)


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the host allows: the usual 1024 are fewer than the pool has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS has a limit below the one it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_LOG_DELAY_S: Final = 0.01
"""A write, and the turn of the task that makes it, take as long as the lines of two calls."""


async def _write_log() -> None:
    """Write lines together, for ever; what is urgent does not wait for it (`LineSink`)."""
    sink = logs.sink()
    if sink is None:
        return
    woken = trio.Event()
    sink.hold_lines(lambda: woken.set())  # noqa: PLW0108 - the event is another one each time
    try:
        while True:
            await woken.wait()
            await trio.sleep(_LOG_DELAY_S)
            woken = trio.Event()
            sink.flush()
    finally:
        sink.hold_lines(None)


def _settle_garbage_collector() -> None:
    """Keep what the imports made out of every collection, and collect the young less often.

    A call makes some hundred objects and keeps none: at the default thresholds the collector runs
    every few calls and finds nothing. Measured: 2 to 3% of a call's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _accept(
    listener: Listener, runtime: Runtime, nursery: trio.Nursery, link: Link | None
) -> None:
    """Accept for ever; being out of descriptors is waited out, with a word in the log."""
    accepting = trio.socket.from_stdlib_socket(listener.socket)
    while True:
        try:
            if link is not None:
                await _await_turn(listener.socket, link.turn)
                sock, _ = listener.socket.accept()
            else:
                accepted, _ = await accepting.accept()
                sock = socket.socket(fileno=accepted.detach())
        except BlockingIOError:
            if link is not None:
                link.turn.missed()
            continue
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES:
                _log.debug("a connection was gone before it was accepted", errno=error.errno)
                continue
            _log.error("cannot accept connections for now", reason=error.strerror)
            await trio.sleep(_ACCEPT_PAUSE_S)
            continue
        if link is None:
            nursery.start_soon(receive, runtime, sock)
        else:
            link.turn.taken()
            nursery.start_soon(_receive_counted, runtime, sock, link.turn)


async def _await_turn(listening: socket.socket, turn: Turn) -> None:
    """Return when there is a connection, and this worker is the one to accept it."""
    await trio.lowlevel.wait_readable(listening)
    while not turn.is_mine(trio.current_time()):
        await trio.sleep(POLL_S)
        if not is_readable(listening):
            turn.missed()
            await trio.lowlevel.wait_readable(listening)


async def _receive_counted(runtime: Runtime, sock: socket.socket, turn: Turn) -> None:
    try:
        await receive(runtime, sock)
    finally:
        turn.left()
