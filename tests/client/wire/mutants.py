"""Ways to spoil a good FlatBuffer, and good ones to spoil, from a seeded random source."""

import random
import struct
from collections.abc import Callable

from tests.client.wire.reference import ENCODE, build, make
from tests.client.wire.schema import ENUMS, TABLES

__all__ = ["mutant", "originals"]

_TEXTS = ["", "k", "http", "größe", "日本", "x" * 40, "\N{GRINNING FACE}\0"]


def _value(source: random.Random, type_: str) -> object:
    match type_:
        case "string":
            return source.choice(_TEXTS)
        case "[ubyte]":
            return source.randbytes(source.choice([0, 1, 7, 30]))
        case "[KeyValue]":
            return [
                (source.choice(_TEXTS), source.choice(_TEXTS)) for _ in range(source.randrange(4))
            ]
        case "bool":
            return True
        case "ushort":
            return source.randrange(2**16)
        case "int" | "uint":
            return source.randrange(2**31)
        case "long" | "ulong":
            return source.choice([1, 2**63 - 1, 2**32])
    return source.choice(sorted(ENUMS[type_].values()))


def originals(table: str, source: random.Random, count: int) -> list[bytes]:
    """Valid messages of `table`: some of the builder (strings shared or not), some of ours."""
    made = []
    for index in range(count):
        values = {
            field.name: _value(source, field.type)
            for field in TABLES[table]
            if field.required or source.random() < 0.8
        }
        if index % 3:
            made.append(build(table, values, share=index % 3 == 1))
        else:
            made.append(b"".join(ENCODE[table](make(table, values))))
    return made


def _flip_bit(source: random.Random, data: bytearray) -> None:
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _overwrite_byte(source: random.Random, data: bytearray) -> None:
    data[source.randrange(len(data))] = source.choice([0, 1, 4, 0x7F, 0x80, 0xFF])


def _overwrite_u32(source: random.Random, data: bytearray) -> None:
    """Where offsets and counters lie, numbers that are near, far, negative, or an edge."""
    size = len(data)
    at = source.randrange(max(1, size // 4)) * 4
    number = source.choice(
        [
            *(0, 1, 4, size, size - 4, size - at, size - at - 4, size - at - 3),
            *(2**31 - 1, 2**31, 2**32 - 1, 2**32 - at, -at % 2**32, 2**30),
            source.randrange(size + 8),
        ]
    )
    if at + 4 <= size:
        struct.pack_into("<I", data, at, number % 2**32)


def _overwrite_u16(source: random.Random, data: bytearray) -> None:
    """Where vtables lie."""
    at = source.randrange(max(1, len(data) // 2)) * 2
    number = source.choice([0, 1, 3, 4, 5, 6, 8, 0xFFFF, source.randrange(64)])
    if at + 2 <= len(data):
        struct.pack_into("<H", data, at, number)


def _truncate(source: random.Random, data: bytearray) -> None:
    del data[source.randrange(len(data)) :]


def _extend(source: random.Random, data: bytearray) -> None:
    data += source.randbytes(source.randrange(1, 9))


def _move(source: random.Random, data: bytearray) -> None:
    """Copy one run of bytes over another."""
    length = source.randrange(1, 9)
    start, to = source.randrange(len(data)), source.randrange(len(data))
    run = data[start : start + length]
    data[to : to + len(run)] = run


_WAYS: list[Callable[[random.Random, bytearray], None]] = [
    *(_flip_bit, _overwrite_byte, _overwrite_u32, _overwrite_u32, _overwrite_u16),
    *(_truncate, _extend, _move),
]


def mutant(source: random.Random, original: bytes) -> bytes:
    """`original` spoiled in one to three ways."""
    data = bytearray(original)
    for _ in range(source.choice([1, 1, 1, 2, 3])):
        if data:
            source.choice(_WAYS)(source, data)
    return bytes(data)
