"""One limiter and those who sleep in its line."""

import attrs
import pytest
import trio
import trio.testing

from tests.support.http_cancel import cancelled_at
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Waiting

ONE = RateLimitSettings(1)


class Line:
    """A pacer, and calls that note when they went."""

    def __init__(self, nursery: trio.Nursery, settings: RateLimitSettings = ONE) -> None:
        self.pacer = Pacer(RateLimiter(settings))
        self.went: dict[str, float] = {}
        self.permits: dict[str, Allowed] = {}
        self._nursery = nursery

    async def go(self, name: str, cost: int = 1) -> None:
        verdict = self.pacer.limiter.decide(trio.current_time(), cost)
        if isinstance(verdict, Waiting):
            verdict = await self.pacer.wait(verdict)
        assert isinstance(verdict, Allowed)
        self.permits[name] = verdict
        self.went[name] = trio.current_time()

    async def start(self, *names: str) -> None:
        for name in names:
            self._nursery.start_soon(self.go, name)
            await trio.testing.wait_all_tasks_blocked()

    def check_empty(self) -> None:
        assert not self.pacer._bells
        assert self.pacer.limiter.waiting_count == 0


class CountsLooks(RateLimiter):
    looks = 0

    def grant_due(self, now_s: float) -> list[Waiting]:
        self.looks += 1
        return super().grant_due(now_s)


async def test_each_goes_when_its_turn_comes(nursery, autojump_clock):
    line = Line(nursery)
    await line.start(*"abcd")
    await trio.sleep(10)
    assert line.went == {"a": 0, "b": 1, "c": 2, "d": 3}
    line.check_empty()


async def test_a_large_cost_is_not_overtaken(nursery, autojump_clock):
    line = Line(nursery, RateLimitSettings(4))
    await line.start(*"abcd")
    nursery.start_soon(line.go, "large", 4)
    await trio.testing.wait_all_tasks_blocked()
    await line.start("small")
    await trio.sleep(10)
    assert (line.went["large"], line.went["small"]) == (1, 1.25)


async def test_what_is_given_back_lets_the_next_go_at_once(nursery, autojump_clock):
    line = Line(nursery, RateLimitSettings(1, period_s=100.0))
    await line.start("a", "b", "c")
    await trio.sleep(3)
    line.pacer.refund(trio.current_time(), line.permits["a"])
    await trio.sleep(3)
    line.pacer.settle(trio.current_time(), line.permits["b"], 0)
    await trio.sleep(3)
    assert line.went == {"a": 0, "b": 3, "c": 6}
    line.pacer.settle(trio.current_time(), line.permits["c"])
    assert line.pacer.limiter.held == 0


async def test_nobody_needs_an_alarm_clock_but_the_head(nursery, autojump_clock):
    """Those behind it do not stir while its clock has not rung."""
    line = Line(nursery)
    line.pacer.limiter = limiter = CountsLooks(RateLimitSettings(1, period_s=10.0))
    await line.start(*"abcdefgh")
    assert limiter.looks == 7, "one as each came"
    await trio.sleep(15)
    assert line.went == {"a": 0, "b": 10}
    assert limiter.looks == 8, "one as the alarm of b rang"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("limit", [1, 10, 99, 101, 1000])
async def test_a_limit_that_changes_wakes_no_crowd(nursery, autojump_clock, limit):
    """Each waiter costs the same, however many there are and whatever the limit becomes."""
    line = Line(nursery)
    line.pacer.limiter = limiter = CountsLooks(RateLimitSettings(100))
    for number in range(100 + 256):
        nursery.start_soon(line.go, str(number))
    await trio.testing.wait_all_tasks_blocked()
    line.pacer.change(0.0, RateLimitSettings(limit))
    await trio.sleep(1000)
    assert len(line.went) == 100 + 256
    assert limiter.looks <= 2 * 256 + 1, "as it comes and at most once for its alarm"
    line.check_empty()


async def test_whoever_is_let_through_before_it_sleeps_need_not(nursery, autojump_clock):
    line = Line(nursery)
    await line.start("a")
    early = line.pacer.limiter.decide(0.0)
    assert isinstance(early, Waiting)
    await line.start("b")
    await trio.sleep(3)
    line.pacer.wake(3.0)
    assert early.permit is not None
    await trio.sleep(3)
    assert line.went == {"a": 0, "b": 4}
    assert await line.pacer.wait(early) is early.permit
    line.check_empty()


async def test_whoever_comes_late_to_its_place_goes_and_the_next_one_after_it(
    nursery, autojump_clock
):
    line = Line(nursery)
    await line.start("a")
    early = line.pacer.limiter.decide(0.0)
    assert isinstance(early, Waiting)
    await line.start("b")
    await trio.sleep(3)
    assert await line.pacer.wait(early) is early.permit
    await trio.sleep(3)
    assert line.went == {"a": 0, "b": 4}
    line.check_empty()


async def test_a_higher_limit_moves_the_whole_line_up(nursery, autojump_clock):
    line = Line(nursery, RateLimitSettings(1, period_s=100.0))
    await line.start(*"abcd")
    await trio.sleep(1)
    line.pacer.change(trio.current_time(), RateLimitSettings(1))
    await trio.sleep(10)
    times = [line.went[name] for name in "bcd"]
    assert times == sorted(times)
    assert times == pytest.approx([1.99, 2.99, 3.99])
    line.check_empty()


async def test_a_lower_limit_lets_them_sleep_longer(nursery, autojump_clock):
    line = Line(nursery)
    await line.start(*"abc")
    line.pacer.change(0.0, RateLimitSettings(1, period_s=10.0))
    await trio.sleep(100)
    assert line.went == {"a": 0, "b": 10, "c": 20}


async def test_a_limit_that_is_lifted_lets_all_go_at_once(nursery, autojump_clock):
    line = Line(nursery, RateLimitSettings(1, period_s=1000.0, burst=1))
    await line.start(*"abcd")
    await trio.sleep(1)
    line.pacer.lift(trio.current_time())
    await trio.testing.wait_all_tasks_blocked()
    assert line.went == pytest.approx({"a": 0, "b": 1, "c": 1, "d": 1})
    line.check_empty()


async def test_who_leaves_makes_room(nursery, autojump_clock):
    line = Line(nursery)
    await line.start("a")
    with trio.move_on_after(0.5):
        nursery.start_soon(_later, line)
        await line.go("leaves")
    await trio.sleep(5)
    assert line.went == {"a": 0, "b": 1}
    line.check_empty()


async def _later(line: Line) -> None:
    await trio.sleep(0.1)
    await line.go("b")


async def test_cancelled_at_every_await_point_it_leaves_nothing(autojump_clock):
    step, was_cancelled = 0, True
    while was_cancelled:
        step += 1
        async with trio.open_nursery() as nursery:
            line = Line(nursery)
            await line.start("a")
            was_cancelled = await cancelled_at(step, line.go("b"))
            await trio.sleep(5)
            line.check_empty()
            held = len(line.went)
            assert line.pacer.limiter.held == held
            assert (len(line.went) == 1) is was_cancelled
    assert step == 2


async def test_who_is_let_through_as_it_is_cancelled_gives_its_turn_on(nursery, autojump_clock):
    line = Line(nursery, RateLimitSettings(1, period_s=100.0))
    await line.start("a")
    with trio.CancelScope() as scope:
        nursery.start_soon(_later, line)
        nursery.start_soon(_refund_and_cancel, line, scope)
        await line.go("cancelled")
    await trio.sleep(5)
    assert scope.cancelled_caught
    assert line.went == {"a": 0, "b": 1}
    assert line.pacer.limiter.held == 1
    line.check_empty()


async def _refund_and_cancel(line: Line, scope: trio.CancelScope) -> None:
    await trio.sleep(1)
    scope.cancel()
    line.pacer.refund(trio.current_time(), line.permits["a"])


async def test_waking_an_empty_line_does_nothing(autojump_clock):
    pacer = Pacer(RateLimiter(ONE))
    pacer.wake(0.0)
    pacer.lift(0.0)
    assert pacer.limiter.settings == attrs.evolve(ONE, limit=10**12)
