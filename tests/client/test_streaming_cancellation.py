"""Cancelling streams and uploads at every step: nothing is left, and no credit is lost."""

import itertools
import random

import pytest
import trio
import trio.testing

from tests.support.client_calls import URL, assert_nothing_is_left, link_of
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.testing import After, FakeRuntime, respond, respond_stream
from vastar_client.wire.limits import INITIAL_CONNECTION_WINDOW_BYTES

MEBIBYTE = 1_048_576


def serve(request):
    """A stream that takes four seconds, or one of three MiB."""
    if request.url.endswith("/large"):
        return respond_stream([b"x" * MEBIBYTE] * 3)
    if request.url.endswith("/call"):
        return After(1, respond(body=str(len(request.body))))
    return After(1, respond_stream([b"a" * 50_000, After(1, b"b" * 50_000), After(2, b"c")]))


async def body():
    for _ in range(4):
        await trio.sleep(0.25)
        yield bytes(40_000)


async def read_a_stream(client):
    async with client.stream("GET", URL) as response:
        async for _ in response.iter_bytes():
            pass


async def read_while_sending(client):
    async with client.stream("PUT", URL, body=body()) as response:
        await response.aread()


async def send(client):
    await client.put(URL + "/call", body=body())


async def leave_early(client):
    async with client.stream("PUT", URL, body=body()) as response:
        await anext(response.iter_bytes())


async def assert_all_is_as_before(client, fake):
    """No entry, slot or task is left, nor is credit lost: three windows full go each way."""
    await trio.sleep(10)
    assert_nothing_is_left(client)
    assert len(link_of(client)._tasks._nursery.child_tasks) == 1, "the one that keeps connected"
    async with client.stream("PUT", URL + "/large", body=large()) as response:
        assert len(await response.aread()) == 3 * MEBIBYTE
    assert len(fake.uploads[-1].data) == 3 * MEBIBYTE
    await trio.testing.wait_all_tasks_blocked()
    session, peer = link_of(client)._session, fake._peers[0]
    assert session._window.left_bytes == peer._send_window.available_bytes
    assert session._outgoing._window.available_bytes == peer._receive_window.left_bytes
    assert session._window.left_bytes * 2 > INITIAL_CONNECTION_WINDOW_BYTES
    assert peer._calls == peer._streams == {}


async def large():
    for _ in range(3):
        yield bytes(MEBIBYTE)


class Cutter(trio.abc.Instrument):
    """Cancels a scope before the n-th step of a task."""

    def __init__(self, scope, n_steps):
        self.task = None
        self.steps = 0
        self._scope = scope
        self._n_steps = n_steps

    def before_task_step(self, task):
        if task is self.task:
            self.steps += 1
            if self.steps == self._n_steps:
                self._scope.cancel()


@pytest.mark.parametrize("scenario", [read_a_stream, read_while_sending, send, leave_early])
async def test_the_caller_is_cancelled_at_whatever_step(autojump_clock, scenario):
    fake = FakeRuntime(serve)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        for n_steps in itertools.count(1):
            scope = trio.CancelScope()
            cutter = Cutter(scope, n_steps)

            async def call(cutter=cutter, scope=scope):
                cutter.task = trio.lowlevel.current_task()
                with scope:
                    await scenario(client)

            trio.lowlevel.add_instrument(cutter)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
            trio.lowlevel.remove_instrument(cutter)
            await assert_all_is_as_before(client, fake)
            if not scope.cancelled_caught and cutter.steps < n_steps:
                break
        assert n_steps > 2, "one before it begins, one while it waits, at least"


@pytest.mark.parametrize("is_stream", [True, False])
async def test_the_task_that_feeds_is_stopped_at_whatever_step(autojump_clock, is_stream):
    """Its cancellation is the call's end; here it comes at every step of the feeding."""
    fake = FakeRuntime(serve)
    async with AsyncRuntimeClient(dial=fake.dial) as client:
        for n_steps in itertools.count(1):
            scope = trio.CancelScope()
            cutter = Cutter(scope, n_steps)

            async def fed(cutter=cutter):
                cutter.task = trio.lowlevel.current_task()
                for _ in range(4):
                    await trio.sleep(0.25)
                    yield bytes(40_000)

            trio.lowlevel.add_instrument(cutter)
            with scope:
                if is_stream:
                    async with client.stream("PUT", URL, body=fed()) as response:
                        await response.aread()
                else:
                    await client.put(URL + "/call", body=fed())
            trio.lowlevel.remove_instrument(cutter)
            await assert_all_is_as_before(client, fake)
            if not scope.cancelled_caught:
                break
        assert n_steps > 3


@pytest.mark.parametrize("seed", range(5))
async def test_two_hundred_calls_cancelled_by_chance(autojump_clock, seed):
    chance = random.Random(seed)
    fake = FakeRuntime(serve)
    scenarios = [read_a_stream, read_while_sending, send, leave_early]
    async with AsyncRuntimeClient(dial=fake.dial) as client:

        async def call():
            with trio.move_on_after(chance.choice([0, 0.25, 1, chance.uniform(0, 5)])):
                await chance.choice(scenarios)(client)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(call)
                if chance.random() < 0.1:
                    await trio.sleep(chance.uniform(0, 1))
        await assert_all_is_as_before(client, fake)
