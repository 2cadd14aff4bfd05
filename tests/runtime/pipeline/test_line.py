"""The line in which only the first is awake."""

import pytest
import trio
import trio.testing

from vastar_runtime.pipeline.line import Line


async def test_they_go_in_the_order_in_which_they_came(autojump_clock):
    line, went = Line(), []

    async def stand(name: int) -> None:
        async with line.first():
            await line.sleep_until(trio.current_time() + 1)
            went.append((name, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(stand, name)
            await trio.testing.wait_all_tasks_blocked()
        assert line.length == 4
    assert went == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert line.length == 0


async def test_a_ring_wakes_the_first_alone(autojump_clock):
    line, woken = Line(), []

    async def stand(name: int) -> None:
        async with line.first():
            await line.sleep_until(1000)
            woken.append(name)
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        for name in range(3):
            nursery.start_soon(stand, name)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            line.ring()
        await trio.sleep(1)
        assert woken == [0]
        nursery.cancel_scope.cancel()
    assert line.length == 0


async def test_a_ring_where_nobody_sleeps_is_for_nobody(autojump_clock):
    line = Line()
    line.ring()
    async with line.first():
        await line.sleep_until(2)
    assert trio.current_time() == 2


@pytest.mark.parametrize("place", [0, 1])
async def test_who_is_cancelled_leaves_the_line(place, autojump_clock):
    line, went = Line(), []
    scopes = [trio.CancelScope() for _ in range(3)]

    async def stand(name: int) -> None:
        with scopes[name]:
            async with line.first():
                await line.sleep_until(trio.current_time() + 1)
                went.append(name)

    async with trio.open_nursery() as nursery:
        for name in range(3):
            nursery.start_soon(stand, name)
            await trio.testing.wait_all_tasks_blocked()
        scopes[place].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert line.length == 2
    assert went == [name for name in range(3) if name != place]
