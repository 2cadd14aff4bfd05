"""Merge defaults, file, environment and flags into one checked value.

Three steps, each over plain lists of settings: read every layer, check every setting on its own
against the type of its key (also one that a later layer replaces: a typo in a file does not become
right because a flag hides it), then check what only the whole can tell. The checks walk the tree of
keys (`_schema`), so a new table needs no code here.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import msgspec

from vastar_runtime.config._check import check_whole
from vastar_runtime.config._credentials import CREDENTIALS
from vastar_runtime.config._expect import outline, right_value, wrong_value
from vastar_runtime.config._file import Found, Setting, read_file
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._policies import TENANTS, WORKSPACES, TenantConfig
from vastar_runtime.config._problems import ConfigError, Problem
from vastar_runtime.config._schema import leaf_at

__all__ = ["VARIABLES", "LoadedConfig", "load_config"]

VARIABLES: Final[Mapping[str, str]] = {
    "VASTAR_SOCKET_PATH": "server.socket_path",
    "VASTAR_USE_TCP": "server.use_tcp",
    "VASTAR_TCP_HOST": "server.tcp_host",
    "VASTAR_TCP_PORT": "server.tcp_port",
    "VASTAR_LOG_LEVEL": "log.level",
    "VASTAR_LOG_FORMAT": "log.format",
    "VASTAR_METRICS_LISTEN": "metrics.listen",
}
"""Variables of the published SDKs (PROTOCOL.md section 5) and ours. Empty means not set."""

CONFIG_VARIABLE: Final = "VASTAR_CONFIG"


@attrs.frozen
class LoadedConfig:
    """The configuration, and which file, variable or flag each key that was set comes from.

    Attributes:
        sources: by dotted key, as TOML writes it.
    """

    config: RuntimeConfig
    sources: Mapping[str, str]


def load_config(
    *,
    file: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Iterable[Setting] = (),
) -> LoadedConfig:
    """The merged configuration: defaults, then file, then environment, then flags.

    Args:
        file: a TOML file; None takes `VASTAR_CONFIG`, and no file when that is not set either.
        environ: the environment, by default this process's.
        flags: what the command line set, outranking everything.

    Raises:
        ConfigError: with everything that is wrong, not only the first.
    """
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    file = file or environ.get(CONFIG_VARIABLE) or None
    layers = [
        read_file(file, problems) if file else [],
        [
            _found(Setting(key, value, name))
            for name, key in VARIABLES.items()
            if (value := environ.get(name, "").strip())
        ],
        [_found(flag) for flag in flags],
    ]
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for found in (found for layer in layers for found in layer):
        _place(tree, found, problems)
        sources[found.setting.key] = found.setting.source
    if problems:
        raise ConfigError(problems)
    config = msgspec.convert(tree, RuntimeConfig)
    if problems := list(check_whole(config, sources)):
        raise ConfigError(problems)
    return LoadedConfig(config, sources)


def _found(setting: Setting) -> Found:
    path = tuple(setting.key.split("."))
    return Found(setting, path, leaf_at(path))


def _place(tree: dict[str, Any], found: Found, problems: list[Problem]) -> None:
    """Put one setting into the tree when it fits the type of its key."""
    setting, leaf = found.setting, found.leaf
    try:
        value = msgspec.convert(setting.value, leaf.annotation, strict=setting.is_typed)
    except msgspec.ValidationError:
        if outline(leaf.type_)[1].get("reference") and setting.value != "":
            wrong = "it is of another kind"  # and may be a secret: it is not shown
        else:
            wrong = wrong_value(leaf.type_, setting.value, is_typed=setting.is_typed)
        right = right_value(leaf.type_, setting.value)
        problems.append(Problem(setting.source, setting.key, wrong, right))
        return
    *tables, name = _fields(found.path)
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[name] = value


def _fields(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path of a key in `RuntimeConfig`: a tenant's policies are a field beside its others."""
    if path[0] != TENANTS:
        return path
    if path[2] == WORKSPACES and path[4] == CREDENTIALS:
        return (*path[:2], "workspace_credentials", path[3], *path[5:])
    return path if path[2] in TenantConfig.__struct_fields__ else (*path[:2], "policies", *path[2:])
