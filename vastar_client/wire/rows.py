"""Requests to databases and their answers: the native payloads of `sqlite` and `postgres`.

Shape: MessagePack rather than tables of FlatBuffers, since a value of a row is of any type and
there are many of them: `msgspec` reads and checks them in C, where a table for each value would
cost a microsecond. A result is columnar: one array for each column, so that most columns, of one
plain type, go through without a look at each value. A stream of rows is such blocks, each behind
its length (u32 big-endian); every block says its columns, so that one can be read alone.

Structs are arrays of their fields, in order; fields are only ever appended.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from vastar_client.wire.errors import RemoteProtocolError
from vastar_client.wire.values import (
    LEAST_INT,
    MOST_INT,
    is_plain,
    pack,
    to_json,
    type_name,
    unpack_parameter,
    unpack_result,
)

__all__ = [
    "BlockReader",
    "ResultBlock",
    "SqlAnswer",
    "SqlRequest",
    "SqlStatement",
    "decode_answer",
    "decode_request",
    "encode_answer",
    "encode_request",
    "framed",
    "json_rows",
    "rows_of",
    "to_block",
]

MAX_BLOCK_BYTES: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")


class SqlStatement(msgspec.Struct, frozen=True):
    """One statement.

    Attributes:
        params: by place (a list) or by name (a map).
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None

    def __repr__(self) -> str:
        """Without statement and parameters: they are somebody's data."""
        return "SqlStatement(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return []


class SqlRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a database.

    Attributes:
        source: the name of a data source of the tenant.
        params: of `query` and `execute`: by place or by name.
        params_list: of `execute_many`: one for each time.
        statements: of `transaction`.
        timeout_ms: for all of it, 0 is none of its own.
        max_rows: refuse an answer of more; 0 is the source's own bound.
        isolation: of `transaction`, where it shall not be the server's own.
    """

    source: str = ""
    sql: str = ""
    params: list[Any] | dict[str, Any] | None = None
    params_list: list[list[Any] | dict[str, Any]] | None = None
    statements: list[SqlStatement] | None = None
    timeout_ms: int = 0
    max_rows: int = 0
    isolation: str | None = None

    def __repr__(self) -> str:
        """Without statement and parameters: they are somebody's data."""
        return f"SqlRequest(source={self.source!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return [("source", self.source)]


class ResultBlock(msgspec.Struct, array_like=True):
    """The result of one statement, or a piece of it.

    Attributes:
        names, types: of the columns; none where the statement gives no rows.
        length: rows.
        data: the values of each column.
        row_count: rows that were changed or read, -1 where nobody knows.
        last_id: what SQLite gave the row that was inserted last.
    """

    names: list[str]
    types: list[str]
    length: int
    data: list[list[Any]]
    row_count: int = -1
    last_id: int | None = None


class SqlAnswer(msgspec.Struct, array_like=True):
    """An answer: one result, and one for each statement of a transaction."""

    results: list[ResultBlock]


_REQUESTS: Final = msgspec.msgpack.Decoder(SqlRequest, ext_hook=unpack_parameter)
_ANSWERS: Final = msgspec.msgpack.Decoder(SqlAnswer, ext_hook=unpack_result)
_BLOCKS: Final = msgspec.msgpack.Decoder(ResultBlock, ext_hook=unpack_result)
_ENCODER: Final = msgspec.msgpack.Encoder()
_FAULTS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode_request(request: SqlRequest) -> bytes:
    """A request whose parameters went through `pack`."""
    asked = {
        name: value
        for name, value in msgspec.structs.asdict(request).items()
        if value not in ("", 0)
    }
    return _ENCODER.encode({name: value for name, value in asked.items() if value is not None})


def decode_request(data: bytes | bytearray | memoryview) -> SqlRequest:
    """The request in a native payload.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        return _REQUESTS.decode(data)
    except _FAULTS as error:
        raise RemoteProtocolError(f"no native request to a database: {error}") from None


def to_block(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    row_count: int = -1,
    last_id: int | None = None,
    types: Sequence[str] | None = None,
) -> ResultBlock:
    """Rows as columns; `types` where the database says them, else by the values.

    Raises:
        SqlValueError: a value cannot be said.
    """
    data: list[list[Any]] = []
    named: list[str] = []
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    for column in columns:
        kinds = set(map(type, column))
        values = list(column)
        if not is_plain(kinds) or (int in kinds and _has_large(values, kinds)):
            values = [pack(each) for each in values]
        data.append(values)
        named.append(type_name(kinds))
    return ResultBlock(list(names), list(types or named), len(rows), data, row_count, last_id)


def _has_large(values: list[Any], kinds: set[type]) -> bool:
    """Whether there are whole numbers that MessagePack does not say by itself."""
    ints = values if kinds == {int} else [each for each in values if type(each) is int]
    return bool(max(ints) > MOST_INT or min(ints) < LEAST_INT)


def encode_answer(results: Sequence[ResultBlock]) -> bytes:
    """The native payload of an answer."""
    return _ENCODER.encode(SqlAnswer(list(results)))


def decode_answer(data: bytes | bytearray | memoryview) -> list[ResultBlock]:
    """The results in a native payload, of which there is at least one.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        answer = _ANSWERS.decode(data)
    except _FAULTS as error:
        raise RemoteProtocolError(f"no native answer of a database: {error}") from None
    if not answer.results:
        raise RemoteProtocolError("a native answer of a database holds no result")
    for block in answer.results:
        _check(block)
    return answer.results


def _check(block: ResultBlock) -> None:
    columns = len(block.names)
    if len(block.types) != columns or len(block.data) != columns:
        raise RemoteProtocolError("a result has not one type and array for each column")
    if any(len(column) != block.length for column in block.data):
        raise RemoteProtocolError("a result's columns are not all as long as it says")
    if not columns and block.length:
        raise RemoteProtocolError("a result has rows without columns")


def rows_of(block: ResultBlock) -> list[tuple[Any, ...]]:
    """The rows of a block that was checked."""
    return list(zip(*block.data, strict=True))


def framed(block: ResultBlock) -> bytes:
    """A block of a stream, behind its length."""
    data = _ENCODER.encode(block)
    return _LENGTH.pack(len(data)) + data


class BlockReader:
    """Reads the blocks of a stream out of bytes that come in any pieces."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether the stream may end here."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[ResultBlock]:
        """The blocks that are whole now.

        Raises:
            RemoteProtocolError: what came is none.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > MAX_BLOCK_BYTES:
                raise RemoteProtocolError(f"a block of {length} bytes of rows")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            try:
                block = _BLOCKS.decode(bytes(buffer[_LENGTH.size : end]))
            except _FAULTS as error:
                raise RemoteProtocolError(f"no block of rows: {error}") from None
            del buffer[:end]
            _check(block)
            yield block


_SAID_BY_JSON: Final = frozenset({"null", "bool", "int", "text"})


def json_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[Any]]:
    """The types of the columns, and the rows as JSON says them, with tags where it cannot."""
    types = [type_name(set(map(type, column))) for column in zip(*rows, strict=True)]
    if not rows:
        return ["null"] * len(names), []
    if all(kind in _SAID_BY_JSON for kind in types):
        return types, list(rows)
    return types, [[to_json(value) for value in row] for row in rows]
