"""Rows as a stream, under credit, from both kinds of databases."""

import json

import pytest
import trio

from tests.support.databases import databases, sql_request
from tests.support.postgres import postgres_server
from tests.support.streaming import streaming
from vastar_client.wire import ErrorClass, ResponseFormat
from vastar_client.wire.rows import BlockReader, rows_of

SERIES = (
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) "
    "select i, 'row ' || i as t from n"
)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request, tmp_path_factory):
    if request.param == "sqlite":
        yield f"sqlite://{tmp_path_factory.mktemp('streams')}/main.db"
        return
    with postgres_server() as server:
        yield server.url


def config(url: str, more: str = "") -> str:
    return f'[tenants.acme.databases.main]\nurl = "{url}"\n{more}'


def rows_in(body: bytes) -> list[tuple[object, ...]]:
    reader = BlockReader()
    rows = [row for block in reader.feed(body) for row in rows_of(block)]
    assert reader.is_between
    return rows


async def test_all_rows_come_in_order(tmp_path, url):
    async with databases(tmp_path, config(url, "max_rows = 5")) as db:
        caller = await streaming(db.running, end=db.end)
        sent = await caller.begin_with(sql_request(1, "query", SERIES.format(20_000), stream=True))
        with trio.fail_after(15):
            await sent.ended()
        assert ("content-type", "application/x-vastar-rows") in sent.head.headers
        rows = rows_in(sent.body)
        assert len(rows) == 20_000
        assert rows[-1] == (20_000, "row 20000")
        assert ("x-row-count", "20000") in sent.ok.trailers


async def test_lines_of_json(tmp_path, url):
    async with databases(tmp_path, config(url)) as db:
        caller = await streaming(db.running, end=db.end)
        request = sql_request(
            1, "query", SERIES.format(3), stream=True, response_format=ResponseFormat.JSON
        )
        sent = await caller.begin_with(request)
        with trio.fail_after(15):
            await sent.ended()
        head, *rows = map(json.loads, sent.body.splitlines())
        assert head["columns"] == [{"name": "i", "type": "int"}, {"name": "t", "type": "text"}]
        assert rows == [[1, "row 1"], [2, "row 2"], [3, "row 3"]]


async def test_no_rows_have_columns_all_the_same(tmp_path, url):
    async with databases(tmp_path, config(url)) as db:
        caller = await streaming(db.running, end=db.end)
        sent = await caller.begin_with(
            sql_request(1, "query", "select 1 as a where 1 = 0", stream=True)
        )
        with trio.fail_after(15):
            await sent.ended()
        (block,) = BlockReader().feed(sent.body)
        assert (block.names, block.length) == (["a"], 0)


async def test_who_reads_slowly_holds_the_query_and_who_leaves_ends_it(tmp_path, url):
    async with databases(tmp_path, config(url, "max_connections = 1")) as db:
        caller = await streaming(db.running, end=db.end)
        sent = await caller.begin_with(
            sql_request(1, "query", SERIES.format(3_000_000), stream=True), reads=False
        )
        with trio.fail_after(15):
            await sent.has(65_536)
            await trio.sleep(0.1)
            assert sent.total_bytes == 65_536
            await sent.cancel()
            await sent.ended()
        assert "cancelled by caller" in sent.failed(ErrorClass.PERMANENT)
        with trio.fail_after(15):
            await caller.send(sql_request(2, "query", "select 1"))
            assert (await caller.answer(2)).error_class is ErrorClass.SUCCESS


async def test_what_fails_before_the_head(tmp_path, url):
    async with databases(tmp_path, config(url)) as db:
        caller = await streaming(db.running, end=db.end)
        sent = await caller.begin_with(sql_request(1, "query", "selekt", stream=True))
        with trio.fail_after(15):
            await sent.ended()
        assert sent.head is None
        sent.failed(ErrorClass.INVALID_REQUEST)
        sent = await caller.begin_with(sql_request(2, "execute", "select 1", stream=True))
        await sent.ended()
        assert "only the answer of a query" in sent.failed(ErrorClass.INVALID_REQUEST)
