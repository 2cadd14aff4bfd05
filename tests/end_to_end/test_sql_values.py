"""What goes in comes back: values of every type, native and as JSON, from caller to database."""

import datetime as dt
import math
import string
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.databases import Databases, databases
from tests.support.postgres import postgres_server
from vastar_client.wire import ErrorClass
from vastar_client.wire.values import Json, to_json

TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]))
WITHOUT_NUL: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ZONES: Final = st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))
)
LEAST, MOST = dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1)  # noqa: DTZ001 - of either kind
MOMENTS: Final = st.datetimes(LEAST, MOST)
ZONED: Final = st.datetimes(LEAST, MOST, timezones=ZONES)
INT8: Final = st.integers(-(2**63), 2**63 - 1)
DECIMALS: Final = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40
)
INTERVALS: Final = st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000))
KEYS: Final = st.text(string.ascii_letters + "$", max_size=8)
JSONS: Final = st.recursive(
    st.none()
    | st.booleans()
    | INT8
    | st.floats(allow_nan=False, allow_infinity=False)
    | WITHOUT_NUL,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


def same(first: Any, second: Any) -> bool:
    """Equal, where NaN equals itself and true is not 1."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float | Decimal) and math.isnan(first):
        return type(second) is type(first) and math.isnan(second)
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)


def kept_by_sqlite(value: Any) -> Any:
    """What SQLite, which has five types, gives back."""
    match value:
        case bool():
            return int(value)
        case dt.timedelta():
            return value // dt.timedelta(microseconds=1)
        case dt.date() | dt.time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case Json():
            return msgspec.json.encode(value.value).decode()
    return value if isinstance(value, int | float | str | bytes | None) else str(value)


OF_SQLITE: Final = st.one_of(
    *(st.none(), st.booleans(), INT8, st.floats(allow_nan=False), st.decimals(allow_nan=False)),
    *(TEXTS, st.binary(), st.dates(), st.times(timezones=st.none() | ZONES), MOMENTS, ZONED),
    *(INTERVALS, st.uuids(), JSONS.map(Json)),
)
SETTINGS: Final = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def both_ways(db: Databases, sql: str, values: list[Any], expected: list[Any]) -> None:
    """Native and as JSON, the answer too."""
    (row,) = await db.query(sql, values)
    assert len(row) == len(expected)
    for got, value in zip(row, expected, strict=True):
        assert same(got, value), (got, value)
    said = await db.json("query", {"sql": sql, "params": [in_json(each) for each in values]})
    for got, value in zip(said["rows"][0], expected, strict=True):
        assert same_json(got, to_json(value)), (got, value)


def in_json(value: Any) -> Any:
    """A parameter in a payload of JSON."""
    if isinstance(value, list):
        return [in_json(each) for each in value]
    return {"$json": value.value} if isinstance(value, Json) else to_json(value)


def same_json(first: Any, second: Any) -> bool:
    """Equal, where the tagged text of a number or a moment is what it stands for."""
    for tag, read in READ.items():
        if isinstance(first, dict) and isinstance(second, dict) and first.keys() == {tag}:
            return second.keys() == {tag} and same(read(first[tag]), read(second[tag]))
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_json, first, second))
    return same(first, second)


READ: Final[dict[str, Callable[[str], Any]]] = {
    "$decimal": Decimal,
    "$int": int,
    "$float": float,
    "$timestamp": dt.datetime.fromisoformat,
    "$time": dt.time.fromisoformat,
}


@SETTINGS
@given(values=st.lists(OF_SQLITE, min_size=1, max_size=20))
async def test_sqlite(tmp_path, values):
    config = f'[tenants.acme.databases.main]\nurl = "sqlite://{tmp_path}/main.db"'
    async with databases(tmp_path, config) as db:
        marks = ", ".join("?" * len(values))
        await both_ways(db, f"select {marks}", values, [kept_by_sqlite(each) for each in values])


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**80, float("nan"), [1], []])
async def test_what_sqlite_cannot_keep_is_refused_and_not_changed(tmp_path, value):
    config = f'[tenants.acme.databases.main]\nurl = "sqlite://{tmp_path}/main.db"'
    async with databases(tmp_path, config) as db:
        await db.failed(ErrorClass.INVALID_REQUEST, "query", "select ?", [value])
        assert await db.query("select 1") == [(1,)]


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | inner, max_size=5)


OF_POSTGRES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "bool": st.booleans(),
    "int8": INT8,
    "numeric": DECIMALS | st.integers(-(10**60), 10**60) | st.just(Decimal("NaN")),
    "float8": st.floats(),
    "text": WITHOUT_NUL,
    "bytea": st.binary(),
    "date": st.dates(),
    "time": st.times(),
    "timetz": st.times(timezones=ZONES),
    "timestamp": MOMENTS,
    "timestamptz": ZONED,
    "interval": INTERVALS,
    "uuid": st.uuids(),
    "jsonb": JSONS.map(Json),
    "json": JSONS.map(Json),
    "bool[]": arrays(st.booleans()),
    "int8[]": arrays(INT8),
    "numeric[]": arrays(DECIMALS),
    "float8[]": arrays(st.floats()),
    "text[]": arrays(WITHOUT_NUL),
    "bytea[]": arrays(st.binary()),
    "date[]": arrays(st.dates()),
    "timestamptz[]": arrays(ZONED),
    "uuid[]": arrays(st.uuids()),
    "jsonb[]": arrays(JSONS.map(Json)),
}
TYPED: Final = st.sampled_from(sorted(OF_POSTGRES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.none() | OF_POSTGRES[kind])
)


@pytest.fixture(scope="module")
def server():
    with postgres_server() as running:
        yield running


def given_back(value: Any) -> Any:
    """What PostgreSQL gives back: whole numerics are decimals too."""
    if isinstance(value, Json):
        return value.value
    if isinstance(value, list):
        return [given_back(each) for each in value]
    return value


@pytest.mark.slow
@pytest.mark.cap_s(300)
@SETTINGS
@given(typed=st.lists(TYPED, min_size=1, max_size=20))
async def test_postgresql(tmp_path, server, typed):
    config = f'[tenants.acme.databases.main]\nurl = "{server.url}"'
    async with databases(tmp_path, config) as db:
        columns = ", ".join(f"%s::{kind}" for kind, _ in typed)
        values = [value for _, value in typed]
        (row,) = await db.query(f"select {columns}", values)
        for (kind, value), got in zip(typed, row, strict=True):
            assert same(got, given_back(value)), (kind, value, got)
        asked = {"sql": f"select {columns}", "params": [in_json(each) for each in values]}
        said = await db.json("query", asked)
        for got, value in zip(said["rows"][0], row, strict=True):
            assert same_json(got, to_json(value)), (got, value)
