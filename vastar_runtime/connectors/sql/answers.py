"""From results to payloads, a piece at a time: a large answer must not hold up other calls.

What is written here equals what `wire.rows` writes and reads, value for value; small results go
through that. A large one is written in slices of rows, each into the bytes of every column (or of
lines of JSON), and put together at the end. An iterator gives the bytes, and none (b"") where there
is nothing yet: whoever takes them lets others go on between two pieces. Rows are used up.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import trio

from vastar_client.wire.rows import ResultBlock, encode_answer, framed, json_rows, to_block
from vastar_client.wire.values import SqlValueError
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result

__all__ = ["StreamWriter", "answer_pieces", "in_pieces"]

SLICE_VALUES: Final = 4096
"""About 1 ms of work, a few where values need packing."""

_JSON_STREAM: Final = "application/x-ndjson"
_NATIVE_STREAM: Final = "application/x-vastar-rows"
_FIX_ARRAY: Final = 0x90
_SHORTEST: Final = 16
_SHORT: Final = 65_536
_NULL: Final = "null"

_PACK: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()


async def in_pieces(pieces: Iterator[bytes]) -> bytes:
    """All of it, with other tasks going on in between.

    Raises:
        SqlError: a value cannot be said.
    """
    first = next(pieces)
    second = next(pieces, None)
    if second is None:
        return first
    parts = [first, second]
    for piece in pieces:
        parts.append(piece)
        if not piece:
            await trio.lowlevel.checkpoint()
    return b"".join(parts)


def answer_pieces(job: Job, results: Sequence[Result], *, as_json: bool) -> Iterator[bytes]:
    """The payload of an answer. Raises SqlError where a value cannot be said."""
    try:
        if as_json:
            yield from _json_answer(job, results)
        elif sum(map(_values, results)) <= SLICE_VALUES:
            yield encode_answer([_block(each) for each in results])
        else:
            # An answer is an array of one field, the array of its results.
            yield _array(1) + _array(len(results))
            for result in results:
                yield from _native(result)
    except (SqlValueError, UnicodeEncodeError) as error:
        raise _unsayable(error) from None


class StreamWriter:
    """Turns pieces of a result into bytes of a stream: blocks, or lines of JSON.

    The first line of JSON is an object with the columns, every other an array, a row.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._is_first = True

    @property
    def content_type(self) -> str:
        """For the head of the stream."""
        return _JSON_STREAM if self._as_json else _NATIVE_STREAM

    def __call__(self, piece: Result) -> Iterator[bytes]:
        """The bytes of a piece. Raises SqlError for a value that cannot be said."""
        try:
            if self._as_json:
                yield from self._lines(piece)
            elif _values(piece) <= SLICE_VALUES:
                yield framed(to_block(piece.names, piece.rows, types=piece.types))
            else:
                parts = []
                for part in _native(piece._replace(row_count=-1, last_id=None)):
                    parts.append(part)
                    if not part:
                        yield part
                yield sum(map(len, parts)).to_bytes(4, "big")
                yield from filter(None, parts)
        except (SqlValueError, UnicodeEncodeError) as error:
            raise _unsayable(error) from None

    def _lines(self, piece: Result) -> Iterator[bytes]:
        for rows in _slices(piece) if piece.rows else [piece.rows]:
            types, said = json_rows(piece.names, rows)
            if self._is_first:
                self._is_first = False
                yield _JSON.encode({"columns": _columns(piece.names, piece.types or types)}) + b"\n"
            yield _JSON.encode_lines(said)
            if len(rows) < len(piece.rows):
                yield b""


def _unsayable(error: Exception) -> SqlError:
    return SqlError.said(Blame.DATA, f"a value of the result cannot be sent: {error}")


def _values(result: Result) -> int:
    return len(result.rows) * len(result.names)


def _slices(result: Result) -> Iterator[Sequence[Sequence[Any]]]:
    """Its rows, some at a time; they are gone behind it, as to free them all at once takes long."""
    count = max(SLICE_VALUES // max(len(result.names), 1), 1)
    rows = result.rows
    for begin in range(0, len(rows), count):
        some = rows[begin : begin + count]
        yield some
        if isinstance(rows, list):
            rows[begin : begin + count] = [()] * len(some)


def _block(result: Result) -> ResultBlock:
    return to_block(result.names, result.rows, result.row_count, result.last_id, result.types)


def _native(result: Result) -> Iterator[bytes]:
    """A result as `wire.rows.ResultBlock` is written."""
    columns: list[list[bytes]] = [[] for _ in result.names]
    seen: list[set[str]] = [set() for _ in result.names]
    for rows in _slices(result):
        block = to_block(result.names, rows)
        for parts, kinds, values, kind in zip(columns, seen, block.data, block.types, strict=True):
            parts.append(_PACK.encode(values)[_head_bytes(len(values)) :])
            kinds.add(kind)
        yield b""
    types = list(result.types or map(_together, seen))
    length = len(result.rows)
    yield _array(len(ResultBlock.__struct_fields__))
    yield _PACK.encode(list(result.names)) + _PACK.encode(types) + _PACK.encode(length)
    yield _array(len(columns))
    for parts in columns:
        yield _array(length)
        yield from parts
    yield _PACK.encode(result.row_count) + _PACK.encode(result.last_id)


def _array(length: int) -> bytes:
    """The head of an array in MessagePack."""
    if length < _SHORTEST:
        return bytes((_FIX_ARRAY | length,))
    if length < _SHORT:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _head_bytes(length: int) -> int:
    return len(_array(length))


def _together(kinds: set[str]) -> str:
    """What a column is called whose slices are called so."""
    known = kinds - {_NULL}
    if len(known) == 1:
        return next(iter(known))
    return "any" if known else _NULL


def _columns(names: Sequence[str], types: Sequence[str]) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in zip(names, types, strict=True)]


def _json_answer(job: Job, results: Sequence[Result]) -> Iterator[bytes]:
    is_list = job.operation == "transaction"
    parts: list[bytes] = []
    for result in results:
        parts.append(b"," if parts else b"")
        for part in _json_result(result):
            parts.append(part)
            if not part:
                yield part
    body = b"".join(parts)
    yield b'{"success":true,' + (b'"results":[' + body + b"]}" if is_list else body[1:])


def _json_result(result: Result) -> Iterator[bytes]:
    """An object."""
    seen: list[set[str]] = [set() for _ in result.names]
    lines: list[bytes] = []
    for rows in _slices(result):
        types, said = json_rows(result.names, rows)
        for kinds, kind in zip(seen, types, strict=True):
            kinds.add(kind)
        lines.append(_JSON.encode(said)[1:-1])
        if len(rows) < len(result.rows):
            yield b""
    types = list(result.types or map(_together, seen))
    yield b'{"columns":' + _JSON.encode(_columns(result.names, types)) + b',"rows":['
    yield from chain.from_iterable(zip([b""] + [b","] * len(lines), lines, strict=False))
    tail: dict[str, int] = {"row_count": result.row_count}
    if result.last_id is not None:
        tail["last_id"] = result.last_id
    yield b"]," + _JSON.encode(tail)[1:]
