"""A runtime of several workers beside a test: what it tells, and where its processes are."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from vastar_runtime.cli.control import ControlClient
from vastar_runtime.config import UnixAddress

_WAIT_S = 20
_POLL_S = 0.02


@attrs.frozen
class Team:
    """A `serve --workers` process, by its socket."""

    socket: str

    def call(self, operation: str, **about: object) -> dict[str, Any]:
        with ControlClient(UnixAddress(self.socket), timeout_s=_WAIT_S) as client:
            return client.call(operation, about)

    def rows(self) -> list[dict[str, Any]]:
        """The workers as `status` tells of them."""
        found: list[dict[str, Any]] = self.call("status")["workers"]
        return found

    def pids(self) -> list[int]:
        return [row["pid"] for row in self.rows()]

    def states(self) -> list[str]:
        return [row["state"] for row in self.rows()]


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Look again and again: of another process nothing tells."""
    deadline_s = time.monotonic() + _WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"waited in vain until {what}"
        time.sleep(_POLL_S)


def is_alive(pid: int) -> bool:
    """Whether there is a process, and not only what its parent has not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return told.rpartition(")")[2].split()[0] != "Z"
