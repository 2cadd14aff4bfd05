"""The log: one line an event, JSON or console, to one stream, without secrets.

structlog with a bytes logger: about 15 us for the line of a call, 1 us when filtered out. All
loggers come from here (`get_logger`), because importing structlog has a catch (below), and because
the identity of a call is kept in one context variable of ours: setting one dictionary once a call
is cheaper than structlog's variable per key.

Lines go out through `log_sink`, which never waits for who reads them.
"""

import os
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakSet

import msgspec

from vastar_runtime.log_sink import LineSink
from vastar_runtime.redaction import (
    REDACTED,
    is_secret_header,
    may_hold_secret,
    redact_headers,
    redact_text,
    shorten,
)


def _import_structlog() -> Any:
    """Import structlog without the `rich` it takes when it finds it: 8 MB and 40 ms for nothing."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        import structlog  # noqa: PLC0415  # too late to keep anything out

        return structlog
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"
    try:
        import structlog  # noqa: PLC0415

        return structlog
    finally:
        del sys.modules["rich"]


structlog = _import_structlog()

__all__ = [
    "Level",
    "Logger",
    "call_context",
    "configure",
    "get_logger",
    "json_sink",
    "reconfigure",
    "redact_event",
    "sink",
    "timestamp",
]

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Logger: TypeAlias = Any
"""A structlog bound logger: `.info("event", key=value)`; its methods are made at run time."""

_Event: TypeAlias = dict[str, Any]

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_MAX_TEXT_CHARS: Final = 8192
"""A value in a line: a traceback fits, a body does not."""

_harmless: Final[set[str]] = set()
"""The origin of a call is a URL, which takes 10 us to look through, in the line of every call."""
_MAX_HARMLESS: Final = 1024
_MAX_HARMLESS_CHARS: Final = 256

_SCALARS: Final = frozenset({int, float, bool, type(None)})

_OWN_KEYS: Final = frozenset({"event", "level", "timestamp", "exception"})
_proxies: Final[WeakSet[Any]] = WeakSet()
_sink: LineSink | None = None
_json_sink: LineSink | None = None
_call: ContextVar[Mapping[str, str] | None] = ContextVar("vastar_call", default=None)


class call_context:  # noqa: N801 - used as a function is
    """Put `identity` (trace_id, tenant, workspace) into the lines of this task and its children.

    A class, because `contextlib.contextmanager` takes 1 us more, on every call.
    """

    __slots__ = ("_identity", "_token")

    def __init__(self, **identity: str) -> None:
        self._identity = identity

    def __enter__(self) -> None:
        self._token = _call.set({**(_call.get() or {}), **self._identity})

    def __exit__(self, *_: object) -> None:
        _call.reset(self._token)


def get_logger(name: str) -> Logger:
    """The logger of one module; `name` is in its lines as `component`."""
    proxy = structlog.get_logger(component=name)
    _proxies.add(proxy)
    return proxy


def sink() -> LineSink | None:
    """Where the log of this process goes; None before `configure`."""
    return _sink


def json_sink() -> LineSink | None:
    """Where lines of level `info` go as JSON; None where they are not written, or not as JSON."""
    return _json_sink


def configure(level: Level, style: Literal["auto", "console", "json"], fd: int = 2) -> LineSink:
    """Set up the one log of this process.

    Args:
        level: the least level that is written.
        style: `auto` is `console` when `fd` is a terminal, else `json`.
        fd: an open file descriptor to write to; it stays the caller's.
    """
    made = LineSink(fd)
    _write_to(made, level, style, fd)
    return made


def reconfigure(level: Level, style: Literal["auto", "console", "json"]) -> None:
    """Go on under another level or style, into the same sink; nothing where there is no log."""
    if _sink is not None:
        _write_to(_sink, level, style, _sink.fd)


def _write_to(
    made: LineSink, level: Level, style: Literal["auto", "console", "json"], fd: int
) -> None:
    terminal = os.isatty(fd)
    console = style == "console" or (style == "auto" and terminal)
    structlog.configure(
        processors=[
            _add_header,
            structlog.processors.format_exc_info,
            redact_event,
            _console_renderer(colors=terminal) if console else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: made,
        cache_logger_on_first_use=True,
    )
    global _sink, _json_sink  # noqa: PLW0603 - there is one log of this process
    _sink = made
    _json_sink = None if console or _LEVELS[level] > _LEVELS["info"] else made
    for proxy in _proxies:
        # What a logger cached on its first use was made by the configuration before.
        vars(proxy).pop("bind", None)


class _Second:
    """The time down to the second, which is made into text once a second."""

    at_s = -1
    text = ""


def timestamp() -> str:
    """Now, as lines say it: ISO 8601 in UTC, to the microsecond."""
    now_s, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    if now_s != _Second.at_s:
        _Second.at_s = now_s
        _Second.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
    return f"{_Second.text}.{rest_ns // 1000:06d}Z"


def _add_header(_logger: object, method: str, event: _Event) -> _Event:
    """What every line begins with: time, level, event, then the call's identity."""
    return {
        "timestamp": timestamp(),
        "level": method,
        "event": event.pop("event"),
        **(_call.get() or {}),
        **event,
    }


def redact_event(_logger: object, _method: str, event: _Event) -> _Event:
    """The second line of defence: whoever logged it should have redacted it already."""
    texts = []
    for key, value in event.items():
        kind = type(value)
        if kind is str:
            if value not in _harmless:
                texts.append(value)
            if key not in _OWN_KEYS and is_secret_header(key):
                event[key] = REDACTED
        elif kind not in _SCALARS:
            event[key] = REDACTED if is_secret_header(key) else _clean(value)
    joined = "\n".join(texts)
    if len(joined) > _MAX_TEXT_CHARS or may_hold_secret(joined):
        for key, value in event.items():
            if type(value) is str:
                event[key] = _look_through(value)
    return event


def _look_through(text: str) -> str:
    """`text` cleaned; one that looked suspicious and was not is remembered, and only such a one."""
    if text in _harmless or (len(text) <= _MAX_TEXT_CHARS and not may_hold_secret(text)):
        return text
    clean = _clean_text(text)
    if clean == text and len(text) <= _MAX_HARMLESS_CHARS:
        if len(_harmless) >= _MAX_HARMLESS:
            _harmless.clear()
        _harmless.add(text)
    return clean


def _clean_text(text: str) -> str:
    return redact_text(shorten(text, _MAX_TEXT_CHARS))


def _clean(value: Any, depth: int = 4) -> Any:
    """`value` as something JSON can say, without bytes, secrets, or an end that is too deep."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping) and depth:
        pairs = ((str(key), item) for key, item in value.items())
        return {
            key: REDACTED if is_secret_header(key) else _clean(item, depth - 1)
            for key, item in pairs
        }
    if isinstance(value, list | tuple | set | frozenset) and depth:
        items = list(value)
        if all(_is_pair(item) for item in items):
            return redact_headers(items)
        return [_clean(item, depth - 1) for item in items]
    return value if type(value) in _SCALARS else _clean_text(str(value))


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and [type(part) for part in item] == [str, str]


_encoder: Final = msgspec.json.Encoder(enc_hook=str)


def _render_json(_logger: object, _method: str, event: _Event) -> bytes:
    try:
        return _encoder.encode(event)
    except (UnicodeEncodeError, TypeError, RecursionError):
        # A lone surrogate, or a value that JSON has no word for: a readable line beats none.
        return _encoder.encode(
            {key: str(item).encode(errors="replace").decode() for key, item in event.items()}
        )


def _console_renderer(*, colors: bool) -> Any:
    # Values are shown as Python literals, so that no peer can write control characters to a
    # terminal or forge a line.
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        repr_native_str=True,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(logger: object, method: str, event: _Event) -> bytes:
        name = str(event.get("event"))
        if not name.isprintable():
            event["event"] = repr(name)
        text: str = renderer(logger, method, event)
        return text.encode(errors="backslashreplace")

    return render
