"""`stop`: ask a runtime to finish its calls and leave, and wait until it has.

It is asked over its own protocol; the signal is for a runtime that does not answer, and goes only
to a process that the kernel (not a file, not the peer's word) names, and that is a runtime: the
holder of a lock that is our own, or who listens on the socket and answers a health check. Any other
program that listens there is left alone. A runtime that is leaving already is only waited for:
another signal would cut its calls.
"""

import argparse
import math
import signal
import sys
import time
from contextlib import ExitStack
from typing import Any, Final

import attrs

from vastar_runtime.cli._process import Process
from vastar_runtime.cli._target import holder_at, is_leaving_at, load_from_options, target_of
from vastar_runtime.cli.control import ControlClient, ControlError, NotRunningError
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import Address, RuntimeConfig
from vastar_runtime.listeners import PeerCredentials
from vastar_runtime.runtime_files import ForeignListenerError, RuntimeFileError

__all__ = ["Waiting", "stop"]

_GRACE_S: Final = 10.0
_TIDY_S: Final = 0.5
_POLL_S: Final = 0.1
_TOLD_EVERY_S: Final = 1.0
_TOLD_ELSEWHERE_EVERY_S: Final = 60.0
_HEALTH_S: Final = 1.0
_ANSWER_S: Final = 5.0
"""How long a runtime may take to show that it is one."""


def stop(options: argparse.Namespace) -> ExitCode:
    """Stop the runtime; 0 when it is gone (or never was), 5 when calls still keep it.

    Raises:
        ControlError: it can neither be asked nor signalled.
        ForeignListenerError: what listens there is no runtime.
        RuntimeFileError: its lock cannot be trusted.
    """
    address = target_of(options)
    began_s = time.monotonic()
    with ExitStack() as stack:
        client, process, refusal = _reach(address, stack)
        drain_s: float | None = None
        if client is not None:
            drain_s, refusal = _ask_to_drain(client)
        if isinstance(refusal, NotRunningError) and process is None:
            print(f"not running: {refusal}")
            return ExitCode.OK
        is_leaving = refusal is None or _is_leaving(address)
        if not is_leaving or options.now:
            if process is None:
                raise refusal or ControlError(f"{address}: --now needs its pid, which is unknown")
            _signal(process, asked=is_leaving, now=options.now)
        timeout_s = options.timeout_s
        if timeout_s is None:
            timeout_s = (_configured_s(options) if drain_s is None else drain_s) + _GRACE_S
        waiting = Waiting(str(address), began_s, timeout_s, is_terminal=sys.stderr.isatty())
        if not _wait(address, process, client, waiting):
            print(
                f"{address}: still finishing calls; wait with stop again, or cut them off with "
                "stop --now",
                file=sys.stderr,
            )
            return ExitCode.TIMED_OUT
    print(f"stopped: {address}")
    return ExitCode.OK


@attrs.define
class Waiting:
    """Tells how the wait goes: a line that is drawn anew on a terminal, else one now and then.

    Attributes:
        address: of the runtime.
        began_s: when the wait began, by the monotonic clock.
        timeout_s: how long it takes at most.
        is_terminal: whether standard error is one.
    """

    address: str
    began_s: float
    timeout_s: float
    is_terminal: bool
    _told_s: float = attrs.field(init=False)
    _width: int = 0

    def __attrs_post_init__(self) -> None:
        """Whoever goes within the first second is not spoken of."""
        self._told_s = self.began_s + _TOLD_EVERY_S - self._every_s

    @property
    def _every_s(self) -> float:
        return _TOLD_EVERY_S if self.is_terminal else _TOLD_ELSEWHERE_EVERY_S

    def is_due(self, now_s: float) -> bool:
        """Whether it is time for a word."""
        return now_s >= self._told_s + self._every_s

    def left_s(self, now_s: float) -> float:
        """How much longer it takes at most."""
        return self.began_s + self.timeout_s - now_s

    def tell(self, now_s: float, calls: int | None) -> None:
        """Say how many calls there still are, where that is known."""
        self._told_s = now_s
        what = "calls" if calls is None else f"{calls} call{'' if calls == 1 else 's'}"
        passed_s, most_s = math.floor(now_s - self.began_s), math.ceil(self.timeout_s)
        line = f"{self.address}: finishing {what}, {passed_s} s of at most {most_s} s"
        if self.is_terminal:
            print(f"\r{line.ljust(self._width)}", end="", file=sys.stderr, flush=True)
            self._width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def over(self) -> None:
        """The wait is over: what is printed next begins a line of its own."""
        if self._width:
            print(file=sys.stderr)


def _signal(process: Process, *, asked: bool, now: bool) -> None:
    """SIGTERM for a runtime that could not be asked; one signal more cuts off its calls.

    An idle runtime is given the time to leave first: a signal that meets it tidying up would end
    it with its files still there.
    """
    if not asked:
        process.send(signal.SIGTERM)
    if now and not process.wait(_TIDY_S):
        # Another signal than the first: two alike that are pending become one.
        process.send(signal.SIGINT)


def _configured_s(options: argparse.Namespace) -> float:
    """How long calls and streams get, as far as it can be known without being told."""
    if options.socket is None and not options.tcp:
        server = load_from_options(options).config.server
    else:
        server = RuntimeConfig().server
    return max(server.drain_s, server.stream_drain_s)


def _reach(
    address: Address, stack: ExitStack
) -> tuple[ControlClient | None, Process | None, ControlError | None]:
    """A connection to it and its process, each where it is to be had; and what stood in the way.

    Raises:
        ForeignListenerError: what listens there holds no lock, and answers no health check.
        RuntimeFileError: its lock cannot be trusted, and nobody listens.
    """
    client: ControlClient | None = None
    refusal: ControlError | None = None
    process: Process | None = None
    try:
        client = stack.enter_context(ControlClient(address))
    except ControlError as error:
        refusal = error
    try:
        process = _holder(address)
    except RuntimeFileError:
        if client is None:
            raise
    if process is None and client is not None and client.peer is not None:
        process = _answering(client, client.peer, address)
    if process is not None:
        stack.callback(process.close)
    return client, process, refusal


def _answering(client: ControlClient, peer: PeerCredentials, address: Address) -> Process | None:
    """The process at the other end, which is a runtime by what it answers."""
    process = _hold(peer.pid) if peer.pid else None
    try:
        client.health(_ANSWER_S)
    except ControlError:
        if process is not None:
            process.close()
        raise ForeignListenerError(str(address), peer.pid) from None
    return process


def _ask_to_drain(client: ControlClient) -> tuple[float | None, ControlError | None]:
    """Ask it: how long it gives its calls, where it says so; and why it did not work, if so."""
    try:
        told: Any = client.call("drain").get("drain_s")
    except ControlError as error:
        return None, error
    return float(told) if isinstance(told, float | int) else None, None


def _is_leaving(address: Address) -> bool:
    try:
        return is_leaving_at(address)
    except RuntimeFileError:
        return False  # it is known by its socket alone


def _holder(address: Address) -> Process | None:
    pid = holder_at(address)
    process = _hold(pid) if pid is not None else None
    if process is not None and holder_at(address) != pid:
        # It went between the two looks, and the number may be another's by now.
        process.close()
        return None
    return process


def _hold(pid: int) -> Process | None:
    try:
        return Process(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _wait(
    address: Address, process: Process | None, client: ControlClient | None, waiting: Waiting
) -> bool:
    """Whether it has gone, after waiting at most as long as `waiting` says."""
    try:
        while True:
            now_s = time.monotonic()
            left_s = waiting.left_s(now_s)
            if _has_gone(address, process, max(0.0, min(left_s, _POLL_S))):
                return True
            if left_s <= 0:
                return False
            if waiting.is_due(now_s):
                calls, client = _count(client)
                waiting.tell(now_s, calls)
    finally:
        waiting.over()


def _has_gone(address: Address, process: Process | None, patience_s: float) -> bool:
    if process is not None:
        return process.wait(patience_s)
    try:
        ControlClient(address).close()
    except NotRunningError:
        return True
    time.sleep(patience_s)
    return False


def _count(client: ControlClient | None) -> tuple[int | None, ControlClient | None]:
    """How many calls are in flight, by a connection from before; and that, if it is still good."""
    try:
        return (client.health(_HEALTH_S).active_requests, client) if client else (None, None)
    except ControlError:
        return None, None
