"""A real PostgreSQL server for tests (`tools.postgres`); without any they are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tools.postgres import NoPostgresError, Postgres, running_postgres

__all__ = ["Postgres", "postgres_server"]


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server of its own; skips the test where there is none to be had."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")
    running = running_postgres()
    try:
        server = running.__enter__()
    except NoPostgresError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        running.__exit__(None, None, None)
