"""What is tried again, and what is said of it: scripted sessions, and conflicts that are real."""

from collections.abc import Callable
from contextlib import closing

import pytest
import trio

from tests.support.databases import Databases, databases
from tests.support.postgres import postgres_server
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result
from vastar_runtime.connectors.sql.sessions import Rows

QUICK = "[defaults.retry]\nattempts = 3\nbase_s = 0.01\ncap_s = 1.0\n"
SQLITE = '[tenants.acme.databases.main]\nurl = "sqlite://{}/a.db"\n'


class Scripted:
    """A driver, and its one session: each statement, and each connecting, does what is next."""

    origin = "sqlite:///scripted"
    has_one_writer = False
    is_usable = True

    def __init__(self, *steps: Blame | str) -> None:
        self.steps = list(steps)

    async def open(self) -> "Scripted":
        await trio.lowlevel.checkpoint()
        if self.steps[0] == "unreachable":
            self.steps.pop(0)
            raise SqlError(Blame.UNREACHABLE, "nobody is there", Disposition.NOT_SENT)
        self.is_usable = True
        return self

    def looks_alive(self) -> bool:
        return self.is_usable

    async def run(self, job: Job, begun: Callable[[], None]) -> list[Result]:
        del job
        begun()
        await trio.lowlevel.checkpoint()
        step = self.steps.pop(0)
        if isinstance(step, Blame):
            raise SqlError(step, "it failed")
        return [Result(["a"], [(1,)], 1)]

    def stream(self, job: Job, begun: Callable[[], None]) -> Rows:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.is_usable = False
        await trio.lowlevel.checkpoint()


def script(db: Databases, *steps: Blame | str) -> Scripted:
    driver = Scripted(*steps)
    source = db.running.runtime._further._sources["acme", "main"]
    source._driver = driver
    source._idle.clear()
    return driver


@pytest.mark.parametrize("blame", [Blame.ROLLED_BACK, Blame.BUSY, Blame.LOST])
async def test_only_what_is_said_to_be_safe_is_tried_again(tmp_path, blame):
    async with databases(tmp_path, SQLITE.format(tmp_path) + QUICK) as db:
        script(db, blame, blame, "done")
        got = await db.failed(ErrorClass.TRANSIENT, "execute", "x")
        assert (got.attempts, got.disposition) == (1, Disposition.SENT_NO_RESPONSE)
        script(db, blame, blame, "done")
        got = await db.call("execute", "x", idempotency_key="k")
        assert (got.error_class, got.attempts) == (ErrorClass.SUCCESS, 3)
        script(db, blame, blame, blame, "never")
        got = await db.failed(ErrorClass.TRANSIENT, "execute", "x", idempotency_key="k")
        assert got.attempts == 3


@pytest.mark.parametrize("blame", [Blame.CALLER, Blame.DATA, Blame.SERVER, Blame.TOO_LARGE])
async def test_what_would_fail_again_is_not_tried_again(tmp_path, blame):
    async with databases(tmp_path, SQLITE.format(tmp_path) + QUICK) as db:
        script(db, blame, "never")
        got = await db.call("execute", "x", idempotency_key="k")
        assert got.error_class in {ErrorClass.PERMANENT, ErrorClass.INVALID_REQUEST}
        assert got.attempts == 1


async def test_who_was_never_reached_is_tried_again_by_anybody(tmp_path):
    async with databases(tmp_path, SQLITE.format(tmp_path) + QUICK) as db:
        script(db, "unreachable", "unreachable", "done")
        got = await db.call("execute", "x")
        assert (got.error_class, got.attempts) == (ErrorClass.SUCCESS, 3)


async def test_what_was_sent_once_stays_sent_though_the_last_attempt_was_not(tmp_path):
    async with databases(tmp_path, SQLITE.format(tmp_path) + QUICK) as db:
        script(db, Blame.LOST, "unreachable", "unreachable")
        got = await db.failed(ErrorClass.TRANSIENT, "execute", "x", idempotency_key="k")
        assert "nobody is there" in got.error_message
        assert (got.attempts, got.disposition) == (3, Disposition.SENT_NO_RESPONSE)
        script(db, "unreachable", "unreachable", "unreachable")
        got = await db.failed(ErrorClass.TRANSIENT, "execute", "x")
        assert got.disposition is Disposition.NOT_SENT


@pytest.fixture(scope="module")
def server():
    with postgres_server() as running:
        yield running


class Rival:
    """Another program at the same server, whose sessions a test holds in its hands."""

    def __init__(self, url: str) -> None:
        import psycopg  # noqa: PLC0415 - not everywhere

        self._connection = psycopg.connect(url, autocommit=True)

    def do(self, sql: str) -> list[tuple[object, ...]]:
        cursor = self._connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()


async def waits(db: Databases) -> None:
    """Until somebody waits for a lock."""
    sql = "select count(*) from pg_locks where not granted"
    while await db.query(sql) == [(0,)]:  # noqa: ASYNC110 - the server tells nobody
        await trio.sleep(0.02)


async def sleeps(db: Databases) -> None:
    """Until a statement has begun to sleep."""
    sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    while await db.query(sql) == [(0,)]:  # noqa: ASYNC110 - likewise
        await trio.sleep(0.02)


def postgres(server) -> str:
    return f'[tenants.acme.databases.main]\nurl = "{server.url}"\n{QUICK}'


@pytest.mark.cap_s(60)
@pytest.mark.parametrize(("key", "attempts"), [(None, 1), ("k", 2)])
async def test_a_serialization_failure(tmp_path, server, key, attempts):
    async with databases(tmp_path, postgres(server)) as db:
        for sql in ("drop table if exists s", "create table s (n int)", "insert into s values (0)"):
            await db.execute(sql)
        with closing(Rival(server.url)) as rival:
            rival.do("select pg_advisory_lock(7)")
            statements = [
                ("select n from s", None),
                ("select pg_advisory_xact_lock(7)", None),
                ("update s set n = n + 10", None),
            ]
            await db.send(
                "transaction",
                statements=statements,
                isolation="repeatable read",
                idempotency_key=key,
            )
            beside = Databases(db.running, db.running.caller())
            await waits(beside)
            rival.do("update s set n = n + 1")  # what the other has read is not so any more
            rival.do("select pg_advisory_unlock(7)")
            got = await db.end.receive()
            await beside.end.close()
        assert got.attempts == attempts
        if key is None:
            assert got.error_class is ErrorClass.TRANSIENT
            assert "SQLSTATE 40001" in got.error_message
        else:
            assert got.error_class is ErrorClass.SUCCESS
        assert await db.query("select n from s") == [(1 if key is None else 11,)]


@pytest.mark.cap_s(60)
@pytest.mark.parametrize(("key", "attempts"), [(None, 1), ("k", 2)])
async def test_a_deadlock(tmp_path, server, key, attempts):
    async with databases(tmp_path, postgres(server)) as db:
        await db.execute("drop table if exists d")
        await db.execute("create table d (id int primary key, n int)")
        await db.execute("insert into d values (1, 0), (2, 0)")
        lock = "update d set n = n + 10 where id = %s"
        with closing(Rival(server.url)) as rival:
            rival.do("set deadlock_timeout = '1h'")  # it is never the one that is chosen
            rival.do("begin")
            rival.do("update d set n = n + 1 where id = 2")
            statements = [("select 1", None), (lock, [1]), (lock, [2])]
            await db.send("transaction", statements=statements, idempotency_key=key)
            beside = Databases(db.running, db.running.caller())
            await waits(beside)
            # The other waits for us, and now we wait for it.
            await trio.to_thread.run_sync(rival.do, "update d set n = n + 1 where id = 1")
            rival.do("commit")
            got = await db.end.receive()
            await beside.end.close()
        assert got.attempts == attempts
        if key is None:
            assert got.error_class is ErrorClass.TRANSIENT
            assert "SQLSTATE 40P01" in got.error_message
        else:
            assert got.error_class is ErrorClass.SUCCESS
        extra = 0 if key is None else 10
        rows = await db.query("select id, n from d order by id")
        assert rows == [(1, 1 + extra), (2, 1 + extra)]


@pytest.mark.slow
@pytest.mark.cap_s(120)
async def test_a_server_that_dies_under_a_transaction(tmp_path):
    with postgres_server() as server:
        text = postgres(server) + "[defaults.breaker]\nmode = 'off'\n"
        async with databases(tmp_path, text) as db:
            await db.execute("create table k (n int)")
            statements = [("insert into k values (1)", None), ("select pg_sleep(600)", None)]
            for key in (None, "k"):
                await db.send("transaction", statements=statements, idempotency_key=key)
                beside = Databases(db.running, db.running.caller())
                await sleeps(beside)
                await beside.end.close()
                await trio.to_thread.run_sync(server.stop)
                got = await db.end.receive()
                assert got.error_class is ErrorClass.TRANSIENT
                # With the key it was tried again, and nobody was there; it was sent all the same.
                assert got.attempts == (1 if key is None else 3)
                assert got.disposition is Disposition.SENT_NO_RESPONSE
                await trio.to_thread.run_sync(server.start)
                assert await db.query("select count(*) from k") == [(0,)]
            (row,) = db.running.runtime.databases()
            assert (row["active"], row["waiting"]) == (0, 0)
