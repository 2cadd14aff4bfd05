"""What a text says about the session it leaves; in doubt, that it leaves something."""

import pytest

from vastar_runtime.connectors.sql.postgres_leaving import (
    controls,
    gives_no_rows,
    leaves_nothing,
    may_leave,
)

PLAIN = [
    "select id, name from t where id = $1",
    "select count(*), max(a) filter (where b) over (partition by c) from t group by cube (a)",
    "insert into t (a, b) values ($1, $2) on conflict (a) do update set b = excluded.b returning a",
    'insert into "My T" (a) select a from u where a in (1, 2) and not exists (select 1)',
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) select i from n",
    "update t set a = coalesce($1, lower(b)), c = (d + 1) * (2) where id = any($2)",
    "select '-- a comment, or none', 5 /* one */ from t",
    "select id -- a name\nfrom t",
    "delete from t where created < now() - interval '1 day' and ($1 or $2)",
    "select $1::numeric(10, 2), cast(a as varchar(5))",
]
LEAVING = [
    "select set_config('a.b', 'c', false)",
    "SELECT SET_CONFIG ('a.b', 'c', false)",
    "select \"set_config\"('a.b', 'c', false)",
    "select pg_catalog.set_config/**/('a.b', 'c', false)",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock_shared(1)",
    "select U&\"s\\0065t_config\"('a.b', 'c', false)",
    "select * into temp x from t",
    "create temporary table x as select 1",
    "create table pg_temp.x as select 1",
    "select query_to_xml($1, true, true, '')",
    "select my_function(1)",
    "select my_function /* why */ (1)",
    "select my_function -- why\n (1)",
    'select "my function"(1)',
    "select '/*' , my_function(1), '*/'",
    "insert into t (a) values (my_function(1))",
    "do $$ begin execute 'listen x'; end $$",
    "prepare x as select 1",
    "select setseed(0.5)",
    "select 1" + " " * 200_000,
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_leaves_nothing(text):
    assert not may_leave(text)


@pytest.mark.parametrize("text", LEAVING)
def test_what_may_leave_something(text):
    assert may_leave(text)


def test_long_texts_take_no_time():
    for text in ("a" * 99_000, "a " * 49_000, "into " * 19_000, "/*" * 49_000, "*/ " * 33_000):
        may_leave(text)
        controls(text)


def test_tags():
    assert all(map(leaves_nothing, ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "SHOW")))
    assert not any(map(leaves_nothing, ("SET", "LISTEN", "DO", "CREATE TABLE", "FETCH", "")))


@pytest.mark.parametrize(
    "text",
    [
        "begin",
        " ; COMMIT",
        "/* a */ rollback",
        "-- a\nend",
        "start  transaction",
        "abort work",
        "prepare transaction 'x'",
        "/* * / */\nBegin isolation level serializable",
    ],
)
def test_what_begins_or_ends_a_transaction(text):
    assert controls(text)


@pytest.mark.parametrize(
    "text",
    [
        "select 1",
        "savepoint a",
        "release a",
        "ending",
        "select 'begin'",
        "prepare x as select 1",
        "with commit as (select 1) select * from commit",
        "begin_work",
        "-- begin",
    ],
)
def test_what_does_not(text):
    assert not controls(text)


def test_what_gives_no_rows():
    assert gives_no_rows("  INSERT into t values (1)")
    assert gives_no_rows("update t set a = 1")
    assert not gives_no_rows("insert into t values (1) RETURNING a")
    assert not gives_no_rows("with a as (select 1) select * from a")
    assert not gives_no_rows("inserted")
