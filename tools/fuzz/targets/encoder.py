"""Messages of any values: what our writer writes, both readers read as the same values.

Input: table, fields; then whether one of the fields is given a value that no message can have.
"""

from typing import Any, Final

import msgspec

from tools.fuzz.targets._inputs import Input
from tools.fuzz.targets._made import KINDS, decode, differences, encode, made, plain
from vastar_client.wire import LocalProtocolError
from vastar_client.wire._tables import Kind, Table

__all__ = ["check"]

_NUMBERS: Final = (-1, 2**64, 2**63, -(2**63) - 1, None)
_TEXTS: Final = ("\ud800", "a\udfff", None)


def check(data: bytes) -> bool:
    """Write one message and read it; whether it could be written.

    Raises:
        AssertionError: it was read as another.
    """
    source = Input(data)
    table = source.pick(KINDS)
    value = made(table, source)
    if source.chance():
        return _refused_in_our_words(table, value, source)
    buffer = encode(table, value)
    again = decode(table, buffer)
    assert plain(again) == plain(value), (plain(value), plain(again))
    found = differences(table, buffer, again)
    assert not found, found
    return True


def _refused_in_our_words(table: Table, value: Any, source: Input) -> bool:
    """A number out of its range, half a surrogate pair, a required field without a value."""
    field = source.pick(table.fields)
    if field.kind in {Kind.BYTES, Kind.KEY_VALUES}:
        return False
    impossible: Any = source.pick(_TEXTS if field.kind is Kind.STRING else _NUMBERS)
    try:
        encode(table, msgspec.structs.replace(value, **{field.name: impossible}))
    except LocalProtocolError:
        return False
    return True
