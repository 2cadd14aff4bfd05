"""Four processes on one limit, on the real clock: never more than one process would let through.

A neutral referee counts (`tests.support.shared_contenders`). Nothing here depends on how fast it
goes: bounds hold over whatever time has passed.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import trio

from tests.support.shared_contenders import (
    CIRCUIT,
    KEY,
    RATE,
    TOKENS,
    Part,
    Referee,
    places,
)
from vastar_runtime.policy.admission import Admitted
from vastar_runtime.policy.breaker import Evidence, Permit
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.sharing import Ground
from vastar_runtime.sharing.sharing import Sharing

pytestmark = pytest.mark.slow

WORKERS = 4
SECONDS = 1.5
START_S = 10.0
"""Of patience with a busy machine, for what is not bounded by the test itself."""


class Arena:
    """Workers as processes, a ground, and the referee."""

    def __init__(self, ground: Ground, referee_fd: int) -> None:
        self.ground = ground
        self.referee_fd = referee_fd
        self.referee = Referee(referee_fd, 8)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.began_s = time.monotonic()

    def start(self, game: str, worker: int, seconds: float = SECONDS, most: int = 1) -> None:
        bells = list(self.ground.bells)
        part = Part(game, worker, self.ground.fd, self.referee_fd, bells, seconds, most)
        fds = [self.ground.fd, self.referee_fd, *(fd for ends in bells for fd in ends)]
        self.processes[worker] = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shared_contenders", msgspec.json.encode(part)],
            pass_fds=fds,
            stderr=subprocess.PIPE,
        )

    def start_all(self, game: str, seconds: float = SECONDS, most: int = 1) -> None:
        for worker in range(WORKERS):
            self.start(game, worker, seconds, most)

    def wait_until_all_play(self) -> None:
        end_s = time.monotonic() + START_S
        while not all(
            self.referee.words[self.referee.at(Referee.LET_IN, worker)] for worker in self.processes
        ):
            assert time.monotonic() < end_s, "somebody never gets in"
            time.sleep(0.01)

    def kill(self, worker: int) -> None:
        """Kill it in the middle of whatever it does, and tidy up behind it."""
        process = self.processes.pop(worker)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        self.referee.words[self.referee.at(Referee.INSIDE, worker)] = 0
        self.ground.reclaim(worker)

    def end(self) -> float:
        """Wait for all that are left; the seconds that have passed."""
        for process in self.processes.values():
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said.decode()
        self.processes.clear()
        return time.monotonic() - self.began_s


@contextmanager
def arena() -> Iterator[Arena]:
    ground = Ground(WORKERS + 1, 64)
    referee_fd = os.memfd_create("referee")
    made = Arena(ground, referee_fd)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.communicate()
        os.close(referee_fd)
        ground.close()


def most_of(settings: RateLimitSettings, seconds: float) -> float:
    return settings.max_cost + seconds * settings.limit / settings.period_s


@pytest.mark.parametrize("game", ["rate", "tokens"])
@pytest.mark.parametrize("kills", [False, True])
def test_never_more_in_a_time_than_the_rate(game, kills):
    settings = RATE if game == "rate" else TOKENS.rate
    with arena() as made:
        made.start_all(game)
        made.wait_until_all_play()
        if kills:
            chance = random.Random(1)
            for _ in range(6):
                worker = chance.randrange(WORKERS)
                made.kill(worker)
                made.start(game, worker, seconds=0.7)
                time.sleep(chance.random() / 10)
        seconds = made.end()
        let_in = made.referee.sum(Referee.LET_IN)
        # Who was killed between the permit and the referee's word is not counted: that is less.
        assert let_in <= most_of(settings, seconds)
        if not kills:
            assert let_in > settings.max_cost, "and it is not for want of trying"
        check_all_is_there(made, settings)


def check_all_is_there(made: Arena, settings: RateLimitSettings) -> None:
    """After a while without calls the whole burst is there again, whoever has died."""

    async def look() -> float:
        sharing = Sharing.join(made.ground.fd, WORKERS)
        limiter = (
            sharing.rate_limiter(RATE, KEY)
            if settings is RATE
            else sharing.token_limiter(TOKENS, KEY)
        )
        later_s = trio.current_time() + 2 * settings.burst_s
        assert limiter.is_droppable(later_s), "somebody still holds something"
        return limiter.available(later_s)

    assert trio.run(look) == pytest.approx(settings.max_cost)


@pytest.mark.parametrize("most", [1, 2, 7, 64])
@pytest.mark.parametrize("kills", [False, True])
def test_never_more_inside_than_there_are_places(most, kills):
    with arena() as made:
        made.start_all("places", most=most)
        made.wait_until_all_play()
        if kills:
            chance = random.Random(2)
            for _ in range(4):
                worker = chance.randrange(WORKERS)
                made.kill(worker)
                made.start("places", worker, seconds=0.7, most=most)
                time.sleep(chance.random() / 10)
        made.end()
        assert made.referee.sum(Referee.INSIDE) == 0
        seen = max(
            made.referee.words[made.referee.at(Referee.MOST_SEEN, worker)]
            for worker in range(WORKERS)
        )
        assert 1 <= seen <= most
        for worker in range(WORKERS):
            made.ground.reclaim(worker)

        async def take_all() -> int:
            sharing = Sharing.join(made.ground.fd, WORKERS)
            admission = sharing.admission(places(most))
            taken = 0
            while isinstance(admission.try_admit(trio.current_time(), KEY, False), Admitted):
                taken += 1
            return taken

        assert trio.run(take_all) == most, "all are there for who comes then"


@pytest.mark.parametrize("kills", [False, True])
def test_never_more_probes_than_one(kills):
    with arena() as made:

        async def trip() -> None:
            sharing = Sharing.join(made.ground.fd, WORKERS)
            breaker = sharing.breaker(CIRCUIT, Scope.ORIGIN, (KEY.origin,))
            permit = breaker.admit(trio.current_time())
            assert isinstance(permit, Permit)
            assert breaker.report(permit, Evidence.NO_ANSWER, trio.current_time(), 0.5)

        trio.run(trip)
        made.start_all("probe")
        made.wait_until_all_play()
        if kills:  # the lease of a probe is 1000 s: only reclaiming makes room for another
            chance = random.Random(3)
            for _ in range(8):
                worker = chance.randrange(WORKERS)
                made.kill(worker)
                made.start("probe", worker, seconds=0.5)
                time.sleep(chance.random() / 10)
        made.end()
        seen = [
            made.referee.words[made.referee.at(Referee.MOST_SEEN, worker)]
            for worker in range(WORKERS)
        ]
        assert max(seen) == 1

        async def probe_again() -> bool:
            sharing = Sharing.join(made.ground.fd, WORKERS)
            breaker = sharing.breaker(CIRCUIT, Scope.ORIGIN, (KEY.origin,))
            return isinstance(breaker.admit(trio.current_time() + 1), Refused)

        assert not trio.run(probe_again), "nobody's lease is left behind"
