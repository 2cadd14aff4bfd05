"""Hypothesis strategies for the values of every table, drawn from the schema's own text."""

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from tests.client.wire.reference import MESSAGE_TABLES, make
from tests.client.wire.schema import ENUMS, TABLES, SchemaField

__all__ = ["chunks", "messages", "table_values"]


def _number(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high) | st.sampled_from([low, high, 0, 1, high // 2 + 1])


_PAIR = st.tuples(st.text(max_size=12), st.text(max_size=12))
_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=30),
    "[ubyte]": st.binary(max_size=40),
    "[KeyValue]": st.lists(_PAIR, max_size=4),
    "bool": st.booleans(),
    "ushort": _number(0, 2**16 - 1),
    "int": _number(-(2**31), 2**31 - 1),
    "uint": _number(0, 2**32 - 1),
    "long": _number(-(2**63), 2**63 - 1),
    "ulong": _number(0, 2**64 - 1),
    **{name: st.sampled_from(sorted(members.values())) for name, members in ENUMS.items()},
}


def _one(field: SchemaField) -> st.SearchStrategy[Any]:
    return _BY_TYPE[field.type]


def table_values(table: str) -> st.SearchStrategy[dict[str, Any]]:
    """Values for `table`: what is required, and any subset of the rest."""
    fields = TABLES[table]
    return st.fixed_dictionaries(
        {field.name: _one(field) for field in fields if field.required},
        optional={field.name: _one(field) for field in fields if not field.required},
    )


def messages(*tables: str) -> st.SearchStrategy[Any]:
    """Messages of ours, of the named tables or of any."""
    return st.sampled_from(tables or MESSAGE_TABLES).flatmap(
        lambda table: table_values(table).map(lambda values: make(table, values))
    )


@st.composite
def chunks(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in any split: whole, byte by byte, or anywhere."""
    how = draw(st.sampled_from(["whole", "bytes", "random"]))
    if how == "whole":
        return [data] if data else []
    if how == "bytes":
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]
