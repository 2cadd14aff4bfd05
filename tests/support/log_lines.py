"""The log of a test, as values.

The log is one per process. Whoever points it at a file must point it back before the file is
closed: its descriptor's number is soon somebody else's socket, and lines would go into that.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vastar_runtime import logs

Lines = Callable[[], list[dict[str, object]]]


@contextmanager
def log_to(path: Path) -> Iterator[int]:
    """Log to `path` as JSON; gives the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    logs.configure("info", "json", fd)
    try:
        yield fd
    finally:
        logs.configure("info", "console", 2)
        os.close(fd)


@contextmanager
def log_lines(directory: Path) -> Iterator[Lines]:
    """What is logged in this block, when asked for."""
    path = directory / "log"
    with log_to(path):
        yield lambda: [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
