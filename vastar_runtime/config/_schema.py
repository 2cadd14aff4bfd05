"""The tree of all keys: what may stand where in a file, and what it takes.

Built once from the types of `_model` and `_policies`, and walked by whoever reads, prints or
explains a key. Three kinds of nodes: a `Leaf` takes a value, a `Table` has keys that are known, and
`Names` has keys that the operator chooses. A key that is known, but belongs elsewhere, is no node:
its table says where it belongs.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

import attrs
import msgspec
import msgspec.inspect as mi

from vastar_runtime.config._credentials import CREDENTIALS, CredentialConfig
from vastar_runtime.config._databases import DATABASES, DatabaseConfig, canonical_server
from vastar_runtime.config._expect import fields_of, outline, plain
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
    TenantConfig,
)

__all__ = [
    "Leaf",
    "Names",
    "Node",
    "Table",
    "credential_table",
    "database_table",
    "leaf_at",
    "policy_leaves",
    "schema",
    "tenants_own",
]


@attrs.frozen
class Leaf:
    """A key that takes a value.

    Attributes:
        type_: what it takes, in words and ranges.
        annotation: the same for a conversion.
    """

    type_: mi.Type
    annotation: Any


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


_WHERE: Final = f'[{PLACES[TENANTS]}.{CREDENTIALS}."https://HOST"]'


@cache
def schema() -> Table:
    """The whole tree; built at the first use, which takes some milliseconds."""
    tenant, workspace = _place_table(TENANTS), _place_table(WORKSPACES)
    origin, credentials = _place_table(ORIGINS), Names(canonical_origin, credential_table())
    nodes: dict[str, Node] = {
        **_plain().nodes,
        DEFAULTS: _place_table(DEFAULTS),
        TENANTS: Names(
            any_name,
            Table(
                {
                    **tenants_own().nodes,
                    **tenant.nodes,
                    CREDENTIALS: credentials,
                    DATABASES: Names(any_name, database_table()),
                    WORKSPACES: Names(
                        any_name,
                        Table({**workspace.nodes, CREDENTIALS: credentials}, workspace.elsewhere),
                    ),
                },
                tenant.elsewhere,
            ),
        ),
        ORIGINS: Names(
            canonical_server, Table(origin.nodes, {**origin.elsewhere, CREDENTIALS: _WHERE})
        ),
    }
    elsewhere = {policy: f"[{DEFAULTS}.{policy}]" for policy in PoliciesConfig.__struct_fields__}
    elsewhere |= {WORKSPACES: f"[{PLACES[WORKSPACES]}.POLICY]", CREDENTIALS: _WHERE}
    return Table(nodes, elsewhere)


def leaf_at(path: tuple[str, ...]) -> Leaf:
    """The leaf of a key without names, such as `server.drain_s`."""
    node: Node = _plain()
    for name in path:
        assert isinstance(node, Table)
        node = node.nodes[name]
    assert isinstance(node, Leaf)
    return node


@cache
def policy_leaves(place: str) -> Mapping[str, Mapping[str, Leaf]]:
    """The leaves that may be written at a kind of place, by policy and key."""
    return {
        policy: {key: leaf for key, leaf in table.nodes.items() if isinstance(leaf, Leaf)}
        for policy, table in _place_table(place).nodes.items()
        if isinstance(table, Table)
    }


@cache
def credential_table() -> Table:
    """The keys of a credential."""
    return _table(mi.type_info(CredentialConfig))


@cache
def database_table() -> Table:
    """The keys of a data source."""
    return _table(mi.type_info(DatabaseConfig))


@cache
def tenants_own() -> Table:
    """What is written of a tenant beside policies, workspaces, credentials and databases."""
    nodes = _table(mi.type_info(TenantConfig)).nodes
    others = {"policies", WORKSPACES, CREDENTIALS, "workspace_credentials", DATABASES}
    return Table({name: nodes[name] for name in nodes if name not in others})


@cache
def _plain() -> Table:
    """The tree as the Structs have it: names are leaves, and keys may stand at every place."""
    return _table(mi.type_info(RuntimeConfig))


def _table(type_: mi.Type) -> Table:
    kind = plain(type_)
    assert isinstance(kind, mi.StructType)
    nodes: dict[str, Node] = {}
    for field, (name, inner) in zip(
        msgspec.structs.fields(kind.cls), (fields_of(kind) or {}).items(), strict=True
    ):
        is_leaf = fields_of(inner.type) is None
        nodes[name] = Leaf(inner.type, field.type) if is_leaf else _table(inner.type)
    return Table(nodes)


@cache
def _place_table(place: str) -> Table:
    """The policies, with the keys that may stand at this kind of place."""
    policies = _plain().nodes[DEFAULTS]
    assert isinstance(policies, Table)
    kinds = fields_of(mi.type_info(PoliciesConfig)) or {}
    tables: dict[str, Node] = {}
    elsewhere: dict[str, str] = {}
    for policy, table in policies.nodes.items():
        assert isinstance(table, Table)
        of_table = outline(kinds[policy].type)[1].get("places", EVERYWHERE)
        here: dict[str, Node] = {}
        not_here: dict[str, str] = {}
        for key, leaf in table.nodes.items():
            assert isinstance(leaf, Leaf)
            places = outline(leaf.type_)[1].get("places", of_table)
            if place in places:
                here[key] = leaf
            else:
                not_here[key] = _listed(places, policy)
        if here:
            tables[policy] = Table(here, not_here)
        else:
            elsewhere[policy] = _listed(of_table, policy)
    return Table(tables, elsewhere)


def _listed(places: Iterable[str], policy: str) -> str:
    return " or ".join(f"[{PLACES[place]}.{policy}]" for place in places)
