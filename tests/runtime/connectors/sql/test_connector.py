"""The connector's own refusals; what it does is in end_to_end/test_sqlite.py and its neighbours."""

import pytest
import trio

from tests.support.data_sources import FakeDriver, source
from tests.support.databases import sql_request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.sql import DATABASE_NAMES, Source, SqlConnector
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


async def used_once(driver: FakeDriver, **fields: object) -> Source:
    """A source with one idle session."""
    made = source(driver, **fields)
    async with made.lend(writes=False):
        pass
    assert made.idle == 1
    return made


async def test_what_idles_is_closed_and_what_a_reload_leaves_out(autojump_clock, nursery):
    kept, left = FakeDriver(), FakeDriver()
    sources = {
        ("acme", "kept"): await used_once(kept, idle_timeout_s=12),
        ("acme", "left"): await used_once(left, idle_timeout_s=3600),
    }
    connector = SqlConnector(None, sources)  # type: ignore[arg-type]
    nursery.start_soon(connector.run)
    await trio.sleep(6)
    assert (kept.opened[0].closed, left.opened[0].closed) == (0, 0)
    async with sources["acme", "left"].lend(writes=False):
        connector.configure({("acme", "kept"): sources["acme", "kept"]})
        await trio.sleep(12)
        assert kept.opened[0].closed == 1
        assert left.opened[0].closed == 0  # somebody has it
    assert left.opened[0].closed == 1


async def test_a_source_that_appears_is_looked_after_and_all_are_closed_at_the_end(autojump_clock):
    driver = FakeDriver()
    connector = SqlConnector(None, {})  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connector.run)
        await trio.sleep(100)
        connector.configure({("acme", "new"): await used_once(driver, idle_timeout_s=1)})
        await trio.sleep(10)
        assert driver.opened[0].closed == 1
        async with connector.sources["acme", "new"].lend(writes=False):
            pass
        nursery.cancel_scope.cancel()
    assert [each.closed for each in driver.opened] == [1, 1]
