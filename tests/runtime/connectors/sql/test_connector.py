"""The connector's own refusals; what it does is in end_to_end/test_sqlite.py and its neighbours."""

import pytest
import trio

from tests.support.databases import sql_request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.sql import DATABASE_NAMES, SqlConnector
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.policy import Deadline, Limit


def refused(kind: FailureKind, words: str, **fields: object) -> tuple[object, ...]:
    return kind, words, fields


@pytest.mark.parametrize(
    ("kind", "words", "fields"),
    [
        refused(FailureKind.NOT_SUPPORTED, "mysql is not supported", connector="mysql"),
        refused(FailureKind.INVALID_REQUEST, "tenant acme has none"),
        refused(FailureKind.INVALID_REQUEST, "named x", source="x"),
    ],
)
async def test_refusals_cost_no_policy(kind, words, fields):
    connector = SqlConnector(None, {})  # type: ignore[arg-type]  # asked for nothing
    deadline = Deadline(trio.current_time() + 9, 9, Limit.DEFAULT)
    call = Call(sql_request(1, "query", "select 1", **fields), Caller(), deadline, 1 << 20)
    outcome = await connector.execute(call)
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert words in outcome.message


async def test_housekeeping_sleeps_while_there_is_nothing(autojump_clock):
    assert set(DATABASE_NAMES) == {"sqlite", "postgres", "db", "sql", "mysql"}
    with trio.move_on_after(60):
        await SqlConnector(None, {}).run()  # type: ignore[arg-type]
