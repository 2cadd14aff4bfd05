"""Say in words what a configuration key takes, read from its type: the other half of an error.

`msgspec`'s own messages name types ("Expected `float` >= 0.0"); a person configuring a daemon
needs the range and a value that would work.
"""

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec.inspect as mi

from vastar_runtime.redaction import REDACTED, redact_text, shorten

__all__ = [
    "fields_of",
    "outline",
    "plain",
    "right_mode",
    "right_value",
    "show",
    "suggest",
    "wrong_mode",
    "wrong_value",
]

_MAX_SHOWN_CHARS = 80
_MODES_WITHOUT_PREFIX = (600, 660, 666)


def fields_of(type_: mi.Type) -> dict[str, mi.Field] | None:
    """The keys of a table, or None when `type_` is a plain value."""
    kind = plain(type_)
    if isinstance(kind, mi.StructType):
        return {field.encode_name: field for field in kind.fields}
    return None


def plain(type_: mi.Type) -> mi.Type:
    """`type_` without its metadata and without the `None` that stands for "not set"."""
    if isinstance(type_, mi.Metadata):
        return plain(type_.type)
    if isinstance(type_, mi.UnionType):
        kinds = [kind for kind in type_.types if not isinstance(kind, mi.NoneType)]
        return plain(kinds[0])
    return type_


def outline(type_: mi.Type) -> tuple[str, dict[str, Any]]:
    """The description of a key and our own marks on it (`extra` of its `Meta`)."""
    if not isinstance(type_, mi.Metadata):
        return "", {}
    schema = type_.extra_json_schema or {}
    return str(schema.get("description", "")), dict(type_.extra or {})


def wrong_value(type_: mi.Type, value: object, *, is_typed: bool) -> str:
    """What is wrong with `value`, without its secrets; untyped text may stand for a number."""
    kind = plain(type_)
    shown = show(value)
    if isinstance(kind, mi.LiteralType):
        return f"{shown} is not known"
    if outline(type_)[1].get("mode") and type(value) is int:
        return wrong_mode(value)
    if isinstance(kind, mi.VarTupleType) and isinstance(value, list):
        for item in value:
            if not _fits(plain(kind.item_type), item):
                return f"in the list {wrong_value(kind.item_type, item, is_typed=True)}"
    if isinstance(kind, mi.IntType | mi.FloatType) and _is_number(kind, value, is_typed):
        return f"{shown} is out of range"
    if isinstance(kind, mi.StrType) and isinstance(value, str):
        return "it is empty" if not value else f"{shown} has characters that do not belong there"
    return f"{shown} is not {_noun(kind)}"


def right_value(type_: mi.Type, value: object) -> str:
    """What `type_` takes, with the nearest word when `value` looks like a slip."""
    kind = plain(type_)
    if isinstance(kind, mi.LiteralType):
        words = [str(word) for word in kind.values]
        listed = ", ".join(f'"{word}"' for word in words)
        return f"give one of {listed}" + suggest(str(value), words)
    marks = outline(type_)[1]
    if marks.get("mode"):
        return right_mode(value)
    if "form" in marks:
        return f'give "{marks["form"]}", in quotes'
    words = _words_beside(type_)
    listed = "".join(f', or "{word}"' for word in words)
    return f"give {_noun(kind)}{_range(kind)}{listed}" + suggest(str(value), words)


def wrong_mode(mode: int) -> str:
    """What is wrong with the file mode of a socket."""
    return f"0o{mode:o} is no mode of a socket that its owner can use"


def right_mode(value: object) -> str:
    """What would be right; who forgot the 0o is shown how to write it."""
    forgotten = f"; did you mean 0o{value}?" if value in _MODES_WITHOUT_PREFIX else ""
    return f"give 0o600 (yourself), 0o660 (a group) or 0o666 (everybody){forgotten}"


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def show(value: object) -> str:
    """A value as an error may quote it."""
    if isinstance(value, str):
        # A password with a blank escapes the patterns of free text: what has a user part is hidden.
        text = REDACTED if "@" in value else redact_text(value)
        return '"' + shorten(text, _MAX_SHOWN_CHARS) + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return shorten(str(value), _MAX_SHOWN_CHARS)
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def _is_number(kind: mi.IntType | mi.FloatType, value: object, is_typed: bool) -> bool:
    whole = isinstance(kind, mi.IntType)
    if isinstance(value, str) and not is_typed:
        try:
            _ = int(value) if whole else float(value)
        except ValueError:
            return False
        return True
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and not whole)


def _fits(kind: mi.Type, value: object) -> bool:
    """Whether an item may stand in a list; what is neither number, text nor word is not judged."""
    match kind:
        case mi.IntType():
            low, high = kind.ge, kind.le
            return (
                type(value) is int
                and (low is None or value >= low)
                and (high is None or value <= high)
            )
        case mi.StrType():
            return isinstance(value, str) and bool(value or not kind.min_length)
        case mi.LiteralType():
            return value in kind.values
        case _:
            return True


def _words_beside(type_: mi.Type) -> list[str]:
    """Words that a key takes beside its numbers."""
    inner = type_.type if isinstance(type_, mi.Metadata) else type_
    kinds = inner.types if isinstance(inner, mi.UnionType) else ()
    return [str(word) for kind in kinds if isinstance(kind, mi.LiteralType) for word in kind.values]


def _noun(kind: mi.Type) -> str:
    match kind:
        case mi.IntType():
            return "a whole number"
        case mi.FloatType():
            return "a number"
        case mi.BoolType():
            return "true or false"
        case mi.VarTupleType():
            return _list_noun(plain(kind.item_type))
        case mi.DictType():
            return "a table of texts"
        case mi.StructType():
            return "a table"
        case _:
            return "a text"


def _list_noun(item: mi.Type) -> str:
    if isinstance(item, mi.LiteralType):
        return "a list of " + ", ".join(f'"{word}"' for word in item.values)
    if isinstance(item, mi.IntType):
        return f"a list of whole numbers{_range(item)}"
    return "a list of texts"


def _range(kind: mi.Type) -> str:
    if isinstance(kind, mi.IntType | mi.FloatType) and kind.ge is not None:
        return f" from {kind.ge} to {kind.le}"
    if isinstance(kind, mi.StrType):
        if kind.pattern:
            return f" that matches {kind.pattern}"
        return " that is not empty" if kind.min_length else ""
    return ""
