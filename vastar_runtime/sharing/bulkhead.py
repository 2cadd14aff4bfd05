"""The bulkhead of all workers of a host: as `Bulkhead`, over places that are shared out.

A call whose three keys (origin, tenant, runtime) have places in stock takes them with three
comparisons and no lock. Otherwise all three are taken in one step under one lock, or none: two
workers that each hold what the other one lacks cannot wait for each other.
"""

from collections.abc import Callable
from itertools import islice
from typing import Final, TypeVar

from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.concurrency import Bulkhead, ConcurrencySettings, Key
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.feeling import Feeling
from vastar_runtime.sharing.layout import Kind
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.places import Places
from vastar_runtime.sharing.table import Table

__all__ = ["SharedBulkhead"]

_LOOKED_AT: Final = 8
_MOST_DROPPED: Final = 300
"""In one sweep: each takes some 15 us, in which nobody is served."""
MOST_KEYS: Final = 10_000
"""Of one kind that are kept; those in use stay, however many."""

_Name = TypeVar("_Name", str, Key)


class SharedBulkhead(Bulkhead):
    """The counts of one kind of call, as one worker sees them.

    Args:
        max_in_runtime: the bound in all.
        name: of the kind of call.
        memory: all of it.
        table: where keys have their records.
        worker: whose columns are ours.
        clock: CLOCK_MONOTONIC in seconds.
        ring: tells another worker to look at a record, by worker and record.
        room_lacks: called where a key has no record, because the table is full.
        hunger_began: called where somebody begins to wait for what other workers hold.

    Attributes:
        hungry: those that somebody of this worker waits for.
    """

    __slots__ = (
        "_clock", "_feelings", "_hunger_began", "_lock", "_memory", "_name", "_others", "_places",
        "_ring", "_room_lacks", "_runtime", "_table", "_tenant_places", "_words", "_worker",
        "by_record", "hungry",
    )  # fmt: skip

    def __init__(
        self,
        max_in_runtime: int,
        name: str,
        *,
        memory: Memory,
        table: Table,
        worker: int,
        clock: Callable[[], float],
        ring: Callable[[int, int], None],
        room_lacks: Callable[[], None],
        hunger_began: Callable[[], None],
    ) -> None:
        super().__init__(max_in_runtime)
        self._name = name
        self._memory = memory
        self._words = memory.words
        self._lock = memory.admission_lock
        self._table = table
        self._worker = worker
        self._others = ((1 << 64) - 1) ^ (1 << worker)
        self._clock = clock
        self._ring = ring
        self._room_lacks = room_lacks
        self._hunger_began = hunger_began
        self.hungry: dict[Places, None] = {}
        self.by_record: dict[int, Places] = {}
        self._places: dict[Key, Places] = {}
        self._tenant_places: dict[str, Places] = {}
        self._feelings: dict[Key, Feeling] = {}
        self._runtime = self._new(Scope.RUNTIME, Key("", "", ""), max_in_runtime)

    def try_acquire(self, key: Key, settings: ConcurrencySettings) -> Scope | None:
        """As `Bulkhead.try_acquire`."""
        origin, tenant = self._places.get(key), self._tenant_places.get(key[0])
        runtime = self._runtime
        if (
            origin is not None
            and tenant is not None
            and origin.used < origin.held
            and tenant.used < tenant.held
            and runtime.used < runtime.held
        ):
            origin.used += 1
            tenant.used += 1
            runtime.used += 1
            self.in_flight += 1
            return None
        return self._take(key, settings)

    def release(self, key: Key) -> None:
        """As `Bulkhead.release`."""
        origin, tenant, runtime = self._places[key], self._tenant_places[key[0]], self._runtime
        origin.used -= 1
        tenant.used -= 1
        runtime.used -= 1
        self.in_flight -= 1
        words = self._words
        if (
            (words[origin.hungry_at] | words[tenant.hungry_at] | words[runtime.hungry_at])
            & self._others
            or origin.held - origin.used > origin.keep
            or tenant.held - tenant.used > tenant.keep
            or runtime.held - runtime.used > runtime.keep
        ):
            self.give_back(origin, tenant, runtime)

    def in_flight_of(self, key: Key) -> int:
        """As `Bulkhead.in_flight_of`, with this worker."""
        places = self._places.get(key)
        return 0 if places is None else places.used

    def in_flight_of_tenant(self, tenant: str) -> int:
        """As `Bulkhead.in_flight_of_tenant`, with this worker."""
        places = self._tenant_places.get(tenant)
        return 0 if places is None else places.used

    def tenant(self, name: str) -> Places | None:
        """The places of a tenant that has called."""
        return self._tenant_places.get(name)

    # --- adaptive ------------------------------------------------------------------------------

    def limit_of(self, key: Key, settings: ConcurrencySettings) -> int:
        """As `Bulkhead.limit_of`, as all workers feel it."""
        if settings.adaptive is None:
            return settings.max_per_origin
        feeling = self._feel(key, settings.adaptive)
        return max(int(settings.max_per_origin * feeling.ratio()), 1)

    def overloaded(self, now_s: float, key: Key, settings: ConcurrencySettings) -> None:
        """As `Bulkhead.overloaded`."""
        del now_s  # the time of this process: those of all have another
        if settings.adaptive is not None:
            with self._lock:
                self._feel(key, settings.adaptive).overloaded(self._clock())

    def succeeded(self, key: Key) -> None:
        """As `Bulkhead.succeeded`."""
        feeling = self._feelings.get(key)
        if feeling is not None and feeling.ratio() < 1:
            with self._lock:
                feeling.succeeded()

    def _feel(self, key: Key, settings: AimdSettings) -> Feeling:
        feeling = self._feelings.get(key)
        if feeling is None:
            record_at = self._places[key].record_at
            feeling = self._feelings[key] = Feeling(self._memory, record_at, self._worker)
        feeling.settings = settings
        return feeling

    # --- giving and asking ---------------------------------------------------------------------

    def give_back(self, *places: Places) -> None:
        """Give back what is in stock and others want, or is too much, and tell whose turn it is."""
        rung: list[tuple[int, int]] = []
        with self._lock:
            now_s = self._clock()
            for each in places:
                each.give_back(now_s)
                rung += self._whose_turn(each)
        for worker, record_at in rung:
            self._ring(worker, record_at)

    def give_back_all(self) -> None:
        """Give back all that is in stock: limits have changed."""
        everything = (*self._places.values(), *self._tenant_places.values(), self._runtime)
        with self._lock:
            now_s = self._clock()
            for each in everything:
                each.give_back(now_s, keep=0)

    def ask(self, places: Places) -> None:
        """Ask those who hold places for what they have in stock."""
        record_at = places.record_at
        if record_at is not None:
            for worker in places.holders():
                self._ring(worker, record_at)

    def sate(self, places: Places) -> None:
        """Nobody of ours waits for these any more; others may have waited behind us."""
        self.hungry.pop(places, None)
        with self._lock:
            places.sate()
            rung = self._whose_turn(places)
        for worker, record_at in rung:
            self._ring(worker, record_at)

    def _whose_turn(self, places: Places) -> list[tuple[int, int]]:
        record_at = places.record_at
        if record_at is None or not places.others_are_hungry:
            return []
        return [(worker, record_at) for worker in places.next_hungry()]

    def _take(self, key: Key, settings: ConcurrencySettings) -> Scope | None:
        """Take the three places of a call in one step, or none and tell what is full."""
        origin = self._places.get(key) or self._new(Scope.CREDENTIAL, key, settings.max_per_origin)
        tenant = self._tenant_places.get(key[0]) or self._new(
            Scope.TENANT, key, settings.max_per_tenant
        )
        runtime = self._runtime
        origin.limit_is(settings.max_per_origin, is_firm=settings.adaptive is None)
        tenant.limit_is(settings.max_per_tenant)
        runtime.limit_is(self.max_in_runtime)
        is_news = False
        with self._lock:
            now_s = self._clock()
            wanted = (
                (origin, self.limit_of(key, settings)),
                (tenant, settings.max_per_tenant),
                (runtime, self.max_in_runtime),
            )
            for full, limit in wanted:
                if not full.may_take(limit, now_s):
                    is_news = full.starve()
                    break
            else:
                for each, limit in wanted:
                    each.fill(limit)
                self.in_flight += 1
                return None
        if full.record_at is not None:
            self.hungry[full] = None
        if is_news:
            self.ask(full)
            self._hunger_began()
        return full.scope

    # --- keys ----------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Forget what was unused now and when this was called before; not too many at once."""
        dropped = 0
        for each in (*self._places.values(), *self._tenant_places.values()):
            if each.used or each in self.hungry:
                each.is_idle = False
            elif each.is_idle and dropped < _MOST_DROPPED:
                self._drop(each)
                dropped += 1
            else:
                each.is_idle = True

    def _new(self, scope: Scope, key: Key, limit: int) -> Places:
        names = {
            Scope.RUNTIME: (self._name,),
            Scope.TENANT: (self._name, key.tenant),
            Scope.CREDENTIAL: (self._name, *key),
        }[scope]
        record_at = self._table.attach(self._clock(), Kind.PLACES, (scope.value, *names))
        if record_at is None:
            self._room_lacks()
        places = Places(self._memory, self._worker, record_at, scope=scope, key=key, limit=limit)
        if record_at is not None:
            self.by_record[record_at] = places
        if scope is Scope.CREDENTIAL:
            self._make_room(self._places)
            self._places[key] = places
        elif scope is Scope.TENANT:
            self._make_room(self._tenant_places)
            self._tenant_places[key.tenant] = places
        return places

    def _make_room(self, places: dict[_Name, Places]) -> None:
        if len(places) < MOST_KEYS:
            return
        for name, each in tuple(islice(places.items(), _LOOKED_AT)):
            if each.used or each in self.hungry:
                places[name] = places.pop(name)  # to the end: it is looked at later again
            else:
                self._drop(each)

    def _drop(self, places: Places) -> None:
        if places.scope is Scope.TENANT:
            del self._tenant_places[places.key.tenant]
        else:
            del self._places[places.key]
            self._feelings.pop(places.key, None)
        if places.record_at is None:
            return
        del self.by_record[places.record_at]
        with self._lock:
            places.give_back(self._clock(), keep=0)
        self._table.detach(self._clock(), places.record_at)
