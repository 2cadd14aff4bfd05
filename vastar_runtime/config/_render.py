"""Print a merged configuration as TOML that can be used as a file again.

Keys that are not set and secrets become comments, so the output always loads. So do the values that
a place of policies inherits: written out, they would stop following the place they come from.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from vastar_runtime.config._credentials import CredentialConfig
from vastar_runtime.config._expect import outline
from vastar_runtime.config._load import LoadedConfig
from vastar_runtime.config._merge import (
    Written,
    all_credentials,
    all_databases,
    all_written,
    credential_for,
    merge,
    place_of_key,
    places_above,
    written_for,
)
from vastar_runtime.config._policies import DEFAULTS, TENANTS, TenantConfig
from vastar_runtime.config._schema import (
    Leaf,
    Table,
    credential_table,
    database_table,
    policy_leaves,
    schema,
    tenants_own,
)
from vastar_runtime.config._toml import dotted, quoted, value_text, with_note
from vastar_runtime.redaction import redact_url

__all__ = ["render", "render_for"]

_Lines = Iterator[str]

_OF_OWN_BREAKER: Final = (
    "# Of the tenant's own breaker; the one that all share has what defaults and origin say."
)


def render(loaded: LoadedConfig, *, explain: bool = False) -> str:
    """The configuration as TOML; what was set is followed by the file, variable or flag it is from.

    Args:
        loaded: what `load_config` returned.
        explain: put each key's description above it.
    """
    return _text(
        [
            *_struct(loaded.config, schema(), loaded.sources, (), explain=explain),
            *_tenants(loaded, explain=explain),
            *_places(loaded, explain=explain),
            *_credentials(loaded, explain=explain),
            *_databases(loaded, explain=explain),
        ]
    )


def render_for(
    loaded: LoadedConfig,
    *,
    tenant: str | None = None,
    workspace: str | None = None,
    origin: str | None = None,
    explain: bool = False,
) -> str:
    """The policies that hold for one caller, each value with the place that it comes from.

    Args:
        loaded: what `load_config` returned.
        tenant: its name; None leaves out what is written for tenants.
        workspace: its name; only with a tenant.
        origin: its canonical text.
        explain: put each key's description above it.
    """
    names = (("tenant", tenant), ("workspace", workspace), ("origin", origin))
    asked = [f"{what} {quoted(name)}" for what, name in names if name is not None]
    places = tuple(written_for(loaded.config, tenant, workspace, origin))
    merged = merge(loaded.config.defaults, [place.tables for place in places])
    lines = [f"# What holds for {', '.join(asked) or 'everybody'}, and where it is written."]
    if asked and not places:
        lines.append("# Nothing is written for it: the defaults hold.")
    for policy, leaves in policy_leaves(DEFAULTS).items():
        lines += ["", f"[{policy}]"]
        if policy == "breaker" and any(
            place.path[0] == TENANTS and policy in place.tables for place in places
        ):
            lines.append(_OF_OWN_BREAKER)
        for key, leaf in leaves.items():
            path = place_of_key(places, policy, key)
            source = loaded.sources.get(dotted((*path, key)))
            note = "default" if source is None else f"[{dotted(path)}], {source}"
            value = getattr(getattr(merged, policy), key)
            lines += _described(leaf, explain=explain)
            text = f"{key} = {value_text(key, value)}"
            lines.append(f"# {key} is not set" if value is None else with_note(text, note))
    if tenant is not None and origin is not None:
        found = credential_for(loaded.config, tenant, workspace, origin)
        if found is not None:
            lines += ["", "# The runtime adds to these calls what this says:"]
            lines += _credential(*found, loaded.sources, explain=explain)
    return _text(lines)


def _text(lines: list[str]) -> str:
    return "\n".join(lines).strip() + "\n"


def _described(leaf: Leaf, *, explain: bool) -> _Lines:
    if explain:
        yield f"# {outline(leaf.type_)[0]}"


def _struct(
    value: msgspec.Struct,
    table: Table,
    sources: Mapping[str, str],
    path: tuple[str, ...],
    *,
    explain: bool,
) -> _Lines:
    """A table and those in it; names that the operator chose are `_places`'s."""
    leaves: list[str] = []
    for name, node in table.nodes.items():
        if isinstance(node, Leaf):
            leaves += _described(node, explain=explain)
            leaves.append(_line((*path, name), getattr(value, name), sources))
    if leaves:
        yield from ("", f"[{dotted(path)}]", *leaves)
    for name, node in table.nodes.items():
        if isinstance(node, Table):
            inner = getattr(value, name)
            if inner is not None:
                yield from _struct(inner, node, sources, (*path, name), explain=explain)


def _line(path: tuple[str, ...], value: object, sources: Mapping[str, str]) -> str:
    name = path[-1]
    if value is None:
        return f"# {name} is not set"
    text = f"{name} = {value_text(name, value)}"
    if isinstance(value, str) and path[0] == "proxy" and redact_url(value) != value:
        text = f"# {name} = {quoted(redact_url(value))} (shown without its secrets)"
    source = sources.get(dotted(path))
    return with_note(text, f"from {source}") if source else text


def _tenants(loaded: LoadedConfig, *, explain: bool) -> _Lines:
    """What is written of tenants beside policies."""
    own = tenants_own()
    for name, tenant in loaded.config.tenants.items():
        if any(getattr(tenant, key) != getattr(TenantConfig(), key) for key in own.nodes):
            yield from _struct(tenant, own, loaded.sources, (TENANTS, name), explain=explain)


def _places(loaded: LoadedConfig, *, explain: bool) -> _Lines:
    """Each place that says something, with a table for each policy that it speaks of."""
    for place in all_written(loaded.config):
        for policy, leaves in policy_leaves(place.kind).items():
            if policy in place.tables:
                yield from ("", f"[{dotted((*place.path, policy))}]")
                yield from _table_of_place(loaded, place, policy, leaves, explain=explain)


def _credentials(loaded: LoadedConfig, *, explain: bool) -> _Lines:
    """Each credential: what its texts refer to, never what is found there."""
    for path, credential in all_credentials(loaded.config):
        yield from _credential(path, credential, loaded.sources, explain=explain)


def _databases(loaded: LoadedConfig, *, explain: bool) -> _Lines:
    """Each data source; its password is a reference."""
    for path, database in all_databases(loaded.config):
        yield from _struct(database, database_table(), loaded.sources, path, explain=explain)


def _credential(
    path: tuple[str, ...],
    credential: CredentialConfig,
    sources: Mapping[str, str],
    *,
    explain: bool,
) -> _Lines:
    return _struct(credential, credential_table(), sources, path, explain=explain)


def _table_of_place(
    loaded: LoadedConfig, place: Written, policy: str, leaves: Mapping[str, Leaf], *, explain: bool
) -> _Lines:
    above = tuple(places_above(loaded.config, place))
    merged = merge(loaded.config.defaults, [written.tables for written in (*above, place)])
    for key, leaf in leaves.items():
        yield from _described(leaf, explain=explain)
        value = getattr(getattr(merged, policy), key)
        if key in place.tables[policy]:
            yield _line((*place.path, policy, key), value, loaded.sources)
        elif value is None:
            yield f"# {key} is not set"
        else:
            inherited_from = dotted(place_of_key(above, policy, key))
            yield f"# {key} = {value_text(key, value)}  (from [{inherited_from}])"
