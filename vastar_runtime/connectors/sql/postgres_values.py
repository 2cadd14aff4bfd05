"""Values to PostgreSQL and back, by psycopg's own adaptation of types.

It has no connection to ask, so a session's settings are those that it takes for granted: UTF-8, the
zone UTC, dates in the form of ISO (`SETTINGS`). The server reports all four, so a call that changes
one of them is found out.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq.abc import PGconn, PGresult
from psycopg.types.json import Jsonb

from vastar_client.wire.values import Json
from vastar_runtime.connectors.sql.errors import Blame, SqlError

__all__ = ["SETTINGS", "Values", "changed_setting"]

SETTINGS: Final[Mapping[str, str]] = {
    "timezone": "UTC",
    "datestyle": "ISO,MDY",
    "intervalstyle": "postgres",
}
"""For the connection's options; the encoding is libpq's own parameter."""

_REPORTED: Final = (
    (b"client_encoding", b"UTF8"),
    (b"DateStyle", b"ISO"),
    (b"IntervalStyle", b"postgres"),
)
_PLAIN: Final = frozenset({str, bool, float, type(None), bytes})
_MOST_BITS: Final = 63
_TYPES: Final[Mapping[str, str]] = {
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "oid": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "decimal",
    "bool": "bool",
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "name": "text",
    "bytea": "bytes",
    "jsonb": "json",
    "timestamptz": "timestamptz",
}
"""PostgreSQL's names where ours differ; else they are the same, and an array's is `array`."""


def changed_setting(pgconn: PGconn) -> str | None:
    """A setting that says how values are written, and is not as it was."""
    for name, value in _REPORTED:
        if not (pgconn.parameter_status(name) or value).startswith(value):
            return name.decode()
    return None


class Values:
    """The parameters and the rows of one statement.

    Args:
        values: of the parameters.
        formats: of each.

    Attributes:
        data: the parameters as they are sent, `types` and `formats` beside them.
        names, kinds: of the columns, once there was a result.

    Raises:
        SqlError: a value cannot be said.
    """

    __slots__ = ("_transformer", "data", "formats", "kinds", "names", "types")

    def __init__(self, values: Sequence[Any], formats: list[PyFormat]) -> None:
        self._transformer = Transformer()
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.data: Sequence[Any] | None = None
        self.types: tuple[int, ...] = ()
        self.formats: Any = None
        if values:
            try:
                self.data = self._transformer.dump_sequence([_value(v) for v in values], formats)
            except (psycopg.Error, ValueError, TypeError, OverflowError) as error:
                raise SqlError.said(Blame.CALLER, f"a parameter cannot be sent: {error}") from None
            self.types = self._transformer.types or ()
            self.formats = self._transformer.formats

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result, or of a piece of it.

        Raises:
            SqlError: a value is none that Python has, such as a date in the year 10,000.
        """
        transformer = self._transformer
        if self.names or not result.nfields:
            transformer.set_pgresult(result, set_loaders=False)
        else:
            transformer.set_pgresult(result)
            columns = range(result.nfields)
            self.names = [(result.fname(index) or b"").decode() for index in columns]
            self.kinds = [_type_name(result.ftype(index)) for index in columns]
        try:
            return transformer.load_rows(0, result.ntuples, tuple)
        except (psycopg.Error, ValueError, OverflowError) as error:
            words = f"a value of the result cannot be read: {error}"
            raise SqlError.said(Blame.DATA, words) from None


def _value(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if value.bit_length() <= _MOST_BITS else Decimal(value)
    if kind is Json:
        return Jsonb(value.value)
    if isinstance(value, list):
        return [_value(each) for each in value]
    return value


@lru_cache(maxsize=1024)
def _type_name(oid: int) -> str:
    found = psycopg.adapters.types.get(oid)
    if found is None:
        return "any"
    if oid == found.array_oid != found.oid:
        return "array"
    return _TYPES.get(found.name, found.name)
