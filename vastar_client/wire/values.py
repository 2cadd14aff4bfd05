"""The values of databases on the wire, typed both ways: as MessagePack (native) and as JSON.

MessagePack says null, bool, integers of 64 bits, floats (NaN too), text, bytes and arrays by
itself; everything else is an extension, `EXTENSIONS`, whose bytes are the value's usual text in
UTF-8, and 16 bytes for a UUID. In JSON whatever JSON does not say is an object with one key that
starts with `$`: `{"$decimal": "1.50"}`. Any other object stands for itself, a value of type json.
"""

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from vastar_client.wire.errors import RemoteProtocolError

__all__ = [
    "EXTENSIONS",
    "LEAST_INT",
    "MOST_INT",
    "Json",
    "SqlValueError",
    "from_json",
    "is_plain",
    "pack",
    "to_json",
    "type_name",
    "unpack_parameter",
    "unpack_result",
]

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, bytearray, memoryview})
LEAST_INT: Final = -(2**63)
MOST_INT: Final = 2**64 - 1
"""What MessagePack says of whole numbers by itself."""
_BASES: Final[tuple[type[Any], ...]] = (int, float, str, bytes)
_MOST_DEPTH: Final = 32


class SqlValueError(ValueError):
    """A value that no database takes, or that is not what its type says."""


class Json(NamedTuple):
    """A parameter of type json, where it would be taken for something else (a list for an array).

    Attributes:
        value: what `json` can write.
    """

    value: Any


class EXTENSIONS(IntEnum):
    """The extension types of MessagePack; numbers are never used again for something else."""

    INT = 1
    DECIMAL = 2
    UUID = 3
    DATE = 4
    TIME = 5
    TIMESTAMP = 6
    INTERVAL = 7
    JSON = 8


_DAY_US: Final = 86_400_000_000


def _interval_us(value: dt.timedelta) -> int:
    return value.days * _DAY_US + value.seconds * 1_000_000 + value.microseconds


def _interval(text: str) -> dt.timedelta:
    return dt.timedelta(microseconds=int(text))


_WRITERS: Final[tuple[tuple[type, EXTENSIONS, Callable[[Any], str]], ...]] = (
    (Decimal, EXTENSIONS.DECIMAL, str),
    (dt.datetime, EXTENSIONS.TIMESTAMP, dt.datetime.isoformat),  # before date: it is one
    (dt.date, EXTENSIONS.DATE, dt.date.isoformat),
    (dt.time, EXTENSIONS.TIME, dt.time.isoformat),
    (dt.timedelta, EXTENSIONS.INTERVAL, lambda value: str(_interval_us(value))),
    (UUID, EXTENSIONS.UUID, str),
)
_READERS: Final[Mapping[EXTENSIONS, Callable[[str], Any]]] = {
    EXTENSIONS.INT: int,
    EXTENSIONS.DECIMAL: Decimal,
    EXTENSIONS.UUID: UUID,
    EXTENSIONS.DATE: dt.date.fromisoformat,
    EXTENSIONS.TIME: dt.time.fromisoformat,
    EXTENSIONS.TIMESTAMP: dt.datetime.fromisoformat,
    EXTENSIONS.INTERVAL: _interval,
}


def is_plain(kinds: set[type]) -> bool:
    """Whether values of these types are said by MessagePack itself."""
    return kinds <= _PLAIN


def pack(value: Any, depth: int = 0) -> Any:
    """`value` as MessagePack can say it.

    Raises:
        SqlValueError: no database takes such a value.
    """
    kind = type(value)
    if kind is int and not LEAST_INT <= value <= MOST_INT:
        return _extension(EXTENSIONS.INT, _digits(value))
    if kind in _PLAIN:
        return value
    if kind is UUID:
        return _extension(EXTENSIONS.UUID, value.bytes)
    for written, code, text in _WRITERS:
        if isinstance(value, written):
            return _extension(code, text(value).encode())
    if depth > _MOST_DEPTH:
        raise SqlValueError(f"arrays deeper than {_MOST_DEPTH} are not supported")
    if isinstance(value, Json | dict):
        inner = value.value if isinstance(value, Json) else value
        return _extension(EXTENSIONS.JSON, _json_bytes(inner))
    if isinstance(value, list | tuple):
        return [pack(each, depth + 1) for each in value]
    for base in _BASES:
        if isinstance(value, base):
            return pack(base(value), depth + 1)
    raise SqlValueError(f"a value of type {kind.__name__} cannot be sent to a database")


def _extension(code: EXTENSIONS, data: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(int(code), data)


def _digits(value: int) -> bytes:
    try:
        return str(value).encode()
    except ValueError:  # Python's own bound on how long a number may be written
        raise SqlValueError("a whole number is too long") from None


def _json_bytes(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise SqlValueError(f"a value cannot be written as JSON: {error}") from None


def unpack_result(code: int, data: memoryview) -> Any:
    """For a decoder: the value of an extension; json as what it holds.

    Raises:
        RemoteProtocolError: it is none.
    """
    value = unpack_parameter(code, data)
    return value.value if type(value) is Json else value


def unpack_parameter(code: int, data: memoryview) -> Any:
    """The same; json as `Json`, since a parameter's type is its value's."""
    try:
        kind = EXTENSIONS(code)
        if kind is EXTENSIONS.JSON:
            return Json(msgspec.json.decode(data))
        if kind is EXTENSIONS.UUID:
            return UUID(bytes=bytes(data))
        return _READERS[kind](str(data, "ascii"))
    except (ValueError, ArithmeticError, RecursionError):
        # What is in it stays out of the words: it is somebody's data.
        raise RemoteProtocolError(f"a value of extension type {code} cannot be read") from None


_NAMES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "text",
    bytes: "bytes",
    bytearray: "bytes",
    memoryview: "bytes",
    Decimal: "decimal",
    dt.date: "date",
    dt.time: "time",
    dt.datetime: "timestamp",
    dt.timedelta: "interval",
    UUID: "uuid",
    dict: "json",
    list: "array",
}


def type_name(kinds: set[type]) -> str:
    """What a column of values of these types is called: `any` where they differ."""
    known = kinds - {type(None)}
    if len(known) != 1:
        return "any" if known else "null"
    return _NAMES.get(next(iter(known)), "any")


_TAGS: Final[Mapping[str, EXTENSIONS]] = {f"${kind.name.lower()}": kind for kind in EXTENSIONS}


def to_json(value: Any) -> Any:
    """`value` as JSON says it, with a tag where JSON has no such type."""
    kind = type(value)
    if kind in {type(None), bool, int, str} or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"$float": str(value)}
    if kind in {bytes, bytearray, memoryview}:
        return {"$bytes": base64.b64encode(value).decode()}
    for written, code, text in _WRITERS:
        if isinstance(value, written):
            return {f"${code.name.lower()}": text(value)}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return {"$json": value}


def from_json(value: Any, depth: int = 0) -> Any:
    """The parameter that `value`, of a JSON payload, stands for.

    Raises:
        SqlValueError: its tag is not known, or the value not of that type.
    """
    if depth > _MOST_DEPTH:
        raise SqlValueError(f"arrays deeper than {_MOST_DEPTH} are not supported")
    if isinstance(value, list):
        return [from_json(each, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return Json(value)
    inner = value[tag]
    try:
        if tag == "$json":
            return Json(inner)
        if tag == "$bytes":
            return base64.b64decode(inner, validate=True)
        if tag == "$float":
            return float(inner)
        return _READERS[_TAGS[tag]](str(inner))
    except (KeyError, ValueError, TypeError, ArithmeticError):
        raise SqlValueError(
            f"a parameter tagged {tag[:20]} cannot be read; known are $bytes, $float, $json, "
            + ", ".join(name for name in _TAGS if name != "$json")
        ) from None
