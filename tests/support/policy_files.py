"""Configuration files about policies: drawn by Hypothesis from the keys that there are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec.inspect as mi
from hypothesis import strategies as st

from vastar_runtime.config import LoadedConfig, load_config
from vastar_runtime.config._expect import plain
from vastar_runtime.config._policies import DEFAULTS, ORIGINS, TENANTS, WORKSPACES
from vastar_runtime.config._schema import policy_leaves
from vastar_runtime.config._toml import dotted, value_text

__all__ = [
    "LISTED",
    "NAMES",
    "ORIGIN_NAMES",
    "Tree",
    "documents",
    "load_tree",
    "tables",
    "values_of",
]

Tree: TypeAlias = dict[str, Any]

NAMES = st.text(st.characters(codec="utf-8"), max_size=5)
ORIGIN_NAMES = ["https://api.test", "http://h.test:8080", "http://[::1]", "https://127.0.0.1:1"]

# Any of the first fits any of the second, whatever else is drawn or left at its default.
_AT_MOST_1 = {("retry", "base_s"), ("retry", "throttled_base_s"), ("breaker", "open_s")}
_AT_MOST_1 |= {("cooldown", "base_s")}
_AT_LEAST_5 = {("retry", "cap_s"), ("breaker", "open_max_s"), ("cooldown", "unhinted_max_s")}


LISTED = {
    "allow_hosts": ["*", "api.test", "*.test", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.test"],
    "deny_hosts": ["*", "api.test", "*.api.test", "2001:db8::1"],
    "allow_ranges": ["10.0.0.0/8", "::1", "64:ff9b::/96", "192.0.2.1"],
    "deny_ranges": ["0.0.0.0/0", "fd00::/8", "2001:db8::1"],
}
"""Of keys that take a list of texts, some that they take."""


def values_of(type_: mi.Type) -> st.SearchStrategy[Any]:
    """Every value that a key of this type takes, "not set" left out."""
    match plain(type_):
        case mi.LiteralType(values=values):
            return st.sampled_from(values)
        case mi.IntType(ge=least, le=most):
            return st.integers(least, most)
        case mi.FloatType(ge=least, le=most):
            assert least is not None
            assert most is not None
            return st.floats(least, most)
        case mi.VarTupleType(item_type=item):
            return st.lists(values_of(item), max_size=3).map(tuple)
        case kind:
            assert isinstance(kind, mi.BoolType)
            return st.booleans()


def tables(place: str) -> st.SearchStrategy[Tree]:
    """What a place of this kind may say, in two policies at most."""
    policies = {
        policy: st.fixed_dictionaries(
            {},
            optional={key: _fitting(policy, key, leaf.type_) for key, leaf in leaves.items()},
        )
        for policy, leaves in policy_leaves(place).items()
    }
    chosen = st.lists(st.sampled_from(sorted(policies)), unique=True, max_size=2)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({n: policies[n] for n in names}))


def _fitting(policy: str, key: str, type_: mi.Type) -> st.SearchStrategy[Any]:
    if key in LISTED:
        return st.lists(st.sampled_from(LISTED[key]), max_size=3).map(tuple)
    if (policy, key) in _AT_MOST_1:
        return st.floats(0.001, 1)
    return st.floats(5, 3600) if (policy, key) in _AT_LEAST_5 else values_of(type_)


def documents() -> st.SearchStrategy[Tree]:
    """Whole files about policies, some places of which overlap."""
    workspaces = st.dictionaries(NAMES, tables(WORKSPACES), max_size=2)
    tenants = st.builds(
        lambda ours, theirs: {**ours, WORKSPACES: theirs}, tables(TENANTS), workspaces
    )
    return st.fixed_dictionaries(
        {
            DEFAULTS: tables(DEFAULTS),
            TENANTS: st.dictionaries(NAMES, tenants, max_size=3),
            ORIGINS: st.dictionaries(st.sampled_from(ORIGIN_NAMES), tables(ORIGINS), max_size=2),
        }
    )


def load_tree(tree: Mapping[str, Any], folder: Path) -> LoadedConfig:
    """What a file that says `tree` loads to."""
    file = folder / "vastar.toml"
    file.write_text(_toml(tree, ()), encoding="utf-8", newline="")
    return load_config(file=str(file), environ={})


def _toml(tree: Mapping[str, Any], path: tuple[str, ...]) -> str:
    text = f"[{dotted(path)}]\n" if path else ""
    for name, value in tree.items():
        if not isinstance(value, dict):
            text += f"{dotted((name,))} = {value_text(name, value)}\n"
    for name, value in tree.items():
        if isinstance(value, dict):
            text += _toml(value, (*path, name))
    return text
