"""Connecting: what fails says where, why, and what to run."""

import pytest
import trio
import trio.testing

from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    RuntimeUnavailable,
)
from vastar_client.wire import (
    Disposition,
)


async def test_no_runtime_names_path_and_command(tmp_path):
    path = tmp_path / "none.sock"
    with pytest.raises(RuntimeUnavailable) as caught:
        async with AsyncRuntimeClient(RuntimeConfig(socket_path=str(path), use_environment=False)):
            pass
    assert f"no Vastar runtime at unix:{path}: there is no such socket" in str(caught.value)
    assert f"`python -m vastar_runtime start --socket {path}`" in str(caught.value)
    assert caught.value.disposition is Disposition.NOT_SENT
    assert caught.value.is_retryable()


async def test_no_runtime_at_a_tcp_port():
    config = RuntimeConfig(use_tcp=True, tcp_port=1, use_environment=False)
    with pytest.raises(RuntimeUnavailable, match=r"tcp:127\.0\.0\.1:1: nothing listens there"):
        await AsyncRuntimeClient(config).__aenter__()


async def test_the_default_address_needs_no_flag(monkeypatch):
    monkeypatch.setattr("vastar_client._dialing.anyio.connect_unix", _refuse)
    with pytest.raises(RuntimeUnavailable, match="vastar_runtime start`") as caught:
        await AsyncRuntimeClient(RuntimeConfig(use_environment=False)).__aenter__()
    assert "permission denied" in str(caught.value)


async def _refuse(path):
    raise PermissionError(13, "Permission denied", path)


async def test_a_runtime_that_does_not_accept_is_given_up(autojump_clock, monkeypatch):
    async def hang(_path):
        await trio.sleep_forever()

    monkeypatch.setattr("vastar_client._dialing.anyio.connect_unix", hang)
    with pytest.raises(RuntimeUnavailable, match="no answer within 5000 ms"):
        await AsyncRuntimeClient(RuntimeConfig(use_environment=False)).__aenter__()
