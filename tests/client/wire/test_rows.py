"""Requests to databases and results, as bytes."""

import struct
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_client.wire import RemoteProtocolError
from vastar_client.wire.rows import (
    BlockReader,
    ResultBlock,
    SqlRequest,
    SqlStatement,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    framed,
    json_rows,
    rows_of,
    to_block,
)
from vastar_client.wire.values import Json, pack

_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[_VALUES] * n))))
def test_rows_come_back(rows):
    width = len(rows[0]) if rows else 3
    names = [f"c{number}" for number in range(width)]
    (block,) = decode_answer(encode_answer([to_block(names, rows, 7, 9)]))
    assert rows_of(block) == rows
    assert (block.names, block.length, block.row_count, block.last_id) == (names, len(rows), 7, 9)
    reader, found = BlockReader(), []
    for byte in framed(to_block(names, rows)) * 2:
        found += reader.feed(bytes([byte]))
    assert [rows_of(each) for each in found] == [rows, rows]
    assert reader.is_between


def test_types_are_the_databases_or_the_values():
    assert to_block(["a", "b"], [(1, None), (2, "x")]).types == ["int", "text"]
    assert to_block(["a"], [(1,)], types=["int8"]).types == ["int8"]
    assert to_block(["a"], [], types=["int8"]).data == [[]]
    assert to_block([], []).data == []


def test_requests():
    asked = SqlRequest(
        source="orders",
        sql="select ?",
        params=[pack(Decimal("1.5")), pack({"a": 1})],
        statements=[SqlStatement("select :a", {"a": 1})],
        timeout_ms=5,
    )
    got = decode_request(encode_request(asked))
    assert got.params == [Decimal("1.5"), Json({"a": 1})]
    assert (got.source, got.timeout_ms, got.statements) == ("orders", 5, asked.statements)
    assert "select" not in repr(got) + repr(got.statements)
    assert encode_request(SqlRequest()) == b"\x80"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x01", b"\x81\xa3sql\x01", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000),
        *(b"\x81\xa3sql\xa1\xff", b"\x91\x91\x94\x91\xa1\xff\x91\xa3int\x00\x91\x90"),
    ],
)
def test_what_is_no_request_or_answer(data):
    for decode in (decode_request, decode_answer):
        with pytest.raises(RemoteProtocolError):
            decode(data)
    with pytest.raises(RemoteProtocolError):
        list(BlockReader().feed(struct.pack(">I", len(data)) + data))


@pytest.mark.parametrize(
    "results",
    [
        [],
        [ResultBlock(["a"], [], 0, [[]])],
        [ResultBlock(["a"], ["int"], 0, [])],
        [ResultBlock(["a"], ["int"], 2, [[1]])],
        [ResultBlock([], [], 2, [])],
    ],
)
def test_an_answer_that_contradicts_itself(results):
    with pytest.raises(RemoteProtocolError):
        decode_answer(encode_answer(results))


def test_a_block_that_is_too_long():
    reader = BlockReader()
    with pytest.raises(RemoteProtocolError, match="a block of"):
        list(reader.feed(b"\xff" * 4))
    assert not reader.is_between


def test_rows_as_json():
    assert json_rows(["a", "b"], []) == (["null", "null"], [])
    assert json_rows(["a"], [(1,), (None,)]) == (["int"], [(1,), (None,)])
    types, rows = json_rows(["a", "b"], [(1, Decimal("1.5"))])
    assert types == ["int", "decimal"]
    assert msgspec.json.encode(rows) == b'[[1,{"$decimal":"1.5"}]]'


def test_the_bytes_of_a_payload_are_not_shown():
    assert repr(SqlRequest(source="orders", sql="hunter2")) == "SqlRequest(source='orders', ...)"
    assert "hunter2" not in repr(SqlStatement("hunter2"))
    assert "hunter2" not in repr(SqlRequest(source="orders", sql="hunter2").__rich_repr__())
    assert SqlStatement("hunter2").__rich_repr__() == []
