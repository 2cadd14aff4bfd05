"""The supervisor's log: the lines of `logs`, without what takes 8 MB to make them.

The supervisor writes a line when a worker comes or goes; the library behind `logs` would be a third
of its memory. Same keys, same time format, same sink.
"""

import time
from typing import Any, Final

import msgspec

from vastar_runtime.log_sink import LineSink
from vastar_runtime.redaction import redact_text

__all__ = ["Journal"]

_COMPONENT: Final = "vastar_runtime.workers"
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class Journal:
    """Lines about the workers.

    Args:
        fd: where they go.
        level: the least that is written.
        style: `json` or `console`; `auto` asks whether there is a terminal.
        is_terminal: whether `fd` is one.
    """

    def __init__(self, fd: int, level: str, style: str, *, is_terminal: bool) -> None:
        self._sink = LineSink(fd)
        self._is_terminal = is_terminal
        self.configure(level, style)

    def configure(self, level: str, style: str) -> None:
        """Go on under another level or style."""
        self._least = _LEVELS.index(level)
        self._as_json = style == "json" or (style == "auto" and not self._is_terminal)

    def info(self, event: str, **fields: Any) -> None:
        """What is as it should be."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What somebody should look at."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What failed."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if _LEVELS.index(level) < self._least:
            return
        now_ns = time.time_ns()
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns // 1_000_000_000))
        stamp = f"{seconds}.{now_ns % 1_000_000_000 // 1000:06d}Z"
        clean = {
            key: redact_text(value) if isinstance(value, str) else value
            for key, value in fields.items()
        }
        if self._as_json:
            head = {"timestamp": stamp, "level": level, "event": event, "component": _COMPONENT}
            line = msgspec.json.encode({**head, **clean})
        else:
            words = " ".join(f"{key}={value!r}" for key, value in clean.items())
            line = f"{stamp} [{level:<9}] {event:<30} {words}".rstrip().encode()
        self._sink.msg_at_once(line)
