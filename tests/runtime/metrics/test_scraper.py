"""A scrape is rendered off the loop, from a state that is not older than the question."""

import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.metrics_text import Scraped
from vastar_runtime.metrics import Meters, Scraper, Snapshot


class SlowMeters(Meters):
    """Rendering takes `render_s` of virtual time, as far as the caller can tell."""

    def __init__(self, clock: MockClock, render_s: float) -> None:
        super().__init__([])
        self._clock = clock
        self._render_s = render_s
        self.threads: list[int] = []
        self.began_s: list[float] = []

    def render(self, snapshot: Snapshot) -> bytes:
        self.threads.append(threading.get_ident())
        self.began_s.append(self._clock.current_time())
        self._clock.jump(self._render_s)
        return super().render(snapshot)


class Runtime:
    """Counts how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def take(self) -> Snapshot:
        self.looks += 1
        return Snapshot(calls_in_flight=self.looks)


def look_of(text: bytes) -> float | None:
    return Scraped(text).value("vastar_calls_in_flight")


async def test_it_renders_what_holds_now_in_another_thread(mock_clock: MockClock) -> None:
    meters, runtime = SlowMeters(mock_clock, 0.0), Runtime()
    scraper = Scraper(meters, runtime.take)
    assert look_of(await scraper.render()) == 1
    assert look_of(await scraper.render()) == 2
    assert threading.get_ident() not in meters.threads


async def test_who_asks_without_a_pause_gets_a_tenth_of_the_time(
    autojump_clock: MockClock,
) -> None:
    meters = SlowMeters(autojump_clock, 0.5)
    scraper = Scraper(meters, Runtime().take)
    for _ in range(3):
        await scraper.render()
    assert meters.began_s == pytest.approx([0.0, 5.0, 10.0])


async def test_all_who_wait_share_one_text_that_is_younger_than_their_questions(
    autojump_clock: MockClock,
) -> None:
    meters, runtime = SlowMeters(autojump_clock, 0.5), Runtime()
    scraper = Scraper(meters, runtime.take)
    await scraper.render()
    looks: list[float | None] = []

    async def ask() -> None:
        looks.append(look_of(await scraper.render()))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert looks == [2] * 5
    assert runtime.looks == 2


async def test_who_comes_during_a_render_gets_the_next_one(autojump_clock: MockClock) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Held(Meters):
        def render(self, snapshot: Snapshot) -> bytes:
            begun.set()
            go_on.wait(20)
            return super().render(snapshot)

    scraper = Scraper(Held([]), Runtime().take)
    looks: list[float | None] = []

    async def ask() -> None:
        looks.append(look_of(await scraper.render()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.to_thread.run_sync(begun.wait, 20)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        go_on.set()
    assert looks == [1, 2]


async def test_a_failed_or_cancelled_render_is_no_text_for_others(
    autojump_clock: MockClock,
) -> None:
    class Broken(Meters):
        def render(self, snapshot: Snapshot) -> bytes:
            if snapshot.calls_in_flight == 1:
                raise RuntimeError("broken")
            return super().render(snapshot)

    scraper = Scraper(Broken([]), Runtime().take)
    with pytest.raises(RuntimeError):
        await scraper.render()
    with trio.CancelScope() as scope:
        scope.cancel()
        await scraper.render()
    assert look_of(await scraper.render()) == 2
