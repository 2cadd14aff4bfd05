"""Many machines of one kind, one a key, in bounded memory.

A policy has one machine per tenant, origin or credential, and keys come from outside: whoever
chooses them must not choose how much memory they take. So a key that idles is dropped, and so is
one of the least recently used where there are too many, but only ever a machine that says that
forgetting it changes no later verdict that matters: one that is open, in debt or has calls in
flight stays, even over the bound. How many of those there are is bounded by time and by the calls
under way, not here.

The shape is a dict and a clock hand (a deque of its keys): `get` of a known key is one look-up and
one assignment, and only the arrival of a new key moves the hand, over a fixed number of keys. So
the cost is the same at ten keys as at a million, and no call ever pays for a sweep over all. Under
pressure the least recently used of those under the hand goes: an exact order of use would cost
every call a move in a list.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

import attrs

__all__ = ["KeyedStore"]

_LOOKED_AT: Final = 8
"""Keys under the hand when a new one comes. Two could not keep up with idle keys behind a run of
machines that must stay; how much more helps is not measured."""
_DROPPED_UNDER_PRESSURE: Final = 2
"""More than the one that came, so that an excess melts."""

Key = TypeVar("Key", bound=Hashable)
Machine = TypeVar("Machine")


@attrs.define(eq=False)
class _Slot(Generic[Machine]):
    machine: Machine
    used_at_s: float


class KeyedStore(Generic[Key, Machine]):
    """Machines by key, made when first asked for.

    Args:
        make: the machine of a key that is new or was dropped.
        is_droppable: whether forgetting that machine now is as good as keeping it; asked at any
            time, so it must not change the machine.
        idle_s: a droppable machine that nobody asked for in this time goes.
        max_keys: over this number droppable machines go although they do not idle.
        on_drop: told of each machine that goes.
    """

    def __init__(
        self,
        make: Callable[[Key], Machine],
        is_droppable: Callable[[Machine, float], bool],
        *,
        idle_s: float,
        max_keys: int,
        on_drop: Callable[[Machine], None] | None = None,
    ) -> None:
        self._make = make
        self._is_droppable = is_droppable
        self._idle_s = idle_s
        self._max_keys = max_keys
        self._on_drop = on_drop
        self._slots: dict[Key, _Slot[Machine]] = {}
        self._hand: deque[Key] = deque()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: Key, now_s: float) -> Machine:
        """The machine of `key`; hold on to it for the length of a call, not longer."""
        slot = self._slots.get(key)
        if slot is not None:
            slot.used_at_s = now_s
            return slot.machine
        self._turn(now_s, _LOOKED_AT, coming=1)
        machine = self._make(key)
        self._slots[key] = _Slot(machine, now_s)
        self._hand.append(key)
        return machine

    def peek(self, key: Key) -> Machine | None:
        """The machine of `key` if there is one; looking is not using."""
        slot = self._slots.get(key)
        return None if slot is None else slot.machine

    def items(self) -> Iterator[tuple[Key, Machine]]:
        """Every key with its machine, for people and for new settings. Change no key meanwhile."""
        return ((key, slot.machine) for key, slot in self._slots.items())

    def sweep(self, now_s: float, at_most: int = 1000) -> int:
        """Move the hand over `at_most` keys without a new one; how many idle ones were dropped.

        For a driver to call now and then: where no new keys come, nothing else drops the old.
        """
        before = len(self._slots)
        self._turn(now_s, at_most, coming=0)
        return before - len(self._slots)

    def _turn(self, now_s: float, at_most: int, coming: int) -> None:
        """Move the hand over `at_most` keys: drop the idle ones, and some more under pressure."""
        slots = self._slots
        taken = [self._hand.popleft() for _ in range(min(at_most, len(self._hand)))]
        wanted = min(len(slots) + coming - self._max_keys, _DROPPED_UNDER_PRESSURE)
        # Of those used at one time the one under the hand first goes first: the sort is stable.
        by_use = sorted(taken, key=lambda key: slots[key].used_at_s) if wanted > 0 else taken
        for key in by_use:
            slot = slots[key]
            is_idle = now_s - slot.used_at_s >= self._idle_s
            if (is_idle or wanted > 0) and self._is_droppable(slot.machine, now_s):
                del slots[key]
                wanted -= 1
                if self._on_drop is not None:
                    self._on_drop(slot.machine)
        self._hand.extend(key for key in taken if key in slots)
