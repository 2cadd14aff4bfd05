"""What differs between two configurations, and what of it a running daemon can take up.

Keys only, never values: the result is logged, and values hold secrets.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import msgspec

from vastar_runtime.config._check_identity import exposure
from vastar_runtime.config._merge import all_credentials, all_databases, all_written
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._policies import DEFAULTS, ORIGINS, TENANTS, TenantConfig
from vastar_runtime.config._problems import ConfigError, Problem
from vastar_runtime.config._toml import dotted

__all__ = ["Changes", "compare", "taken_up"]

_APPLIED_TABLES: Final = frozenset({DEFAULTS, TENANTS, ORIGINS, "audit"})
_APPLIED_KEYS: Final = frozenset(
    {
        ("http", "accept_encoding"),
        ("http", "default_timeout_s"),
        ("http", "max_redirects"),
        ("http", "stream_header_timeout_s"),
        ("http", "stream_idle_timeout_s"),
        ("http", "stream_timeout_s"),
        ("log", "format"),
        ("log", "level"),
        ("server", "drain_s"),
        ("server", "max_connections"),
        ("server", "max_connections_per_user"),
        ("server", "max_held_bytes_per_user"),
        ("server", "stream_drain_s"),
        ("tcp", "cert_file"),
        ("tcp", "client_ca_file"),
        ("tcp", "key_file"),
        ("tcp", "require_client_cert"),
    }
)
"""What is looked up for each call or when it is used; everything else is built into sockets, pools
and sessions at their start."""

_Path = tuple[str, ...]


@attrs.frozen
class Changes:
    """The keys that differ, sorted, as TOML writes them.

    Attributes:
        applied: those that take effect at once.
        needs_restart: those that take effect when the daemon starts anew.
    """

    applied: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def compare(old: RuntimeConfig, new: RuntimeConfig) -> Changes:
    """The keys whose values differ, or that only one of the two writes for a tenant or origin."""
    before, after = dict(_values(old)), dict(_values(new))
    missing = object()
    changed = sorted(
        path
        for path in before.keys() | after.keys()
        if before.get(path, missing) != after.get(path, missing)
    )
    return Changes(
        applied=tuple(dotted(path) for path in changed if _is_applied(path)),
        needs_restart=tuple(dotted(path) for path in changed if not _is_applied(path)),
    )


def taken_up(old: RuntimeConfig, new: RuntimeConfig) -> RuntimeConfig:
    """What runs after a reload: of `new` what `compare` calls applied, of `old` the rest.

    Raises:
        ConfigError: sockets that stay open would lose what keeps strangers out.
    """
    tables: dict[str, Any] = {name: getattr(new, name) for name in _APPLIED_TABLES}
    for table, key in _APPLIED_KEYS:
        value = getattr(getattr(new, table), key)
        before = tables.get(table) or getattr(old, table)
        tables[table] = msgspec.structs.replace(before, **{key: value})
    running = msgspec.structs.replace(old, **tables)
    problems = [Problem("configuration", *fault) for fault in exposure(running)]
    if problems:
        raise ConfigError(problems)
    return running


def _is_applied(path: _Path) -> bool:
    return path[0] in _APPLIED_TABLES or path in _APPLIED_KEYS


def _values(config: RuntimeConfig) -> Iterator[tuple[_Path, object]]:
    yield from _leaves(config, ())
    for place in all_written(config):
        yield from _written(place.tables, place.path)
    for path, credential in all_credentials(config):
        yield from (leaf for leaf in _leaves(credential, path) if leaf[1] is not None)
        if credential.headers:
            yield (*path, "headers"), credential.headers
    for path, database in all_databases(config):
        yield from (leaf for leaf in _leaves(database, path) if leaf[1] is not None)
    nothing = dict(_leaves(TenantConfig(), ()))
    for name, tenant in config.tenants.items():
        for path, value in _leaves(tenant, ()):
            if value != nothing[path]:
                yield (TENANTS, name, *path), value


def _leaves(table: msgspec.Struct, path: _Path) -> Iterator[tuple[_Path, object]]:
    for name in table.__struct_fields__:
        value = getattr(table, name)
        if isinstance(value, msgspec.Struct):
            yield from _leaves(value, (*path, name))
        elif not isinstance(value, dict):  # the places say theirs themselves
            yield (*path, name), value


def _written(
    tables: Mapping[str, Mapping[str, object]], path: _Path
) -> Iterator[tuple[_Path, object]]:
    for policy, values in tables.items():
        for key, value in values.items():
            yield (*path, policy, key), value
