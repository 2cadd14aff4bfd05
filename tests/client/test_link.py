"""The connection of the async client: broken, lost, found again, closed."""

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left, connected, echo
from tests.support.client_streams import Wrapped, scripted
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    ConnectionClosed,
    ConnectorException,
    RuntimeUnavailable,
)
from vastar_client.testing import HOLD, FakeRuntime, respond
from vastar_client.wire import (
    Connection,
    Disposition,
    ErrorClass,
    ExecuteResponse,
    Role,
)


async def test_calls_in_flight_fail_when_the_connection_breaks_and_later_ones_work(autojump_clock):
    fake = FakeRuntime([HOLD, HOLD, respond()])
    errors = []
    async with AsyncRuntimeClient(dial=fake.dial) as client:

        async def call():
            with pytest.raises(ConnectionClosed, match="the runtime closed the connection") as e:
                await client.get(URL)
            errors.append(e.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            fake.disconnect()
        assert {e.disposition for e in errors} == {Disposition.SENT_NO_RESPONSE}
        assert all(e.is_retryable() and e.request_id for e in errors)
        assert (await client.get(URL)).ok
        assert_nothing_is_left(client)


async def test_a_call_that_was_not_written_yet_fails_as_not_sent(autojump_clock):
    fake = FakeRuntime(echo)
    streams = []

    async def dial():
        streams.append(Wrapped(await fake.dial()))
        streams[-1].gate = trio.Event()
        return streams[-1]

    dispositions = {}
    async with AsyncRuntimeClient(dial=dial) as client, trio.open_nursery() as nursery:
        await connected(client)

        async def call(name):
            with pytest.raises(ConnectionClosed) as caught:
                await client.get(URL)
            dispositions[name] = caught.value.disposition

        nursery.start_soon(call, "being written")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, "waiting")
        await trio.testing.wait_all_tasks_blocked()
        fake.disconnect()
    assert dispositions == {
        "being written": Disposition.SENT_NO_RESPONSE,
        "waiting": Disposition.NOT_SENT,
    }


async def test_a_failed_write_ends_the_connection_even_when_reading_hangs(autojump_clock):
    fake = FakeRuntime(echo)
    streams = []

    async def dial():
        streams.append(Wrapped(await fake.dial()))
        return streams[-1]

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        streams[0].write_error = BrokenPipeError
        begin = trio.current_time()
        with pytest.raises(ConnectionClosed, match="the connection to the runtime broke"):
            await client.get(URL)
        assert trio.current_time() - begin == pytest.approx(1.0)
        assert (await client.get(URL)).ok
        assert len(streams) == 2


async def test_a_call_waits_for_the_runtime_to_come_back(autojump_clock):
    fake = FakeRuntime(echo)
    async with AsyncRuntimeClient(dial=fake.dial) as client, trio.open_nursery() as nursery:
        await client.get(URL)
        fake.available = False
        fake.disconnect()
        await trio.testing.wait_all_tasks_blocked()

        async def restart():
            await trio.sleep(30)
            fake.available = True

        nursery.start_soon(restart)
        begin = trio.current_time()
        assert (await client.get(URL)).ok
        assert 30 <= trio.current_time() - begin <= 32.1, "the backoff is capped at two seconds"


async def test_a_call_that_waits_in_vain_says_what_to_run(autojump_clock):
    fake = FakeRuntime(echo)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        await connected(client)
        fake.available = False
        fake.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        with pytest.raises(RuntimeUnavailable, match=r"within 3 s.*switched off") as caught:
            await client.get(URL, timeout_s=3)
        assert trio.current_time() - begin == pytest.approx(3.0)
        assert caught.value.disposition is Disposition.NOT_SENT
        with pytest.raises(RuntimeUnavailable):
            await client.health(timeout_s=1)
        fake.available = True
        assert (await client.get(URL)).ok
        assert_nothing_is_left(client)


async def test_an_idle_client_does_not_dial(autojump_clock):
    fake = FakeRuntime(echo)
    dials = []

    async def dial():
        dials.append(trio.current_time())
        return await fake.dial()

    async with AsyncRuntimeClient(dial=dial) as client:
        await connected(client)
        fake.disconnect()
        await trio.sleep(3600)
        assert len(dials) == 1


async def test_leaving_the_block_fails_what_is_in_flight(autojump_clock):
    fake = FakeRuntime(lambda _: HOLD)
    errors = []
    client = AsyncRuntimeClient(dial=fake.dial)

    async def call():
        with pytest.raises(ConnectionClosed, match="the client was closed") as caught:
            await client.get(URL)
        errors.append(caught.value.disposition)

    async with trio.open_nursery() as nursery, client:
        await connected(client)
        nursery.start_soon(call)
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
    assert errors == [Disposition.SENT_NO_RESPONSE] * 2
    with pytest.raises(ConnectionClosed, match="inside its `with` block"):
        await client.get(URL)
    with pytest.raises(RuntimeError, match="can be entered once"):
        await client.__aenter__()


async def test_leaving_the_block_while_calls_wait_for_a_connection(autojump_clock):
    fake = FakeRuntime()
    client = AsyncRuntimeClient(dial=fake.dial)

    async def call():
        with pytest.raises(ConnectionClosed):
            await client.get(URL)

    async with trio.open_nursery() as nursery, client:
        await connected(client)
        fake.available = False
        fake.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()


async def test_an_exception_in_the_block_comes_out_as_it_is(autojump_clock):
    with pytest.raises(KeyError):
        async with AsyncRuntimeClient(dial=FakeRuntime().dial):
            raise KeyError


def frame(message, role=Role.RUNTIME):
    return b"".join(Connection(role).send(message))


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([], "the runtime closed the connection"),
        ([b"\0\0\0\0"], "broke the protocol.*length 0"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "broke the protocol.*exceeds the limit"),
        ([b"\0\0\0\x02\x63x"], "broke the protocol.*unknown message type 99"),
        ([b"\0\0\0\x02\x01x"], "broke the protocol"),
        ([b"\0\0"], "broke the protocol.*ended inside a frame"),
        ([b"\0\0\0\x02\0x"], "broke the protocol.*never sent by a runtime"),
        (
            [frame(ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "bad frame of length 7"))],
            "closed the connection; it had said: bad frame of length 7",
        ),
    ],
)
async def test_what_a_broken_runtime_sends_is_named(autojump_clock, chunks, reason):
    async with AsyncRuntimeClient(dial=scripted(*chunks)) as client:
        with pytest.raises(ConnectionClosed, match=reason) as caught:
            await client.get(URL)
        assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
        assert_nothing_is_left(client)


async def test_a_runtime_without_health_checks_says_so(autojump_clock):
    said = ExecuteResponse(0, ErrorClass.INVALID_REQUEST, "Invalid FlatBuffers message")
    async with AsyncRuntimeClient(dial=scripted(frame(said))) as client:
        with pytest.raises(ConnectorException, match="does not answer health checks: Invalid Flat"):
            await client.health()


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
