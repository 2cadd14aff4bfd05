"""Print a merged configuration as TOML that can be used as a file again.

Keys that are not set and secrets become comments, so the output always loads.
"""

from collections.abc import Iterator, Mapping

import msgspec
import msgspec.inspect as mi

from vastar_runtime.config._expect import fields_of, outline
from vastar_runtime.config._load import LoadedConfig
from vastar_runtime.redaction import redact_url

__all__ = ["render"]

_QUOTED_COLUMN = 48


def render(loaded: LoadedConfig, *, explain: bool = False) -> str:
    """The configuration as TOML; what was set is followed by the file, variable or flag it is from.

    Args:
        loaded: what `load_config` returned.
        explain: put each key's description above it.
    """
    lines = _table(loaded.config, loaded.origins, "", explain=explain)
    return "\n".join(lines).strip() + "\n"


def _table(
    value: msgspec.Struct, origins: Mapping[str, str], prefix: str, *, explain: bool
) -> Iterator[str]:
    tables: list[tuple[str, msgspec.Struct]] = []
    if prefix:
        yield ""
        yield f"[{prefix[:-1]}]"
    for name, field in (fields_of(mi.type_info(type(value))) or {}).items():
        inner = getattr(value, name)
        if isinstance(inner, msgspec.Struct):
            tables.append((prefix + name + ".", inner))
            continue
        if explain:
            yield f"# {outline(field.type)[0]}"
        yield _line(prefix, name, inner, origins)
    for inner_prefix, table in tables:
        yield from _table(table, origins, inner_prefix, explain=explain)


def _line(prefix: str, name: str, value: object, origins: Mapping[str, str]) -> str:
    origin = origins.get(prefix + name)
    if value is None:
        return f"# {name} is not set"
    text = f"{name} = {_toml(name, value)}"
    if isinstance(value, str) and prefix == "proxy." and redact_url(value) != value:
        text = f'# {name} = "{redact_url(value)}" (shown without its secrets)'
    return f"{text.ljust(_QUOTED_COLUMN)}  # from {origin}" if origin else text


def _toml(name: str, value: object) -> str:
    if name.endswith("_mode") and isinstance(value, int):
        return f"0o{value:o}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(name, item) for item in value) + "]"
    # A JSON string, number or boolean is a TOML one, but for DEL, which TOML wants escaped.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
