"""Whoever waits is woken, once, and nobody before."""

import trio
import trio.testing

from vastar_runtime.waiters import Waiters


async def test_all_who_wait_are_woken_and_only_they(autojump_clock):
    waiters, woken = Waiters(), []

    async def wait(name: str) -> None:
        await waiters.wait()
        woken.append(name)

    waiters.wake_all()  # nobody: nothing is remembered
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "a")
        nursery.start_soon(wait, "b")
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        waiters.wake_all()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == ["a", "b"]
        nursery.start_soon(wait, "c")
        await trio.testing.wait_all_tasks_blocked()
        assert len(woken) == 2
        with trio.move_on_after(1) as scope:
            await waiters.wait()
        assert scope.cancelled_caught
        waiters.wake_all()
    assert woken[-1] == "c"
