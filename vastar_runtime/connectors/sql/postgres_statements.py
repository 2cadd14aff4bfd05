"""Statements on one connection to PostgreSQL: sent, read, stopped, and what they left undone.

A `Running` gives the rows of a statement as they come; what is not read to its end has to be ended
by `stop`, which leaves the session as if nothing had run, or says that it is lost.

After a cancel request a statement of ours follows, so that the request can hit no caller's: the
server answers it after it has told the statement's process, and a signal that comes late finds
ours, which is then done again.
"""

from collections.abc import Sequence
from typing import Any, Final

import trio
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from vastar_runtime.config import DatabaseConfig
from vastar_runtime.connectors.sql.errors import Blame, SqlError, blame_of_sqlstate
from vastar_runtime.connectors.sql.jobs import Params
from vastar_runtime.connectors.sql.postgres_leaving import leaves_nothing
from vastar_runtime.connectors.sql.postgres_link import Link, LinkError, Sent
from vastar_runtime.connectors.sql.postgres_placeholders import plan_of
from vastar_runtime.connectors.sql.postgres_prepared import Key, PreparedStatements
from vastar_runtime.connectors.sql.postgres_values import Values

__all__ = ["Running", "StaleError", "Statements"]

GRACE_S: Final = 2.0
"""For stopping a statement and undoing what it did; then the connection is given up."""

_AGAIN_S: Final = 0.02
_PREPARED: Final = 128
_BATCH: Final = 100
"""Statements on their way at once: fewer than are prepared, so none makes room for another."""

_PAUSE_VALUES: Final = 2048
_OF_TRANSACTIONS: Final = frozenset(
    {"BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "PREPARE TRANSACTION"}
    | {"COMMIT PREPARED", "ROLLBACK PREPARED"}
)
_ROWS: Final = frozenset(
    map(int, (ExecStatus.TUPLES_OK, ExecStatus.TUPLES_CHUNK, ExecStatus.SINGLE_TUPLE))
)
_DONE: Final = frozenset(map(int, (ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)))
_LAST: Final = _DONE | {int(ExecStatus.TUPLES_OK)}
_COPIES: Final = frozenset(
    map(int, (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH))
)
_BEGIN_READING: Final[Sent] = (b"BEGIN READ ONLY", None, (), None, None)
_COMMIT: Final[Sent] = (b"COMMIT", None, (), None, None)
_CANCELLED: Final = b"57014"
_NO_SUCH_STATEMENT: Final = b"26000"
_REVALIDATE: Final = b"RevalidateCachedQuery"
_RESET: Final = b"DISCARD ALL"
_RESET_KEEPING_PLANS: Final = (
    b"CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    b"SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
"""DISCARD ALL but for statements that are prepared."""


class StaleError(Exception):
    """A prepared statement is not what it was: the same goes when it is prepared anew."""


class Statements:
    """Those of one connection, one after the other.

    Args:
        link: nobody else uses it.
        config: of the source.

    Attributes:
        link: as given.
    """

    def __init__(self, link: Link, config: DatabaseConfig) -> None:
        self.link = link
        self._read_only = config.read_only
        self._resets_always = config.reset == "always"
        self._prepared = PreparedStatements(_PREPARED if config.prepared_statements else 0)
        self._left_something = False

    async def start(self, sql: str, params: Params, *, reads: bool = False) -> "Running":
        """Send a statement; where it `reads`, in a READ ONLY transaction of its own.

        Raises:
            SqlError, LinkError: it failed.
        """
        values, sent = await self._ready(sql, params)
        text, data, types, formats, name = sent
        if reads:
            # One round trip for all three; a statement that fails leaves the end undone.
            await self.link.send_batch([_BEGIN_READING, sent, _COMMIT], in_chunks=True)
            begun = await self.link.next()
            if begun is None or begun.status not in _LAST:
                self.judge(begun, is_prepared=False)
        else:
            await self.link.send(text, data, types, formats, name=name)
        return Running(self, values, is_prepared=name is not None, is_between=reads)

    async def _ready(self, sql: str, params: Params) -> tuple[Values, Sent]:
        """A statement, prepared where that is due. Raises SqlError, LinkError."""
        plan = plan_of(sql, has_params=params is not None)
        values = Values(plan.values(params), plan.formats)
        key = (plan.text, values.types)
        name = self._prepared.name_of(key)
        if name is None and self._prepared.is_due(key):
            name = await self._prepare(key)
        if plan.may_leave:
            self._left_something = True
        return values, (plan.text, values.data, values.types, values.formats, name)

    async def change_many(self, sql: str, params_list: Sequence[Params]) -> int:
        """Have a statement that gives no rows done with each of these, many in one round trip.

        Returns:
            rows that were changed.

        Raises:
            SqlError, LinkError: one of them failed, and those behind it were not done.
        """
        count = 0
        for begin in range(0, len(params_list), _BATCH):
            some = params_list[begin : begin + _BATCH]
            batch = [(await self._ready(sql, params or []))[1] for params in some]
            await self.link.send_batch(batch)
            for *_, name in batch:
                result = await self.link.next()
                if result is None or result.status not in _LAST:
                    self.judge(result, is_prepared=name is not None)
                else:
                    self.note(_tag(result.command_status or b""))
                    count += result.command_tuples or 0
            await self.link.drain()
        return count

    async def _prepare(self, key: Key) -> bytes:
        name = self._prepared.new_name()
        result = await self.link.prepare(name, *key)
        if result.status not in _DONE:
            raise error_of(result)
        old = self._prepared.keep(key, name)
        if old is not None:
            await self.command(b"DEALLOCATE " + old)
        return name

    async def command(self, text: bytes) -> PGresult:
        """Have a statement of ours done. Raises SqlError, LinkError."""
        result = await self.link.command(text)
        if result.status not in _LAST:
            raise error_of(result)
        return result

    def judge(self, result: PGresult | None, *, is_prepared: bool) -> None:
        """Raise what a result says that has no rows, and is no good end. Raises SqlError."""
        if result is None:
            raise SqlError(Blame.SERVER, "the server gave no result")
        if result.status in _COPIES:
            raise SqlError(Blame.CALLER, "COPY is not supported here")
        if is_prepared and _is_stale(result):
            raise StaleError
        raise error_of(result)

    def note(self, tag: str) -> None:
        """A statement has ended well, and was this.

        Raises:
            SqlError: it is not allowed.
        """
        if leaves_nothing(tag):
            return
        self._left_something = True
        if tag in _OF_TRANSACTIONS or (self._read_only and tag == "SET"):
            raise _not_here(tag)

    async def forget_prepared(self) -> None:
        """After `StaleError`: end the transaction, and prepare all anew. Raises LinkError."""
        await self.link.drain()
        if not self.link.is_idle:
            await self.link.command(b"ROLLBACK")
        if self._prepared.forget():
            await self.link.command(b"DEALLOCATE ALL")

    async def reset(self) -> bool:
        """Undo what statements left in the session; whether another call may get it."""
        if not (self._left_something or self._resets_always):
            return True
        try:
            with trio.move_on_after(GRACE_S):
                return await self._undone()
        except (LinkError, SqlError):
            pass
        return False

    async def stop(self) -> bool:
        """Stop what runs, undo what it did and left; whether another call may get the session.

        Shielded: it takes `GRACE_S` at most, and the session is lost where that is too short.
        """
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                return await self._stopped()
        except (LinkError, SqlError):
            pass
        return False

    async def _stopped(self) -> bool:
        link = self.link
        asked, pause_s = False, _AGAIN_S
        while link.is_running:
            if not link.is_sent:
                return False
            if link.is_ending:
                await link.drain()
                break
            # The request passes a statement that the server has not taken up yet: so once more.
            asked = True
            if not await link.cancel():
                return False
            with trio.move_on_after(pause_s):
                await link.drain()
            pause_s *= 2
        if not link.is_idle:
            await self._surely(b"ROLLBACK")
        if asked or self._left_something or self._resets_always:
            return await self._undone()
        return link.is_idle

    async def _undone(self) -> bool:
        keeps_plans = not self._left_something
        await self._surely(_RESET_KEEPING_PLANS if keeps_plans else _RESET)
        if not keeps_plans:
            self._prepared.forget()
        self._left_something = False
        while self.link.pgconn.notifies() is not None:
            pass
        return self.link.is_idle

    async def _surely(self, text: bytes) -> None:
        """Have ours done, also where a cancel request hits it."""
        result = await self.link.command(text)
        if result.error_field(DiagnosticField.SQLSTATE) == _CANCELLED:
            result = await self.link.command(text)
        if result.status not in _LAST:
            raise error_of(result)


class Running:
    """A statement that was sent.

    Args:
        statements: of its connection.
        values: for its rows.
        is_prepared: it was prepared before.
        is_between: a COMMIT follows it.

    Attributes:
        count: rows that it read or changed, once it has ended; -1 where nobody knows.
    """

    __slots__ = (
        "_has_ended",
        "_is_between",
        "_is_prepared",
        "_since_pause",
        "_statements",
        "_tag",
        "_values",
        "count",
    )

    def __init__(
        self, statements: Statements, values: Values, *, is_prepared: bool, is_between: bool
    ) -> None:
        self._statements = statements
        self._values = values
        self._is_prepared = is_prepared
        self._is_between = is_between
        self._has_ended = False
        self._since_pause = 0
        self._tag = ""
        self.count = -1

    @property
    def names(self) -> list[str]:
        """Of the columns, once there was a piece."""
        return self._values.names

    @property
    def kinds(self) -> list[str]:
        """Their types."""
        return self._values.kinds

    async def next(self) -> list[tuple[Any, ...]] | None:
        """Some rows, or none as yet; None when it has ended well. Raises SqlError, LinkError."""
        result = await self._statements.link.next()
        if result is None:
            self._statements.note(self._tag)
            return None
        status = result.status
        if self._has_ended:  # this is of the COMMIT
            if status not in _DONE:
                self._statements.judge(result, is_prepared=False)
            return []
        self._has_ended = self._is_between and status in _LAST
        said = result.command_status
        if said:  # in the last piece, or in the result without rows behind it
            self._tag = _tag(said)
            self.count = -1 if result.command_tuples is None else result.command_tuples
        if status in _DONE:
            return []
        if status not in _ROWS:
            self._statements.judge(result, is_prepared=self._is_prepared)
        rows = self._values.rows(result)
        self._since_pause += len(rows) * len(self._values.names)
        if self._since_pause > _PAUSE_VALUES:
            self._since_pause = 0
            await trio.lowlevel.checkpoint()
        return rows


def error_of(result: PGresult) -> SqlError:
    """What the server says went wrong."""
    sqlstate = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY)
    words = (message or result.error_message or b"the connection ended").decode(errors="replace")
    code = f"SQLSTATE {sqlstate}" if sqlstate else ""
    return SqlError.said(blame_of_sqlstate(sqlstate or None), words, code)


def _is_stale(result: PGresult) -> bool:
    """Whether a prepared statement is unknown, or gives other columns than it did.

    The second has the code of anything that is not supported, and words in the server's language:
    the function that says it is what tells.
    """
    if result.error_field(DiagnosticField.SQLSTATE) == _NO_SUCH_STATEMENT:
        return True
    return result.error_field(DiagnosticField.SOURCE_FUNCTION) == _REVALIDATE


def _tag(status: bytes) -> str:
    """The words of a command tag, without its numbers."""
    return " ".join(word for word in status.decode().split() if not word.isdigit())


def _not_here(what: str) -> SqlError:
    return SqlError(Blame.CALLER, f"{what} is not allowed here: use the operation transaction")
