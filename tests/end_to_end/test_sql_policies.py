"""The policies of the servers of data sources: written as those of origins, held by every call."""

import pytest
import trio

from tests.support.databases import databases
from tests.support.postgres import postgres_server
from vastar_client.wire import Cancel, Disposition, ErrorClass

FOREVER = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
TWO = """
[tenants.acme.databases.main]
url = "sqlite://{path}/main.db"
[tenants.acme.databases.broken]
url = "sqlite://{path}/a%20directory"
[tenants.other.databases.main]
url = "sqlite://{path}/main.db"
[defaults.retry]
mode = "off"
"""


def config(tmp_path, more: str = "") -> str:
    (tmp_path / "a directory").mkdir(exist_ok=True)
    return TWO.format(path=tmp_path) + more


async def test_a_server_has_a_circuit_as_configured_for_it(tmp_path):
    more = f'[origins."sqlite://{tmp_path}/a%20directory".breaker]\nno_answer_run = 2\n'
    async with databases(tmp_path, config(tmp_path, more)) as db:
        for _ in range(2):
            got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1", source="broken")
            assert "SQLITE_CANTOPEN" in got.error_message
            assert got.disposition is Disposition.NOT_SENT
        got = await db.failed(ErrorClass.TRANSIENT, "query", "select 1", source="broken")
        assert got.refused_by == "circuit_breaker:origin"
        assert got.disposition is Disposition.NOT_SENT
        assert await db.query("select 1", source="main") == [(1,)]


async def test_a_server_has_a_bulkhead_as_configured_for_it(tmp_path):
    more = f"""
    [origins."sqlite://{tmp_path}/main.db".bulkhead]
    max_per_origin = 1
    """
    async with databases(tmp_path, config(tmp_path, more)) as db:
        busy = await db.send("query", FOREVER, source="main")
        source = db.running.runtime._further._sources["acme", "main"]
        while not source.busy:  # noqa: ASYNC110 - a thread tells nobody
            await trio.sleep(0.01)
        got = await db.failed(
            ErrorClass.TIMEOUT, "query", "select 1", source="main", timeout_ms=100
        )
        assert "bulkhead" in got.error_message
        assert got.disposition is Disposition.NOT_SENT
        assert source.busy == 1
        assert await db.query("select 1", tenant="other") == [(1,)]  # which has places of its own
        await db.end.send(Cancel(busy))
        await db.end.receive()
        assert await db.query("select 1", source="main") == [(1,)]


async def test_the_connections_of_each_source_are_told(tmp_path):
    async with databases(tmp_path, config(tmp_path)) as db:
        runtime = db.running.runtime
        await db.execute("create table t (a)", source="main")
        busy = await db.send("execute", f"insert into t {FOREVER}", source="main")
        second = await db.send("execute", "insert into t values (1)", source="main")

        def told() -> tuple[int, ...]:
            (row,) = (
                row
                for row in runtime.databases()
                if (row["tenant"], row["source"]) == ("acme", "main")
            )
            assert row["origin"] == f"sqlite://{tmp_path}/main.db"
            return tuple(row[name] for name in ("open", "idle", "active", "waiting"))

        while told() != (1, 0, 1, 1):  # noqa: ASYNC110 - a thread tells nobody
            await trio.sleep(0.01)
        text = (await runtime.metrics()).decode()
        series = 'vastar_database_connections{source="main",state="waiting",tenant="acme"} 1.0'
        assert series in text
        await db.end.send(Cancel(busy))
        answers = [await db.end.receive() for _ in range(2)]
        assert {each.request_id for each in answers} == {busy, second}
        queued_us = {each.request_id: each.queued_us for each in answers}
        assert queued_us[second] > queued_us[busy] == 0
        while told() != (1, 1, 0, 0):  # noqa: ASYNC110 - likewise
            await trio.sleep(0.01)


async def test_a_server_and_a_tenant_have_rates(tmp_path):
    more = f"""
    [origins."sqlite://{tmp_path}/main.db".origin_rate_limit]
    limit = 3
    period_s = 3600
    [tenants.acme.tenant_rate_limit]
    limit = 1
    period_s = 3600
    """
    async with databases(tmp_path, config(tmp_path, more)) as db:
        await db.query("select 1", source="main")
        fields = {"source": "main", "timeout_ms": 100}
        got = await db.failed(ErrorClass.RATE_LIMITED, "query", "select 1", **fields)
        assert got.refused_by == "rate_limit:tenant"
        fields["tenant"] = "other"
        for _ in range(2):
            await db.query("select 1", **fields)
        got = await db.failed(ErrorClass.RATE_LIMITED, "query", "select 1", **fields)
        assert got.refused_by == "rate_limit:origin"


@pytest.mark.slow
@pytest.mark.cap_s(120)
async def test_the_circuit_of_a_postgresql_that_is_gone_opens_and_closes_again(tmp_path):
    with postgres_server() as server:
        text = f"""
        [tenants.acme.databases.main]
        url = "{server.url}"
        [defaults.retry]
        mode = "off"
        [origins."postgresql://127.0.0.1:{server.port}".breaker]
        no_answer_run = 3
        open_s = 1.0
        open_max_s = 1.0
        successes_to_close = 1
        """
        async with databases(tmp_path, text) as db:
            assert await db.query("select 1") == [(1,)]
            await trio.to_thread.run_sync(server.stop)
            said = [await db.failed(ErrorClass.TRANSIENT, "query", "select 1") for _ in range(4)]
            assert said[-1].refused_by == "circuit_breaker:origin"
            assert f"postgres://127.0.0.1:{server.port}" in said[-1].error_message
            assert said[-1].retry_after_ms > 0
            rows = db.running.runtime.policies()["breakers"]
            assert [row["origin"] for row in rows] == [f"postgres://127.0.0.1:{server.port}"]
            await trio.to_thread.run_sync(server.start)
            answer = await db.call("query", "select 1")
            while answer.error_class is not ErrorClass.SUCCESS:
                answer = await db.call("query", "select 1")
                await trio.sleep(0.1)
            assert db.running.runtime.policies()["breakers"] == []
