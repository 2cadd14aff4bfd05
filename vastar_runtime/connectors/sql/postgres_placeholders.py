"""Placeholders of callers, %s and %(name)s, as PostgreSQL has them: $1, $2.

The rules are those of psycopg, which programs know: by place each has a number of its own, by name
each name has one, %% is a percent sign, %b and %t say in which form a value goes. Only a statement
with parameters has placeholders; without any a percent sign is one. Quotes mean nothing here.

A text is looked at once: what is found is kept for those that were used last.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from psycopg.adapt import PyFormat

from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Params
from vastar_runtime.connectors.sql.postgres_leaving import may_leave

__all__ = ["Plan", "plan_of"]

_KEPT: Final = 1024
_MAX_KEPT_CHARS: Final = 8192
_PLACEHOLDER: Final = re.compile(r"%(?:\(([^)]+)\).|.)")
_FORMATS: Final = {"s": PyFormat.AUTO, "b": PyFormat.BINARY, "t": PyFormat.TEXT}


class Plan(NamedTuple):
    """What a text is for the server.

    Attributes:
        text: with numbers for placeholders.
        formats: of the values, one for each number.
        names: of the values, where they are named.
        may_leave: it may change the session it runs in (`postgres_leaving`).
    """

    text: bytes
    formats: list[PyFormat]
    names: tuple[str, ...] | None
    may_leave: bool

    def values(self, params: Params) -> Sequence[Any]:
        """The values by number.

        Raises:
            SqlError: they are not what the text has placeholders for.
        """
        if params is None:
            return ()
        if not isinstance(params, dict):
            if self.names is not None and params:
                raise _wrong("placeholders with names need parameters with names")
            if len(params) != len(self.formats):
                raise _wrong(
                    f"the statement has {len(self.formats)} placeholders, "
                    f"and there are {len(params)} parameters"
                )
            return params
        if self.names is None:
            if self.formats and params:
                raise _wrong("placeholders without names need parameters without names")
            if self.formats:
                raise _wrong(f"the statement has {len(self.formats)} placeholders")
            return ()
        missing = [name for name in self.names if name not in params]
        if missing:
            raise _wrong("there is no parameter named " + ", ".join(missing)[:200])
        return [params[name] for name in self.names]


def plan_of(text: str, *, has_params: bool) -> Plan:
    """What `text` is for the server.

    Raises:
        SqlError: a placeholder is none, or it cannot be sent.
    """
    if len(text) <= _MAX_KEPT_CHARS:
        return _kept(text, has_params)
    return _plan(text, has_params)


def _plan(text: str, has_params: bool) -> Plan:
    sent: str = text
    formats: list[PyFormat] = []
    names: dict[str, int] = {}
    if has_params:
        sent = _PLACEHOLDER.sub(_numbering(formats, names), text)
    try:
        data = sent.encode()
    except UnicodeEncodeError:
        raise _wrong("the statement holds half a surrogate pair") from None
    if b"\0" in data:
        raise _wrong("the statement holds a character NUL")
    return Plan(data, formats, tuple(names) or None, may_leave(text))


_kept: Final = lru_cache(maxsize=_KEPT)(_plan)


def _numbering(formats: list[PyFormat], names: dict[str, int]) -> Callable[[re.Match[str]], str]:
    """Gives each placeholder its number, and notes formats and names."""

    def numbered(found: re.Match[str]) -> str:
        mark, name = found.group(0), found.group(1)
        if mark == "%%":
            return "%"
        if mark in {"%(", "% "}:
            raise _wrong(f"incomplete placeholder {mark!r}: a percent sign by itself is %%")
        how = _FORMATS.get(mark[-1])
        if how is None:
            raise _wrong(f"placeholders are %s, %b and %t, and not {mark[:50]!r}")
        if formats and (name is None) != (not names):
            raise _wrong("placeholders with and without names cannot be mixed")
        if name is None or name not in names:
            formats.append(how)
            if name is not None:
                names[name] = len(formats)
            return f"${len(formats)}"
        if formats[names[name] - 1] is not how:
            raise _wrong(f"the placeholder {name[:50]!r} is there in two formats")
        return f"${names[name]}"

    return numbered


def _wrong(words: str) -> SqlError:
    return SqlError.said(Blame.CALLER, words)  # pieces of the statement are in it
