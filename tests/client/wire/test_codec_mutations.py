"""Spoiled messages: a value or one RemoteProtocolError, from the bytes of the message alone.

The seeds are fixed, so a failure repeats; it shows the mutant in hex. `VASTAR_MUTANTS` makes more
than the usual number per table.
"""

import ctypes
import os
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.wire.mutants import mutant, originals
from tests.client.wire.reference import (
    DECODE,
    MESSAGE_TABLES,
    VALUE_TYPES,
    plain,
    read,
    same,
)
from tests.client.wire.samples import event_or_fault
from tests.client.wire.schema import TABLES
from vastar_client import wire
from vastar_client.wire import Connection, Role, _generated

MUTANTS = int(os.environ.get("VASTAR_MUTANTS", "3000"))
each_table = pytest.mark.parametrize("table", VALUE_TYPES)


def mutants_of(table: str, seed: int, count: int = MUTANTS) -> list[bytes]:
    source = random.Random(f"{table}{seed}")
    good = originals(table, source, 12)
    return [mutant(source, source.choice(good)) for _ in range(count)]


def outcome(table: str, data: Any) -> tuple[str, Any]:
    """("value", plain) or ("error", (text, id)); any other exception fails the test."""
    try:
        return "value", plain(table, DECODE[table](data))
    except wire.RemoteProtocolError as error:
        return "error", (str(error), error.request_id)


def typed(table: str, values: dict[str, Any]) -> bool:
    """Whether each value is one that the schema allows in its field."""
    kinds: dict[str, type | tuple[type, ...]] = {"bool": bool, "string": str, "[ubyte]": bytes}
    for field in TABLES[table]:
        value = values[field.name]
        if value is None:
            if field.required or field.default is not None:
                return False
        elif not isinstance(value, kinds.get(field.type, (list, int))):
            return False
    return True


@each_table
def test_a_mutant_is_a_value_or_one_kind_of_error(table: str) -> None:
    """And where it is a value that the generated code reads too, both read the same."""
    kinds = {"value": 0, "error": 0}
    for data in mutants_of(table, seed=1):
        kind, result = outcome(table, data)
        kinds[kind] += 1
        if kind == "value":
            assert typed(table, result), data.hex()
            assert same(table, result, read_by_generated(table, data, result)), data.hex()
    assert kinds["value"] > MUTANTS // 10, "mutants too wild to show anything"
    assert kinds["error"] > MUTANTS // 10, "mutants too tame to show anything"


def read_by_generated(table: str, data: bytes, ours: dict[str, Any]) -> dict[str, Any]:
    """What the accessors say. They must not raise on what ours takes: no difference is excused.

    (The one that there is, headers absent from a native HTTP value, is in `same`.)
    """
    try:
        return read(table, data)
    except (struct.error, IndexError, TypeError, ValueError) as error:
        pytest.fail(f"ours reads {ours}, theirs raises {error!r}: {data.hex()}")


@each_table
def test_nothing_outside_the_message_is_read(table: str) -> None:
    """The same bytes amid other bytes, twice different, give the same outcome."""
    source = random.Random(2)
    for data in mutants_of(table, seed=2, count=MUTANTS // 3):
        alone = outcome(table, data)
        for _ in range(2):
            before, behind = (source.randbytes(source.randrange(8, 40)) for _ in "ab")
            surrounded = memoryview(before + data + behind)
            within = surrounded[len(before) : len(before) + len(data)]
            assert outcome(table, within) == alone, data.hex()


def address(buffer: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


@pytest.mark.parametrize(
    "table", [t for t in VALUE_TYPES if any(f.type == "[ubyte]" for f in TABLES[t])]
)
def test_a_body_lies_inside_the_message(table: str) -> None:
    name = next(f.name for f in TABLES[table] if f.type == "[ubyte]")
    seen = 0
    for data in mutants_of(table, seed=3, count=MUTANTS // 3):
        buffer = bytearray(data) + bytes(1024)  # a small message is read from a copy
        try:
            body = getattr(DECODE[table](buffer), name)
        except wire.RemoteProtocolError:
            continue
        if body:
            seen += 1
            assert body.obj is buffer
            start = address(body) - address(buffer)
            assert 0 <= start <= start + len(body) <= len(buffer)
    assert seen


@given(data=st.binary(max_size=120), table=st.sampled_from(list(VALUE_TYPES)))
def test_any_bytes_at_all(data: bytes, table: str) -> None:
    kind, result = outcome(table, data)
    assert kind == "error" or typed(table, result)


WITH_ID_AND_TEXT = [
    table
    for table in MESSAGE_TABLES
    if TABLES[table][0].name == "request_id"
    and any(field.type in {"string", "[KeyValue]"} for field in TABLES[table])
]


@pytest.mark.parametrize("table", WITH_ID_AND_TEXT)
def test_an_error_has_the_id_wherever_the_accessors_find_it_in_a_sound_table(table: str) -> None:
    """One byte of a string spoiled: the rest of the message, and its id, are as they were."""
    source = random.Random(4)
    saved = 0
    for original in originals(table, source, 40):
        for at in [i for i, byte in enumerate(original) if byte in b"hk"]:
            data = original[:at] + b"\xff" + original[at + 1 :]
            kind, result = outcome(table, data)
            if kind == "error" and "not UTF-8" in result[0]:
                saved += 1
                assert result[1] == read_id(table, data), data.hex()
    assert saved


def read_id(table: str, data: bytes) -> int:
    number: int = getattr(_generated, table).GetRootAs(data).RequestId()
    return number


def test_after_each_mutant_a_runtime_takes_the_next_call() -> None:
    source = random.Random(5)
    runtime, client = Connection(Role.RUNTIME), Connection(Role.CLIENT)
    call = wire.ExecuteRequest(9, "t", "http", "request", payload=b"{}")
    good = b"".join(client.send(call))
    for data in mutants_of("ExecuteRequest", seed=5):
        message_type = source.choice([0, 0, 0, 8, 10, 12, 13, 77])
        runtime.receive_data((len(data) + 1).to_bytes(4) + bytes([message_type]) + data + good)
        event = event_or_fault(runtime)
        assert not (isinstance(event, wire.RemoteProtocolError) and event.closes), data.hex()
        assert runtime.next_event() == call
        assert runtime.next_event() is wire.NEED_DATA


@each_table
def test_every_truncation_of_a_message_is_settled(table: str) -> None:
    for original in originals(table, random.Random(6), 6):
        for length in range(len(original)):
            kind, result = outcome(table, original[:length])
            assert kind == "error" or typed(table, result)
