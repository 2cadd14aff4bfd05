"""A checked FlatBuffers reader: every offset is held against the buffer before it is followed.

The Python `flatbuffers` package has no verifier: a negative offset reads from the end and an
over-long vector is cut in silence. Here reading is verifying. The vtable is read once per table
and each present field is read by the function of its kind.

What is checked (FlatBuffers' own internals document): root offset, vtable position and sizes,
field offsets inside the table, string and vector extents, UTF-8, enum ranges, required fields,
counts of header lists, and the sum of strings that shared offsets could multiply. What is not:
alignment and the NUL behind a string, on which nothing here depends. Depth is bounded by the
schema, which has no table that contains itself.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Any, Final, TypeAlias

import attrs

from vastar_client.wire._tables import Field, Kind, Table
from vastar_client.wire.errors import RemoteProtocolError
from vastar_client.wire.limits import MAX_HEADER_PAIRS, MAX_VTABLE_SLOTS

__all__ = ["MalformedError", "TableReader"]

_U16: Final = Struct("<H")
_U16_PAIR: Final = Struct("<HH")
_U32: Final = Struct("<I")
_I32: Final = Struct("<i")

_OFFSET_BYTES: Final = 4
"""Every offset, and the counter in front of a vector, is a u32; a table begins with an i32."""

_SMALL_BYTES: Final = 1024
_MAX_LAYOUTS: Final = 256

_SHARED_STRING_SLACK_BYTES: Final = 1 << 20
"""The strings of a header list, and those of a table, may together exceed the message by this many
characters: builders may share equal strings, but a hostile message must not turn 10 MB into 40 GB.
"""

_SHARED: Final = "shared strings add up to more than the message itself"

_Read: TypeAlias = Callable[[memoryview, int, int], Any]
"""(buffer, position of the inline part, end of the buffer) to the value."""


class MalformedError(RemoteProtocolError):
    """The bytes are not a FlatBuffer of the expected table."""


def _find_vtable(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Where the vtable of the table at `at` lies, and its length, both inside the buffer."""
    if not _OFFSET_BYTES <= at <= end - _OFFSET_BYTES:
        raise MalformedError(f"table at {at} of {end} bytes")
    vtable_at = at - _I32.unpack_from(view, at)[0]
    if not 0 <= vtable_at <= end - _U16_PAIR.size:
        raise MalformedError(f"vtable at {vtable_at} of {end} bytes")
    vtable_bytes = _U16.unpack_from(view, vtable_at)[0]
    slots = (vtable_bytes - 4) >> 1
    if vtable_bytes & 1 or not 0 <= slots <= MAX_VTABLE_SLOTS or vtable_at + vtable_bytes > end:
        raise MalformedError(f"vtable of {vtable_bytes} bytes at {vtable_at} of {end}")
    return vtable_at, vtable_bytes


def _follow(view: memoryview, at: int, end: int, item_bytes: int) -> tuple[int, int]:
    """Follow the offset at `at` to a vector: (position of its first item, number of items)."""
    vector_at = at + _U32.unpack_from(view, at)[0]
    if vector_at > end - 4:
        raise MalformedError(f"offset to {vector_at} of {end} bytes")
    count = _U32.unpack_from(view, vector_at)[0]
    first_at = vector_at + 4
    if count * item_bytes > end - first_at:
        raise MalformedError(f"{count} items of {item_bytes} bytes at {first_at} of {end}")
    return first_at, count


def _read_string(view: memoryview, at: int, end: int) -> str:
    first_at = at + _U32.unpack_from(view, at)[0] + _OFFSET_BYTES
    # Spelled out, as most of what is read are strings; `_follow` says what is wrong.
    if first_at > end or (stop := first_at + _U32.unpack_from(view, first_at - 4)[0]) > end:
        stop = sum(_follow(view, at, end, 1))  # it raises
    try:
        return str(view[first_at:stop], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}: {error.reason}") from None


def _read_bytes(view: memoryview, at: int, end: int) -> memoryview:
    """A vector of bytes as a view of the message, not a copy."""
    first_at, count = _follow(view, at, end, 1)
    return memoryview(view)[first_at : first_at + count]


def _scalar_reader(code: str) -> _Read:
    unpack_from = Struct(f"<{code}").unpack_from

    def read(view: memoryview, at: int, _end: int) -> Any:
        return unpack_from(view, at)[0]

    return read


def _enum_reader(members: type[IntEnum]) -> _Read:
    """A reader of an i8 that must be one of `members`, which count up from 0."""
    by_number = tuple(members)
    assert [int(member) for member in by_number] == list(range(len(by_number)))

    def read(view: memoryview, at: int, _end: int) -> IntEnum:
        number = view[at]
        if number >= len(by_number):
            signed = number - 256 if number > 127 else number  # noqa: PLR2004 - the i8 sign bit
            raise MalformedError(f"{signed} is no {members.__name__} (0 to {len(by_number) - 1})")
        return by_number[number]

    return read


_PAIR_SLOTS: Final = Struct("<HHHH")
_PAIR_VTABLE_BYTES: Final = _PAIR_SLOTS.size


def _pair_layout(view: memoryview, at: int, end: int) -> tuple[int, int, int, int]:
    """Where the vtable of the KeyValue table at `at` lies, the table's size, key and value."""
    vtable_at, vtable_bytes = _find_vtable(view, at, end)
    if vtable_bytes < _PAIR_VTABLE_BYTES:
        table_bytes, key_at, value_at = _U16.unpack_from(view, vtable_at + 2)[0], 0, 0
    else:
        _, table_bytes, key_at, value_at = _PAIR_SLOTS.unpack_from(view, vtable_at)
    if not _OFFSET_BYTES <= table_bytes <= end - at:
        raise MalformedError(f"table of {table_bytes} bytes at {at} of {end}")
    if not key_at or not value_at:
        raise MalformedError("required field missing: key and value must both be there")
    if min(key_at, value_at) < _OFFSET_BYTES or max(key_at, value_at) > table_bytes - _OFFSET_BYTES:
        raise MalformedError(f"fields at {key_at, value_at} of a {table_bytes} byte table")
    return vtable_at, table_bytes, key_at, value_at


def _read_key_values(view: memoryview, at: int, end: int) -> tuple[tuple[str, str], ...]:
    """A vector of KeyValue tables as pairs, in order, repeats kept."""
    first_at, count = _follow(view, at, end, 4)
    if count > MAX_HEADER_PAIRS:
        raise MalformedError(f"{count} pairs, more than {MAX_HEADER_PAIRS}")
    pairs = []
    budget = end + _SHARED_STRING_SLACK_BYTES
    # Builders share the vtable among the pairs: what was checked of it holds for the next.
    # Not a number at first, since a table can say any: also -1, in front of the message.
    vtable_at: int | None = None
    table_bytes = key_at = value_at = 0
    for offset_at in range(first_at, first_at + 4 * count, 4):
        try:
            table_at = offset_at + _U32.unpack_from(view, offset_at)[0]
            if (
                table_at > end - max(table_bytes, _OFFSET_BYTES)
                or table_at - _I32.unpack_from(view, table_at)[0] != vtable_at
            ):
                vtable_at, table_bytes, key_at, value_at = _pair_layout(view, table_at, end)
            key = _read_string(view, table_at + key_at, end)
            value = _read_string(view, table_at + value_at, end)
        except MalformedError as error:
            raise MalformedError(f"[{(offset_at - first_at) // 4}]: {error}") from None
        budget -= len(key) + len(value)
        if budget < 0:
            raise MalformedError(_SHARED)
        pairs.append((key, value))
    return tuple(pairs)


_NUMBERS: Final = frozenset({Kind.BOOL, Kind.U16, Kind.I32, Kind.U32, Kind.I64, Kind.U64})
"""Like the generated code, any byte but 0 is true of a BOOL."""

_READERS: Final[dict[Kind, _Read]] = {
    Kind.STRING: _read_string,
    Kind.BYTES: _read_bytes,
    Kind.KEY_VALUES: _read_key_values,
    **{kind: _scalar_reader(kind.code) for kind in _NUMBERS},
}


def _reader_of(field: Field) -> _Read:
    return _READERS[field.kind] if field.members is None else _enum_reader(field.members)


@attrs.frozen
class _Layout:
    """How one vtable lays a table out: checked once, and kept.

    A peer writes the same few combinations of fields again and again, so most messages are read
    without another look at their vtable.

    Attributes:
        table_bytes: the inline size that the vtable declares.
        numbers: reads, from the table's start, all numbers that lie one behind another.
        number_names: their names, in that order.
        fields: (name, offset in the table, reader) of the others, in the order of slots.
        missing: the required fields that are absent, as a message names them.
    """

    table_bytes: int
    numbers: Struct
    number_names: tuple[str, ...]
    fields: tuple[tuple[str, int, _Read], ...]
    missing: str


def _refuser(offset: int, table_bytes: int) -> _Read:
    """The reader of a field that lies outside its table: the fields before it are read first."""

    def read(_view: memoryview, _at: int, _end: int) -> Any:
        raise MalformedError(f"field at {offset} of a {table_bytes} byte table")

    return read


def _lay_out(table: Table, vtable: bytes) -> _Layout:
    """The layout that `vtable` (its sizes and offsets) gives to `table`."""
    table_bytes = _U16_PAIR.unpack_from(vtable)[1]
    offsets = Struct(f"<{len(vtable) // 2 - 2}H").unpack_from(vtable, 4)
    numbers: list[tuple[int, Field]] = []
    others = []
    # Slots that a newer peer appended are not read.
    for field, offset in zip(table.fields, offsets, strict=False):
        if offset:
            is_inside = _OFFSET_BYTES <= offset <= table_bytes - field.kind.width_bytes
            if is_inside and field.kind in _NUMBERS:
                numbers.append((offset, field))
            else:
                read = _reader_of(field) if is_inside else _refuser(offset, table_bytes)
                others.append((field.name, offset, read))
    present = {field.name for _, field in numbers} | {name for name, _, _ in others}
    format_, names, at = "<", [], 0
    for offset, field in sorted(numbers, key=_offset_of):
        if offset < at:  # they overlap: no builder does that, but it can be read
            others.append((field.name, offset, _reader_of(field)))
            continue
        format_ += f"{offset - at}x{field.kind.code}"
        names.append(field.name)
        at = offset + field.kind.width_bytes
    missing = ", ".join(sorted(table.required - present))
    return _Layout(table_bytes, Struct(format_), tuple(names), tuple(others), missing)


def _offset_of(number: tuple[int, Field]) -> int:
    return number[0]


@attrs.define
class TableReader:
    """Reads one table of the schema as the root of a buffer."""

    table: Table
    _layouts: dict[bytes, _Layout] = attrs.field(factory=dict, init=False)
    _initial: dict[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """A plain dictionary is copied in a fifth of the time."""
        self._initial = dict(self.table.initial)

    def read(self, view: memoryview) -> Any:
        """The value of the root table of `view`.

        Raises:
            MalformedError: naming table, field and fault; `request_id` set where it could be read.
        """
        values = self._initial.copy()
        try:
            # Slices of bytes cost less than slices of a view, and a small copy costs nothing.
            self._read_into(values, bytes(view) if len(view) <= _SMALL_BYTES else view)
        except MalformedError as error:
            raise MalformedError(
                f"Invalid FlatBuffers message: {self.table.name}: {error}",
                request_id=values.get("request_id", 0),
            ) from None
        return self.table.value_type(**values)

    def _read_into(self, values: dict[str, Any], view: Any) -> None:
        end = len(view)
        if end < _OFFSET_BYTES:
            raise MalformedError(f"{end} bytes are too short")
        at = _U32.unpack_from(view, 0)[0]
        vtable_at, vtable_bytes = _find_vtable(view, at, end)
        layout = self._layout(bytes(view[vtable_at : vtable_at + vtable_bytes]))
        table_bytes = layout.table_bytes
        if not _OFFSET_BYTES <= table_bytes <= end - at:
            raise MalformedError(f"table of {table_bytes} bytes at {at} of {end}")
        # A small message is not worth counting: its few fields cannot name much.
        counts_text = end > _SHARED_STRING_SLACK_BYTES
        budget = end + _SHARED_STRING_SLACK_BYTES
        values.update(zip(layout.number_names, layout.numbers.unpack_from(view, at), strict=True))
        for name, offset, read in layout.fields:
            try:
                values[name] = value = read(view, at + offset, end)
                if counts_text and isinstance(value, str):
                    budget -= len(value)
                    if budget < 0:
                        raise MalformedError(_SHARED)  # noqa: TRY301 - it gets the name too
            except MalformedError as error:
                raise MalformedError(f"{name}: {error}") from None
        if layout.missing:
            raise MalformedError(f"required field missing: {layout.missing}")

    def _layout(self, vtable: bytes) -> _Layout:
        layout = self._layouts.get(vtable)
        if layout is None:
            layout = _lay_out(self.table, vtable)
            # Honest peers need a handful. Those who send ever new ones fill no memory, and do not
            # keep the others' out either: one laid out anew costs as much as the whole message.
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[vtable] = layout
        return layout
