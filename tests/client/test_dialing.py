"""Connecting: what fails says where, why, and what to run."""

import dataclasses
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from vastar_client._dialing import dial
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import RuntimeUnavailable
from vastar_client.wire import (
    NEED_DATA,
    Authenticate,
    Connection,
    Disposition,
    HealthResponse,
    Role,
    StreamEnd,
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


# --- showing a token ----------------------------------------------------------------------------

TOKEN = "planted-token-0123456789"


@asynccontextmanager
async def answering(folder, answer):
    """A runtime that answers the first frame so (None: closes); the address, and what it heard."""
    heard = []
    path = str(folder / "r.sock")

    async def serve(stream):
        connection = Connection(Role.RUNTIME)
        while (event := connection.next_event()) is NEED_DATA:
            connection.receive_data(await stream.receive_some())
        heard.append(event)
        if answer is not None:
            data = b"".join(connection.send(answer))
            for at in range(len(data)):
                await stream.send_all(data[at : at + 1])
            await trio.sleep_forever()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(path)
        listener.listen()
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
        yield RuntimeConfig(socket_path=path, token=TOKEN, use_environment=False), heard
        nursery.cancel_scope.cancel()


async def test_the_token_is_the_first_frame_on_any_connection(tmp_path):
    async with answering(tmp_path, HealthResponse(healthy=True)) as (config, heard):
        await (await dial(config)).aclose()
        assert heard == [Authenticate(token=TOKEN)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HealthResponse(message="not allowed: no such token"), "does not take the token: not all"),
        (StreamEnd(1), "it knows no tokens"),
        (None, "it ended the connection when shown the token"),
    ],
)
async def test_a_token_that_is_not_taken_is_told_and_not_quoted(answer, words, tmp_path):
    async with answering(tmp_path, answer) as (config, _):
        with pytest.raises(RuntimeUnavailable, match=words) as caught:
            await dial(config)
        assert TOKEN not in str(caught.value)
        assert caught.value.disposition is Disposition.NOT_SENT


async def test_a_bad_token_file_is_told_before_anything_is_sent(tmp_path):
    async with answering(tmp_path, HealthResponse(healthy=True)) as (config, heard):
        bad = dataclasses.replace(config, token=None, token_file=str(tmp_path / "none"))
        with pytest.raises(ValueError, match="none: cannot be read"):
            await dial(bad)
    assert heard == []
