"""The counts of the runtime, and waiting for the last call."""

import trio
import trio.testing

from vastar_runtime.runtime_state import RuntimeState


async def test_an_idle_runtime_is_not_waited_for(autojump_clock):
    state = RuntimeState(0.0)
    with trio.fail_after(1):
        await state.wait_idle()


async def test_idle_is_when_the_last_call_has_ended(autojump_clock):
    state = RuntimeState(0.0)
    idle_at: list[float] = []

    async def wait() -> None:
        await state.wait_idle()
        idle_at.append(trio.current_time())

    state.call_begins()
    state.call_begins()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.sleep(1)
        state.call_ends()
        await trio.sleep(1)
        state.call_ends()
    assert idle_at == [2, 2]
    assert (state.calls_in_flight, state.calls_accepted) == (0, 2)


async def test_a_call_that_begins_in_the_same_moment_is_waited_for_too(autojump_clock):
    state = RuntimeState(0.0)
    state.call_begins()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(state.wait_idle)
        await trio.testing.wait_all_tasks_blocked()
        state.call_ends()
        state.call_begins()
        await trio.sleep(5)
        state.call_ends()
        done_from = trio.current_time()
    assert done_from == 5
