"""A worker that does nothing but contend: a process of its own, run with its part as JSON.

    python -m tests.support.shared_contenders '{"memory_fd": 3, ...}'

The referee is a second memory: two words for each worker, how many it has inside now and how many
it was let in. Each word has one writer, so nobody can disturb it. Each worker writes "inside" after
it was let in and before it gives back, so the sum never shows more than are really inside.
"""

import mmap
import os
import sys
import time
from collections.abc import Sequence

import msgspec
import trio

from vastar_runtime.policy.admission import AdmissionSettings, Admitted, Queued
from vastar_runtime.policy.breaker import BreakerSettings, Evidence, Permit, State
from vastar_runtime.policy.concurrency import ConcurrencySettings, Key
from vastar_runtime.policy.llm_usage import LlmRequest
from vastar_runtime.policy.rate_limit import Allowed, RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.sharing import Sharing

__all__ = ["CIRCUIT", "KEY", "RATE", "TOKENS", "Part", "Referee", "places"]

KEY = Key("t", "w", "https://one.example")
RATE = RateLimitSettings(2000, period_s=1.0, burst=50, max_waiting=0)
TOKENS = TokenLimitSettings(RateLimitSettings(50_000, burst=5_000, max_waiting=0))
CIRCUIT = BreakerSettings(no_answer_run=1, open_s=0.002, open_max_s=0.002, probe_lease_s=1000.0)
REQUEST = LlmRequest(200, max_tokens=50)


def places(most: int) -> AdmissionSettings:
    """So many at once."""
    return AdmissionSettings(ConcurrencySettings(most, most, most))


class Part(msgspec.Struct):
    """What a worker is told."""

    game: str
    worker: int
    memory_fd: int
    referee_fd: int
    bells: list[tuple[int, int]]
    seconds: float
    most: int = 1


class Referee:
    """The neutral counts."""

    INSIDE, LET_IN, MOST_SEEN = range(3)
    SORTS = 3

    def __init__(self, fd: int, workers: int) -> None:
        os.ftruncate(fd, mmap.PAGESIZE)
        self.words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("q")
        self.workers = workers

    def at(self, sort: int, worker: int) -> int:
        return sort * 8 + worker

    def sum(self, sort: int) -> int:
        return sum(self.words[self.at(sort, worker)] for worker in range(self.workers))

    def enter(self, worker: int) -> None:
        self.words[self.at(self.LET_IN, worker)] += 1
        self.words[self.at(self.INSIDE, worker)] += 1
        seen_at = self.at(self.MOST_SEEN, worker)
        self.words[seen_at] = max(self.words[seen_at], self.sum(self.INSIDE))

    def leave(self, worker: int) -> None:
        self.words[self.at(self.INSIDE, worker)] -= 1


async def contend(part: Part) -> None:
    """Play until the time is over."""
    sharing = Sharing.join(part.memory_fd, part.worker, part.bells)
    referee = Referee(part.referee_fd, 8)
    end_s = time.monotonic() + part.seconds
    game = {"rate": rate, "tokens": tokens, "probe": probe, "places": bulkhead}[part.game]
    await game(part, sharing, referee, end_s)


async def rate(part: Part, sharing: Sharing, referee: Referee, end_s: float) -> None:
    limiter = sharing.rate_limiter(RATE, KEY)
    made_at, permits = referee.at(referee.LET_IN, part.worker), 0
    while time.monotonic() < end_s:
        permit = limiter.decide(trio.current_time())
        if isinstance(permit, Allowed):
            permits += 1
            is_made = permits % 3 > 0  # every third is given back
            referee.words[made_at] += is_made
            limiter.settle(trio.current_time(), permit, None if is_made else 0)


async def tokens(part: Part, sharing: Sharing, referee: Referee, end_s: float) -> None:
    limiter = sharing.token_limiter(TOKENS, KEY)
    spent_at = referee.at(referee.LET_IN, part.worker)
    while time.monotonic() < end_s:
        now_s = trio.current_time()
        permit = limiter.reserve(now_s, REQUEST, now_s)
        if isinstance(permit, Allowed):
            referee.words[spent_at] += permit.cost
            used = permit.cost // 2
            referee.words[spent_at] -= permit.cost - used
            limiter.settle(trio.current_time(), permit, used)


async def probe(part: Part, sharing: Sharing, referee: Referee, end_s: float) -> None:
    """The circuit is always open or half-open: only probes get in, and every one fails."""
    breaker = sharing.breaker(CIRCUIT, Scope.ORIGIN, (KEY.origin,))
    while time.monotonic() < end_s:
        permit = breaker.admit(trio.current_time())
        if isinstance(permit, Permit):
            if permit.is_probe:
                referee.enter(part.worker)
                time.sleep(0.0005)  # noqa: ASYNC251 - it is to hold the probe, not the task
                referee.leave(part.worker)
            breaker.report(permit, Evidence.NO_ANSWER, trio.current_time(), 0.5)
        assert breaker.state is not State.CLOSED


async def bulkhead(part: Part, sharing: Sharing, referee: Referee, end_s: float) -> None:
    """Some tasks that come, wait and leave without end."""
    admission = sharing.admission(places(part.most))
    tasks: dict[Queued, trio.Event] = {}

    def wake(woken: Sequence[Queued]) -> None:
        for queued in woken:
            tasks.pop(queued).set()

    async def caller() -> None:
        while time.monotonic() < end_s:
            decision = admission.try_admit(trio.current_time(), KEY, False)
            if isinstance(decision, Queued):
                tasks[decision] = event = trio.Event()
                await event.wait()
                assert decision.permit is not None
                permit = decision.permit
            else:
                assert isinstance(decision, Admitted)
                permit = decision
            referee.enter(part.worker)
            await trio.lowlevel.checkpoint()
            referee.leave(part.worker)
            wake(admission.release(trio.current_time(), permit))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sharing.run, wake)
        async with trio.open_nursery() as callers:
            for _ in range(4):
                callers.start_soon(caller)
        await trio.sleep(0.3)  # others may still wait for what is kept here
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(contend, msgspec.json.decode(sys.argv[1], type=Part))
