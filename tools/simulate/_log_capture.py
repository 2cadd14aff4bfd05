"""The log of the runtime while it is simulated: kept off the terminal, and looked through for bugs.

Lines go to a file without a name. Only what the runtime calls an internal error is looked for: all
else it may say as it likes. Real times are in the lines, so nothing of them is in the event log.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from vastar_runtime import logs

__all__ = ["captured_log"]


@contextmanager
def captured_log() -> Iterator[Callable[[], list[str]]]:
    """Log into nothing; gives what tells the internal errors since it was asked last."""
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        logs.configure("error", "json", fd)
        seen = 0

        def news() -> list[str]:
            nonlocal seen
            size = os.fstat(fd).st_size
            if size == seen:
                return []
            lines = os.pread(fd, size - seen, seen).splitlines()
            seen = size
            told = [msgspec.json.decode(line) for line in lines]
            # The audit log is written whatever the level is: a reload is no error.
            return [_text(fields) for fields in told if not fields.get("audit")]

        try:
            yield news
        finally:
            logs.configure("info", "console", 2)


def _text(fields: dict[str, Any]) -> str:
    exception = str(fields.get("exception", "")).strip().splitlines()
    return f"{fields.get('event')}: {exception[-1] if exception else fields}"
