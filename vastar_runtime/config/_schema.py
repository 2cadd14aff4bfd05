"""The tree of all keys: what may stand where in a file, and what it takes.

Built once from the types of `_model` and `_policies`, and walked by whoever reads, prints or
explains a key. Three kinds of nodes: a `Leaf` takes a value, a `Table` has keys that are known, and
`Names` has keys that the operator chooses. A key that is known, but belongs elsewhere, is no node:
its table says where it belongs.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import attrs
import msgspec
import msgspec.inspect as mi

from vastar_runtime.config._expect import fields_of, outline
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._names import any_name, canonical_origin
from vastar_runtime.config._policies import (
    DEFAULTS,
    EVERYWHERE,
    ORIGINS,
    PLACES,
    TENANTS,
    WORKSPACES,
    PoliciesConfig,
)

__all__ = ["Leaf", "Names", "Node", "Table", "leaf_at", "policy_leaves", "schema"]


@attrs.frozen
class Leaf:
    """A key that takes a value.

    Attributes:
        type_: what it takes, in words and ranges.
        annotation: the same for a conversion.
        default: what holds where nothing was written.
    """

    type_: mi.Type
    annotation: Any
    default: Any


@attrs.frozen
class Table:
    """Keys that are known.

    Attributes:
        nodes: what they are.
        elsewhere: keys that somebody may take for ours, and where they belong.
    """

    nodes: Mapping[str, "Node"]
    elsewhere: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Names:
    """Keys that the operator chooses.

    Attributes:
        clean: the name as it is to be found, or `BadName`.
        inner: what stands below each.
    """

    clean: Callable[[str], str]
    inner: Table


Node: TypeAlias = Leaf | Table | Names


@cache
def schema() -> Table:
    """The whole tree; built at the first use, which takes some milliseconds."""
    nodes = dict(_plain_table(RuntimeConfig).nodes)
    tenant, workspace = _place_table(TENANTS), _place_table(WORKSPACES)
    nodes[DEFAULTS] = _place_table(DEFAULTS)
    nodes[TENANTS] = Names(
        any_name,
        Table({**tenant.nodes, WORKSPACES: Names(any_name, workspace)}, tenant.elsewhere),
    )
    nodes[ORIGINS] = Names(canonical_origin, _place_table(ORIGINS))
    elsewhere = {policy: f"[{DEFAULTS}.{policy}]" for policy in PoliciesConfig.__struct_fields__}
    return Table(nodes, {**elsewhere, WORKSPACES: f"[{PLACES[WORKSPACES]}.POLICY]"})


def leaf_at(path: tuple[str, ...]) -> Leaf:
    """The leaf of a key without names, such as `server.drain_s`."""
    node: Node = schema()
    for name in path:
        assert isinstance(node, Table)
        node = node.nodes[name]
    assert isinstance(node, Leaf)
    return node


@cache
def policy_leaves(place: str) -> Mapping[str, Mapping[str, Leaf]]:
    """The leaves that may be written at a kind of place, by policy and key."""
    found: dict[str, Mapping[str, Leaf]] = {}
    for policy, table in _place_table(place).nodes.items():
        assert isinstance(table, Table)
        found[policy] = {key: leaf for key, leaf in table.nodes.items() if isinstance(leaf, Leaf)}
    return found


@cache
def _plain_table(cls: type[msgspec.Struct]) -> Table:
    """The table of a Struct whose keys may all stand where it stands."""
    kinds = fields_of(mi.type_info(cls)) or {}
    nodes: dict[str, Node] = {}
    for field in msgspec.structs.fields(cls):
        if fields_of(kinds[field.name].type) is None:
            nodes[field.name] = Leaf(kinds[field.name].type, field.type, field.default)
        else:
            inner: msgspec.Struct = field.default
            nodes[field.name] = _plain_table(type(inner))
    return Table(nodes)


@cache
def _place_table(place: str) -> Table:
    """The policies, with the keys that may stand at this kind of place."""
    kinds = fields_of(mi.type_info(PoliciesConfig)) or {}
    tables: dict[str, Node] = {}
    elsewhere: dict[str, str] = {}
    for policy, kind in kinds.items():
        of_table = outline(kind.type)[1].get("places", EVERYWHERE)
        here: dict[str, Node] = {}
        not_here: dict[str, str] = {}
        table: msgspec.Struct = getattr(PoliciesConfig(), policy)
        for key, leaf in _plain_table(type(table)).nodes.items():
            assert isinstance(leaf, Leaf)
            places = outline(leaf.type_)[1].get("places", of_table)
            if place in places:
                here[key] = leaf
            else:
                not_here[key] = " or ".join(f"[{PLACES[name]}.{policy}]" for name in places)
        if here:
            tables[policy] = Table(here, not_here)
        else:
            elsewhere[policy] = " or ".join(f"[{PLACES[name]}.{policy}]" for name in of_table)
    return Table(tables, elsewhere)
