"""The bound of one answer."""

import pytest

from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.sessions import Gauge


def test_rows_and_bytes_are_bounded():
    Gauge(2, 1000).add([(1,), (2,)])
    with pytest.raises(SqlError, match="more than 2 rows") as caught:
        Gauge(2, 1000).add([(1,), (2,), (3,)])
    assert caught.value.blame is Blame.TOO_LARGE
    gauge = Gauge(100, 100)
    gauge.add([("x" * 80,)])
    with pytest.raises(SqlError, match="more than 100 bytes"):
        gauge.add([(b"x" * 80,)])
