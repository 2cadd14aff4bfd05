"""Threads that are interrupted, and threads that do not care."""

import threading

import pytest
import trio
import trio.testing

from vastar_runtime.connectors.sql import interrupting
from vastar_runtime.connectors.sql.interrupting import in_thread


class Work:
    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()
        self.interrupts = 0
        self.orphans = 0
        self.left = 0

    def run(self) -> str:
        self.begun.set()
        assert self.end.wait(20)
        return "done"

    def interrupt(self) -> None:
        self.interrupts += 1
        self.end.set()

    def orphaned(self) -> None:
        self.orphans += 1

    def leave(self) -> None:
        self.left += 1


async def run(work: Work, interrupt=None, function=None) -> object:
    return await in_thread(
        function or work.run,
        interrupt=interrupt or work.interrupt,
        orphaned=work.orphaned,
        limiter=trio.CapacityLimiter(1),
        left=work.leave,
    )


async def test_what_it_gives_and_raises():
    work = Work()
    work.end.set()
    assert await run(work) == "done"

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run(work, function=fail)
    assert (work.interrupts, work.orphans) == (0, 0)


async def test_cancelling_interrupts():
    work = Work()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, work)
        await trio.to_thread.run_sync(work.begun.wait)
        nursery.cancel_scope.cancel()
    assert work.interrupts == 1
    assert (work.orphans, work.left) == (0, 0)


async def test_interrupts_until_it_returns():
    work = Work()

    def deaf() -> None:
        work.interrupts += 1
        if work.interrupts == 3:
            work.end.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, work, deaf)
        await trio.to_thread.run_sync(work.begun.wait)
        nursery.cancel_scope.cancel()
    assert work.interrupts == 3


async def test_one_that_does_not_return_is_left_behind(monkeypatch):
    monkeypatch.setattr(interrupting, "GRACE_S", 0.05)
    work = Work()
    gone = threading.Event()
    work.orphaned = gone.set  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, work, lambda: None)
        await trio.to_thread.run_sync(work.begun.wait)
        nursery.cancel_scope.cancel()
    assert not gone.is_set()
    assert work.left == 1
    work.end.set()
    assert await trio.to_thread.run_sync(gone.wait, 20)


async def test_one_that_never_began_is_told_at_once(monkeypatch):
    monkeypatch.setattr(interrupting, "GRACE_S", 0.05)
    work, limiter = Work(), trio.CapacityLimiter(1)
    async with limiter, trio.open_nursery() as nursery:

        async def queue() -> None:
            await in_thread(
                work.run, interrupt=lambda: None, orphaned=work.orphaned, limiter=limiter
            )

        nursery.start_soon(queue)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert work.orphans == 1
