"""Where the answer of `call` goes: standard output as it comes, or a file beside a progress line.

Descriptors are written to directly, unbuffered: each piece is out before the next one is asked for,
and nothing is left to be written when the command is interrupted.
"""

import os
import select
import stat
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from vastar_client.wire import Buffer, KeyValues

__all__ = ["Output", "Progress", "open_output", "write_all"]

_STEP: Final = 1000.0
_REDRAWN_EVERY_S: Final = 0.1


def write_all(fd: int, data: Buffer) -> None:
    """Write all of `data`, however long that takes.

    Raises:
        OSError: it cannot be written.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Whoever shares the terminal has made it non-blocking.
            select.select([], [fd], [])


def open_output(path: str) -> tuple[int, bool]:
    """A descriptor to write to `path`, as yet unchanged, and whether the file is new.

    Raises:
        OSError: it cannot be written.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), True
    except FileExistsError:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC), False


class Progress:
    """A line on a terminal that tells how far a download is.

    Args:
        fd: the terminal.
        clock_s: seconds.
    """

    def __init__(self, fd: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._drawn_s = float("-inf")
        self._width = 0
        self.total_bytes: int | None = None

    def show(self, done_bytes: int, *, is_last: bool = False) -> None:
        """Draw it anew, unless that was done just now."""
        now_s = self._clock_s()
        if not is_last and now_s - self._drawn_s < _REDRAWN_EVERY_S:
            return
        self._drawn_s = now_s
        passed_s = now_s - self._began_s
        rate = done_bytes / passed_s if passed_s > 0 else 0.0
        whole = "" if self.total_bytes is None else f" of {_size(self.total_bytes)}"
        line = f"{_size(done_bytes)}{whole}  {_size(rate)}/s  {passed_s:.1f} s"
        end = "\n" if is_last else ""
        write_all(self._fd, f"\r{line.ljust(self._width)}{end}".encode())
        self._width = len(line)


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < _STEP:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _STEP
    return f"{size_bytes:.1f} TB"


class Output:
    """Takes an answer.

    Args:
        path: the file for the body; None is standard output.
        with_head: the head is printed too, always to standard output.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | None, *, with_head: bool) -> None:
        self._path = path
        self._with_head = with_head
        self._out_fd = sys.stdout.fileno()
        self._is_new = False
        self._body_fd = self._out_fd
        self._progress: Progress | None = None
        self._done_bytes = 0
        self.has_begun = False
        if path is not None:
            self._body_fd, self._is_new = open_output(path)
            if sys.stderr.isatty():
                self._progress = Progress(sys.stderr.fileno())

    def head(self, status_code: int, headers: KeyValues, http_version: str | None) -> None:
        """Print the head where that is wanted; from here on the file is this answer's."""
        self.has_begun = True
        if self._path is not None and stat.S_ISREG(os.fstat(self._body_fd).st_mode):
            os.ftruncate(self._body_fd, 0)
        if self._progress is not None:
            self._progress.total_bytes = _length(headers)
        if self._with_head:
            version = f"HTTP/{http_version}" if http_version else "HTTP"
            first = f"{version} {status_code} {_phrase(status_code)}".rstrip()
            lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
            write_all(self._out_fd, "\r\n".join(lines).encode("utf-8", "surrogateescape"))

    def data(self, piece: Buffer) -> None:
        """Write a piece of the body."""
        write_all(self._body_fd, piece)
        self._done_bytes += len(piece)
        self.tick()

    def tick(self) -> None:
        """Show how far it is."""
        if self._progress is not None:
            self._progress.show(self._done_bytes)

    def close(self) -> None:
        """Close the file; one that was made for an answer that never began goes again."""
        if self._path is None:
            return
        os.close(self._body_fd)
        if self._progress is not None:
            self._progress.show(self._done_bytes, is_last=True)
        if self._is_new and not self.has_begun:
            os.unlink(self._path)  # noqa: PTH108 - by the very name it was opened with


def _length(headers: KeyValues) -> int | None:
    for name, value in headers:
        if name == "content-length" and value.isascii() and value.isdigit():
            return int(value)
    return None


def _phrase(status_code: int) -> str:
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return ""
