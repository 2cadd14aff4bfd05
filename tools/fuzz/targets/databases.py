"""Native payloads of databases: what is read can be said again, and is the same then.

Input: what to do; then free bytes as a request, an answer or a stream of blocks, or values made of
choices, which are sent as parameters, as a result, and as JSON.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from tools.fuzz.targets._inputs import Input, cut
from vastar_client.wire import RemoteProtocolError, rows, values
from vastar_client.wire.values import Json, SqlValueError

__all__ = ["check"]

_DEEPEST: Final = 3
_MOST_ITEMS: Final = 4
_EPOCH: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_FIRST: Final = dt.datetime(1, 1, 1)  # noqa: DTZ001 - times without a zone are values as well


def check(data: bytes) -> bool:
    """Read one payload, or send values and read them; whether it was one.

    Raises:
        AssertionError: what comes back is something else.
    """
    source = Input(data)
    tried = source.pick((_request, _answer, _blocks, _parameters, _result, _json))
    return tried(source)


def _same(one: Any, other: Any) -> bool:
    """Equal, of equal types, NaN being itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, msgspec.Struct):
        return all(_same(getattr(one, n), getattr(other, n)) for n in one.__struct_fields__)
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other)
    return bool(one == other)


def _expect(error: SqlValueError) -> None:
    """Of what was read, this alone cannot be sent: too deep, or for JSON no value."""
    words = str(error)
    assert "deeper" in words or "JSON" in words, words


def _packed(params: Any) -> Any:
    if isinstance(params, dict):
        return {name: values.pack(value) for name, value in params.items()}
    return None if params is None else [values.pack(value) for value in params]


def _holds_map(value: Any, *, of_text: bool = True) -> bool:
    """Whether there is a plain map in it: what is no JSON is said by none, and no database takes.

    Args:
        value: anything that was read.
        of_text: count maps whose keys are all text as well: of results they may be JSON.
    """
    if isinstance(value, dict):
        is_text = all(isinstance(key, str) for key in value)
        return of_text or not is_text or any(_holds_map(v, of_text=False) for v in value.values())
    if isinstance(value, list | tuple) and not isinstance(value, Json):
        return any(_holds_map(each, of_text=of_text) for each in value)
    return False


def _values_of(request: rows.SqlRequest) -> list[Any]:
    """All parameters in it."""
    statements = [each.params for each in request.statements or ()]
    found: list[Any] = []
    for params in (request.params, *(request.params_list or ()), *statements):
        found += params.values() if isinstance(params, dict) else params or ()
    return found


def _request(source: Input) -> bool:
    try:
        request = rows.decode_request(source.rest())
    except RemoteProtocolError:
        return False
    if _holds_map(_values_of(request)):
        return False
    try:
        said = msgspec.structs.replace(
            request,
            params=_packed(request.params),
            params_list=request.params_list and [_packed(each) for each in request.params_list],
            statements=request.statements
            and [rows.SqlStatement(each.sql, _packed(each.params)) for each in request.statements],
        )
    except SqlValueError as error:
        _expect(error)
        return False
    again = rows.decode_request(rows.encode_request(said))
    assert _same(again, request), (request.params, again.params)
    return True


def _said_again(block: rows.ResultBlock) -> rows.ResultBlock | None:
    try:
        data = [[values.pack(value) for value in column] for column in block.data]
    except SqlValueError as error:
        _expect(error)
        return None
    return msgspec.structs.replace(block, data=data)


def _answer(source: Input) -> bool:
    try:
        results = rows.decode_answer(source.rest())
    except RemoteProtocolError:
        return False
    for block in results:
        assert len(rows.rows_of(block)) == block.length
        if _holds_map(block.data, of_text=False):
            return False
    said = [_said_again(block) for block in results]
    again = rows.decode_answer(rows.encode_answer([each for each in said if each is not None]))
    if None not in said:
        assert _same(again, results), (again, results)
    return True


def _blocks(source: Input) -> bool:
    """A stream of blocks, cut anywhere; lengths are made small, so that there are ends."""
    cuts = source.cuts()
    stream = b""
    while source.has_more:
        block = source.blob()
        stream += (b"\0\0\0" + bytes([len(block)]) if source.chance() else b"\0") + block
    whole, pieces = _read_blocks([stream]), _read_blocks(cut(stream, cuts))
    assert _same(whole, pieces), (whole, pieces)
    return bool(whole[-1] == "")


def _read_blocks(pieces: Sequence[bytes]) -> list[Any]:
    reader = rows.BlockReader()
    found: list[Any] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
    except RemoteProtocolError as error:
        # Those in front of it in the same piece were given out one by one: only the error counts.
        return [str(error)]
    return [*found, "" if reader.is_between else "unfinished"]


def _value(source: Input, depth: int = 0) -> Any:
    """Any value that a parameter or a result may have."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: None,
        source.chance,
        lambda: int.from_bytes(source.take(8), "little", signed=True),
        lambda: int.from_bytes(source.blob(), "little", signed=True),
        lambda: msgspec.msgpack.decode(b"\xcb" + source.take(8).ljust(8, b"\0")),
        source.text,
        source.blob,
        lambda: Decimal((source.number() & 1, tuple(c % 10 for c in source.blob()) or (0,),
                         source.number(2) - 2**15)),
        lambda: source.pick((Decimal("NaN"), Decimal("-Infinity"), Decimal("sNaN"), Decimal("-0"))),
        lambda: dt.date.fromordinal(1 + source.number(3) % 3_652_059),
        lambda: (_FIRST + dt.timedelta(microseconds=source.number(8) % (315 * 10**15))),
        lambda: _EPOCH.astimezone(_zone(source)) + dt.timedelta(seconds=source.number(4)),
        lambda: _clock_time(source.number(6)),
        lambda: dt.timedelta(microseconds=source.number(7) - 2**55),
        lambda: UUID(bytes=source.take(16).ljust(16, b"\0")),
        lambda: Json({source.text(): source.number()}),
        lambda: [_value(source, depth + 1) for _ in range(source.number() % _MOST_ITEMS)],
    )  # fmt: skip
    return source.pick(makers[:-1] if depth >= _DEEPEST else makers)()


def _clock_time(microseconds: int) -> dt.time:
    return (_FIRST + dt.timedelta(microseconds=microseconds)).time()


def _zone(source: Input) -> dt.timezone:
    return dt.timezone(dt.timedelta(seconds=source.number(3) % 172_799 - 86_399))


def _parameters(source: Input) -> bool:
    params = [_value(source) for _ in range(source.number() % _MOST_ITEMS)]
    try:
        request = rows.SqlRequest(source="s", params=_packed(params))
    except SqlValueError:
        return False
    read = rows.decode_request(rows.encode_request(request))
    assert _same(read.params, params), (read.params, params)
    return True


def _result(source: Input) -> bool:
    columns = source.number() % _MOST_ITEMS
    given = [
        tuple(_value(source) for _ in range(columns)) for _ in range(source.number() % _MOST_ITEMS)
    ]
    names = [f"c{at}" for at in range(columns)]
    try:
        block = rows.to_block(names, given if columns else [])
    except SqlValueError:
        return False
    (read,) = rows.decode_answer(rows.encode_answer([block]))
    expected = [tuple(_without_json(value) for value in row) for row in given] if columns else []
    assert _same(rows.rows_of(read), expected), (rows.rows_of(read), expected)
    (framed,) = rows.BlockReader().feed(rows.framed(block))
    assert _same(framed, read), (framed, read)
    return True


def _without_json(value: Any) -> Any:
    """In results a value of type json is what it holds."""
    if isinstance(value, Json):
        return value.value
    return [_without_json(each) for each in value] if isinstance(value, list) else value


def _json(source: Input) -> bool:
    """As JSON says it, over the bytes of JSON and back."""
    value = _value(source)
    if isinstance(value, Json):
        value = value.value
    if _holds_json(value):
        return False  # `to_json` is for results, of which json is what it holds
    try:
        text = msgspec.json.encode(values.to_json(value))
    except (msgspec.MsgspecError, OverflowError, ValueError):
        return False  # a whole number of more digits than JSON is written with here
    read = values.from_json(msgspec.json.decode(text))
    if isinstance(value, dict):
        value = Json(value)
    if _is_large(value):
        return True  # JSON has no whole numbers beyond 64 bits: read as floats, as JSON does
    assert _same(read, value), (read, value)
    return True


def _holds_json(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(e, Json) or _holds_json(e) for e in value)


def _is_large(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_large, value))
    return type(value) is int and not values.LEAST_INT <= value <= values.MOST_INT
