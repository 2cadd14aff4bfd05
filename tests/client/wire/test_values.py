"""Typed values, both ways, as MessagePack and as JSON."""

import datetime as dt
import enum
import math
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from vastar_client.wire import RemoteProtocolError
from vastar_client.wire.values import (
    Json,
    SqlValueError,
    from_json,
    is_plain,
    pack,
    to_json,
    type_name,
    unpack_parameter,
    unpack_result,
)

AN_ID = UUID("12345678-1234-5678-1234-567812345678")
ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))
VALUES = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    10**300,
    1.5,
    math.inf,
    "text \N{SNOWMAN}",
    b"\x00\xff",
    Decimal("1.50"),
    Decimal("NaN"),
    dt.date(2026, 11, 22),
    dt.time(1, 2, 3, 4),
    dt.time(1, 2, tzinfo=ZONE),
    dt.datetime(2026, 11, 22, 1, 2, 3, 4),  # noqa: DTZ001 - one without a zone
    dt.datetime(2026, 11, 22, tzinfo=ZONE),
    dt.timedelta(days=-3, microseconds=7),
    AN_ID,
    [1, None, [Decimal(2), "x"]],
]


def _through(value, hook=unpack_result):
    return msgspec.msgpack.decode(msgspec.msgpack.encode(pack(value)), ext_hook=hook)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_type_comes_back_as_it_went(value):
    for back in (
        _through(value),
        from_json(msgspec.json.decode(msgspec.json.encode(to_json(value)))),
    ):
        assert type(back) is type(value)
        assert repr(back) == repr(value)


def test_nan():
    assert math.isnan(_through(math.nan))
    assert to_json(math.nan) == {"$float": "nan"}
    assert math.isnan(from_json({"$float": "NaN"}))


def test_json_is_a_value_of_a_result_and_a_type_of_a_parameter():
    for value in ({"a": [1, {"b": None}]}, Json({"a": [1, {"b": None}]})):
        assert _through(value) == {"a": [1, {"b": None}]}
        assert _through(value, unpack_parameter) == Json({"a": [1, {"b": None}]})
    assert _through(Json([1]), unpack_parameter) == Json([1])
    assert to_json({"a": 1}) == {"$json": {"a": 1}}
    assert from_json({"$json": [1]}) == Json([1])
    assert from_json({"a": 1}) == Json({"a": 1})
    assert from_json({"$a": 1, "$b": 2}) == Json({"$a": 1, "$b": 2})
    assert from_json({}) == Json({})


def test_kinds_of_plain_types():
    class Color(enum.IntEnum):
        RED = 1

    class Name(str):
        __slots__ = ()

    assert _through(Color.RED) == 1
    assert _through(Name("x")) == "x"
    assert _through((1, 2)) == [1, 2]
    assert _through(bytearray(b"x")) == b"x"


@pytest.mark.parametrize(
    "value",
    [object(), {1: object()}, Json(object()), 1j, 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_what_no_database_takes(value):
    with pytest.raises(SqlValueError):
        pack(value)


def test_arrays_have_an_end():
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(SqlValueError, match="deeper"):
        pack(deep)
    with pytest.raises(SqlValueError, match="deeper"):
        from_json(deep)


@pytest.mark.parametrize(
    ("code", "data"),
    [(99, b""), (1, b"x"), (2, b"1,5"), (3, b"short"), (4, b"\xff"), (8, b"{"), (1, b"9" * 5000)],
)
def test_an_extension_that_cannot_be_read(code, data):
    with pytest.raises(RemoteProtocolError, match=f"type {code} ") as caught:
        unpack_result(code, memoryview(data))
    assert not caught.value.closes


@pytest.mark.parametrize(
    "value",
    [
        {"$nothing": 1},
        {"$decimal": "x"},
        {"$bytes": "?"},
        {"$bytes": 1},
        {"$uuid": []},
        {"$interval": "1e400"},
    ],
)
def test_a_tag_that_cannot_be_read(value):
    with pytest.raises(SqlValueError, match="tagged"):
        from_json(value)


def test_names_of_types():
    assert type_name(set()) == type_name({type(None)}) == "null"
    assert type_name({int, type(None)}) == "int"
    assert type_name({int, float}) == "any"
    assert type_name({object}) == "any"
    assert is_plain({int, str})
    assert not is_plain({int, Decimal})
