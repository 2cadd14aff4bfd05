"""A FlatBuffers writer that goes forwards and puts the body last.

The usual builder grows backwards and copies everything into one array. A message here is
`root offset | vtable | table | strings, header lists | byte vector`, written front to back, so
that the one large field (payload, data, body) is never copied: it leaves as buffers of its own
behind the head. Readers of any language follow offsets and do not notice.

Which fields are present decides how vtable and table lie, so that layout is computed once per
combination and kept; a message then costs one `pack` plus its strings.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from struct import Struct
from typing import Any, Final

import attrs

from vastar_client.wire._tables import Field, Kind, Table
from vastar_client.wire.errors import LocalProtocolError
from vastar_client.wire.limits import MAX_FLATBUFFER_BYTES, MAX_HEADER_PAIRS
from vastar_client.wire.messages import Buffer, RawKeyValues

__all__ = ["TableWriter", "buffers_bytes", "one_buffer", "payload_bytes"]

_U32: Final = Struct("<I")
_STRING, _KEY_VALUES, _BYTES = Kind.STRING, Kind.KEY_VALUES, Kind.BYTES
"""An Enum looks its members up slowly, and these are asked for with each field of each message."""
_I32: Final = Struct("<i")
_KEY_VALUE_SLOTS: Final = Struct("<II")
_KEY_VALUE_VTABLE: Final = Struct("<HHHH").pack(8, 12, 4, 8)
_NULS: Final = tuple(b"\0" * count for count in range(8))
_VECTOR_ALIGNMENT_BYTES: Final = 8
"""Byte vectors start here, so that a nested FlatBuffer's 8-byte numbers are aligned too."""


def buffers_bytes(buffers: Sequence[Buffer]) -> int:
    """The length of `buffers` together."""
    return sum(map(len, buffers))


def payload_bytes(payload: Buffer | Sequence[Buffer]) -> int:
    """The length of a payload, in one piece or in several."""
    return buffers_bytes(payload) if isinstance(payload, (list, tuple)) else len(payload)


def _in_bytes(buffer: Buffer) -> Buffer:
    """`buffer` itself, or a view of it whose `len` counts bytes.

    A length in larger items would shift every frame behind this one; a view with gaps would be
    refused by the socket in the middle of the frame.

    Raises:
        LocalProtocolError: it is not contiguous.
    """
    if not isinstance(buffer, memoryview):
        return buffer
    if not buffer.c_contiguous:
        raise LocalProtocolError("a body must be contiguous: copy the view first")
    return buffer if buffer.nbytes == len(buffer) else buffer.cast("B")


def _string(text: str | bytes) -> bytes:
    """Length, UTF-8, a NUL, and padding to 4 bytes."""
    encoded = text.encode() if isinstance(text, str) else text
    return _U32.pack(len(encoded)) + encoded + _NULS[4 - (len(encoded) & 3)]


# Typed: text and bytes of one name would be compared, which `python -bb` takes as an error.
_name_string: Final = lru_cache(maxsize=1024, typed=True)(_string)
"""Header names are few; their values are many, and may be secrets that are not to be kept."""
_MAX_CACHED_NAME: Final = 64

_COMMON: Final = (
    *("accept", "accept-encoding", "accept-ranges", "cache-control", "connection"),
    *("content-encoding", "content-length", "content-type", "date", "expires", "host"),
    *("keep-alive", "server", "transfer-encoding", "user-agent", "vary"),
)
_COMMON_TEXTS: Final = frozenset(_COMMON)
_COMMON_BYTES: Final = frozenset(name.encode() for name in _COMMON)
"""Their values come again and again, and hold no secrets: they may be kept."""
_MAX_CACHED_VALUE: Final = 64


def _pair(key: str | bytes, value: str | bytes) -> bytes:
    """A KeyValue table behind its first four bytes, and its strings."""
    key_string = _name_string(key) if len(key) <= _MAX_CACHED_NAME else _string(key)
    # From the key's slot (table + 4) to behind the table, and from the value's (table + 8) to
    # behind the key.
    return _KEY_VALUE_SLOTS.pack(8, 4 + len(key_string)) + key_string + _string(value)


_common_pair: Final = lru_cache(maxsize=1024, typed=True)(_pair)


def _key_values(pairs: RawKeyValues) -> bytes:
    """`u32 count | offsets | vtable | (table, strings) of each pair`; all share the vtable."""
    if len(pairs) > MAX_HEADER_PAIRS:
        raise LocalProtocolError(f"{len(pairs)} headers, more than {MAX_HEADER_PAIRS}")
    vtable_at = 4 + 4 * len(pairs)
    at = vtable_at + len(_KEY_VALUE_VTABLE)
    slot_at = 4
    offsets = []
    tables: list[bytes] = []
    for key, value in pairs:
        common = _COMMON_TEXTS if isinstance(key, str) else _COMMON_BYTES
        is_common = key in common and len(value) <= _MAX_CACHED_VALUE
        pair = _common_pair(key, value) if is_common else _pair(key, value)
        offsets.append(at - slot_at)
        tables += (_I32.pack(at - vtable_at), pair)
        at += 4 + len(pair)
        slot_at += 4
    count_and_offsets = struct.pack(f"<{len(pairs) + 1}I", len(pairs), *offsets)
    return b"".join((count_and_offsets, _KEY_VALUE_VTABLE, *tables))


def one_buffer(body: Buffer | Sequence[Buffer] | None) -> Buffer:
    """`body` as one buffer; only several pieces are copied."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return body
    return b"".join(body or ())


@attrs.frozen
class _Layout:
    """Where everything lies for one combination of present fields."""

    pack: Struct
    """Root offset, vtable and the table's inline part."""
    head: tuple[int, ...]
    """The constant values that `pack` takes first."""
    order: tuple[tuple[int, Kind, int], ...]
    """(index in the table, kind, absolute position) of each inline value, in order."""


def _inline_order(field: tuple[int, Field]) -> tuple[int, bool]:
    """Widest first, so that no padding is needed between; byte vectors behind their like.

    (The offset of a byte vector is known last.)
    """
    return -field[1].kind.width_bytes, field[1].kind is Kind.BYTES


def _lay_out(fields: tuple[Field, ...], mask: int) -> _Layout:
    """The layout for the fields whose bit is set in `mask`."""
    present = sorted(
        ((slot, field) for slot, field in enumerate(fields) if mask >> slot & 1),
        key=_inline_order,
    )
    slots = mask.bit_length()
    vtable_bytes = 4 + 2 * slots
    # The table starts 4 before a multiple of 8, so that the numbers behind its own first four
    # bytes are aligned to 8.
    table_at = (4 + vtable_bytes + 3) // 8 * 8 + 4
    offsets = [0] * slots
    order = []
    format_ = f"<IHH{slots}H{table_at - 4 - vtable_bytes}xi"
    at = 4
    for slot, field in present:
        offsets[slot] = at
        order.append((slot, field.kind, table_at + at))
        format_ += field.kind.code
        at += field.kind.width_bytes
    padding = -at % 4
    format_ += f"{padding}x"
    return _Layout(
        pack=Struct(format_),
        head=(table_at, vtable_bytes, at, *offsets, table_at - 4),
        order=tuple(order),
    )


@attrs.define
class TableWriter:
    """Writes values of one table of the schema."""

    table: Table
    _items: Callable[[Any], tuple[Any, ...]] = attrs.field(init=False)
    _bits: tuple[tuple[int, Any], ...] = attrs.field(init=False)
    _required: int = attrs.field(init=False)
    _layouts: dict[int, _Layout] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Resolve what each write needs, once."""
        names = [field.name for field in self.table.fields]
        first = attrgetter(names[0])
        # Of one name it gives no tuple.
        self._items = attrgetter(*names) if len(names) > 1 else lambda value: (first(value),)
        self._bits = tuple(
            (1 << slot, None if field.required else default)
            for slot, (field, default) in enumerate(
                zip(self.table.fields, self.table.defaults, strict=True)
            )
        )
        self._required = sum(
            1 << slot for slot, field in enumerate(self.table.fields) if field.required
        )
        assert sum(field.kind is Kind.BYTES for field in self.table.fields) <= 1

    def write(self, value: Any) -> list[Buffer]:
        """The buffers of `value` as one FlatBuffer: the head, then the body's own buffers.

        Raises:
            LocalProtocolError: a number out of its range, text that is not Unicode (a lone
                surrogate), too many headers, a required field that is None, a body that is not
                contiguous, or more than 2 GiB.
        """
        mask = 0
        items = self._items(value)
        for item, (bit, default) in zip(items, self._bits, strict=True):
            # Most absent ones are the very object that is the default.
            if item is not default and item is not None and item != default:
                mask |= bit
        if mask & self._required != self._required:
            missing = ", ".join(sorted(n for n in self.table.required if getattr(value, n) is None))
            raise LocalProtocolError(f"{self.table.name} cannot be encoded: {missing} is None")
        layout = self._layouts.get(mask)
        if layout is None:
            layout = self._layouts[mask] = _lay_out(self.table.fields, mask)
        try:
            return _assemble(layout, items)
        except (ValueError, struct.error) as error:
            raise LocalProtocolError(f"{self.table.name} cannot be encoded: {error}") from error


def _assemble(layout: _Layout, items: tuple[Any, ...]) -> list[Buffer]:
    """Put the values of one message in place."""
    inline = [*layout.head]
    children = [b""]  # the head goes here
    body: Sequence[Buffer] = ()
    at = layout.pack.size
    for slot, kind, position in layout.order:
        item = items[slot]
        if kind is _STRING:
            inline.append(at - position)
            child = _string(item)
            children.append(child)
            at += len(child)
        elif kind is _KEY_VALUES:
            inline.append(at - position)
            child = _key_values(item)
            children.append(child)
            at += len(child)
        elif kind is _BYTES:
            parts = (item,) if isinstance(item, (bytes, bytearray, memoryview)) else item
            body = [_in_bytes(part) for part in parts]
            padding = -(at + 4) % _VECTOR_ALIGNMENT_BYTES
            inline.append(at + padding - position)
            body_bytes = buffers_bytes(body)
            children += (_NULS[padding], _U32.pack(body_bytes))
            at += padding + 4 + body_bytes
        else:
            inline.append(item)
    if at > MAX_FLATBUFFER_BYTES:
        raise LocalProtocolError(f"a message of {at} bytes exceeds {MAX_FLATBUFFER_BYTES}")
    children[0] = layout.pack.pack(*inline)
    return [b"".join(children), *body]
