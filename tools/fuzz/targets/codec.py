"""Any bytes as any table of the schema: ours against the generated accessors.

Input: table, whether the buffer is free bytes or a sound one that gets spoiled (places and how).
"""

from typing import Final

from tools.fuzz.targets._inputs import Input
from tools.fuzz.targets._made import KINDS, decode, differences, encode, made, plain
from vastar_client.wire import RemoteProtocolError
from vastar_client.wire._tables import Table

__all__ = ["check"]

_MOST_SPOILS: Final = 16


def check(data: bytes) -> bool:
    """Hold one input against both readers; whether ours took it.

    Raises:
        AssertionError: they differ, or what was read cannot be written and read again.
    """
    source = Input(data)
    table = source.pick(KINDS)
    buffer = _spoiled(source) if source.chance() else source.rest()
    try:
        ours = decode(table, buffer)
    except RemoteProtocolError as error:
        _assert_refused_amid(table, buffer, str(error))
        return False
    found = differences(table, buffer, ours)
    assert not found, found
    fields = plain(ours)
    assert plain(decode(table, bytearray(buffer))) == fields
    again = decode(table, encode(table, ours))
    assert plain(again) == fields, (fields, plain(again))
    return True


def _assert_refused_amid(table: Table, buffer: bytes, words: str) -> None:
    """What lies around a message is never read: refused alone, it is refused amid other bytes."""
    amid = memoryview(b"\x04" * 8 + buffer + b"\x04" * 64)[8 : 8 + len(buffer)]
    said = "taken"
    try:
        decode(table, amid)
    except RemoteProtocolError as error:
        said = str(error)
    assert said == words, (said, words)


def _spoiled(source: Input) -> bytes:
    """A sound message of any table, some of its bytes changed."""
    table = source.pick(KINDS)
    buffer = bytearray(encode(table, made(table, source)))
    for _ in range(_MOST_SPOILS):
        if not source.has_more:
            break
        at = source.number(2) % len(buffer) if buffer else 0
        how, value = source.number(), source.number()
        match how % 4:
            case 0:
                buffer[at : at + 1] = bytes([value])
            case 1:
                buffer[at : at + 4] = ((value - 128) % 2**32).to_bytes(4, "little")
            case 2:
                buffer[at : at + 2] = (value * 2).to_bytes(2, "little")
            case _:
                del buffer[len(buffer) - value % (len(buffer) + 1) :]
    return bytes(buffer)
