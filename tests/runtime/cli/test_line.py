"""A line sends while it waits, and tells the end of it in a sentence."""

import os
from pathlib import Path

import pytest

from tests.support.commands import fake_runtime
from vastar_client.wire import HealthCheck, HealthResponse, Message, RequestChunk
from vastar_runtime.cli._line import ControlError, Line, NotRunningError
from vastar_runtime.config import UnixAddress


@pytest.fixture
def address(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "r.sock"))


def _well(_: Message) -> Message:
    return HealthResponse(healthy=True)


def test_what_is_put_goes_out_while_it_waits(address: UnixAddress) -> None:
    """More than a socket takes at once; what comes meanwhile is passed over."""
    with fake_runtime(address.path, _well) as heard:
        line = Line(address, 5)
        for sequence in range(50):
            line.put(RequestChunk(7, sequence, bytes(65_536)))
        turns = 0
        while line.is_sending:
            line.turn(5)
            turns += 1
        assert turns > 1
        line.put(HealthCheck())
        while not isinstance(heard[-1] if heard else None, HealthCheck):
            line.receive(HealthResponse, 5)
        line.close()
    assert [message.sequence for message in heard if isinstance(message, RequestChunk)] == [
        *range(50)
    ]


def test_it_waits_for_another_descriptor_too(address: UnixAddress) -> None:
    reader, writer = os.pipe()
    with fake_runtime(address.path, _well):
        line = Line(address, 5)
        assert not line.turn(0, reader)
        os.write(writer, b"x")
        assert line.turn(None, reader)
        line.close()
    os.close(reader)
    os.close(writer)


def test_there_is_no_message_without_one(address: UnixAddress) -> None:
    with fake_runtime(address.path, _well):
        line = Line(address, 5)
        assert line.next_message() is None
        with pytest.raises(ControlError, match=r"r\.sock: no answer in 0 s"):
            line.receive(HealthResponse, 0)
        line.close()


def test_a_lost_connection_is_a_sentence(address: UnixAddress) -> None:
    with fake_runtime(address.path, lambda _: None):
        line = Line(address, 5)
        line.put(HealthCheck())
        with pytest.raises(ControlError, match="closed the connection without an answer"):
            line.receive(HealthResponse, 5)
        line.close()


def test_a_reset_connection_is_a_sentence(address: UnixAddress) -> None:
    """It closes without having read all."""
    with fake_runtime(address.path, lambda _: None):
        line = Line(address, 5)
        line.put(HealthCheck())
        line.put(RequestChunk(7, 0, bytes(150_000)))
        with pytest.raises(ControlError, match=r"r\.sock: connection lost \("):
            line.receive(HealthResponse, 5)
        line.close()


def test_nobody_there(address: UnixAddress) -> None:
    with pytest.raises(NotRunningError, match="no runtime listens on"):
        Line(address, 1)
