"""Values by psycopg's adaptation, without a connection to ask."""

import datetime as dt
from decimal import Decimal

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")

import psycopg
from psycopg.adapt import PyFormat

from vastar_client.wire.values import Json
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.postgres_values import Values, changed_setting


def values(*given: object) -> Values:
    return Values(given, [PyFormat.AUTO] * len(given))


def oid(name: str) -> int:
    found = psycopg.adapters.types.get(name)
    assert found is not None
    return found.oid


def test_types_of_parameters():
    said = values(True, 1, 2**40, 2**70, 1.5, b"x", Decimal(1), dt.date(2026, 1, 1), Json({}), None)
    kinds = ["bool", "int2", "int8", "numeric", "float8", "bytea", "numeric", "date", "jsonb"]
    assert list(said.types[:9]) == [oid(kind) for kind in kinds]
    assert said.data is not None
    assert said.data[9] is None
    assert values("x").types == (0,)  # the server finds out
    assert values([1, None, 3]).types == (psycopg.adapters.types["int2"].array_oid,)
    assert values().data is None


@pytest.mark.parametrize("bad", [object(), "\0", "\udc80", [1, "x"], Json(object())])
def test_what_cannot_be_sent(bad):
    with pytest.raises(SqlError, match="a parameter cannot be sent") as caught:
        values(bad)
    assert caught.value.blame is Blame.CALLER


class Reporting:
    def __init__(self, **said: bytes) -> None:
        self.said = said

    def parameter_status(self, name: bytes) -> bytes | None:
        return self.said.get(name.decode())


def test_settings_that_change_how_values_are_written():
    good = {"client_encoding": b"UTF8", "DateStyle": b"ISO, DMY", "IntervalStyle": b"postgres"}
    assert changed_setting(Reporting(**good)) is None  # type: ignore[arg-type]
    assert changed_setting(Reporting()) is None  # type: ignore[arg-type]  # a pooler may not tell
    for name, value in (("client_encoding", b"LATIN1"), ("DateStyle", b"German, DMY")):
        said = {**good, name: value}
        assert changed_setting(Reporting(**said)) == name  # type: ignore[arg-type]
