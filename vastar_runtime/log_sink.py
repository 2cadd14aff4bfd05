"""Where log lines leave the process: whole lines to one descriptor, dropped rather than waited for.

A class that holds lines and knows how the descriptor behaves, apart from how lines are made
(`logs`). A line never makes the daemon wait on who reads it: a full or broken pipe drops the line,
and the next one that gets through says how many were lost.
"""

import os
import select
import stat
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from vastar_runtime.redaction import shorten

__all__ = ["LineSink"]

_MAX_HELD_LINES: Final = 256

_NOTICE: Final = b'{"event":"log lines lost","lines":%d}\n'
_NOTICE_ROOM_BYTES: Final = 64
_PIECE_BYTES: Final = select.PIPE_BUF - _NOTICE_ROOM_BYTES
"""A pipe that is writable takes PIPE_BUF bytes at once and whole (POSIX); a longer write waits in
the kernel for the reader. A notice of lost lines may have to go before the piece."""

_TEXT_LIMITS_CHARS: Final = (2048, 512, 64)
_CUT: Final = b"... (shortened)\x1b[0m"


class LineSink:
    """Write whole lines to a descriptor, dropping rather than waiting.

    A regular file is always writable, and gets what there is in one write. Anything else is asked
    before each piece of at most `select.PIPE_BUF` bytes, cut at line ends: one whose reader is gone
    or slow loses the piece. The descriptor is not made non-blocking, because that would hold for
    every process that shares it. (A terminal promises room for no certain number of bytes: one
    whose other end has stopped reading may still make a write wait.)

    A busy daemon logs a line per call, and a write costs more than making the line. So an event
    loop can have them held (`hold_lines`) and written together once a turn; a warning or worse is
    written at once, with all before it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.dropped_lines = 0
        self._torn = False
        self._held: list[bytes] = []
        self._wake: Callable[[], None] | None = None
        self._poll: select.poll | None = None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    def hold_lines(self, wake: Callable[[], None] | None) -> None:
        """From now on hold lines and call `wake` for the first one; None ends it, and flushes."""
        self._wake = wake
        if wake is None:
            self.flush()

    def msg(self, line: bytes) -> None:
        """Write `line` and a newline, soon, or count it as lost."""
        held = self._held
        held.append(line)
        if self._wake is None or len(held) >= _MAX_HELD_LINES:
            self.flush()
        elif len(held) == 1:
            self._wake()

    def msg_at_once(self, line: bytes) -> None:
        """Write what is held, `line` and a newline now, or count them as lost."""
        self._held.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if not self._held:
            return
        lines = b"\n".join((*self._held, b""))
        self._held = []
        if self._poll is None:
            self._write(lines)
            return
        for piece in _pieces(lines):
            self._write(piece)

    def _write(self, lines: bytes) -> None:
        """Write `lines` after what is to be said of lost ones, and count what does not get out."""
        notice = b""
        if self.dropped_lines:
            # The line that was torn is among the lost: it is ended, for the next not to join it.
            notice = b"\n" * self._torn + _NOTICE % self.dropped_lines
        data = notice + lines
        written = 0
        try:
            while written < len(data) and (self._poll is None or self._poll.poll(0)):
                written += os.write(self.fd, data[written:])
        except OSError:
            # A full disk or a broken pipe must not stop the service that is being logged.
            pass
        if written:
            self._torn = not data.endswith(b"\n", 0, written)
        if written < len(notice):
            self.dropped_lines += lines.count(b"\n")
        else:
            self.dropped_lines = data.count(b"\n", written)

    log = debug = info = msg
    warn = warning = error = critical = exception = fatal = msg_at_once


def _pieces(lines: bytes) -> Iterator[bytes]:
    """`lines` in pieces that each fit into one write; a line that does not is shortened."""
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + _PIECE_BYTES) + 1
        if end:
            yield lines[start:end]
        else:
            end = lines.index(b"\n", start) + 1
            yield _shorten_line(lines[start : end - 1]) + b"\n"
        start = end


def _shorten_line(line: bytes) -> bytes:
    """`line` as less than a piece: JSON stays JSON, with shorter texts or else fewer of them."""
    try:
        event = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        cut = line[: _PIECE_BYTES - len(_CUT) - 1]
        return cut.decode(errors="ignore").encode() + _CUT
    texts = {}
    for limit in _TEXT_LIMITS_CHARS:
        texts = {key: _shorten_value(key, value, limit) for key, value in event.items()}
        short = msgspec.json.encode({**texts, "shortened": True})
        if len(short) < _PIECE_BYTES:
            return short
    header = {key: texts[key] for key in ("timestamp", "level", "event") if key in texts}
    return msgspec.json.encode({**header, "shortened": True})


def _shorten_value(key: str, value: Any, max_chars: int) -> Any:
    if not isinstance(value, str):
        return value
    if key == "exception" and len(value) > max_chars:
        # The end of a traceback says what happened.
        return f"...{value[-max_chars:]}"
    return shorten(value, max_chars)
