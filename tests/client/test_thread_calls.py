"""Unary calls of threads: no task, no timer, and all the same ends as a call in a task has."""

import threading

import pytest
import trio

from tests.support.client_threads import URL, echo, in_thread, until
from vastar_client import _thread_calls
from vastar_client._thread_calls import ThreadCall
from vastar_client.blocking import RuntimeClient
from vastar_client.errors import CallTimeout, ConnectionClosed, ConnectorException
from vastar_client.request import GET
from vastar_client.testing import HOLD, FakeRuntime, respond
from vastar_client.wire import Disposition, ErrorClass


def link_of(client):
    return client._connected.client._link


def call_of(client, url=URL, timeout_ms=60_000):
    connected = client._connected
    outgoing = connected.calls.http(GET(url).with_timeout(timeout_ms))
    return ThreadCall(connected.loop, link_of(client), outgoing)


def nothing_is_left(client):
    link = link_of(client)
    session = link._session
    return (
        link._slots.value == 256
        and not client._connected.loop.under_way - {client._connected._serving}
        and (session is None or not (session._pending or session._late or session._outgoing))
    )


@pytest.fixture
def client():
    """One that is connected to a runtime that holds what is called "hold"."""
    with (
        FakeRuntime(lambda r: HOLD if "hold" in r.url else echo(r), keeps_deadlines=False) as fake,
        RuntimeClient(fake.config) as one,
    ):
        one.fake = fake
        yield one


class Interrupted:
    """A lock in which a signal handler raises something, at its n-th wait."""

    def __init__(self, at_wait=1):
        self.waits = 0
        self.at_wait = at_wait
        self.released = threading.Event()

    def acquire(self, *, timeout=-1):
        self.waits += 1
        if self.waits == self.at_wait:
            raise LookupError
        return False

    def release(self):
        self.released.set()


def test_a_call_needs_no_task(client):
    client.get(URL)
    loop = client._connected.loop
    before = []
    loop.submit(lambda: note(before, loop)).wait()
    for _ in range(3):
        assert client.get(URL).ok
    thread, _ = in_thread(lambda: client.get(f"{URL}/hold"))
    until(lambda: client.fake.held)
    during = []
    loop.submit(lambda: note(during, loop)).wait()
    assert during == before
    client.fake.held[0].reply(respond())
    thread.join()
    until(lambda: nothing_is_left(client))


async def note(counts, loop):
    counts.append(len(loop._nursery.child_tasks))
    await trio.lowlevel.checkpoint()


def test_a_stuck_runtime_cannot_hang_a_thread(client, monkeypatch):
    monkeypatch.setattr(_thread_calls, "GRACE_S", 0.0)
    with pytest.raises(CallTimeout, match="it may be stuck") as caught:
        client.get(f"{URL}/hold", timeout_s=0.01)
    assert caught.value.disposition is Disposition.SENT_NO_RESPONSE
    until(lambda: client.fake.cancelled == [caught.value.request_id])
    assert client.get(URL).ok
    until(lambda: nothing_is_left(client))


def test_an_answer_that_comes_as_the_time_is_over_counts(client):
    call = call_of(client)
    answer = call.wait()
    call._expire()
    call._cancel()
    call.wake()
    assert (call.answer, call.error) == (answer, None)


@pytest.mark.parametrize("at_wait", [1, 2])
def test_whatever_interrupts_the_wait_cancels_the_call(client, at_wait):
    """A signal handler may raise anything, not only KeyboardInterrupt; also behind the time."""
    call = call_of(client, f"{URL}/hold")
    call._lock = lock = Interrupted(at_wait)
    with pytest.raises(LookupError):
        call.wait()
    assert lock.released.wait(5)
    assert isinstance(call.error, (CallTimeout, ConnectionClosed))
    until(lambda: nothing_is_left(client))
    assert len(client.fake.cancelled) <= 1
    assert client.get(URL).ok


@pytest.mark.parametrize(
    ("happens", "error"), [("_cancel", ConnectionClosed), ("_expire", CallTimeout)]
)
def test_a_call_that_is_over_before_it_began_is_never_sent(client, happens, error):
    call = call_of(client, f"{URL}/hold")
    getattr(call, happens)()
    with pytest.raises(error) as caught:
        call.wait()
    if happens == "_expire":
        assert caught.value.disposition is Disposition.NOT_SENT
    until(lambda: nothing_is_left(client))
    assert not client.fake.requests


def take_slots(client, count):
    async def take():
        for _ in range(count):
            link_of(client)._slots.acquire_nowait()
        await trio.lowlevel.checkpoint()

    client._connected.loop.submit(take).wait()


def test_without_a_slot_it_waits_for_one(client):
    client.connect()
    take_slots(client, 256)
    with pytest.raises(CallTimeout, match="256 calls were in flight") as caught:
        client.get(URL, timeout_s=0.02)
    assert caught.value.disposition is Disposition.NOT_SENT
    answers = []
    thread, _ = in_thread(lambda: answers.append(client.get(URL)))
    until(lambda: client._connected.loop.under_way - {client._connected._serving})
    for _ in range(256):
        client._connected.loop.call_soon(link_of(client)._slots.release)
        client._connected.loop.submit(trio.lowlevel.checkpoint).wait()
    thread.join()
    assert answers[0].ok
    until(lambda: nothing_is_left(client))


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_call_that_waits_for_a_slot_can_be_cancelled(client, has_begun):
    client.connect()
    take_slots(client, 256)
    call = call_of(client)
    if not has_begun:
        call._is_cancelled = False
        real, call._link = call._link, Cancelling(call)
        call._link.real = real
    thread, caught = in_thread(call.wait)
    if has_begun:
        until(lambda: call._scope is not None)
        client._connected.loop.call_soon(call._cancel)
    thread.join()
    assert isinstance(caught[0], ConnectionClosed)
    assert link_of(client)._slots.value == 0


class Cancelling:
    """A link that has no room, and whose call is cancelled before its task runs."""

    def __init__(self, call):
        self.call = call

    def begin(self, entry):
        entry._cancel()
        return self.real.begin(entry)

    def exchange(self, message, timeout_s):
        return self.real.exchange(message, timeout_s)


def test_without_a_connection_it_waits_for_one_until_the_client_is_closed():
    fake = FakeRuntime(echo)
    client = RuntimeClient(dial=fake.dial)
    client.get(URL)
    loop = client._connected.loop
    fake.available = False
    loop.call_soon(fake.disconnect)
    until(lambda: link_of(client)._session is None)
    thread, caught = in_thread(lambda: client.get(URL))
    until(lambda: link_of(client)._waiting)
    client.close()
    thread.join()
    assert isinstance(caught[0], ConnectionClosed)
    assert caught[0].disposition is Disposition.NOT_SENT


def test_a_call_that_is_too_long_is_refused_alone(client):
    client.get(URL)
    link_of(client)._session._connection.max_sent_frame_bytes = 10
    with pytest.raises(ConnectorException, match="the request cannot be sent") as caught:
        client.get(URL)
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST
    assert caught.value.disposition is Disposition.NOT_SENT
    until(lambda: nothing_is_left(client))


def test_many_that_begin_together_leave_in_one_write(client, monkeypatch):
    client.get(URL)
    loop, session = client._connected.loop, link_of(client)._session
    sent = []
    real = session._try_send

    def try_send(buffer):
        sent.append(len(buffer))
        return real(buffer)

    session._try_send = try_send
    calls = [call_of(client) for _ in range(20)]
    monkeypatch.setattr(loop, "_wake", lambda: True)  # nobody does
    threads = [in_thread(call.wait) for call in calls]
    until(lambda: len(loop._submitted) == 20)
    monkeypatch.undo()
    loop._promised = -1
    loop.submit(trio.lowlevel.checkpoint).wait()
    for thread, _ in threads:
        thread.join()
    assert [caught for _, (caught,) in threads] == [None] * 20
    assert len(sent) == 1
