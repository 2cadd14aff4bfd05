"""What the exit status of a command says. Scripts depend on the numbers: append, never renumber.

3 for "not running" is what the Linux Standard Base has `status` say; 2 for usage is argparse's.
"""

from enum import IntEnum
from typing import Final

__all__ = ["EXPLAINED", "ExitCode"]


class ExitCode(IntEnum):
    """The exit status of every command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_RUNNING = 3
    ALREADY_RUNNING = 4
    TIMED_OUT = 5
    FORCED = 6
    TRANSIENT = 7
    PERMANENT = 8
    RATE_LIMITED = 9
    INVALID_REQUEST = 10
    HTTP_ERROR = 11
    INTERRUPTED = 130


EXPLAINED: Final = {
    ExitCode.OK: "done (status: it runs; stop, clean: also when there was nothing to do)",
    ExitCode.ERROR: "it failed; the message says why",
    ExitCode.USAGE: "a wrong option, or a configuration that cannot be used",
    ExitCode.NOT_RUNNING: "status, call, reload: no runtime there",
    ExitCode.ALREADY_RUNNING: "serve, start, clean: a runtime is alive there",
    ExitCode.TIMED_OUT: "start: not ready in time; stop: still finishing calls; call: no time left",
    ExitCode.FORCED: "serve: ended by a second signal, calls in flight were cut",
    ExitCode.TRANSIENT: "call: it failed; the same may succeed later",
    ExitCode.PERMANENT: "call: it failed, and will fail again",
    ExitCode.RATE_LIMITED: "call: a limit on calls or tokens was reached",
    ExitCode.INVALID_REQUEST: "call: the runtime found the request wrong",
    ExitCode.HTTP_ERROR: "call: answered with a status of 400 or more; the answer was printed",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}
