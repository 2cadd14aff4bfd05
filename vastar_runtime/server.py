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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Final

import attrs
import trio

from vastar_runtime import logs
from vastar_runtime._version import __version__
from vastar_runtime.assembly import Runtime, refuse_unusable
from vastar_runtime.config import ConfigError, RuntimeConfig, parse_tcp_address
from vastar_runtime.listeners import (
    Listener,
    close_listeners,
    open_listeners,
    peer_credentials,
)
from vastar_runtime.logs import get_logger
from vastar_runtime.notify import notify
from vastar_runtime.transport import SocketChannel

__all__ = ["Ending", "run", "serve_listeners"]

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


async def serve_listeners(
    config: RuntimeConfig,
    listeners: Sequence[Listener],
    *,
    metrics: Listener | None = None,
    load: Callable[[], RuntimeConfig] | None = None,
) -> Ending:
    """Serve callers of `listeners` until a signal or `drain` says to stop, and then drain.

    Args:
        config: what to serve with.
        listeners: open; closed when the drain begins.
        metrics: open too, for `GET /metrics`; it is served to the end.
        load: reads the configuration anew.
    """
    runtime = Runtime(config, load=load)
    stop = _Stop(runtime.state.drain_requested)
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        async with trio.open_nursery() as nursery:
            stop.scope = nursery.cancel_scope
            nursery.start_soon(stop.watch, signals)
            nursery.start_soon(_reload_on, hangups, runtime)
            if metrics is not None:
                from vastar_runtime.metrics_listener import serve_metrics  # noqa: PLC0415 - as above

                nursery.start_soon(serve_metrics, metrics.socket, runtime.metrics)
                where = str(metrics.address).removeprefix("tcp:")
                _log.info("metrics", url=f"http://{where}/metrics")
            nursery.start_soon(runtime.run)
            nursery.start_soon(_write_log)
            with trio.CancelScope() as accepting:
                async with trio.open_nursery() as acceptors:
                    for listener in listeners:
                        acceptors.start_soon(_accept, listener, runtime, nursery)
                    _tell_ready(runtime, listeners)
                    await runtime.state.drain_requested.wait()
                    accepting.cancel()
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

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Turn signals into the end, for ever."""
        async for number in signals:
            name = signal.Signals(number).name
            if not self.requested.is_set():
                _log.info("stopping", signal=name)
                self.requested.set()
                continue
            _log.warning("stopping at once: calls in flight are cut", signal=name)
            self.ending = Ending.FORCED
            if self.scope is not None:
                self.scope.cancel()


async def _reload_on(hangups: AsyncIterator[int], runtime: Runtime) -> None:
    """Take up the configuration anew with each SIGHUP; a bad one is refused whole, and told."""
    async for _ in hangups:
        try:
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
    notify("STOPPING=1")
    if not await runtime.drain(times.drain_s, times.stream_drain_s):
        stop.ending = Ending.DRAIN_TIME_OVER


def _tell_ready(runtime: Runtime, listeners: Sequence[Listener]) -> None:
    """One line for people and scripts, one datagram for systemd."""
    runtime.listeners[:] = [str(listener.address) for listener in listeners]
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


async def _write_log() -> None:
    """Write the lines of each turn of the event loop together, for ever."""
    sink = logs.sink()
    if sink is None:
        return
    woken = trio.Event()
    sink.hold_lines(lambda: woken.set())  # noqa: PLW0108 - the event is another one each time
    try:
        while True:
            await woken.wait()
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


async def _accept(listener: Listener, runtime: Runtime, nursery: trio.Nursery) -> None:
    """Accept for ever; being out of descriptors is waited out, with a word in the log."""
    accepting = trio.socket.from_stdlib_socket(listener.socket)
    while True:
        try:
            accepted, _ = await accepting.accept()
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES:
                _log.debug("a connection was gone before it was accepted", errno=error.errno)
                continue
            _log.error("cannot accept connections for now", reason=error.strerror)
            await trio.sleep(_ACCEPT_PAUSE_S)
            continue
        _start_session(accepted, runtime, nursery)


def _start_session(
    accepted: trio.socket.SocketType, runtime: Runtime, nursery: trio.Nursery
) -> None:
    sock = socket.socket(fileno=accepted.detach())
    try:
        who = peer_credentials(sock)
        channel = SocketChannel(sock)
    except OSError as error:  # the caller is gone again
        _log.debug("a connection was gone when it was accepted", errno=error.errno)
        sock.close()
        return
    serve = partial(runtime.serve, channel)
    nursery.start_soon(serve if who is None else partial(serve, uid=who.uid, pid=who.pid))
