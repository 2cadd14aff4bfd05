"""Admission for all workers of a host: shared places, and a line in each worker.

`Admission` holds that whoever waits is held up by something full. Here places come back without a
release of ours: a worker is rung, or looks again after a moment, and lets through whom that makes
room for. Until then a newcomer must not take what somebody in line was rung for: so it asks whether
anybody of ours is held up by what it wants too. What somebody is held up by is *hungry* (`places`)
for as long as that is so.

Turns: workers take turns at what is full, tenants take turns within a worker.
"""

from collections.abc import Callable, Iterable

from vastar_runtime.policy.admission import (
    Admission,
    AdmissionSettings,
    Admitted,
    Decision,
    Lane,
    Queued,
    let_through,
    line_up,
)
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.bulkhead import SharedBulkhead
from vastar_runtime.sharing.places import Places

__all__ = ["SharedAdmission"]


class SharedAdmission(Admission):
    """The admission of one worker.

    Args:
        settings: what holds for all that `try_admit` is given none for.
        calls: the places of calls.
        streams: the places of streams.
    """

    __slots__ = ("_bulkheads", "_lanes")

    def __init__(
        self, settings: AdmissionSettings, calls: SharedBulkhead, streams: SharedBulkhead
    ) -> None:
        made = iter((calls, streams))
        super().__init__(settings, lambda _most: next(made))
        self._bulkheads = (calls, streams)
        self._lanes = ((self._calls, calls), (self._streams, streams))

    @property
    def is_hungry(self) -> bool:
        """Whether anybody in line waits for what other workers may give back."""
        return any(each.hungry for each in self._bulkheads)

    def try_admit(
        self, now_s: float, key: Key, is_stream: bool, settings: AdmissionSettings | None = None
    ) -> Decision:
        """As `Admission.try_admit`."""
        lane, bulkhead = self._lanes[is_stream]
        if settings is None:
            settings = self._settings
        full = _held_up(lane, key) if lane.queue.size else None
        if full is None:
            full = bulkhead.try_acquire(key, settings.concurrency)
            if full is None:
                return Admitted(key, is_stream)
        tenant = bulkhead.tenant(key.tenant)
        elsewhere = 0 if tenant is None else tenant.waiting_elsewhere()
        decision = line_up(lane, Queued(key, is_stream, now_s, settings), full, elsewhere)
        if isinstance(decision, Queued):
            if full is Scope.CREDENTIAL:
                lane.queue.park_origin(key)
            elif full is Scope.TENANT:
                lane.queue.park_tenant(key.tenant)
        self._tidy(lane, bulkhead, (key,))
        return decision

    def release(self, now_s: float, permit: Admitted) -> list[Queued]:
        """As `Admission.release`."""
        woken = super().release(now_s, permit)
        lane, bulkhead = self._lanes[permit.is_stream]
        if bulkhead.hungry:
            self._tidy(lane, bulkhead, [each.key for each in woken])
        return woken

    def withdraw(self, now_s: float, queued: Queued) -> list[Queued]:
        """As `Admission.withdraw`."""
        woken = super().withdraw(now_s, queued)
        lane, bulkhead = self._lanes[queued.is_stream]
        self._tidy(lane, bulkhead, [queued.key, *(each.key for each in woken)])
        return woken

    def succeeded(self, now_s: float, permit: Admitted) -> list[Queued]:
        """As `Admission.succeeded`."""
        woken = super().succeeded(now_s, permit)
        lane, bulkhead = self._lanes[permit.is_stream]
        if woken:
            self._tidy(lane, bulkhead, [each.key for each in woken])
        return woken

    def change(
        self,
        now_s: float,
        settings: AdmissionSettings,
        settings_of: Callable[[Key], AdmissionSettings] | None = None,
    ) -> list[Queued]:
        """As `Admission.change`; each worker does so for itself."""
        for bulkhead in self._bulkheads:
            bulkhead.give_back_all()
        woken = super().change(now_s, settings, settings_of)
        for lane, bulkhead in self._lanes:
            self._tidy(lane, bulkhead, [each.key for each in woken])
        return woken

    def rung(self, now_s: float, record_at: int) -> list[Queued]:
        """Another worker gave places back, or wants some; returns as `release` does."""
        for lane, bulkhead in self._lanes:
            places = bulkhead.by_record.get(record_at)
            if places is not None:
                if places.others_are_hungry:
                    bulkhead.give_back(places)
                return self._retry(now_s, lane, bulkhead, places)
        return []

    def look_again(self, now_s: float) -> list[Queued]:
        """Whatever was rung or not: ask again, and let through who can go; as `release`."""
        woken: list[Queued] = []
        for lane, bulkhead in self._lanes:
            for places in tuple(bulkhead.hungry):
                bulkhead.ask(places)
                woken += self._retry(now_s, lane, bulkhead, places)
        return woken

    def sweep(self) -> None:
        """Forget the keys that nobody uses, now and then."""
        for bulkhead in self._bulkheads:
            bulkhead.sweep()

    def _retry(
        self, now_s: float, lane: Lane, bulkhead: SharedBulkhead, places: Places
    ) -> list[Queued]:
        if places not in bulkhead.hungry:
            return []
        if places.scope is Scope.CREDENTIAL:
            lane.queue.unpark_origin(places.key)
        elif places.scope is Scope.TENANT:
            lane.queue.unpark_tenant(places.key.tenant)
        woken = let_through(lane, now_s)
        self._tidy(lane, bulkhead, [each.key for each in woken])
        return woken

    @staticmethod
    def _tidy(lane: Lane, bulkhead: SharedBulkhead, keys: Iterable[Key]) -> None:
        """Be hungry only where somebody waits, and tell how many of these tenants do."""
        for places in tuple(bulkhead.hungry):
            if not _is_wanted(lane, places):
                bulkhead.sate(places)
        for name in {key.tenant for key in keys}:
            tenant = bulkhead.tenant(name)
            if tenant is not None:
                tenant.tell_waiting(lane.queue.waiting_of(name))


def _held_up(lane: Lane, key: Key) -> Scope | None:
    """What holds up somebody in line who wants what `key` wants."""
    if lane.queue.is_parked_origin(key):
        return Scope.CREDENTIAL
    if lane.queue.is_parked_tenant(key.tenant):
        return Scope.TENANT
    return Scope.RUNTIME if lane.queue.peek() is not None else None


def _is_wanted(lane: Lane, places: Places) -> bool:
    """Whether somebody in line is held up by these."""
    if places.scope is Scope.CREDENTIAL:
        return lane.queue.is_parked_origin(places.key)
    if places.scope is Scope.TENANT:
        return lane.queue.is_parked_tenant(places.key.tenant)
    return lane.queue.peek() is not None
