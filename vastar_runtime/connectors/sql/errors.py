"""What a database's error means: one table for SQLSTATEs, one for SQLite's result codes.

A `SqlError` says to the caller what went wrong and of which kind, and to the policies whom it
speaks of: an error in a statement shows a server that is well. The words are the database's main
message with its code behind, which clients read; never its details, which quote rows. The main
message may quote a value, too, or a piece of the statement: it is for the caller alone, whose they
are, and the log gets the code and what it means.
"""

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Self

from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import AttemptResult, Fault, Meaning, Reached, Retry, classify

__all__ = ["Blame", "SqlError", "blame_of_sqlite", "blame_of_sqlstate", "meaning_of", "short"]

_MAX_WORDS: Final = 300


class Blame(Enum):
    """Whose doing an error is, and so what may help."""

    CALLER = auto()
    """The statement or its parameters: the same again fails again."""
    DATA = auto()
    """The statement is good, the data refuse it: a constraint, a value out of range."""
    ROLLED_BACK = auto()
    """Undone for another one's sake (deadlock, serialization): the same again may succeed."""
    BUSY = auto()
    """The server answers, but has no room or a lock is held: later it may."""
    UNREACHABLE = auto()
    """There is no connection."""
    LOST = auto()
    """The connection ended under the statement."""
    TIMEOUT = auto()
    """It took longer than allowed."""
    SERVER = auto()
    """The server's own trouble, that asking again does not mend."""
    TOO_LARGE = auto()
    """More rows or bytes than an answer may have."""


_KINDS: Final[Mapping[Blame, FailureKind]] = {
    Blame.CALLER: FailureKind.INVALID_REQUEST,
    Blame.DATA: FailureKind.UPSTREAM_PERMANENT,
    Blame.ROLLED_BACK: FailureKind.UPSTREAM,
    Blame.BUSY: FailureKind.UPSTREAM,
    Blame.UNREACHABLE: FailureKind.UPSTREAM,
    Blame.LOST: FailureKind.UPSTREAM,
    Blame.TIMEOUT: FailureKind.TIMEOUT,
    Blame.SERVER: FailureKind.UPSTREAM_PERMANENT,
    Blame.TOO_LARGE: FailureKind.TOO_LARGE,
}
_FAULTS: Final[Mapping[Blame, Fault]] = {
    Blame.UNREACHABLE: Fault.CONNECT,
    Blame.LOST: Fault.RESET,
    Blame.TIMEOUT: Fault.ATTEMPT_TIMEOUT,
}
_MEANINGS: Final[Mapping[Blame, str]] = {
    Blame.CALLER: "the statement or a parameter is refused",
    Blame.DATA: "the data refuse the statement",
    Blame.ROLLED_BACK: "rolled back for another transaction's sake",
    Blame.BUSY: "busy, or locked",
    Blame.UNREACHABLE: "there is no connection",
    Blame.LOST: "the connection was lost",
    Blame.TIMEOUT: "stopped",
    Blame.SERVER: "the server is in trouble",
    Blame.TOO_LARGE: "too much data",
}
_REFUSED: Final = 400
_FAILED: Final = 500
_FINE: Final = classify("GET", AttemptResult(200), has_idempotency_key=False)


class SqlError(Exception):
    """A statement or a connection failed.

    Attributes:
        blame: whose doing it is.
        words: for the caller.
        disposition: how far it got, where that is known better than by the call's progress.
        logged: for the log: the words where they are ours, else without what they may quote.
    """

    def __init__(self, blame: Blame, words: str, disposition: Disposition | None = None) -> None:
        super().__init__(words)
        self.blame = blame
        self.words = words
        self.disposition = disposition
        self.logged = words

    @classmethod
    def said(cls, blame: Blame, message: str, code: str = "") -> Self:
        """What a database or its library said, which may quote anything.

        Args:
            blame: whose doing it is.
            message: its main message.
            code: `SQLSTATE 23505`, `SQLITE_BUSY`; empty where there is none.
        """
        behind = f" ({code})" if code else ""
        error = cls(blame, short(message) + behind)
        error.logged = f"{_MEANINGS[blame]}{behind}"
        return error

    @property
    def kind(self) -> FailureKind:
        """Of the failure that the caller gets."""
        return _KINDS[self.blame]


def meaning_of(
    error: SqlError | None, reached: Disposition, *, is_safe: bool
) -> tuple[Meaning, AttemptResult | None]:
    """What an attempt's end says to the policies.

    Args:
        error: None is success.
        reached: how far the attempt got.
        is_safe: the caller says that it may be repeated.
    """
    if error is None:
        return _FINE, None
    fault = _FAULTS.get(error.blame)
    if fault is not None:
        result = AttemptResult(0, fault, Reached(int(error.disposition or reached)))
        return classify("POST", result, has_idempotency_key=is_safe), result
    retry, tenant, status = Retry.NEVER, Evidence.ANSWERED, _REFUSED
    if error.blame in {Blame.ROLLED_BACK, Blame.BUSY}:
        retry = Retry.TRANSIENT if is_safe else Retry.NEVER
        if error.blame is Blame.BUSY:
            tenant, status = Evidence.FAILURE, _FAILED
    elif error.blame is Blame.SERVER:
        tenant, status = Evidence.FAILURE, _FAILED
    return Meaning(retry, Evidence.SUCCESS, tenant), AttemptResult(status)


_SQLSTATES: Final[Mapping[str, Blame]] = {
    "00": Blame.CALLER,
    "02": Blame.DATA,
    "08": Blame.LOST,
    "0A": Blame.CALLER,  # feature not supported
    "21": Blame.DATA,  # cardinality violation
    "22": Blame.DATA,  # data exception
    "23": Blame.DATA,  # integrity constraint violation
    "25": Blame.CALLER,  # invalid transaction state: a change where only reading is allowed
    "26": Blame.CALLER,
    "28": Blame.SERVER,  # invalid authorization: the configuration's doing, not the caller's
    "2B": Blame.DATA,
    "2F": Blame.DATA,
    "34": Blame.CALLER,
    "3D": Blame.SERVER,  # there is no such database
    "3F": Blame.CALLER,
    "40": Blame.ROLLED_BACK,
    "42": Blame.CALLER,  # syntax error or access rule violation
    "44": Blame.DATA,
    "53": Blame.BUSY,  # insufficient resources
    "54": Blame.CALLER,  # program limit exceeded
    "55": Blame.BUSY,  # object not in the state needed; a lock that is not available
    "57": Blame.BUSY,  # operator intervention
    "58": Blame.SERVER,
    "P0": Blame.DATA,  # raised by the database's own functions
    "XX": Blame.SERVER,
    # Codes that differ from their class.
    "08001": Blame.UNREACHABLE,
    "08004": Blame.UNREACHABLE,
    "25P03": Blame.TIMEOUT,
    "40002": Blame.DATA,  # a deferred constraint
    "53300": Blame.UNREACHABLE,  # too many connections: told when one connects
    "57014": Blame.TIMEOUT,  # cancelled: by a timeout of the server's, or by us
    "57P01": Blame.LOST,  # the server is shut down
    "57P02": Blame.LOST,
    "57P03": Blame.UNREACHABLE,  # it is starting up
    "57P04": Blame.LOST,
    "57P05": Blame.LOST,
}
"""By class (the first two characters) and by code; PostgreSQL's appendix A."""


def blame_of_sqlstate(sqlstate: str | None) -> Blame:
    """Whose doing a SQLSTATE is; None is a connection that ended without a word."""
    if sqlstate is None:
        return Blame.LOST
    return _SQLSTATES.get(sqlstate) or _SQLSTATES.get(sqlstate[:2]) or Blame.SERVER


_SQLITE_CODES: Final[Mapping[str, Blame]] = {
    "SQLITE_ERROR": Blame.CALLER,
    "SQLITE_AUTH": Blame.CALLER,
    "SQLITE_PERM": Blame.CALLER,
    "SQLITE_READONLY": Blame.CALLER,
    "SQLITE_RANGE": Blame.CALLER,
    "SQLITE_MISUSE": Blame.CALLER,
    "SQLITE_CONSTRAINT": Blame.DATA,
    "SQLITE_MISMATCH": Blame.DATA,
    "SQLITE_TOOBIG": Blame.TOO_LARGE,
    "SQLITE_BUSY": Blame.BUSY,
    "SQLITE_LOCKED": Blame.BUSY,
    "SQLITE_NOMEM": Blame.BUSY,
    "SQLITE_PROTOCOL": Blame.BUSY,
    "SQLITE_CANTOPEN": Blame.UNREACHABLE,
    "SQLITE_INTERRUPT": Blame.TIMEOUT,
}


def blame_of_sqlite(name: str) -> Blame:
    """Whose doing a result code is, by its name, extended or not."""
    for known, blame in _SQLITE_CODES.items():
        if name == known or name.startswith(f"{known}_"):
            return blame
    return Blame.SERVER  # I/O errors, a full disk, a file that is no database


_BLANKS: Final = re.compile(r"\s+")


def short(words: str) -> str:
    """A database's message on one line, and not too long."""
    line = _BLANKS.sub(" ", words).strip()
    return line if len(line) <= _MAX_WORDS else line[: _MAX_WORDS - 3] + "..."
