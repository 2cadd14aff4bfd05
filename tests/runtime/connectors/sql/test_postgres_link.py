"""One connection, against a real server."""

import pytest
import trio

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")

from psycopg.pq import ExecStatus

from tests.support.postgres import postgres_server
from vastar_runtime.connectors.sql import postgres_link
from vastar_runtime.connectors.sql.postgres_link import Link, LinkError, connect, look_up

FOREVER = b"select pg_sleep(600)"


@pytest.fixture(scope="module")
def server():
    with postgres_server() as running:
        yield running


async def linked(server) -> Link:
    parameters = {"host": "127.0.0.1", "port": server.port, "user": "postgres"}
    return await connect({**parameters, "dbname": "postgres"}, ["127.0.0.1"])


async def all_of(link: Link) -> list[tuple[int, int]]:
    results = []
    while (result := await link.next()) is not None:
        results.append((result.status, result.ntuples))
    return results


async def begun(link: Link, other: Link) -> None:
    """Something that takes for ever, and that the server has begun."""
    await link.send(FOREVER)
    seen = f"select state from pg_stat_activity where pid = {pid(link)} and query ~ 'pg_sleep'"
    while (await other.command(f"{seen} and state = 'active'".encode())).ntuples == 0:
        await trio.lowlevel.checkpoint()


async def test_rows_come_in_chunks(server):
    link = await linked(server)
    await link.send(b"select generate_series(1, $1::int)", [b"70"], [0])
    assert link.is_running
    assert not link.is_idle
    chunk = ExecStatus.TUPLES_CHUNK
    assert await all_of(link) == [(chunk, 32), (chunk, 32), (chunk, 6), (ExecStatus.TUPLES_OK, 0)]
    assert link.is_idle
    assert not link.is_running
    link.close()
    assert not link.is_open


async def test_row_by_row_where_libpq_is_old(server, monkeypatch):
    monkeypatch.setattr(postgres_link, "HAS_CHUNKS", False)
    monkeypatch.setattr(postgres_link, "HAS_CANCEL", False)
    link, other = await linked(server), await linked(server)
    await link.send(b"select generate_series(1, 3)")
    single = ExecStatus.SINGLE_TUPLE
    assert await all_of(link) == [(single, 1)] * 3 + [(ExecStatus.TUPLES_OK, 0)]
    await begun(link, other)
    assert await link.cancel()
    assert await all_of(link) == [(ExecStatus.FATAL_ERROR, 0)]
    link.close()
    other.close()


async def test_prepared_and_commands(server):
    link = await linked(server)
    result = await link.prepare(b"p", b"select $1 + 1", [23])
    assert result.status == ExecStatus.COMMAND_OK
    await link.send(b"", [b"4"], name=b"p")
    result = await link.next()
    assert result is not None
    assert result.get_value(0, 0) == b"5"
    await link.drain()
    assert (await link.command(b"select 1; select 2")).get_value(0, 0) == b"2"
    assert (await link.command(b"selekt")).status == ExecStatus.FATAL_ERROR
    assert link.is_idle
    link.close()


async def test_several_at_once(server):
    link = await linked(server)
    one, bad = (b"select 1", None, [], None, None), (b"selekt", None, [], None, None)
    ok, failed = (ExecStatus.TUPLES_OK, 1), (ExecStatus.FATAL_ERROR, 0)
    for _ in range(2):
        await link.send_batch([one] * 3)
        assert await all_of(link) == [ok] * 3
        assert link.is_idle
        await link.send_batch([one, bad, one, one])
        assert await all_of(link) == [ok, failed]
        assert link.is_idle
        assert (await link.command(b"select 1")).status == ExecStatus.TUPLES_OK
    begin, series = (b"begin", *one[1:]), (b"select generate_series(1, 70)", *one[1:])
    chunk, done = ExecStatus.TUPLES_CHUNK, (ExecStatus.COMMAND_OK, 0)
    await link.send_batch([begin, series, (b"commit", *one[1:])], in_chunks=True)
    end = [(chunk, 32), (chunk, 32), (chunk, 6), (ExecStatus.TUPLES_OK, 0)]
    assert await all_of(link) == [done, *end, done]
    # More than both ends hold in their sockets, both ways.
    long = (b"select $1::text", [b"x" * 300_000], [25], None, None)
    await link.send_batch([long] * 60)
    assert await all_of(link) == [ok] * 60
    link.close()


async def test_cancel_and_what_follows(server):
    link, other = await linked(server), await linked(server)
    for _ in range(3):
        await begun(link, other)
        with trio.fail_after(30):
            assert await link.cancel()
            assert await all_of(link) == [(ExecStatus.FATAL_ERROR, 0)]
        assert link.is_ending
        assert (await link.command(b"select 1")).get_value(0, 0) == b"1"
    link.close()
    other.close()


async def test_more_than_a_socket_holds_goes_out(server):
    link = await linked(server)
    await link.send(b"select length($1)", [b"x" * 30_000_000], [25])
    result = await link.next()
    assert result is not None
    assert result.get_value(0, 0) == b"30000000"
    assert link.is_sent
    link.close()


async def test_who_does_not_answer_is_not_waited_for(server, monkeypatch):
    link, other = await linked(server), await linked(server)
    await begun(link, other)
    monkeypatch.setattr(postgres_link, "_CANCEL_S", 0.0)
    assert not await link.cancel()
    monkeypatch.undo()
    assert await link.cancel()
    await link.drain()
    link.close()
    other.close()


async def test_copies_have_no_end(server):
    link = await linked(server)
    await link.send(b"copy (select 1) to stdout")
    with pytest.raises(LinkError):
        await link.drain()
    link.close()


async def test_connections_that_cannot_be(server):
    with pytest.raises(LinkError, match="nothing"):
        await connect(
            {"host": "h", "port": server.port, "user": "postgres", "dbname": "nothing"},
            ["127.0.0.1"],
        )
    with pytest.raises(LinkError, match="refused"):
        await connect({"host": "h", "port": 1, "user": "u", "dbname": "d"}, ["127.0.0.1"])
    # The second address serves where the first does not; the name is not looked up again.
    parameters = {"host": "no.such.name", "port": server.port, "user": "postgres"}
    link = await connect({**parameters, "dbname": "postgres"}, ["127.0.0.9", "127.0.0.1"])
    other = await linked(server)
    assert link.is_idle
    await other.send(b"select pg_terminate_backend($1::int, 5000)", [str(pid(link)).encode()], [0])
    await other.drain()
    assert link.has_news()
    with pytest.raises(LinkError):
        for _ in range(2):
            await link.command(b"select 1")
            await link.drain()
    for each in (link, other):
        each.close()
    for broken in (link.command(b"x"), link.send(b"x"), link.prepare(b"x", b"x", [])):
        with pytest.raises(LinkError):
            await broken
    assert not await link.cancel()


def pid(link: Link) -> int:
    return link.pgconn.backend_pid


async def test_addresses():
    assert await look_up("127.0.0.1", 5432) == ["127.0.0.1"]
