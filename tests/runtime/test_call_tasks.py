"""Calls run in tasks of their own, which are used again, and few of which rest."""

import weakref

import trio
import trio.testing

from tests.support.sessions import request
from vastar_runtime import call_tasks
from vastar_runtime.call_tasks import CallTasks
from vastar_runtime.calls import Call, Caller
from vastar_runtime.policy.deadline import Deadline, Limit
from vastar_runtime.runtime_state import Resting


def call_of(number: int) -> Call:
    return Call(request(number), Caller(), Deadline(1e9, 1, Limit.DEFAULT), 1000)


class Served:
    """Calls as they are served, each until it is let go."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, trio.lowlevel.Task]] = []
        self.cancelled: list[int] = []
        self.go = trio.Event()

    async def serve(self, call: Call) -> None:
        number = call.request.request_id
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.cancelled.append(number)
            raise
        self.ended.append((number, trio.lowlevel.current_task()))


async def test_calls_run_at_the_same_time_and_their_tasks_are_used_again(autojump_clock):
    served, resting = Served(), Resting()
    async with trio.open_nursery() as nursery:
        tasks = CallTasks(nursery, served.serve, resting)
        for number in (1, 2, 3):
            tasks.begin(call_of(number))
        await trio.testing.wait_all_tasks_blocked()
        assert (served.ended, resting.tasks, len(nursery.child_tasks)) == ([], 0, 3)
        served.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert resting.tasks == 3
        for number in (4, 5):
            tasks.begin(call_of(number))
        assert resting.tasks == 1
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(number for number, _ in served.ended) == [1, 2, 3, 4, 5]
        assert len({task for _, task in served.ended}) == 3
        assert len(nursery.child_tasks) == resting.tasks == 3
        nursery.cancel_scope.cancel()
    assert resting.tasks == 0


async def test_only_so_many_rest_in_the_whole_process(autojump_clock, monkeypatch):
    monkeypatch.setattr(call_tasks, "_MAX_RESTING", 2)
    served, resting = Served(), Resting()
    served.go.set()
    async with trio.open_nursery() as nursery:
        connections = [CallTasks(nursery, served.serve, resting) for _ in range(3)]
        for number in range(12):
            connections[number % 3].begin(call_of(number))
        await trio.testing.wait_all_tasks_blocked()
        assert (len(served.ended), resting.tasks, len(nursery.child_tasks)) == (12, 2, 2)
        nursery.cancel_scope.cancel()


async def test_a_call_that_was_begun_is_served_though_all_is_cancelled(autojump_clock):
    served, resting = Served(), Resting()
    served.go.set()
    async with trio.open_nursery() as nursery:
        tasks = CallTasks(nursery, served.serve, resting)
        tasks.begin(call_of(1))
        await trio.testing.wait_all_tasks_blocked()
        served.go = trio.Event()
        tasks.begin(call_of(2))
        nursery.cancel_scope.cancel()
    assert served.cancelled == [2], "it has its end, as one in a new task has"
    assert resting.tasks == 0


async def test_a_task_at_rest_holds_none_of_its_calls(autojump_clock):
    served, resting = Served(), Resting()
    served.go.set()
    async with trio.open_nursery() as nursery:
        tasks = CallTasks(nursery, served.serve, resting)
        held = weakref.WeakSet[Call]()
        for number in (1, 2):
            call = call_of(number)
            held.add(call)
            tasks.begin(call)
            del call
            await trio.testing.wait_all_tasks_blocked()
            assert (resting.tasks, len(held)) == (1, 0), number
        nursery.cancel_scope.cancel()
