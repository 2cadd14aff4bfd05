"""The run: a whole runtime between simulated callers and upstreams, step by step.

The driver's task is also the clock. It does one action, waits until no task can go on, has the
invariants look, and then moves the virtual time to whatever comes next: so nothing happens unseen
between two looks, and every event has its exact time. After the last step come two more parts: all
calls are waited for, and then, with all upstreams well, everybody has to be served again and
nothing may be left.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import trio
import trio.testing

from tools.chance import repeatable, stream
from tools.simulate._actions import Actions, Clock, Wanted
from tools.simulate._callers import Callers
from tools.simulate._event_log import EventLog
from tools.simulate._log_capture import captured_log
from tools.simulate._moods import WELL
from tools.simulate._records import Records
from tools.simulate._rules import check_end, check_instant
from tools.simulate._rules_breakers import what_is_not_well
from tools.simulate._seam import installed
from tools.simulate._setup import Setup, Tenant, draw_setup
from tools.simulate._upstreams import Upstreams
from tools.simulate._world import Broken, World
from vastar_client.wire import ErrorClass
from vastar_runtime.assembly import Clocks, Runtime
from vastar_runtime.transport.memory import MemoryChannel

__all__ = ["Report", "simulate"]

_MAX_PASSES: Final = 20_000
"""Of the event loop at one instant; more, and tasks wake each other for ever."""
_RECOVERY_S: Final = 400.0
"""Longer than any rest that an upstream or a breaker can ask for."""
_DRAINED_SHARE: Final = 0.15
"""Of the runs end by a drain, the others by a recovery."""
_STEPS_WHILE_DRAINING: Final = 10
_BETWEEN_S: Final = 20.0
_ROUNDS: Final = 3
_FORGETTING_S: Final = 3600.0


@attrs.frozen
class Report:
    """How a run went.

    Attributes:
        digest: SHA-256 of its event log.
        broken: the first invariant that did not hold; None where all did.
        lines: the event log.
    """

    seed: int
    steps: int
    digest: str
    broken: Broken | None
    lines: tuple[str, ...]
    features: tuple[str, ...]
    calls: int
    attempts: int
    virtual_s: float


def simulate(seed: int, steps: int, *, echo: Callable[[str], None] | None = None) -> Report:
    """Run `steps` steps of `seed`, and then its end.

    Args:
        seed: decides everything.
        steps: actions, or passages of time; a run of fewer steps is the beginning of one of more.
        echo: is given each line of the event log as it is written.
    """
    clock = trio.testing.MockClock()
    log = EventLog(clock.current_time, echo)
    with repeatable(seed), installed(), captured_log() as errors:
        run = _Run(seed, steps, draw_setup(seed), clock, log, errors)
        trio.run(run.main, clock=clock)
    return Report(
        seed,
        steps,
        log.digest,
        run.broken,
        tuple(log.lines),
        run.setup.features,
        len(run.records.calls),
        len(run.records.attempts),
        clock.current_time(),
    )


class _Passes(trio.abc.Instrument):
    """Counts the passes of the event loop, and ends a run that does not come to rest."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.count = 0
        self._stop = stop

    def before_io_wait(self, timeout: float) -> None:
        """Another pass."""
        del timeout
        self.count += 1
        if self.count > _MAX_PASSES:
            self._stop()


@attrs.define(eq=False)
class _Run:
    seed: int
    steps: int
    setup: Setup
    clock: trio.testing.MockClock
    log: EventLog
    errors: Callable[[], list[str]]
    records: Records = attrs.field(factory=Records)
    broken: Broken | None = None
    step: int = 0
    world: World = attrs.field(init=False)
    passes: _Passes = attrs.field(init=False)

    async def main(self) -> None:
        """The whole run; what breaks is kept in `broken`."""
        with trio.CancelScope() as scope:
            self.passes = _Passes(scope.cancel)
            trio.lowlevel.add_instrument(self.passes)
            try:
                await self._run()
            except* Broken as group:
                self._broke(group)
        if scope.cancelled_caught:
            self.broken = Broken("comes_to_rest", "tasks wake each other for ever")
        if self.broken is not None:
            self.broken.step = self.step
            self.broken.at_s = trio.current_time()
            self.log.add("broken", rule=self.broken.rule, what=self.broken.what)

    def _broke(self, group: BaseExceptionGroup[Broken]) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, Broken)
        self.broken = error

    async def _run(self) -> None:
        setup, wall = self.setup, Clock()
        self.log.add("setup", seed=self.seed, features=",".join(setup.features) or "none")
        async with trio.open_nursery() as nursery:
            upstreams = Upstreams(
                setup.hosts,
                nursery=nursery,
                chance=stream(self.seed, "upstreams"),
                wall_s=wall.now_s,
                records=self.records,
                log=self.log,
            )
            random = stream(self.seed, "runtime")
            clocks = Clocks(
                wall_clock_ms=lambda: wall.now_s() * 1000,
                random_u64=partial(random.getrandbits, 64),
                random_ratio=random.random,
            )
            runtime = Runtime(
                setup.config, network=upstreams, clocks=clocks, load=lambda: self.setup.config
            )
            nursery.start_soon(runtime.run)

            def serve(channel: MemoryChannel) -> None:
                nursery.start_soon(runtime.serve, channel)

            callers = Callers(nursery, serve, self.records, self.log)
            self.world = World(setup, runtime, upstreams, callers, self.records, self.errors)
            actions = Actions(
                stream(self.seed, "actions"),
                setup,
                callers,
                upstreams,
                self.records,
                self.log,
                wall,
                self.advance,
                self._reload,
            )
            await self._settle()
            idle_tasks = trio.lowlevel.current_statistics().tasks_living
            for _ in range(self.steps):
                self.step += 1
                await actions.step()
                await self._settle()
            if stream(self.seed, "ending").random() < _DRAINED_SHARE:
                await self._drain(actions, nursery)
            else:
                await self._wait_for_all()
                await self._recover(actions)
            await self._leave(idle_tasks)
            nursery.cancel_scope.cancel()

    async def _settle(self) -> None:
        """Let everything happen that can happen now, and look at it."""
        self.passes.count = 0
        await trio.testing.wait_all_tasks_blocked()
        check_instant(self.world)

    def _reload(self, setup: Setup) -> None:
        self.setup = self.world.setup = setup
        self.world.runtime.reload()
        self.world.reloaded()

    async def advance(self, seconds: float) -> None:
        """Let time pass, from one event to the next."""
        until_s = trio.current_time() + seconds
        await self._settle()
        while (now_s := trio.current_time()) < until_s:
            next_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
            self.clock.jump(min(max(next_s, 0.0), until_s - now_s))
            await self._settle()

    async def _wait_for_all(self) -> None:
        """No more actions: every call comes to its end."""
        self.log.add("waiting", calls=len(self.records.live))
        while self.records.live:
            left_s = min(call.expires_at_s for call in self.records.live.values())
            await self.advance(max(left_s - trio.current_time(), 0.0) + 1e-3)

    async def _drain(self, actions: Actions, nursery: trio.Nursery) -> None:
        """The runtime is told to leave: what is under way ends, and nothing new begins."""
        self.log.add("drain")
        self.world.draining_since_s = trio.current_time()
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await self.world.runtime.drain(_RECOVERY_S))

        nursery.start_soon(drain)
        await self._settle()
        for _ in range(_STEPS_WHILE_DRAINING):
            await actions.step()
            await self._settle()
        await self._wait_for_all()
        if drained != [True]:
            raise Broken("drains", f"all calls have ended, and the drain says {drained}")

    async def _recover(self, actions: Actions) -> None:
        """All upstreams are well: after the longest rest everybody is served again."""
        for host in actions.upstreams.hosts.values():
            actions.upstreams.turn(host, WELL)
        await self.advance(_RECOVERY_S)
        # As many rounds as probes may have to succeed, and one that meets closed circuits only.
        for _ in range(_ROUNDS):
            for tenant in self.setup.tenants:
                for name in self.setup.hosts:
                    await self._must_be_served(actions, tenant, f"http://{name}")
        for sentence in what_is_not_well(self.world):
            raise Broken("recovers", sentence)

    async def _must_be_served(self, actions: Actions, tenant: Tenant, origin: str) -> None:
        await self.advance(_BETWEEN_S)
        call = await actions.call(Wanted(tenant.name, tenant.workspaces[0], origin))
        assert call is not None, "nobody else calls, so there is a connection to be had"
        while not call.is_over:
            await self.advance(_BETWEEN_S)
        answer = call.answers[0][1]
        if answer.error_class is not ErrorClass.SUCCESS:
            raise Broken("recovers", f"all is well, and call {call.number} got {answer}")

    async def _leave(self, idle_tasks: int) -> None:
        """All callers go, and after a while nothing is left of what happened."""
        for caller in tuple(self.world.callers.open):
            self.world.callers.vanish(caller)
        await self.advance(_FORGETTING_S)
        check_end(self.world, trio.lowlevel.current_statistics().tasks_living - idle_tasks)
