"""`stop`: ask a runtime to finish its calls and leave, and wait until it has.

It is asked over its own protocol; the signal is for a runtime that does not answer, and goes only
to a process that the kernel (not a file, not the peer's word) names: the holder of a lock that is
our own, or who listens on the socket.
"""

import argparse
import signal
import sys
import time
from typing import Final

from vastar_runtime.cli._process import Process
from vastar_runtime.cli._target import holder_at, load_from_options, target_of
from vastar_runtime.cli.control import ControlClient, ControlError, NotRunningError
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import Address, RuntimeConfig

__all__ = ["stop"]

_GRACE_S: Final = 10.0
_TIDY_S: Final = 0.5
_POLL_S: Final = 0.1


def stop(options: argparse.Namespace) -> ExitCode:
    """Stop the runtime; 0 when it is gone (or never was), 5 when calls still keep it.

    Raises:
        ControlError: it can neither be asked nor signalled.
        RuntimeFileError: its lock cannot be trusted.
    """
    address = target_of(options)
    deadline_s = time.monotonic() + _timeout_s(options)
    process, refusal = _ask_to_drain(address)
    try:
        if isinstance(refusal, NotRunningError) and process is None:
            print(f"not running: {refusal}")
            return ExitCode.OK
        if refusal is not None or options.now:
            if process is None:
                raise refusal or ControlError(f"{address}: --now needs its pid, which is unknown")
            _signal(process, asked=refusal is None, now=options.now)
        if not _wait(address, process, deadline_s):
            print(
                f"{address}: still finishing calls; wait with stop again, or cut them off with "
                "stop --now",
                file=sys.stderr,
            )
            return ExitCode.TIMED_OUT
    finally:
        if process is not None:
            process.close()
    print(f"stopped: {address}")
    return ExitCode.OK


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


def _timeout_s(options: argparse.Namespace) -> float:
    if options.timeout_s is not None:
        return float(options.timeout_s)
    if options.socket is None and not options.tcp:
        return load_from_options(options).config.server.drain_s + _GRACE_S
    return RuntimeConfig().server.drain_s + _GRACE_S


def _ask_to_drain(address: Address) -> tuple[Process | None, ControlError | None]:
    """The runtime's process where it can be told, and why asking did not work, if it did not."""
    process = None
    try:
        with ControlClient(address) as client:
            peer = client.peer
            process = _hold(peer.pid) if peer is not None and peer.pid else None
            client.call("drain")
    except ControlError as error:
        return process or _holder(address), error
    return process or _holder(address), None


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


def _wait(address: Address, process: Process | None, deadline_s: float) -> bool:
    if process is not None:
        return process.wait(deadline_s - time.monotonic())
    while time.monotonic() < deadline_s:
        try:
            ControlClient(address).close()
        except NotRunningError:
            return True
        time.sleep(_POLL_S)
    return False
