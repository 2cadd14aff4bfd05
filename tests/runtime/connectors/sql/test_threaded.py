"""A blocking session in threads: cancelled, left behind, closed."""

import threading

import pytest
import trio

from vastar_client.wire.rows import SqlStatement
from vastar_runtime.connectors.sql import interrupting
from vastar_runtime.connectors.sql.errors import Blame, SqlError
from vastar_runtime.connectors.sql.jobs import Job, Result
from vastar_runtime.connectors.sql.threaded import ThreadedSession, open_in_thread, thread_limiter

JOB = Job("query", [SqlStatement("x")])


class Blocking:
    def __init__(self) -> None:
        self.is_usable = True
        self.closed = threading.Event()
        self.stopped = threading.Event()
        self.begun = threading.Event()
        self.hears = True

    def looks_alive(self) -> bool:
        return self.is_usable

    def run(self, _job, begun):
        begun()
        self.begun.set()
        assert self.stopped.wait(60)
        raise SqlError(Blame.TIMEOUT, "interrupted")

    def stream(self, _job, begun):
        begun()
        try:
            count = yield Result(["a"], [(0,)])
            while True:
                count = yield Result(["a"], [(count,)])
        finally:
            self.stopped.set()

    def interrupt(self) -> None:
        if self.hears:
            self.stopped.set()

    def close(self) -> None:
        self.closed.set()


async def opened(blocking: Blocking) -> ThreadedSession:
    session = await open_in_thread(lambda: blocking, thread_limiter(1))
    assert isinstance(session, ThreadedSession)
    return session


async def run_and_cancel(session: ThreadedSession, blocking: Blocking) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, JOB, lambda: None)
        await trio.to_thread.run_sync(blocking.begun.wait)
        nursery.cancel_scope.cancel()


async def test_cancelling_interrupts():
    blocking = Blocking()
    session = await opened(blocking)
    assert session.looks_alive()
    await run_and_cancel(session, blocking)
    assert session.is_usable
    await session.aclose()
    assert blocking.closed.is_set()


async def test_one_that_is_deaf_is_left_behind_and_closed_later(monkeypatch):
    monkeypatch.setattr(interrupting, "GRACE_S", 0.05)
    blocking = Blocking()
    blocking.hears = False
    session = await opened(blocking)
    await run_and_cancel(session, blocking)
    assert not session.is_usable  # nobody else gets what a thread is in
    await session.aclose()
    assert not blocking.closed.is_set()
    blocking.stopped.set()
    assert await trio.to_thread.run_sync(blocking.closed.wait, 60)
    assert session.is_orphaned


async def test_a_stream():
    blocking = Blocking()
    session = await opened(blocking)
    rows = session.stream(JOB, lambda: None)
    assert (await rows.next(5)).rows == [(0,)]
    assert (await rows.next(7)).rows == [(7,)]
    await rows.aclose()
    assert blocking.stopped.is_set()
    session.is_usable = False
    assert not blocking.is_usable


async def test_what_is_opened_for_nobody_is_closed(monkeypatch):
    monkeypatch.setattr(interrupting, "GRACE_S", 0.05)
    blocking, going = Blocking(), threading.Event()

    def slow() -> Blocking:
        going.set()
        assert blocking.begun.wait(60)
        return blocking

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_in_thread, slow, thread_limiter(1))
        await trio.to_thread.run_sync(going.wait)
        nursery.cancel_scope.cancel()
    blocking.begun.set()
    assert await trio.to_thread.run_sync(blocking.closed.wait, 60)

    def fail() -> Blocking:
        raise SqlError(Blame.UNREACHABLE, "no")

    with pytest.raises(SqlError, match="no"):
        await open_in_thread(fail, thread_limiter(1))
