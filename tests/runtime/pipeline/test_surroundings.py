"""What all layers are given: waking those in line, and accounting for a wait."""

import pytest
import trio
import trio.testing

from tests.support.layers import laid, make_call
from vastar_runtime.policy.admission import AdmissionSettings, Admitted, Queued
from vastar_runtime.policy.concurrency import Key


async def test_a_wait_is_told_while_it_lasts_and_counted_when_it_is_over(autojump_clock):
    async with laid() as house:
        call = make_call()
        for seconds, total_us in ((1.5, 1_500_000), (0.25, 1_750_000)):
            with house.around.waiting(call, "queue", "waiting for better times"):
                assert call.waiting_for == "waiting for better times"
                await trio.sleep(seconds)
            assert (call.waiting_for, call.queued_us) == ("", total_us)
        assert house.meters.of("waited") == [("queue", 1.5), ("queue", 0.25)]


async def test_where_it_was_torn_out_the_words_stay_for_the_deadline_to_tell(autojump_clock):
    async with laid() as house:
        call = make_call()
        with trio.move_on_after(2), house.around.waiting(call, "queue", "waiting in line"):
            await trio.sleep_forever()
        assert (call.waiting_for, call.queued_us) == ("waiting in line", 2_000_000)
        assert house.meters.of("waited") == [("queue", 2.0)]


async def test_whoever_waits_is_woken_once(autojump_clock):
    async with laid() as house:
        around, woken = house.around, []
        queued = Queued(Key("t", "w", "o"), False, 0.0, AdmissionSettings())

        async def wait() -> None:
            around.queued[queued] = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
            woken.append(trio.current_time())

        house.nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        around.wake([])
        await trio.testing.wait_all_tasks_blocked()
        assert not woken
        around.wake([queued, queued])
        around.wake([queued])
        await trio.testing.wait_all_tasks_blocked()
        assert (woken, around.queued) == ([0.0], {})


async def test_who_was_let_through_before_it_slept_is_nobody_to_wake(autojump_clock):
    async with laid() as house:
        queued = Queued(Key("t", "w", "o"), False, 0.0, AdmissionSettings())
        queued.permit = Admitted(queued.key, is_stream=False)
        house.around.wake([queued])


async def test_chance_and_the_wall_clock_are_handed_in(autojump_clock):
    async with laid() as house:
        house.ratio = 0.25
        assert house.around.random_ratio() == 0.25
        before_s = house.around.wall_clock_s()
        await trio.sleep(3)
        assert house.around.wall_clock_s() == pytest.approx(before_s + 3)
