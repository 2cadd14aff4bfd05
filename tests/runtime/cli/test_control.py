"""One question, one answer in time, or a sentence that says why not."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.commands import fake_runtime
from vastar_client.wire import (
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    Message,
)
from vastar_runtime.cli.control import ControlClient, ControlError, NotRunningError, RefusedError
from vastar_runtime.config import TcpAddress, UnixAddress


@pytest.fixture
def address(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "r.sock"))


def _well(message: Message) -> Message:
    if isinstance(message, HealthCheck):
        return HealthResponse(healthy=True, active_requests=3, available_credits=7)
    assert isinstance(message, ExecuteRequest)
    assert (message.connector_name, message.payload) == ("vastar", b"{}")
    said = b'{"operation":"%b","id":%d}' % (message.operation.encode(), message.request_id)
    return ExecuteResponse(message.request_id, payload=said)


def test_health_and_operations_on_one_connection(address: UnixAddress) -> None:
    with fake_runtime(address.path, _well) as heard, ControlClient(address) as client:
        assert client.call("status") == {"operation": "status", "id": 1}
        assert client.health().active_requests == 3
        assert client.call("drain") == {"operation": "drain", "id": 2}
        assert client.peer is not None
        assert client.peer.pid in {os.getpid(), 0}
    assert len(heard) == 3


def test_a_refusal_says_what_the_runtime_said(address: UnixAddress) -> None:
    def refuse(message: Message) -> Message:
        return ExecuteResponse(1, ErrorClass.INVALID_REQUEST, error_message="not allowed")

    with (
        fake_runtime(address.path, refuse),
        ControlClient(address) as client,
        pytest.raises(RefusedError, match=r"r\.sock: drain: not allowed$"),
    ):
        client.call("drain")


@pytest.mark.parametrize(
    ("answer", "message", "timeout_s"),
    [
        (None, "closed the connection without an answer", 15),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"is no Vastar runtime \(", 15),
        (ExecuteResponse(1, payload=b"["), "status: bad answer", 15),
        (ExecuteResponse(1, payload=b"[1]"), "status: bad answer", 15),
        (b"\0\0", r"no answer in 0\.1 s", 0.1),
    ],
)
def test_what_is_no_answer(
    address: UnixAddress, answer: Message | None, message: str, timeout_s: float
) -> None:
    with (
        fake_runtime(address.path, lambda _: answer),
        ControlClient(address, timeout_s=timeout_s) as client,
        pytest.raises(ControlError, match=message),
    ):
        client.call("status")


def test_what_was_not_asked_is_passed_over(address: UnixAddress) -> None:
    """A frame of another type is not the answer to a call."""
    with (
        fake_runtime(address.path, lambda _: HealthResponse(healthy=True)),
        ControlClient(address, timeout_s=0.2) as client,
    ):
        assert client.health().healthy
        with pytest.raises(ControlError, match="no answer"):
            client.call("status")


def test_nobody_there(address: UnixAddress) -> None:
    with pytest.raises(NotRunningError, match=rf"no runtime listens on unix:{address.path}"):
        ControlClient(address)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(address.path)
    with pytest.raises(NotRunningError):
        ControlClient(address)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotRunningError, match=f"tcp:127.0.0.1:{port}"):
        ControlClient(TcpAddress("127.0.0.1", port))


def test_what_cannot_be_connected_to(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"at most 10[37] bytes and no NUL, this has .*; choose"):
        ControlClient(UnixAddress(str(tmp_path / ("x" * 200))))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotRunningError):
        ControlClient(UnixAddress(str(tmp_path / "file")))


def test_a_runtime_that_takes_no_connection(address: UnixAddress) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(address.path)
        server.listen(0)
        first.connect(address.path)
        with pytest.raises(ControlError):
            ControlClient(address, timeout_s=0.05)
