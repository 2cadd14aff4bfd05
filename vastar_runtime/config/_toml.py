"""Keys, values and comments as TOML writes them.

The standard library reads TOML and does not write it; what is written here is little enough.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["dotted", "quoted", "value_text", "with_note"]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_NOTE_COLUMN: Final = 48


def quoted(text: str) -> str:
    """`text` as a basic string."""
    # Bytes of a path that are no text come as lone surrogates, for which TOML has no word.
    text = text.encode(errors="surrogateescape").decode(errors="replace")
    # A JSON string is a TOML one, but for DEL, which TOML wants escaped.
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def dotted(path: Iterable[str]) -> str:
    """A path of keys: bare where they can be, else quoted."""
    return ".".join(name if _BARE.fullmatch(name) else quoted(name) for name in path)


def value_text(name: str, value: object) -> str:
    """The value of key `name`; file modes in octal digits, as everybody writes them."""
    if name.endswith("_mode") and isinstance(value, int):
        return f"0o{value:o}"
    if isinstance(value, tuple):
        return "[" + ", ".join(value_text(name, item) for item in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        inner = (f"{dotted((key,))} = {value_text(key, item)}" for key, item in value.items())
        return "{ " + ", ".join(inner) + " }" if value else "{}"
    # A JSON number or boolean is a TOML one.
    return msgspec.json.encode(value).decode()


def with_note(text: str, note: str) -> str:
    """A line with a comment behind it; no character of it can end the line."""
    clean = "".join(character if character.isprintable() else "?" for character in note)
    return f"{text.ljust(_NOTE_COLUMN)}  # {clean}"
