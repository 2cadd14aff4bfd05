"""The connection of the async client: broken, lost, found again, closed."""

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left, connected, echo
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.errors import (
    ConnectionClosed,
    RuntimeUnavailable,
)
from vastar_client.testing import HOLD, FakeRuntime, respond
from vastar_client.wire import (
    Disposition,
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
