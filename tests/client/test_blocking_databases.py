"""What a blocking client does with a call to a database; real ones in end_to_end."""

import pytest

from vastar_client import ConnectorException, ErrorClass, OperationalError, RuntimeConfig
from vastar_client._calls import CallMaker
from vastar_client.blocking_databases import BlockingSqlCalls
from vastar_client.wire import ExecuteResponse
from vastar_client.wire.rows import encode_answer, to_block


class Client(BlockingSqlCalls):
    def __init__(self, answer) -> None:
        self.answer = answer
        self.calls = CallMaker(RuntimeConfig())
        self.left_s: list[float] = []

    def _opened(self, timeout_s):
        self.left_s.append(timeout_s)
        return self, timeout_s

    def _timeout_ms(self, timeout_ms):
        return timeout_ms or 60_000

    def call(self, outgoing):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_rows_and_errors():
    client = Client(ExecuteResponse(1, payload=encode_answer([to_block(["a"], [(1,)])])))
    assert client.query("x", timeout_s=2).scalar() == 1
    assert client.query("x").scalar() == 1
    assert client.left_s == [2.0, 60.0]
    with pytest.raises(OperationalError):
        Client(ConnectorException("down", ErrorClass.TRANSIENT)).query("x")
