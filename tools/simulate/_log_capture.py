"""The log of the runtime while it is simulated: kept off the terminal, and looked through for bugs.

Lines go to a file without a name. Only what the runtime calls an internal error is looked for: all
else it may say as it likes. Real times are in the lines, so nothing of them is in the event log.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
            return [_text(line) for line in lines]

        try:
            yield news
        finally:
            logs.configure("info", "console", 2)


def _text(line: bytes) -> str:
    fields = msgspec.json.decode(line)
    exception = str(fields.get("exception", "")).strip().splitlines()
    return f"{fields.get('event')}: {exception[-1] if exception else fields}"
