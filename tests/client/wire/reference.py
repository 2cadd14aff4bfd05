"""The generated code as the oracle of the codec: builds and reads any table of the schema.

Values are plain dicts by field name; an absent field reads as the schema's default, byte vectors
as bytes, header lists as lists of pairs. `plain` brings a message of ours into the same form.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flatbuffers

from tests.client.wire.schema import TABLES, SchemaField
from vastar_client import wire
from vastar_client.wire import _generated, codec

__all__ = ["DECODE", "ENCODE", "MESSAGE_TABLES", "VALUE_TYPES", "build", "expected", "make"]
__all__ += ["plain", "read"]

VALUE_TYPES: dict[str, type] = {
    "ExecuteRequest": wire.ExecuteRequest,
    "ExecuteResponse": wire.ExecuteResponse,
    "HealthCheckResponse": wire.HealthResponse,
    "CreditUpdate": wire.CreditUpdate,
    "StreamStart": wire.StreamStart,
    "StreamChunk": wire.StreamChunk,
    "StreamEnd": wire.StreamEnd,
    "Cancel": wire.Cancel,
    "Goaway": wire.Goaway,
    "RequestChunk": wire.RequestChunk,
    "KeepAlive": wire.KeepAlive,
    "Authenticate": wire.Authenticate,
    "HttpRequest": wire.HttpRequest,
    "HttpResponse": wire.HttpResponse,
}
MESSAGE_TABLES = [name for name in VALUE_TYPES if not name.startswith("Http")]

DECODE: dict[str, Callable[[Any], Any]] = {
    "HttpRequest": wire.decode_http_request,
    "HttpResponse": wire.decode_http_response,
    **{
        name: lambda data, name=name: codec.decode_message(VALUE_TYPES[name].TYPE, data)
        for name in MESSAGE_TABLES
    },
}
ENCODE: dict[str, Callable[[Any], list[Any]]] = {
    "HttpRequest": wire.encode_http_request,
    "HttpResponse": wire.encode_http_response,
    **dict.fromkeys(MESSAGE_TABLES, codec.encode_message),
}
_ENUMS: dict[str, type] = {
    "ErrorClass": wire.ErrorClass,
    "Disposition": wire.Disposition,
    "PayloadFormat": wire.PayloadFormat,
    "ResponseFormat": wire.ResponseFormat,
}


def _child(
    builder: flatbuffers.Builder, table: str, field: SchemaField, value: Any, *, share: bool
) -> Any:
    """The value to add for `field`: an offset when it lives outside the table."""
    text = builder.CreateSharedString if share else builder.CreateString
    if field.type == "string":
        return text(value)
    if field.type == "[ubyte]":
        return builder.CreateByteVector(bytes(value))
    if field.type != "[KeyValue]":
        return value
    pairs = []
    for key, item in value:
        offsets = text(key), text(item)
        _generated.KeyValueStart(builder)
        _generated.KeyValueAddKey(builder, offsets[0])
        _generated.KeyValueAddValue(builder, offsets[1])
        pairs.append(_generated.KeyValueEnd(builder))
    getattr(_generated, f"{table}Start{field.accessor}Vector")(builder, len(pairs))
    for pair in reversed(pairs):
        builder.PrependUOffsetTRelative(pair)
    return builder.EndVector()


def build(
    table: str, values: Mapping[str, Any], *, share: bool = False, defaults: bool = False
) -> bytes:
    """A FlatBuffer of `table` made by the generated code.

    `share`: equal strings are written once. `defaults`: scalars equal to their default are
    written too.
    """
    builder = flatbuffers.Builder(64)
    builder.ForceDefaults(defaults)
    present = [field for field in TABLES[table] if values.get(field.name) is not None]
    children = [_child(builder, table, f, values[f.name], share=share) for f in present]
    getattr(_generated, f"{table}Start")(builder)
    for field, child in zip(present, children, strict=True):
        getattr(_generated, f"{table}Add{field.accessor}")(builder, child)
    builder.Finish(getattr(_generated, f"{table}End")(builder))
    return bytes(builder.Output())


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode()


def _read_field(table: Any, field: SchemaField) -> Any:
    accessor = getattr(table, field.accessor)
    if field.type == "string":
        return _text(accessor())
    if not field.type.startswith("["):
        return accessor()
    if getattr(table, f"{field.accessor}IsNone")():
        return None
    count = getattr(table, f"{field.accessor}Length")()
    if field.type == "[ubyte]":
        return bytes(map(accessor, range(count)))
    pairs = map(accessor, range(count))
    return [(_text(pair.Key()), _text(pair.Value())) for pair in pairs]


def read(table: str, flatbuffer: bytes) -> dict[str, Any]:
    """All fields of the root of `flatbuffer` as the generated accessors say."""
    root = getattr(_generated, table).GetRootAs(flatbuffer)
    return {field.name: _read_field(root, field) for field in TABLES[table]}


def expected(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What any reader must find when `values` were written: absent fields are defaults."""
    read_back = {field.name: field.default for field in TABLES[table]}
    for name, value in values.items():
        read_back[name] = list(value) if isinstance(value, (list, tuple)) else value
    return read_back


def make(table: str, values: Mapping[str, Any]) -> Any:
    """Our message of `values`; a field without a default in the class gets the schema's."""
    arguments: dict[str, Any] = {}
    required = VALUE_TYPES[table].__struct_fields__[: _required_count(table)]
    for field in TABLES[table]:
        value = values.get(field.name)
        if value is not None:
            pairs = field.type == "[KeyValue]"
            arguments[field.name] = (
                tuple(value) if pairs else _ENUMS[field.enum](value) if field.enum else value
            )
        elif field.name in required:
            arguments[field.name] = field.default
    return VALUE_TYPES[table](**arguments)


def _required_count(table: str) -> int:
    type_ = VALUE_TYPES[table]
    return len(type_.__struct_fields__) - len(type_.__struct_defaults__)


def plain(table: str, message: Any) -> dict[str, Any]:
    """A message of ours in the form of `read`.

    One justified difference: native HTTP values have `()` for headers that are absent.
    """
    result = {}
    for field in TABLES[table]:
        value = getattr(message, field.name)
        if field.type == "[ubyte]" and value is not None:
            parts = value if isinstance(value, (list, tuple)) else [value]
            value = b"".join(bytes(part) for part in parts)
        elif field.type == "[KeyValue]" and value is not None:
            value = list(value)
        elif field.enum:
            value = int(value)
        result[field.name] = value
    return result


def same(table: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Equality of two plain values, up to the difference that `plain` names."""
    absent = {"headers": []} if table.startswith("Http") else {}

    def settled(values: Mapping[str, Any]) -> dict[str, Any]:
        return {n: absent.get(n) if v is None else v for n, v in values.items()}

    return settled(ours) == settled(theirs)
