"""The background thread: jobs, interruptions, its death, and who may not wait for it."""

import asyncio
import threading

import pytest
import trio

from tests.support.client_threads import URL, echo, in_thread, until
from vastar_client import _loop_thread
from vastar_client.blocking import RuntimeClient
from vastar_client.errors import (
    ConnectionClosed,
    ConnectorException,
    WrongThreadError,
)
from vastar_client.testing import HOLD, FakeRuntime, respond


@pytest.fixture
def fake():
    with FakeRuntime(echo) as runtime:
        yield runtime


@pytest.fixture
def client(fake):
    with RuntimeClient(fake.config) as one:
        yield one


def test_it_refuses_to_stop_a_trio_loop(client):
    async def main():
        with pytest.raises(WrongThreadError, match="use AsyncRuntimeClient"):
            client.get(URL)
        return await trio.to_thread.run_sync(client.get, URL)

    assert trio.run(main).ok


def test_it_refuses_its_own_thread():
    """A handler in memory runs in the client's thread, where a wait would be for ever."""
    clients = []

    def handler(_request):
        clients[0].get(URL)

    with RuntimeClient(dial=FakeRuntime(handler).dial) as client:
        clients.append(client)
        with pytest.raises(ConnectorException, match=r"raised WrongThreadError.*background thread"):
            client.get(URL)


def test_it_works_inside_an_asyncio_loop_as_notebooks_have_one(client):
    async def main():
        return client.get(URL)

    assert asyncio.run(main()).ok


def test_calls_end_when_the_loop_dies_and_a_new_one_is_started():
    with FakeRuntime([HOLD, respond()]) as fake:
        client = RuntimeClient(fake.config)
        thread, caught = in_thread(lambda: client.get(URL))
        until(lambda: fake.held)
        loop = _loop_thread.current_loop()
        loop.call_soon(loop._nursery.cancel_scope.cancel)
        thread.join()
        assert isinstance(caught[0], ConnectionClosed)
        until(lambda: not loop.alive)
        with pytest.raises(ConnectionClosed):
            loop.submit(trio.sleep_forever)
        assert client.get(URL).ok
        assert _loop_thread.current_loop() is not loop
        client.close()


def test_a_job_cancelled_before_it_began_never_runs():
    loop = _loop_thread.current_loop()
    ran = []

    async def function():
        await trio.lowlevel.checkpoint()
        ran.append(1)

    job = _loop_thread.Job(loop, function)
    job._cancel()
    done = loop.submit(job.run)
    done.wait()
    with pytest.raises(ConnectionClosed):
        job.wait()
    assert ran == []


def test_a_job_can_be_cancelled_by_any_thread():
    loop = _loop_thread.current_loop()
    job = loop.submit(trio.sleep_forever)
    job.cancel_soon()
    with pytest.raises(ConnectionClosed, match="the call was cancelled"):
        job.wait()
    done = loop.submit(trio.lowlevel.checkpoint)
    done.wait()
    done.cancel_soon()


def test_whatever_interrupts_the_wait_cancels_the_job():
    """A signal handler may raise anything, not only KeyboardInterrupt."""
    loop = _loop_thread.current_loop()
    ended = threading.Event()

    async def function():
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    class Interrupted:
        def acquire(self):
            raise LookupError

        def locked(self):
            return False

    job = loop.submit(function)
    job._finished = Interrupted()
    with pytest.raises(LookupError):
        job.wait()
    assert ended.wait(5)


def test_opening_ends_when_the_loop_dies_meanwhile():
    async def dial():
        _loop_thread.current_loop()._nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    with pytest.raises(ConnectionClosed):
        RuntimeClient(dial=dial).connect()


class Counted:
    """What a thread leaves with the loop; it has begun."""

    def __init__(self):
        self.begun = threading.Event()

    def begin(self):
        self.begun.set()

    def settle(self, _error):
        raise AssertionError("the loop lives")


@pytest.fixture
def wakes(monkeypatch):
    """The wake-ups that are asked for; none gets through."""
    asked = []

    def wake():
        asked.append(1)
        return True

    loop = _loop_thread.current_loop()
    loop.submit(trio.lowlevel.checkpoint).wait()
    monkeypatch.setattr(loop, "_wake", wake)
    loop._promised = -1
    yield loop, asked, monkeypatch
    monkeypatch.undo()
    loop._promised = -1
    loop.submit(trio.lowlevel.checkpoint).wait()


def test_threads_that_submit_together_share_one_wake_up(wakes):
    loop, asked, monkeypatch = wakes
    left = [Counted() for _ in range(5)]
    for one in left:
        thread, caught = in_thread(lambda one=one: loop.post(one))
        thread.join()
        assert caught == [None]
    assert asked == [1]
    monkeypatch.undo()
    loop._wake()
    assert all(one.begun.wait(5) for one in left)
    last = Counted()
    loop.post(last)
    assert last.begun.wait(5), "what was promised is over: it is woken again"


def test_the_main_thread_promises_only_what_it_has_done(wakes):
    """A signal handler in the middle of its wake-up may make calls itself, and must not wait."""
    loop, asked, monkeypatch = wakes

    def wake():
        asked.append(1)
        if len(asked) == 1:
            loop.post(Counted())  # the handler
        return True

    monkeypatch.setattr(loop, "_wake", wake)
    loop.post(Counted())
    assert len(asked) == 2
    loop.post(Counted())
    assert len(asked) == 2, "now it is done"


def test_a_wake_up_that_something_interrupts_is_made_all_the_same(wakes):
    loop, asked, monkeypatch = wakes

    def wake():
        asked.append(1)
        if len(asked) == 1:
            raise LookupError
        return True

    monkeypatch.setattr(loop, "_wake", wake)
    with pytest.raises(LookupError):
        loop.post(Counted())
    assert len(asked) == 2


def test_without_an_eventfd_trio_wakes_it(monkeypatch):
    loop = _loop_thread.current_loop()
    monkeypatch.setattr(loop, "_bell", None)
    loop.submit(trio.lowlevel.checkpoint).wait()


def test_a_forked_child_does_not_rely_on_the_promises_of_its_parent(monkeypatch):
    loop = _loop_thread.current_loop()
    loop.submit(trio.lowlevel.checkpoint).wait()
    loop._promised = loop._emptied
    monkeypatch.setattr(loop, "pid", -1)
    one = Counted()
    with pytest.raises(ConnectionClosed):
        loop.post(one)
    loop._submitted.remove(one)
    loop._promised = -1
