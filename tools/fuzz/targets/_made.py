"""Messages made of input bytes, and what the generated code says of a buffer, for any table."""

from collections.abc import Sequence
from typing import Any, Final

from tools.fuzz.targets._inputs import Input
from vastar_client.wire import _generated, codec
from vastar_client.wire._tables import HTTP_REQUEST, HTTP_RESPONSE, TABLES, Field, Kind, Table
from vastar_client.wire.codec import buffers_bytes

__all__ = ["KINDS", "decode", "differences", "encode", "made", "plain"]

KINDS: Final[tuple[Table, ...]] = (*TABLES.values(), HTTP_REQUEST, HTTP_RESPONSE)
_TYPE_OF: Final = {table.name: type_ for type_, table in TABLES.items()}
_PAIR_LISTS: Final = frozenset({"headers", "trailers"})
_MOST_PAIRS: Final = 5
_NUMBERS: Final = {
    Kind.U16: (2, False),
    Kind.I32: (4, True),
    Kind.U32: (4, False),
    Kind.I64: (8, True),
    Kind.U64: (8, False),
}


def decode(table: Table, data: bytes | bytearray | memoryview) -> Any:
    """The value of a buffer, by our reader."""
    if table is HTTP_REQUEST:
        return codec.decode_http_request(data)
    if table is HTTP_RESPONSE:
        return codec.decode_http_response(data)
    return codec.decode_message(_TYPE_OF[table.name], data)


def encode(table: Table, value: Any) -> bytes:
    """The buffer of a value, by our writer."""
    if table is HTTP_REQUEST:
        return b"".join(codec.encode_http_request(value))
    if table is HTTP_RESPONSE:
        return b"".join(codec.encode_http_response(value))
    return b"".join(codec.encode_message(value))


def made(table: Table, source: Input) -> Any:
    """A value of `table`, every field in its range; those left out keep their default."""
    values: dict[str, Any] = dict(table.initial)
    present = source.number(2)
    for slot, field in enumerate(table.fields):
        if field.required or present >> slot & 1:
            values[field.name] = _value(field, source)
    return table.value_type(**values)


def _value(field: Field, source: Input) -> Any:
    if field.members is not None:
        return source.pick(tuple(field.members))
    if field.kind in _NUMBERS:
        width_bytes, is_signed = _NUMBERS[field.kind]
        return int.from_bytes(source.take(width_bytes), "little", signed=is_signed)
    if field.kind is Kind.BOOL:
        return source.chance()
    if field.kind is Kind.STRING:
        return source.text()
    if field.kind is Kind.BYTES:
        data = source.blob()
        half = len(data) // 2
        pieces: Sequence[Any] = [bytearray(data[:half]), memoryview(data)[half:]]
        return pieces if source.chance() else data
    return tuple((source.text(), source.text()) for _ in range(source.number() % _MOST_PAIRS))


def plain(value: Any) -> dict[str, Any]:
    """The fields of a value, bodies as bytes and lists of pairs as tuples, so that they compare."""
    fields = {}
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if name in _PAIR_LISTS:
            # A native HTTP value has no "absent": no headers are an empty list.
            item = None if item is None and "url" not in value.__struct_fields__ else tuple(item)
        elif name in {"payload", "data", "body"} and item is not None:
            item = b"".join(item) if isinstance(item, list | tuple) else bytes(item)
            assert buffers_bytes([item]) == len(item)
        fields[name] = item
    return fields


def differences(table: Table, data: bytes, value: Any) -> list[str]:
    """The fields of which the generated accessors say something else than our reader did."""
    theirs = getattr(_generated, table.name).GetRootAs(data)
    ours = plain(value)
    found = []
    for slot, field in enumerate(table.fields):
        said = _said(theirs, slot, field)
        if field.kind is Kind.KEY_VALUES and said is None and ours[field.name] == ():
            said = ()
        if said != ours[field.name]:
            found.append(f"{table.name}.{field.name}: {ours[field.name]!r}, not {said!r}")
    return found


def _said(theirs: Any, slot: int, field: Field) -> Any:
    accessor = "".join(part.capitalize() for part in field.name.split("_"))
    read = getattr(theirs, accessor)
    if field.kind is Kind.STRING:
        text = read()
        return None if text is None else text.decode()
    if field.kind not in {Kind.BYTES, Kind.KEY_VALUES}:
        return read()
    if getattr(theirs, f"{accessor}IsNone")():
        return None
    count = getattr(theirs, f"{accessor}Length")()
    if field.kind is Kind.KEY_VALUES:
        pairs = (read(at) for at in range(count))
        return tuple((pair.Key().decode(), pair.Value().decode()) for pair in pairs)
    # One accessor call for each byte is what the generated code has: the vector as a slice.
    tab = theirs._tab  # noqa: SLF001 - the generated code's own way to its bytes
    first_at = tab.Vector(tab.Offset(4 + 2 * slot))
    return bytes(tab.Bytes[first_at : first_at + count])
