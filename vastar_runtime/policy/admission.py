"""Whether a call may begin: bulkhead and fair queue as one decision.

A call is admitted, waits in line, or is refused because its tenant's line is full. Calls and
streams have a bulkhead and a queue each, with the same numbers: streams live for minutes, and
must not take the places of calls that live for milliseconds.

What holds after every step, and is all that makes this right: *whoever waits is held up by
something full* (its origin, its tenant, or the runtime). So a newcomer that finds places free
overtakes nobody who could have taken them, and needs no look at the queue. Each step that frees
something lets through whom it can and returns them; the driver wakes them. They hold their places
from that moment, so nobody can slip in before they run.

Where the head of the queue cannot go because its tenant or origin is full it is parked, and a
release of that tenant or origin unparks it: each release is paid back at most twice, so steps are
O(1) on average whatever the length of the queue.

A release does not tell whose turn it is by time: how long a waiter waits is the driver's business
(the call's deadline), which withdraws it.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
from attrs.validators import ge, gt, instance_of, le

from vastar_runtime.policy.concurrency import Bulkhead, ConcurrencySettings, Key
from vastar_runtime.policy.fair_queue import FairQueue, Place
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused, Scope

__all__ = [
    "Admission",
    "AdmissionSettings",
    "Admitted",
    "Decision",
    "Lane",
    "Queued",
    "let_through",
    "line_up",
]

_LEAST_RETRY_AFTER_S: Final = 0.1
_MAX_RETRY_AFTER_S: Final = 60.0
_NAMES: Final = {
    Scope.RUNTIME: "the runtime",
    Scope.TENANT: "the tenant",
    Scope.CREDENTIAL: "the origin of this workspace",
}
_NEWEST_RATIO: Final = 0.1
"""What the newest interval between two of the queue counts in their average."""


@attrs.frozen
class AdmissionSettings:
    """How many at once, and how many in line.

    Attributes:
        concurrency: places; its `max_in_runtime` is the runtime's.
        max_waiting_per_tenant: in line, calls and streams apart; 0 = refuse at once.
        tenant_weight: turns of a tenant for each one of others.
        first_retry_after_s: told to those refused before anybody left the queue.
        mode: how far its verdicts reach; for the driver, the machine itself does not ask.

    Raises:
        ValueError: a number is out of range; the message names it.
    """

    concurrency: ConcurrencySettings = attrs.field(factory=ConcurrencySettings)
    max_waiting_per_tenant: int = attrs.field(
        default=1000, validator=[instance_of(int), ge(0), le(1_000_000)]
    )
    tenant_weight: int = attrs.field(default=1, validator=[instance_of(int), ge(1), le(1000)])
    first_retry_after_s: float = attrs.field(default=1.0, validator=[gt(0.0), le(60.0)])
    mode: Mode = Mode.ENFORCE


@attrs.define(eq=False)
class Admitted:
    """A permit: one place of `key`. Release it, once.

    Attributes:
        key: whose it is.
        is_stream: which places it is one of.
        is_released: the admission sets it.
    """

    key: Key
    is_stream: bool
    is_released: bool = False


@attrs.define(eq=False)
class Queued:
    """A place in line: wait until it is returned by a step, or withdraw it.

    Attributes:
        key: whose it is.
        is_stream: which line it is in.
        since_s: when it came.
        settings: what held for it then.
        permit: set once it was let through.
    """

    key: Key
    is_stream: bool
    since_s: float
    settings: AdmissionSettings
    permit: Admitted | None = None
    _place: "Place[Queued] | None" = None


Decision: TypeAlias = Admitted | Queued | Refused


@attrs.define(eq=False)
class Lane:
    """The places and the line of one kind.

    Attributes:
        last_left_s, interval_s: how fast the line goes, for `retry_after_s`.
    """

    bulkhead: Bulkhead
    queue: FairQueue[Queued] = attrs.field(factory=FairQueue)
    last_left_s: float | None = None
    interval_s: float | None = None


class Admission:
    """The admission of one runtime.

    Args:
        settings: what holds for all that `try_admit` is given none for.
        bulkhead: makes the places of calls, then those of streams, for so many in the runtime.
    """

    __slots__ = ("_calls", "_settings", "_streams")

    def __init__(
        self,
        settings: AdmissionSettings,
        bulkhead: Callable[[int], Bulkhead] = Bulkhead,
    ) -> None:
        self._settings = settings
        self._calls = Lane(bulkhead(settings.concurrency.max_in_runtime))
        self._streams = Lane(bulkhead(settings.concurrency.max_in_runtime))

    def in_flight(self, *, streams: bool) -> int:
        """Calls (or streams) that hold a place."""
        return (self._streams if streams else self._calls).bulkhead.in_flight

    def in_flight_of(self, key: Key, *, streams: bool) -> int:
        """Calls (or streams) of `key` that hold a place."""
        return (self._streams if streams else self._calls).bulkhead.in_flight_of(key)

    def waiting(self, *, streams: bool) -> int:
        """Calls (or streams) in line."""
        return (self._streams if streams else self._calls).queue.size

    def waiting_of(self, tenant: str, *, streams: bool) -> int:
        """Calls (or streams) of `tenant` in line."""
        return (self._streams if streams else self._calls).queue.waiting_of(tenant)

    def try_admit(
        self, now_s: float, key: Key, is_stream: bool, settings: AdmissionSettings | None = None
    ) -> Decision:
        """Admit a call, put it in line, or refuse it, in one step.

        Args:
            now_s: the monotonic clock.
            key: whose call, and where to.
            is_stream: which places it takes.
            settings: as merged for `key`; the same for all its calls until `change`.
        """
        lane = self._streams if is_stream else self._calls
        if settings is None:
            settings = self._settings
        full = lane.bulkhead.try_acquire(key, settings.concurrency)
        if full is None:
            return Admitted(key, is_stream)
        return line_up(lane, Queued(key, is_stream, now_s, settings), full)

    def release(self, now_s: float, permit: Admitted) -> list[Queued]:
        """Give a place back. Once is enough, twice changes nothing.

        Returns:
            those who are let through; each has its `permit` now and wants to be woken.
        """
        if permit.is_released:
            return []
        permit.is_released = True
        lane = self._streams if permit.is_stream else self._calls
        key = permit.key
        lane.bulkhead.release(key)
        queue = lane.queue
        if not queue.size:
            return []
        queue.unpark_tenant(key[0])
        queue.unpark_origin(key)
        return let_through(lane, now_s)

    def withdraw(self, now_s: float, queued: Queued) -> list[Queued]:
        """Leave the line, or give back the place it led to; returns as `release` does."""
        if queued.permit is not None:
            return self.release(now_s, queued.permit)
        place = queued._place  # noqa: SLF001 - made here
        assert place is not None
        (self._streams if queued.is_stream else self._calls).queue.remove(place)
        return []

    def overloaded(self, now_s: float, permit: Admitted, settings: AdmissionSettings) -> None:
        """The upstream of this call has too much (only where adaptive is on)."""
        lane = self._streams if permit.is_stream else self._calls
        lane.bulkhead.overloaded(now_s, permit.key, settings.concurrency)

    def succeeded(self, now_s: float, permit: Admitted) -> list[Queued]:
        """This call went well (for adaptive); returns as `release` does."""
        lane = self._streams if permit.is_stream else self._calls
        lane.bulkhead.succeeded(permit.key)
        if not lane.queue.size:
            return []
        lane.queue.unpark_origin(permit.key)
        return let_through(lane, now_s)

    def change(
        self,
        now_s: float,
        settings: AdmissionSettings,
        settings_of: Callable[[Key], AdmissionSettings] | None = None,
    ) -> list[Queued]:
        """Go on under other settings, for those in line too; returns as `release` does.

        Nobody loses a place: what is over a smaller limit goes as calls end.

        Args:
            now_s: the monotonic clock.
            settings: what holds for all that `try_admit` is given none for.
            settings_of: as merged for a key; None = `settings` for all.
        """
        self._settings = settings
        woken: list[Queued] = []
        for lane in (self._calls, self._streams):
            lane.bulkhead.max_in_runtime = settings.concurrency.max_in_runtime
            for queued in lane.queue:
                queued.settings = settings_of(queued.key) if settings_of else settings
                lane.queue.weigh(queued.key[0], queued.settings.tenant_weight)
            lane.queue.unpark_all()
            woken += let_through(lane, now_s)
        return woken


def line_up(lane: Lane, queued: Queued, full: Scope, elsewhere: int = 0) -> Queued | Refused:
    """Put a call in line, or refuse it where its tenant has too many there.

    Args:
        lane: whose line.
        queued: the call.
        full: what it is held up by.
        elsewhere: how many of the tenant wait in other lines that count.
    """
    settings = queued.settings
    most = settings.max_waiting_per_tenant
    queued._place = lane.queue.push(  # noqa: SLF001 - made here
        queued.key, queued, max_waiting=most - elsewhere, tenant_weight=settings.tenant_weight
    )
    if queued._place is not None:  # noqa: SLF001 - made here
        return queued
    retry_after_s = _retry_after_s(lane, queued, settings)
    of = f"{_NAMES[full]} has as many {'streams' if queued.is_stream else 'calls'} as it may"
    if not most:
        return Refused("bulkhead", full, retry_after_s, of)
    return Refused(
        "queue", Scope.TENANT, retry_after_s, f"{of}, and {most} of the tenant are in line"
    )


def _retry_after_s(lane: Lane, queued: Queued, settings: AdmissionSettings) -> float:
    """About when the tenant's line, as it is now, will have gone, as it lately went."""
    if lane.interval_s is None:
        return settings.first_retry_after_s
    queue = lane.queue
    ahead = queue.waiting_of(queued.key.tenant) * queue.tenant_count
    return min(max(ahead * lane.interval_s, _LEAST_RETRY_AFTER_S), _MAX_RETRY_AFTER_S)


def let_through(lane: Lane, now_s: float) -> list[Queued]:
    """Admit, in order, all who can go; park what cannot."""
    woken: list[Queued] = []
    queue = lane.queue
    while (place := queue.peek()) is not None:
        queued = place.item
        full = lane.bulkhead.try_acquire(queued.key, queued.settings.concurrency)
        if full is Scope.CREDENTIAL:
            queue.park_origin(queued.key)
        elif full is Scope.TENANT:
            queue.park_tenant(queued.key.tenant)
        elif full is not None:
            break
        else:
            queue.take(place)
            queued.permit = Admitted(queued.key, queued.is_stream)
            woken.append(queued)
    if woken:
        _measure(lane, now_s, len(woken))
    return woken


def _measure(lane: Lane, now_s: float, left: int) -> None:
    """Keep the average time between two that leave the line."""
    if lane.last_left_s is not None:
        newest_s = (now_s - lane.last_left_s) / left
        average_s = newest_s if lane.interval_s is None else lane.interval_s
        lane.interval_s = average_s + (newest_s - average_s) * _NEWEST_RATIO
    # The time that an empty line stays empty says nothing about how fast it goes.
    lane.last_left_s = now_s if lane.queue.size else None
