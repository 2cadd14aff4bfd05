"""Merge defaults, file, environment and flags into one checked value.

Three steps, each over plain dictionaries from dotted key to `Setting`: read every layer, check
every setting on its own against the type of its key (also one that a later layer replaces: a typo
in a file does not become right because a flag hides it), then check what only the whole can tell.
The checks walk the types of `_model`, so a new table needs no code here.
"""

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import msgspec.inspect as mi

from vastar_runtime.config._check import check_whole
from vastar_runtime.config._expect import (
    fields_of,
    outline,
    plain,
    right_value,
    show,
    suggest,
    wrong_value,
)
from vastar_runtime.config._model import RuntimeConfig
from vastar_runtime.config._problems import ConfigError, Problem

__all__ = ["VARIABLES", "LoadedConfig", "Setting", "load_config"]

VARIABLES: Final[Mapping[str, str]] = {
    "VASTAR_SOCKET_PATH": "server.socket_path",
    "VASTAR_USE_TCP": "server.use_tcp",
    "VASTAR_TCP_HOST": "server.tcp_host",
    "VASTAR_TCP_PORT": "server.tcp_port",
    "VASTAR_LOG_LEVEL": "log.level",
    "VASTAR_LOG_FORMAT": "log.format",
}
"""Variables of the published SDKs (PROTOCOL.md section 5) and ours. Empty means not set."""

CONFIG_VARIABLE: Final = "VASTAR_CONFIG"


@attrs.frozen
class Setting:
    """One value that some layer gives to one key.

    Attributes:
        key: dotted path, such as `server.drain_s`.
        value: as read; a text from a variable or flag may stand for a number or boolean.
        origin: the file, variable or flag.
        is_typed: whether the layer can write numbers itself (a file), so that text is text.
    """

    key: str
    value: object = attrs.field(repr=False)
    origin: str
    is_typed: bool = False


@attrs.frozen
class LoadedConfig:
    """The configuration, and which file, variable or flag each key that was set comes from."""

    config: RuntimeConfig
    origins: Mapping[str, str]


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
        _read_file(file, problems) if file else [],
        [
            Setting(key, value, name)
            for name, key in VARIABLES.items()
            if (value := environ.get(name, "").strip())
        ],
        list(flags),
    ]
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in (setting for layer in layers for setting in layer):
        _place(tree, setting, problems)
        origins[setting.key] = setting.origin
    if problems:
        raise ConfigError(problems)
    config = msgspec.convert(tree, RuntimeConfig)
    if problems := list(check_whole(config, origins)):
        raise ConfigError(problems)
    return LoadedConfig(config, origins)


def _read_file(file: str, problems: list[Problem]) -> list[Setting]:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123  # the name is shown as it was given
            document = tomllib.load(stream)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problems.append(Problem(file, "", f"cannot be read ({reason})", "name a readable file"))
    except UnicodeDecodeError:
        problems.append(Problem(file, "", "is not UTF-8 text", "write it as UTF-8"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(file, "", f"is not valid TOML: {error}", "mend that place"))
    else:
        return list(_flatten(document, mi.type_info(RuntimeConfig), file, problems))
    return []


def _flatten(
    table: Mapping[str, object],
    type_: mi.Type,
    file: str,
    problems: list[Problem],
    prefix: str = "",
) -> Iterator[Setting]:
    """Every value in a file with its dotted key; unknown keys become problems."""
    fields = fields_of(type_) or {}
    for name, value in table.items():
        key = prefix + name
        field = fields.get(name)
        if field is None:
            right = "remove it" + (suggest(name, fields) or "; known here: " + ", ".join(fields))
            problems.append(Problem(file, key, "unknown key", right))
        elif fields_of(field.type) is None:
            yield Setting(key, _beside_file(field.type, value, file), file, is_typed=True)
        elif isinstance(value, dict):
            yield from _flatten(value, field.type, file, problems, key + ".")
        else:
            problems.append(Problem(file, key, f"{show(value)} is not a table", f"write [{key}]"))


def _beside_file(type_: mi.Type, value: object, file: str) -> object:
    """A relative path in a file is relative to that file, not to where the daemon was started."""
    marks = outline(type_)[1]
    if isinstance(value, str) and value and (marks.get("file") or marks.get("path")):
        return str(Path(file).absolute().parent / value)
    return value


def _place(tree: dict[str, Any], setting: Setting, problems: list[Problem]) -> None:
    """Put one setting into the tree when it fits the type of its key."""
    *tables, name = setting.key.split(".")
    type_: mi.Type = mi.type_info(RuntimeConfig)
    for table in tables:
        type_ = plain((fields_of(type_) or {})[table].type)
        tree = tree.setdefault(table, {})
    field = (fields_of(type_) or {})[name]
    python_type = _annotation(type_, name)
    try:
        tree[name] = msgspec.convert(setting.value, python_type, strict=setting.is_typed)
    except msgspec.ValidationError:
        wrong = wrong_value(field.type, setting.value, is_typed=setting.is_typed)
        right = right_value(field.type, setting.value)
        problems.append(Problem(setting.origin, setting.key, wrong, right))


def _annotation(type_: mi.Type, name: str) -> Any:
    assert isinstance(type_, mi.StructType)
    for field in msgspec.structs.fields(type_.cls):
        if field.encode_name == name:
            return field.type
    raise AssertionError(name)
