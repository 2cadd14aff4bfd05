"""HTTP header fields: a dict that is found in any case, and pairs checked before they travel.

Answers keep two views of their headers, since connector code wants both: `Headers`, a dict with
lower-case names as in the published SDK, and the exact list of pairs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar, overload

__all__ = ["HeaderTypes", "Headers", "header_pairs", "is_named", "pairs_of"]

HeaderTypes: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]

_D = TypeVar("_D")
_PAIR: Final = 2


class Headers(dict[str, str]):
    """Header fields by lower-case name; lookups take any case.

    A name that repeats is joined by ", ", Set-Cookie by a newline (RFC 9110 section 5.3: it may
    not be joined by commas).
    """

    def __init__(self, pairs: HeaderTypes | Iterable[tuple[str, str]] = ()) -> None:
        fields: dict[str, str] = {}
        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        for name, value in items:
            key = name.lower()
            if key in fields:
                value = f"{fields[key]}{_separator(key)}{value}"  # noqa: PLW2901 - it is the field's
            fields[key] = value
        super().__init__(fields)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.lower(), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    @overload
    def get(self, name: str, default: None = None, /) -> str | None: ...

    @overload
    def get(self, name: str, default: str, /) -> str: ...

    @overload
    def get(self, name: str, default: _D, /) -> str | _D: ...

    def get(self, name: str, default: object = None, /) -> object:
        """The value of the field `name` in any case, else `default`."""
        return super().get(name.lower(), default)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self) or 'none'}>"


def _separator(name: str) -> str:
    return "\n" if name == "set-cookie" else ", "


def pairs_of(what: str, given: object) -> list[tuple[Any, Any]]:
    """A mapping, or a collection of pairs, as a new list of pairs.

    Raises:
        TypeError: it is neither. An iterator is refused as well: it would be empty when a request
            is sent again. The message names `what`, and no value.
    """
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, str | bytes) or not isinstance(given, Collection):
        raise TypeError(
            f"{what} is {type(given).__name__}: it must be a mapping, or a list of pairs"
        )
    for pair in given:
        if not isinstance(pair, tuple | list) or len(pair) != _PAIR:
            raise TypeError(
                f"one of {what} is {type(pair).__name__}: it must be a pair of name and value"
            )
    return list(given)


def header_pairs(headers: HeaderTypes | None) -> list[tuple[str, str]]:
    """The fields as a new list of pairs, in order.

    Raises:
        TypeError: a name or a value is no string; the message never shows a value.
    """
    if headers is None:
        return []
    pairs = pairs_of("headers", headers)
    for name, value in pairs:
        if not isinstance(name, str):
            raise TypeError(f"header name {name!r} is {type(name).__name__}: it must be str")
        if not isinstance(value, str):
            raise TypeError(
                f"the value of header {name!r} is {type(value).__name__}: it must be str"
            )
    return pairs


def is_named(pairs: Iterable[tuple[str, str]], name: str) -> bool:
    """Whether a field `name` (lower-case) is among `pairs`, in any case."""
    return any(key.lower() == name for key, _ in pairs)
