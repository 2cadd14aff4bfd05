"""Another process, held so that its number cannot come to mean a different one.

A pidfd where the system has it (Linux): it also tells the end of a process that nobody has reaped.
Elsewhere the pid itself, polled.
"""

import os
import select
import signal
import time
from typing import Final

__all__ = ["Process"]

_POLL_S: Final = 0.05


class Process:
    """A process of this machine.

    Args:
        pid: its number.

    Raises:
        ProcessLookupError: there is none.
        PermissionError: it may not be touched.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        if self._fd < 0:
            os.kill(pid, 0)

    def close(self) -> None:
        """Let go of it; it runs on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is gone."""
        try:
            if self._fd >= 0:
                signal.pidfd_send_signal(self._fd, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting at most `timeout_s` for that."""
        if self._fd >= 0:
            readable, _, _ = select.select([self._fd], [], [], max(0.0, timeout_s))
            return bool(readable)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(_POLL_S)
        return False
