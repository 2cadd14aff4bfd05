"""One worker's part in what all share: makes the machines of keys, hears bells, looks again.

It has the methods of the pipeline's `Maker`. A machine that it makes has a record in the memory;
where the table is full it is one that keeps to this worker's part alone, which is logged once.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import trio

from vastar_runtime.logs import get_logger
from vastar_runtime.policy.admission import Admission, AdmissionSettings, Queued
from vastar_runtime.policy.breaker import Breaker, BreakerSettings
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.header_learning import HeaderLearning, HeaderSettings
from vastar_runtime.policy.rate_limit import RateLimiter, RateLimitSettings
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.admission import SharedAdmission
from vastar_runtime.sharing.alone import PartialQuota, PartialRateLimiter, PartialTokenLimiter
from vastar_runtime.sharing.bells import Bells
from vastar_runtime.sharing.breaker import SharedBreaker
from vastar_runtime.sharing.bulkhead import SharedBulkhead
from vastar_runtime.sharing.cooldown import SharedCooldown
from vastar_runtime.sharing.layout import Kind
from vastar_runtime.sharing.learning import SharedLearning
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.rate_limit import SharedRateLimiter, SharedTokenLimiter
from vastar_runtime.sharing.record import Record
from vastar_runtime.sharing.retry_quota import SharedRetryQuota
from vastar_runtime.sharing.table import Table

__all__ = ["Sharing"]

LOOK_AGAIN_S: Final = 0.02
"""While somebody waits for places, in case a bell was lost or a worker has died."""
_SWEEP_EVERY: Final = 6
_log = get_logger(__name__)


class _Shared(Protocol):
    """What every machine over a record has."""

    record: Record

    def refresh(self, now_s: float) -> None:
        """Look at how things stand."""


_Machine = TypeVar("_Machine", bound=_Shared)
_Names = tuple[str, ...]


class Sharing:
    """What one worker shares with its siblings.

    Args:
        memory: mapped.
        worker: our index.
        bells: of all workers; none = look now and then only.
        ahead_s: Trio's time less `clock`.
        clock: CLOCK_MONOTONIC in seconds.
    """

    def __init__(
        self,
        memory: Memory,
        worker: int,
        bells: Sequence[tuple[int, int]] = (),
        *,
        ahead_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._worker = worker
        self._bells = Bells(bells, worker)
        self._ahead_s = ahead_s
        self._clock = clock
        self._table = Table(memory, worker)
        self._machines: dict[int, _Shared] = {}
        self._watchers: dict[int, Callable[[float], None]] = {}
        self._admission: SharedAdmission | None = None
        self._hunger = trio.Event()
        self._is_full = False
        self._sweeps = 0

    @classmethod
    def join(cls, memory_fd: int, worker: int, bells: Sequence[tuple[int, int]] = ()) -> "Sharing":
        """Take part, inside a Trio run.

        Raises:
            ValueError: the file is no memory of workers.
        """
        ahead_s = trio.current_time() - time.monotonic()
        return cls(Memory(memory_fd), worker, bells, ahead_s=ahead_s)

    # --- machines ------------------------------------------------------------------------------

    def admission(self, settings: AdmissionSettings) -> Admission:
        """The bulkhead and its queue; called once."""
        calls, streams = (
            SharedBulkhead(
                settings.concurrency.max_in_runtime,
                name,
                memory=self._memory,
                table=self._table,
                worker=self._worker,
                clock=self._clock,
                ring=self._bells.ring,
                room_lacks=self._room_lacks,
                hunger_began=self._hunger_began,
            )
            for name in ("calls", "streams")
        )
        self._admission = SharedAdmission(settings, calls, streams)
        return self._admission

    def breaker(self, settings: BreakerSettings, scope: Scope, names: _Names) -> Breaker:
        """The circuit of an origin, or of a tenant at it."""
        record = self._record(Kind.BREAKER, (scope.value, *names))
        if record is None:
            return Breaker(settings, scope)
        return self._keep(SharedBreaker(settings, scope, record))

    def retry_quota(self, settings: QuotaSettings, names: _Names) -> RetryQuota:
        """The purse of a tenant at an origin."""
        record = self._record(Kind.RETRY_QUOTA, names)
        if record is None:
            return PartialQuota(settings, self._memory.layout.workers)
        return self._keep(SharedRetryQuota(settings, record))

    def cooldown(self, settings: CooldownSettings, names: _Names) -> Cooldown:
        """The rests of a credential."""
        record = self._record(Kind.COOLDOWN, names)
        if record is None:
            return Cooldown(settings)
        return self._keep(SharedCooldown(settings, record))

    def learning(self, settings: HeaderSettings, names: _Names) -> HeaderLearning:
        """What the upstream of a credential tells."""
        record = self._record(Kind.LEARNING, names)
        if record is None:
            return HeaderLearning(settings)
        return self._keep(SharedLearning(settings, record, self._bells.ring))

    def rate_limiter(self, settings: RateLimitSettings, names: _Names) -> RateLimiter:
        """The limit on calls, or on bytes, in a time of a key."""
        record = self._record(Kind.RATE_LIMIT, (settings.policy, settings.scope.value, *names))
        if record is None:
            return PartialRateLimiter(settings, self._memory.layout.workers)
        return self._keep(SharedRateLimiter(settings, record, self._bells.ring))

    def token_limiter(self, settings: TokenLimitSettings, names: _Names) -> TokenLimiter:
        """The limit on tokens in a time of a key."""
        record = self._record(Kind.RATE_LIMIT, ("tokens", settings.rate.scope.value, *names))
        if record is None:
            return PartialTokenLimiter(settings, self._memory.layout.workers)
        return self._keep(SharedTokenLimiter(settings, record, self._bells.ring))

    def watch(self, machine: object, look: Callable[[float], None]) -> None:
        """Call `look` with the time when those who wait for `machine` should ask anew."""
        record: Record | None = getattr(machine, "record", None)
        if record is not None and record.at in self._machines:
            self._watchers[record.at] = look

    def let_go(self, *machines: object) -> None:
        """Nobody here uses these any more."""
        for machine in machines:
            record: Record | None = getattr(machine, "record", None)
            if record is not None and self._machines.get(record.at) is machine:
                del self._machines[record.at]
                self._watchers.pop(record.at, None)
                self._table.detach(self._clock(), record.at)

    # --- now and then --------------------------------------------------------------------------

    def refresh(self, now_s: float) -> None:
        """Bring all machines up to what other workers did, for people."""
        for machine in self._machines.values():
            if machine.record.is_stale:
                machine.refresh(now_s)

    def sweep(self) -> None:
        """Called every few seconds while there are machines."""
        self._sweeps += 1
        if self._admission is not None and self._sweeps % _SWEEP_EVERY == 0:
            self._admission.sweep()

    async def run(self, wake: Callable[[Iterable[Queued]], None]) -> None:
        """Hear what other workers have to tell, for ever; `wake` those who are let through."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_again, wake)
            if self._bells.own_fd is not None:
                nursery.start_soon(self._hear, self._bells.own_fd, wake)

    async def _hear(self, bell_fd: int, wake: Callable[[Iterable[Queued]], None]) -> None:
        while True:
            await trio.lowlevel.wait_readable(bell_fd)
            self.hear(trio.current_time(), wake)

    def hear(self, now_s: float, wake: Callable[[Iterable[Queued]], None]) -> None:
        """Look at what we were rung for."""
        for record_at in self._bells.heard():
            look = self._watchers.get(record_at)
            if look is not None:
                look(now_s)
            elif self._admission is not None:
                wake(self._admission.rung(now_s, record_at))

    async def _look_again(self, wake: Callable[[Iterable[Queued]], None]) -> None:
        while True:
            await self._hunger.wait()
            while self._admission is not None and self._admission.is_hungry:
                await trio.sleep(LOOK_AGAIN_S)
                wake(self._admission.look_again(trio.current_time()))
            self._hunger = trio.Event()

    def close(self) -> None:
        """Unmap the memory; nothing that was made here may be used any more."""
        self._memory.close()

    # --- records -------------------------------------------------------------------------------

    def _record(self, kind: Kind, names: _Names) -> Record | None:
        record_at = self._table.attach(self._clock(), kind, names)
        if record_at is None:
            self._room_lacks()
            return None
        return Record(self._memory, record_at, self._worker, self._ahead_s)

    def _keep(self, machine: _Machine) -> _Machine:
        self._machines[machine.record.at] = machine
        return machine

    def _hunger_began(self) -> None:
        self._hunger.set()

    def _room_lacks(self) -> None:
        if not self._is_full:
            self._is_full = True
            _log.warning(
                "the workers' shared table is full: further keys are limited by each worker alone",
                keys=self._memory.layout.capacity,
            )
