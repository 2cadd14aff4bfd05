"""The codec's own description of the tables agrees with the schema: a drift of either fails."""

import pytest

from tests.client.wire.reference import VALUE_TYPES
from tests.client.wire.schema import ENUMS, TABLES, snake
from vastar_client.wire import _tables, enums
from vastar_client.wire._tables import Field, Kind

OURS = {
    table.name: table
    for table in (*_tables.TABLES.values(), _tables.HTTP_REQUEST, _tables.HTTP_RESPONSE)
}
KINDS = {
    "bool": Kind.BOOL,
    "ushort": Kind.U16,
    "int": Kind.I32,
    "uint": Kind.U32,
    "long": Kind.I64,
    "ulong": Kind.U64,
    "string": Kind.STRING,
    "[ubyte]": Kind.BYTES,
    "[KeyValue]": Kind.KEY_VALUES,
    **dict.fromkeys(ENUMS, Kind.I8_ENUM),
}


def test_every_table_of_the_schema_is_described() -> None:
    assert OURS.keys() | {"KeyValue"} == TABLES.keys()
    assert {name: table.value_type for name, table in OURS.items()} == VALUE_TYPES


@pytest.mark.parametrize("name", OURS)
def test_slots_names_kinds_and_required_agree(name: str) -> None:
    assert [
        Field(f.name, KINDS[f.type], getattr(enums, f.enum) if f.enum else None, f.required)
        for f in TABLES[name]
    ] == list(OURS[name].fields)


@pytest.mark.parametrize("name", OURS)
def test_an_absent_field_has_the_default_of_the_schema(name: str) -> None:
    """Headers of native HTTP values are `()` when absent, and required fields have no default."""
    for field, default in zip(TABLES[name], OURS[name].defaults, strict=True):
        if field.required:
            continue
        native_headers = name.startswith("Http") and field.name == "headers"
        assert default == (() if native_headers else field.default), field.name


def test_a_pair_is_two_required_strings() -> None:
    """The reader and the writer have this table built in."""
    facts = [(f.name, f.type, f.required) for f in TABLES["KeyValue"]]
    assert facts == [("key", "string", True), ("value", "string", True)]


@pytest.mark.parametrize("name", ENUMS)
def test_enumerations_agree(name: str) -> None:
    ours = {member.name: member.value for member in getattr(enums, name)}
    assert ours == {snake(member): number for member, number in ENUMS[name].items()}


def test_each_message_type_is_the_table_that_the_schema_says() -> None:
    """A member of MessageType is called as its table; health checks are the two exceptions."""
    by_name = {snake(member): member for member in ENUMS["MessageType"]}
    for message_type in enums.MessageType:
        table = _tables.TABLES.get(message_type)
        member = by_name[message_type.name]
        if member == "HealthCheck":
            assert table is None
        else:
            assert table is not None
            assert table.value_type.TYPE is message_type
            assert table.name == member.replace("HealthResponse", "HealthCheckResponse")


def test_no_table_contains_itself_so_that_depth_is_bounded_by_the_schema() -> None:
    assert {f.type for f in TABLES["KeyValue"]} == {"string"}
    nested = {f.type for name in OURS for f in TABLES[name] if f.type.strip("[]") in TABLES}
    assert nested == {"[KeyValue]"}


def test_a_table_has_one_byte_vector_at_most_so_that_it_can_go_last() -> None:
    for fields in TABLES.values():
        assert sum(field.type == "[ubyte]" for field in fields) <= 1
