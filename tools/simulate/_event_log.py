"""What happened, in order: one line an event, and one hash over all of them.

Two runs are the same run when their hashes are equal, so a line holds whatever matters and nothing
that differs between two processes (no addresses of objects, no real time).
"""

import hashlib
from collections.abc import Callable

__all__ = ["EventLog"]


class EventLog:
    """An append-only log.

    Args:
        now_s: the clock whose time each line begins with.
        echo: is given each line as it is written.

    Attributes:
        lines: all so far.
    """

    def __init__(
        self, now_s: Callable[[], float], echo: Callable[[str], None] | None = None
    ) -> None:
        self._now_s = now_s
        self._echo = echo
        self._hash = hashlib.sha256()
        self.lines: list[str] = []

    def add(self, event: str, /, **fields: object) -> None:
        """Write `event` with its fields; floats are rounded to a microsecond for reading."""
        parts = [f"{self._now_s():.6f} {event}"]
        parts += [f"{name}={_text(value)}" for name, value in fields.items() if value is not None]
        line = " ".join(parts)
        self._hash.update(line.encode() + b"\n")
        self.lines.append(line)
        if self._echo is not None:
            self._echo(line)

    @property
    def digest(self) -> str:
        """SHA-256 over all lines so far, in hexadecimal."""
        return self._hash.hexdigest()


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    return repr(text) if not text or " " in text else text
