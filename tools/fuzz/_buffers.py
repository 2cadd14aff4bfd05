"""Level 2: FlatBuffers that are nearly right: the framing holds, vtables and offsets lie."""

import struct
from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

from tools.fuzz._framing import framed
from vastar_client.wire import MessageType

__all__ = ["cycles", "hostile_buffers", "hostile_frames", "spoiled"]

_Edit = Callable[[st.DrawFn, bytearray], None]


def _flip(draw: st.DrawFn, data: bytearray) -> None:
    data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))


def _offset(draw: st.DrawFn, data: bytearray) -> None:
    """Where offsets and counters lie: near, far, negative, or an edge."""
    size = len(data)
    at = draw(st.integers(0, max(0, size // 4 - 1))) * 4
    edges = (0, 1, 4, size, size - 4, size - at, size - at - 4, 2**31 - 1, 2**31, 2**32 - 1, -at)
    number = draw(st.sampled_from(edges) | st.integers(0, size + 8))
    if at + 4 <= size:
        struct.pack_into("<I", data, at, number % 2**32)


def _slot(draw: st.DrawFn, data: bytearray) -> None:
    """Where vtables lie: their size, the table's, a field's place."""
    at = draw(st.integers(0, max(0, min(len(data) // 2, 24) - 1))) * 2
    number = draw(st.sampled_from((0, 1, 2, 3, 4, 5, 6, 8, 2052, 0xFFFE, 0xFFFF)))
    if at + 2 <= len(data):
        struct.pack_into("<H", data, at, number)


def _cut(draw: st.DrawFn, data: bytearray) -> None:
    del data[draw(st.integers(0, len(data) - 1)) :]


def _move(draw: st.DrawFn, data: bytearray) -> None:
    """One run of bytes over another: strings shared, tables inside of tables."""
    size = draw(st.integers(1, 9))
    start, to = (draw(st.integers(0, len(data) - 1)) for _ in range(2))
    run = data[start : start + size]
    data[to : to + len(run)] = run


_EDITS: Final[tuple[_Edit, ...]] = (_flip, _offset, _offset, _slot, _slot, _cut, _move)


@st.composite
def spoiled(draw: st.DrawFn, buffers: st.SearchStrategy[bytes]) -> bytes:
    """A good FlatBuffer with one to three lies in it.

    It may still be valid: that is for the judge to see.
    """
    data = bytearray(draw(buffers))
    for _ in range(draw(st.integers(1, 3))):
        if data:
            draw(st.sampled_from(_EDITS))(draw, data)
    return bytes(data)


def _table(slots: tuple[int, ...], inline: bytes) -> bytes:
    """A root table by hand: root offset, vtable, then the table with `inline` behind its start."""
    vtable = struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), 4 + len(inline), *slots)
    vtable += b"\0" * (-len(vtable) % 4)
    root = 4 + len(vtable)
    return struct.pack("<I", root) + vtable + struct.pack("<i", len(vtable)) + inline


def _bomb(pairs: int) -> bytes:
    """An ExecuteRequest whose header list names one large pair again and again.

    Sharing is legal, but 64 kB that mean gigabytes are not to be believed.
    """
    text = struct.pack("<I", 60_000) + b"x" * 60_000 + b"\0\0\0\0"
    slots = (0, 4, 0, 0, 8, 12, 0, 0, 16)
    head = _table(slots, struct.pack("<IIII", 0, 0, 0, 0))
    at = len(head)
    vector = struct.pack("<I", pairs)
    vtable_at = at + 4 + 4 * pairs
    pair_at = vtable_at + 8
    text_at = pair_at + 12
    vector += b"".join(struct.pack("<I", pair_at - (at + 4 + 4 * n)) for n in range(pairs))
    pair = struct.pack("<HHHH", 8, 12, 4, 8) + struct.pack(
        "<iII", 8, text_at - pair_at - 4, text_at - pair_at - 8
    )
    data = bytearray(head + vector + pair + text)
    empty_at = len(data)
    data += b"\0\0\0\0\0\0\0\0"
    first = at - 16
    for place, target in zip((first, first + 4, first + 8), (empty_at,) * 3, strict=True):
        struct.pack_into("<I", data, place, target - place)
    struct.pack_into("<I", data, first + 12, at - first - 12)
    return bytes(data)


def cycles() -> st.SearchStrategy[bytes]:
    """Buffers by hand that point at themselves: a reader that follows without looking never ends.

    The root is its own vtable; a string is its own length; the header list holds itself; strings
    behind the end; a vtable of a thousand slots; one pair named four thousand times.
    """
    many = struct.pack("<HH", 2048 + 4, 4) + b"\0\0" * 1024
    return st.sampled_from(
        (
            b"",
            b"\0\0\0\0",
            struct.pack("<Ii", 4, 0),
            struct.pack("<Ii", 4, 4),
            struct.pack("<Ii", 4, -4),
            struct.pack("<II", 0xFFFFFFFF, 0),
            _table((0, 4, 0, 0, 8, 12), struct.pack("<III", 0, 0, 0)),
            _table((0, 4, 0, 0, 4, 4, 0, 0, 4), struct.pack("<I", 0xFFFFFFFC)),
            _table((0, 4, 0, 0, 4, 4, 0, 0, 4), struct.pack("<I", 0x7FFFFFFF)),
            _table((0xFFFF,) * 14, b""),
            _table((4,) * 14, struct.pack("<I", 4)),
            struct.pack("<I", 4 + len(many)) + many + struct.pack("<i", len(many)),
            _bomb(4_000),
            _bomb(5_000),
        )
    )


def hostile_buffers(good: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Spoiled ones of `good`, and those made by hand."""
    return spoiled(good) | spoiled(good) | spoiled(good) | cycles()


def hostile_frames(
    good: st.SearchStrategy[tuple[int, bytes]], *, is_base: bool = False
) -> st.SearchStrategy[bytes]:
    """Sound frames around hostile buffers.

    Args:
        good: (type byte, FlatBuffer) to spoil.
        is_base: type 0 only: the published runtime reads every frame as one.
    """
    lies = good.flatmap(lambda pair: st.tuples(st.just(pair[0]), spoiled(st.just(pair[1]))))
    kinds = (0,) if is_base else tuple(int(kind) for kind in MessageType)
    loops = st.tuples(st.sampled_from(kinds), cycles())
    return (lies | lies | lies | loops).map(lambda pair: framed(*pair))
