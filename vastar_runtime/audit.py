"""The audit log: one JSON line for every refused or privileged action, without secrets.

One log per process, as there is one log of events: whoever refuses calls `audit(...)` and knows
nothing of files. Its lines go to a file of their own (`[audit] path`: 0600, ours, appended to in
one write each, so that several workers share it) or else into the event log, marked `"audit": true`
and past its level. A caller that is refused a thousand times a second does not fill the disk: of
one event and one user only so many lines a second are written, and the next one says how many were
left out. Lines that cannot be written are dropped and counted, as in the event log: a full disk
must not stop the service. Where the kernel tells no user, the address counts as one, or else the
tenant: nobody's flood hides what another one does.

What a limit refuses (`audit_limit`: rates, places, memory) may come with every call, and costs the
caller nothing to ask for: of one rule, user and tenant the first is told, and then one a minute,
with the number of the others (`left_out`).

The keys of a line: `timestamp`, `audit`, `event`, then where known `uid`, `gid`, `pid`, `who` (the
address of a caller over TCP), `connection`, `tenant` (the one that was wanted), `workspace`,
`origin`, `rule` (what refused, as `refused_by` on the wire), `reason` (words), `trace_id`, and what
an event has of its own.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
import msgspec

from vastar_runtime import logs
from vastar_runtime.log_sink import LineSink
from vastar_runtime.runtime_files import RuntimeFileError, open_own_file

__all__ = [
    "LIMITS_TOLD_EVERY_S",
    "MAX_LINES_PER_SECOND",
    "AuditLog",
    "Who",
    "audit",
    "audit_limit",
    "configure",
    "current",
    "use",
]

MAX_LINES_PER_SECOND: Final = 50
"""Of one event of one user: enough to see what happens, too little to fill a disk."""

LIMITS_TOLD_EVERY_S: Final = 60
"""Of one rule that limits, one user and one tenant."""

_MAX_COUNTED: Final = 4096
_MODE: Final = 0o600
_ENCODE: Final = msgspec.json.Encoder(enc_hook=str).encode


class Who(Protocol):
    """Who is at the other end of a connection; a `calls.Caller` is one."""

    @property
    def connection_id(self) -> int:
        """Counts connections."""

    @property
    def uid(self) -> int | None:
        """The user, where the kernel tells."""

    @property
    def gid(self) -> int | None:
        """Its group, likewise."""

    @property
    def pid(self) -> int | None:
        """The process, likewise."""

    @property
    def address(self) -> str | None:
        """Where it calls from, over TCP."""


@attrs.define
class _Second:
    """What was written of one event and user in one second, and what was left out."""

    began_s: float
    lines: int = 0
    left_out: int = 0


@attrs.define
class _Minute:
    """How often a limit refused since a line said so."""

    told_at_s: float
    left_out: int = 0


class AuditLog:
    """Where audit lines go.

    Args:
        path: a file of its own, created 0600; None is the event log.
        clock_s: seconds, for the bound of lines; never goes back.

    Raises:
        RuntimeFileError: the file cannot be used.
    """

    def __init__(
        self, path: str | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._clock_s = clock_s
        self._seconds: dict[tuple[str, object], _Second] = {}
        self._minutes: dict[tuple[str, object, str], _Minute] = {}
        self._fd = -1
        self._sink: LineSink | None = None
        if path is not None:
            self._fd = _open(path)
            self._sink = LineSink(self._fd)

    def close(self) -> None:
        """Let go of the file; what comes later goes into the event log."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._sink = -1, None

    def write(self, event: str, *, caller: Who | None = None, **fields: Any) -> None:
        """Write a line, unless this user had many of this event within the second.

        Args:
            event: what happened, one word or a few with underscores: `tenant_refused`.
            caller: whose connection it was.
            fields: what the line says beside; None is left out. No secrets: they are redacted
                as in the event log, which is the second line of defence and not the first.
        """
        sink = self._sink or logs.sink()
        if sink is None:
            return
        said: dict[str, Any] = {"audit": True, "event": event}
        if caller is not None:
            said |= {"uid": caller.uid, "gid": caller.gid, "pid": caller.pid}
            said |= {"who": caller.address, "connection": caller.connection_id or None}
        said |= fields
        left_out = self._left_out(event, _whose(said))
        if left_out is None:
            return
        if left_out:
            said["left_out"] = left_out + (said.get("left_out") or 0)
        known = {name: value for name, value in said.items() if value is not None}
        clean = logs.redact_event(None, "", known)
        line = {"timestamp": logs.timestamp()}
        line |= {name: _printable(value) for name, value in clean.items()}
        sink.msg_at_once(_ENCODE(line))

    def limit(self, rule: str, caller: Who, tenant: str, **fields: Any) -> None:
        """Tell that a limit refused something, unless that was told within the minute.

        Args:
            rule: which one, as `refused_by` on the wire.
            caller: whose it was.
            tenant: in whose name.
            fields: as of `write`; of the one that is told.
        """
        whose = caller.address if caller.uid is None else caller.uid
        key = rule, whose, tenant
        now_s = self._clock_s()
        minute = self._minutes.get(key)
        if minute is not None and now_s - minute.told_at_s < LIMITS_TOLD_EVERY_S:
            minute.left_out += 1
            return
        if minute is None and len(self._minutes) >= _MAX_COUNTED:
            self._minutes.clear()
        self._minutes[key] = _Minute(now_s)
        fields["left_out"] = (minute.left_out or None) if minute is not None else None
        self.write("limit_refused", caller=caller, tenant=tenant, rule=rule, **fields)

    def _left_out(self, event: str, whose: object) -> int | None:
        """How many lines were left out before this one; None when this one is left out too."""
        now_s = self._clock_s()
        second = self._seconds.get((event, whose))
        if second is None:
            if len(self._seconds) >= _MAX_COUNTED:
                self._seconds.clear()
            second = self._seconds[event, whose] = _Second(now_s)
        if now_s - second.began_s >= 1:
            second.began_s, second.lines = now_s, 0
        if second.lines >= MAX_LINES_PER_SECOND:
            second.left_out += 1
            return None
        second.lines += 1
        left_out, second.left_out = second.left_out, 0
        return left_out


def _whose(said: dict[str, Any]) -> object:
    """Whose a line is, as lines are counted: of a user, of an address, or of a tenant."""
    known = (said.get(name) for name in ("uid", "who", "tenant"))
    return next((value for value in known if value is not None), None)


_log = AuditLog()


def audit(event: str, *, caller: Who | None = None, **fields: Any) -> None:
    """Write one line to the audit log of this process; `AuditLog.write` says what it takes."""
    _log.write(event, caller=caller, **fields)


def audit_limit(rule: str, caller: Who, tenant: str, **fields: Any) -> None:
    """Tell the audit log of this process what a limit refused; see `AuditLog.limit`."""
    _log.limit(rule, caller, tenant, **fields)


def configure(path: str | None) -> None:
    """From now on write to `path`, opened anew even when it is the same: it may have been rotated.

    Raises:
        RuntimeFileError: the file cannot be used; the log goes on where it went.
    """
    use(AuditLog(path)).close()


def use(log: AuditLog) -> AuditLog:
    """Make `log` the one of this process; the one before, which is the caller's to close."""
    global _log
    before, _log = _log, log
    return before


def current() -> AuditLog:
    """The audit log of this process."""
    return _log


def _open(path: str) -> int:
    fd = open_own_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.fchmod(fd, _MODE)  # it tells who does what: nobody else's reading
    except OSError as error:
        os.close(fd)
        reason = (error.strerror or str(error)).lower()
        raise RuntimeFileError(f"{path}: its mode cannot be set to 0600 ({reason})") from None
    return fd


def _printable(value: Any) -> Any:
    """`value` without what a terminal obeys, where it is a text; JSON itself leaves C1 in."""
    if type(value) is str and not value.isprintable():
        return value.encode("ascii", "backslashreplace").decode()
    return value
