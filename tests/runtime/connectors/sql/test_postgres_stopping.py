"""Statements are stopped so that the next feels nothing of it, whenever the server takes notice."""

import pytest
import trio

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")

from psycopg.pq import DiagnosticField, ExecStatus

from vastar_runtime.config import DatabaseConfig
from vastar_runtime.connectors.sql.postgres_statements import GRACE_S, Statements


class Answer:
    """A result of the server's."""

    def __init__(self, sqlstate: bytes | None = None) -> None:
        self.status = ExecStatus.FATAL_ERROR if sqlstate else ExecStatus.COMMAND_OK
        self.error_message = b"no"
        self._sqlstate = sqlstate

    def error_field(self, field: int) -> bytes | None:
        return self._sqlstate if field == DiagnosticField.SQLSTATE else None


class FakeLink:
    """A server that takes a statement up late, and a cancel request later still.

    Args:
        deaf: so many requests come before the statement has begun.
        late: whether one hits what is sent after the statement.
        in_transaction: what was stopped was one of several.
    """

    def __init__(self, deaf: int = 0, *, late: bool = False, in_transaction: bool = False) -> None:
        self.is_running = self.is_sent = True
        self.is_ending = False
        self.is_idle = not in_transaction
        self.deaf = deaf
        self.late = late
        self.cancels = 0
        self.told: list[bytes] = []
        self.pgconn = self

    async def cancel(self) -> bool:
        await trio.lowlevel.checkpoint()
        self.cancels += 1
        return True

    async def drain(self) -> None:
        if self.cancels <= self.deaf and not self.is_ending:
            await trio.sleep_forever()
        self.is_running = False

    async def command(self, text: bytes) -> Answer:
        await trio.lowlevel.checkpoint()
        self.told.append(text)
        if self.late:
            self.late = False
            return Answer(b"57014")
        self.is_idle = True
        return Answer()

    def notifies(self) -> None:
        return None


def statements(link: FakeLink) -> Statements:
    return Statements(link, DatabaseConfig(url="postgres://h/n"))  # type: ignore[arg-type]


async def test_a_request_that_comes_too_early_is_sent_again(autojump_clock):
    link = FakeLink(deaf=3)
    assert await statements(link).stop()
    assert link.cancels == 4


async def test_a_statement_of_ours_takes_a_request_that_comes_late(autojump_clock):
    for late in (False, True):
        link = FakeLink(late=late)
        assert await statements(link).stop()
        assert len(link.told) == 1 + late
        assert b"RESET ALL" in link.told[0]
    link = FakeLink(late=True, in_transaction=True)
    assert await statements(link).stop()
    assert link.told[:2] == [b"ROLLBACK", b"ROLLBACK"]
    assert b"RESET ALL" in link.told[2]


async def test_what_fails_by_itself_is_not_cancelled(autojump_clock):
    link = FakeLink()
    link.is_ending = True
    assert await statements(link).stop()
    assert (link.cancels, link.told) == (0, [])


async def test_what_is_not_all_sent_cannot_be_stopped(autojump_clock):
    link = FakeLink()
    link.is_sent = False
    assert not await statements(link).stop()
    assert link.cancels == 0


async def test_a_server_that_hears_nothing_costs_the_connection_and_no_more_time(autojump_clock):
    began_s = trio.current_time()
    with trio.move_on_after(0):
        assert not await statements(FakeLink(deaf=10**9)).stop()
    assert trio.current_time() - began_s == pytest.approx(GRACE_S)
