"""The bulkhead of several workers: what it costs when nothing is full, and its bounds of memory."""

import attrs
import pytest

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.aimd import AimdSettings
from vastar_runtime.policy.concurrency import ConcurrencySettings, Key
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing import bulkhead as module
from vastar_runtime.sharing.bulkhead import SharedBulkhead
from vastar_runtime.sharing.table import Table

KEY = Key("t", "w", "o")
DEFAULTS = ConcurrencySettings()


class Rung:
    """Bulkheads of a host, and what they told."""

    def __init__(self, host) -> None:
        self.rung: list[tuple[int, int]] = []
        self.lacks = self.hungers = 0
        self.all = [self.make(host, worker) for worker in range(host.memory.layout.workers)]

    def make(self, host, worker: int) -> SharedBulkhead:
        def lacks() -> None:
            self.lacks += 1

        def hunger() -> None:
            self.hungers += 1

        return SharedBulkhead(
            1000,
            "calls",
            memory=host.memory,
            table=Table(host.memory, worker),
            worker=worker,
            clock=lambda: host.now_s,
            ring=lambda other, record_at: self.rung.append((other, record_at)),
            room_lacks=lacks,
            hunger_began=hunger,
        )


@pytest.fixture
def host():
    with shared_workers(2) as made:
        yield made


def test_calls_that_come_and_go_take_no_lock(host, monkeypatch):
    one = Rung(host).all[0]
    for _ in range(20):
        assert one.try_acquire(KEY, DEFAULTS) is None
    for _ in range(20):
        one.release(KEY)
    monkeypatch.setattr(one, "_lock", None)
    for _ in range(10):
        assert one.try_acquire(KEY, DEFAULTS) is None
    assert one.in_flight == one.in_flight_of(KEY) == one.in_flight_of_tenant("t") == 10
    for _ in range(10):
        one.release(KEY)
    assert one.in_flight == 0
    assert one.in_flight_of(Key("x", "y", "z")) == one.in_flight_of_tenant("x") == 0


@pytest.mark.parametrize(
    ("settings", "full"),
    [
        (ConcurrencySettings(1000, 2, 1), Scope.CREDENTIAL),
        (ConcurrencySettings(1000, 1, 2), Scope.TENANT),
    ],
)
def test_who_finds_it_full_asks_and_is_rung_when_it_is_not(host, settings, full):
    rung = Rung(host)
    first, second = rung.all
    assert first.try_acquire(KEY, settings) is None
    assert second.try_acquire(KEY, settings) is full
    assert rung.hungers == 1
    (asked,) = rung.rung
    assert asked[0] == 0
    assert second.try_acquire(KEY, settings) is full
    assert len(rung.rung) == 1, "it has asked"
    first.release(KEY)
    assert rung.rung[1:] == [(1, asked[1])]
    assert second.try_acquire(KEY, settings) is None


def test_what_is_full_for_the_runtime_is_told_last(host):
    rung = Rung(host)
    for each in rung.all:
        each.max_in_runtime = 1
    assert rung.all[0].try_acquire(KEY, DEFAULTS) is None
    assert rung.all[1].try_acquire(KEY, DEFAULTS) is Scope.RUNTIME


def test_an_upstream_that_is_felt_has_less_room_for_all(host):
    feeling = ConcurrencySettings(100, 100, 8, AimdSettings(decrease_ratio=0.5, increase_ratio=0.5))
    first, second = Rung(host).all
    assert first.limit_of(KEY, DEFAULTS) == 256
    assert first.try_acquire(KEY, feeling) is None
    assert second.try_acquire(KEY, feeling) is None
    first.overloaded(0.0, KEY, DEFAULTS)
    assert second.limit_of(KEY, feeling) == 8
    first.overloaded(0.0, KEY, feeling)
    assert second.limit_of(KEY, feeling) == first.limit_of(KEY, feeling) == 4
    second.succeeded(KEY)
    assert first.limit_of(KEY, feeling) == 8
    first.succeeded(Key("never", "seen", "it"))


def test_keys_that_do_not_matter_make_room_for_others(host, monkeypatch):
    monkeypatch.setattr(module, "MOST_KEYS", 4)
    one = Rung(host).all[0]
    busy = Key("busy", "w", "o")
    assert one.try_acquire(busy, DEFAULTS) is None
    for number in range(30):
        key = Key(f"t{number}", "w", "o")
        assert one.try_acquire(key, DEFAULTS) is None
        one.release(key)
        assert len(one.by_record) <= 2 * 4 + 1
    assert one.in_flight_of(busy) == 1


def test_a_table_without_room_is_told_of(host):
    with shared_workers(2, capacity=1) as full:
        rung = Rung(full)
        one = rung.all[0]
        assert one.try_acquire(KEY, attrs.evolve(DEFAULTS, max_per_origin=2)) is None
        assert one.try_acquire(KEY, attrs.evolve(DEFAULTS, max_per_origin=2)) is Scope.CREDENTIAL
        assert rung.lacks > 0
        assert rung.hungers == 0
        one.release(KEY)
        for _ in range(2):
            one.sweep()
        assert one.in_flight_of(KEY) == 0
