"""A breaker that all workers of a host share: open in one is open in all, one probe for all.

What a healthy circuit costs is one look at a word and one word written: while the version is the
one we know, a closed circuit is closed, and a success goes into this worker's own column, where
nobody else writes. Whoever steps under the lock (a failure, a probe, a change of state) counts
first what all columns have more than was counted before. So no success is ever overlooked, and
nothing has to be flushed in time; but for the age of what is counted, which is why everybody looks
after his own about twice a bucket.

A probe's lease has the worker that took it, so that the leases of a dead one can be given anew.

Within some ms, not exact: a worker that has read "closed" just before another one opened the
circuit lets that one call through, as a breaker of one process does with calls that are under way.
"""

import struct
from typing import Final

import attrs

from vastar_runtime.policy.breaker import (
    Admission,
    Breaker,
    BreakerSettings,
    Evidence,
    Permit,
    State,
    Transition,
)
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.policy.window import RollingWindow
from vastar_runtime.sharing.record import Record

__all__ = ["MOST_BUCKETS", "MOST_PROBES", "SharedBreaker", "without_leases"]

MOST_PROBES: Final = 8
"""Leases that a record has room for; more `probes` than that count as so many."""
MOST_BUCKETS: Final = 12
_SUCCESSES: Final = 0  # the sort of column
_NO_LEASE: Final = 0

_STATE: Final = struct.Struct(f"@4Qd4Q{MOST_BUCKETS}Q{MOST_PROBES}d{MOST_PROBES}Q")
"""State, generation, run without answers, openings | open until | probe successes, leases given,
successes counted, number of the newest bucket | buckets, the newest first: calls and failures in
one word | leases: ends, then number and worker in one word."""
_NEWEST: Final = 8
_FIRST_BUCKET: Final = _NEWEST + 1
_FIRST_END: Final = _FIRST_BUCKET + MOST_BUCKETS
_FIRST_LEASE: Final = _FIRST_END + MOST_PROBES
_STATES: Final = tuple(State)
_CLOSED: Final = State.CLOSED
_SUCCESS: Final = Evidence.SUCCESS
_QUIET: Final = frozenset({Evidence.SUCCESS, Evidence.ANSWERED, Evidence.THROTTLED, Evidence.NONE})
"""What cannot open a closed circuit, but as the call that makes them enough to judge by."""
_NO_OWNERS: Final[dict[int, int]] = {}
"""Never written to: nearly all circuits have no probe."""
_WORKER_BITS: Final = 8
_WORKER_MASK: Final = (1 << _WORKER_BITS) - 1
_HALF_WORD: Final = 32
_LOW_HALF: Final = (1 << _HALF_WORD) - 1


class SharedBreaker(Breaker):
    """One circuit, as one worker sees it. Times are its own; `record` knows the difference.

    `state` and `generation` are as last seen; `refresh` looks again.
    """

    __slots__ = (
        "_count_own_at_s",
        "_counted",
        "_is_calm",
        "_own_at",
        "_owners",
        "_successes",
        "_version_at",
        "_words",
        "record",
    )  # fmt: skip

    def __init__(self, settings: BreakerSettings, scope: Scope, record: Record) -> None:
        self.record = record
        self._words = record.words
        self._version_at = record.version_at
        self._own_at = record.columns_at(_SUCCESSES) + record.worker
        self._successes = record.words[self._own_at]
        self._counted = 0
        self._owners = _NO_OWNERS
        self._is_calm = False
        self._count_own_at_s = 0.0
        super().__init__(_bounded(settings), scope)

    def configure(self, settings: BreakerSettings) -> None:
        """As `Breaker.configure`."""
        super().configure(_bounded(settings))

    def refresh(self, now_s: float) -> None:
        """Look at how things stand, for people."""
        with self.record:
            self._load(now_s - self.record.ahead_s)

    def admit(self, now_s: float) -> Admission:
        """As `Breaker.admit`."""
        record = self.record
        if self._words[self._version_at] != record.seen:
            self.refresh(now_s)
        if self.state is _CLOSED:
            self.in_flight += 1
            return self._closed_permit
        shared_s = now_s - record.ahead_s
        with record:
            self._load(shared_s)
            admission = super().admit(shared_s)
            if isinstance(admission, Permit) and admission.lease:
                self._owners = {**self._owners, admission.lease: record.worker}
                self._store(shared_s)
        return admission

    def report(
        self,
        permit: Permit,
        evidence: Evidence,
        now_s: float,
        random_ratio: float,
        took_s: float = 0.0,
    ) -> Transition | None:
        """As `Breaker.report`."""
        record = self.record
        if self._words[self._version_at] == record.seen:
            if permit.generation != self.generation:
                self.in_flight -= 1
                return None
            if (
                evidence in _QUIET
                and not permit.lease
                and self._is_calm
                and now_s < self._count_own_at_s
                and (self._settings.slow_call_s is None or took_s < self._settings.slow_call_s)
            ):
                self.in_flight -= 1
                if evidence is _SUCCESS:
                    self._successes += 1
                    self._words[self._own_at] = self._successes
                return None
        shared_s = now_s - record.ahead_s
        with record:
            self._load(shared_s)
            transition = super().report(permit, evidence, shared_s, random_ratio, took_s)
            self._store(shared_s)
        self._count_own_at_s = now_s + self._settings.window_s / self._settings.buckets / 2
        return transition

    def totals(self, now_s: float) -> tuple[int, int]:
        """As `Breaker.totals`, of all workers."""
        self.refresh(now_s)
        return super().totals(now_s - self.record.ahead_s)

    def is_droppable(self, now_s: float) -> bool:
        """Whether a new breaker would do as well, for all workers."""
        if self.in_flight:
            return False
        if self.record.is_stale or self._window.failures:
            self.refresh(now_s)
        return super().is_droppable(now_s - self.record.ahead_s)

    # --- between the record and what the machine remembers; under the lock, in shared time -----

    def _load(self, now_s: float) -> None:
        record = self.record
        is_news = self._words[self._version_at] != record.seen
        values = record.read(_STATE)
        if values is not None and is_news:
            self._take(values, now_s)
        # What the columns have more than was counted is counted now: a success counts at once.
        columns_at = record.columns_at(_SUCCESSES)
        successes = sum(self._words[columns_at : columns_at + record.workers])
        if successes > self._counted:
            if self.state is _CLOSED:
                self._window.count_successes(now_s, successes - self._counted)
            self._counted = successes
        self._judge_calm()

    def _take(self, values: tuple[int | float, ...], now_s: float) -> None:
        state, generation, run, openings = map(int, values[:4])
        self.state = _STATES[state]
        if generation != self.generation or self._closed_permit.generation != generation:
            self.generation = generation
            self._closed_permit = Permit(generation)
        self._no_answer_run, self._openings = run, openings
        self._open_until_s = values[4]
        self._probe_successes, self._leases_given, self._counted = map(int, values[5:8])
        newest = int(values[_NEWEST])
        rows = [
            (newest - age, int(both) >> _HALF_WORD, int(both) & _LOW_HALF)
            for age, both in enumerate(values[_FIRST_BUCKET:_FIRST_END])
            if both
        ][::-1]
        settings = self._settings
        bucket_s = settings.window_s / settings.buckets
        self._window = RollingWindow.of_rows(bucket_s, settings.buckets, rows, now_s)
        given = [
            (int(lease) >> _WORKER_BITS, end_s, (int(lease) & _WORKER_MASK) - 1)
            for end_s, lease in zip(
                values[_FIRST_END:_FIRST_LEASE], values[_FIRST_LEASE:], strict=True
            )
            if lease
        ]
        self._lease_ends_s = {number: end_s for number, end_s, _ in given}
        self._owners = {number: owner for number, _, owner in given} or _NO_OWNERS

    def _store(self, now_s: float) -> None:
        rows = self._window.rows(now_s)
        newest = rows[-1][0] if rows else 0
        buckets = [0] * MOST_BUCKETS
        for number, calls, failures in rows:
            buckets[newest - number] = min(calls, _LOW_HALF) << _HALF_WORD | failures
        leases = list(self._lease_ends_s.items())[:MOST_PROBES]
        none = [_NO_LEASE] * (MOST_PROBES - len(leases))
        values = (
            _STATES.index(self.state),
            self.generation,
            self._no_answer_run,
            self._openings,
            self._open_until_s,
            self._probe_successes,
            self._leases_given,
            self._counted,
            newest,
            *buckets,
            *(end_s for _, end_s in leases),
            *none,
            *(nth << _WORKER_BITS | self._owners[nth] + 1 for nth, _ in leases),
            *none,
        )
        settings = self._settings
        keep_s = settings.window_s
        if self.state is not _CLOSED:
            keep_s += max(self._open_until_s - now_s, 0.0) + settings.open_max_s
        self.record.write(_STATE, values, now_s + keep_s)
        self._judge_calm()

    def _judge_calm(self) -> None:
        """Whether a success may be counted later: nothing hangs on it."""
        window = self._window
        self._is_calm = (
            self.state is _CLOSED
            and not self._no_answer_run
            and (not window.failures or window.calls >= self._settings.min_calls)
        )


def without_leases(state: bytes, worker: int) -> bytes:
    """The same state without the leases of a worker that has died."""
    values = list(_STATE.unpack_from(state))
    for at in range(_FIRST_LEASE, _FIRST_LEASE + MOST_PROBES):
        if values[at] and (values[at] & _WORKER_MASK) - 1 == worker:
            values[at] = _NO_LEASE
    return _STATE.pack(*values)


def _bounded(settings: BreakerSettings) -> BreakerSettings:
    """What a record has room for."""
    if settings.probes <= MOST_PROBES and settings.buckets <= MOST_BUCKETS:
        return settings
    return attrs.evolve(
        settings,
        probes=min(settings.probes, MOST_PROBES),
        buckets=min(settings.buckets, MOST_BUCKETS),
    )
