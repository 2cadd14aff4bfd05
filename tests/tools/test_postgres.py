"""The server that tests and benchmarks use."""

from pathlib import Path

import pytest

from tests.support.postgres import postgres_server
from tools import postgres


def test_it_runs_stops_and_leaves_nothing():
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: the extra postgres")
    with postgres_server() as server:
        directory = server._directory
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        server.stop()
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select 2").fetchone() == (2,)
    assert not Path(directory).exists()


def test_without_any_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(postgres, "_found", lambda: None)
    with (
        pytest.raises(postgres.NoPostgresError, match="test-postgres"),
        postgres.running_postgres(),
    ):
        pass
