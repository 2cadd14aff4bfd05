"""What a test may not leave behind: child processes and threads that keep an interpreter alive.

A fixture of a wider scope than one test, which holds a process on purpose, names it with `keep`
until it has ended it. Unclosed sockets and files need no code here: they warn when they are
collected, and warnings are errors.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["children", "keep", "left_behind", "threads"]

GRACE_S = 2.0
"""A thread that was told to end may need a moment for it."""

_kept: set[int] = set()


@contextmanager
def keep(pid: int) -> Iterator[None]:
    """Let the process `pid` outlive the test that started it, until the block ends."""
    _kept.add(pid)
    try:
        yield
    finally:
        _kept.discard(pid)


def children() -> dict[int, str]:
    """The live and the unreaped children of this process: pid to command line (Linux only)."""
    found: dict[int, str] = {}
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            pids = task.read_text().split()
        except OSError:
            continue  # the thread ended meanwhile
        for pid in pids:
            found[int(pid)] = _command_line(pid)
    return found


def _command_line(pid: str) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "(gone)"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip() or "(ended, not waited for)"


def threads() -> set[threading.Thread]:
    """The threads that would keep the interpreter from ending."""
    return {t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()}


def left_behind(children_before: set[int], threads_before: set[threading.Thread]) -> list[str]:
    """One line for each thing that is there now and was not before."""
    lines = [
        f"child process {pid}: {command}"
        for pid, command in children().items()
        if pid not in children_before and pid not in _kept and pid != os.getpid()
    ]
    ends_at = time.monotonic() + GRACE_S
    for thread in threads() - threads_before:
        thread.join(max(0.0, ends_at - time.monotonic()))
        if thread.is_alive():
            lines.append(f"thread {thread.name}")
    return lines
