"""Results to payloads: in pieces where they are large, and the same as whole ones."""

import datetime as dt
from decimal import Decimal

import msgspec
import pytest
import trio
import trio.testing

from vastar_client.wire.rows import BlockReader, decode_answer, json_rows, rows_of
from vastar_runtime.connectors.sql.answers import (
    SLICE_VALUES,
    StreamWriter,
    answer_pieces,
    in_pieces,
)
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result

QUERY = Job("query", [])
NAMES = ["a", "b", "c", "d"]


def large(rows: int) -> list[tuple[object, ...]]:
    """Rows of which each column has something of its own."""
    day = dt.date(2026, 11, 22)
    return [
        (number, f"row {number}" if number % 7 else None, Decimal(number) / 8, day)
        for number in range(rows)
    ]


async def test_answers_in_both_forms():
    result = Result(["a", "b"], [(1, b"x")], 1, 5, ["int", "bytes"])
    (block,) = decode_answer(await in_pieces(answer_pieces(QUERY, [result], as_json=False)))
    assert rows_of(block) == [(1, b"x")]
    said = msgspec.json.decode(await in_pieces(answer_pieces(QUERY, [result], as_json=True)))
    assert said == {
        "success": True,
        "columns": [{"name": "a", "type": "int"}, {"name": "b", "type": "bytes"}],
        "rows": [[1, {"$bytes": "eA=="}]],
        "row_count": 1,
        "last_id": 5,
    }
    for as_json in (False, True):
        with pytest.raises(SqlError, match="cannot be sent") as caught:
            list(answer_pieces(QUERY, [Result(["a"], [("\udc80",)])], as_json=as_json))
        assert caught.value.blame is Blame.DATA


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 1024, 1025, 20_000, 70_000])
async def test_large_ones_are_the_same_in_pieces(rows):
    some = large(rows)
    more = [Result(["x"], [], 3, None, ["int"]), Result(row_count=9)]
    results = [Result(NAMES, list(some), rows), *more]
    native = decode_answer(await in_pieces(answer_pieces(QUERY, results, as_json=False)))
    assert rows_of(native[0]) == some
    kinds = ["int", "text" if rows > 1 else "null", "decimal", "date"]
    assert (native[0].types, native[0].row_count) == (kinds, rows)
    assert [(each.names, each.types, each.length) for each in native[1:]] == [
        (["x"], ["int"], 0),
        ([], [], 0),
    ]
    assert [each.row_count for each in native[1:]] == [3, 9]
    results = [Result(NAMES, list(some), rows), *more]
    both = Job("transaction", [])
    said = msgspec.json.decode(await in_pieces(answer_pieces(both, results, as_json=True)))
    first, second, third = said["results"]
    assert first["rows"] == msgspec.json.decode(msgspec.json.encode(json_rows(NAMES, some)[1]))
    assert [column["type"] for column in first["columns"]] == kinds
    assert (second["rows"], second["row_count"], third["columns"]) == ([], 3, [])


async def test_types_that_differ_from_slice_to_slice():
    half = SLICE_VALUES
    mixed = [(1,)] * half + [("x",)] * half
    nulls = [(None,)] * half + [(1,)] * half
    for rows, kind in ((mixed, "any"), (nulls, "int"), ([(None,)] * 2 * half, "null")):
        (block,) = decode_answer(
            await in_pieces(answer_pieces(QUERY, [Result(["a"], list(rows))], as_json=False))
        )
        assert block.types == [kind]
        assert rows_of(block) == rows


async def test_others_go_on_in_between():
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        for as_json in (False, True):
            results = [Result(NAMES, large(20 * SLICE_VALUES // len(NAMES)))]
            before = turns
            await in_pieces(answer_pieces(QUERY, results, as_json=as_json))
            assert turns - before >= 15
        nursery.cancel_scope.cancel()


async def test_streams():
    lines = StreamWriter(as_json=True)
    first, second = [b"".join(lines(Result(["a"], [(number,)]))) for number in (1, 2)]
    assert first == b'{"columns":[{"name":"a","type":"int"}]}\n[1]\n'
    assert second == b"[2]\n"
    assert lines.content_type == "application/x-ndjson"
    with pytest.raises(SqlError):
        list(StreamWriter(as_json=False)(Result(["a"], [(object(),)])))
    assert b"".join(StreamWriter(as_json=True)(Result(["a"], [], types=["int"]))) == (
        b'{"columns":[{"name":"a","type":"int"}]}\n'
    )


@pytest.mark.parametrize("rows", [0, 1, 5000])
async def test_blocks_of_a_stream(rows):
    some = large(rows)
    data = await in_pieces(StreamWriter(as_json=False)(Result(NAMES, list(some))))
    (block,) = BlockReader().feed(data)
    assert (rows_of(block), block.names, block.row_count) == (some, NAMES, -1)
    lines = (await in_pieces(StreamWriter(as_json=True)(Result(NAMES, some)))).splitlines()
    assert len(lines) == rows + 1
