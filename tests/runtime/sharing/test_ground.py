"""What the supervisor does: makes all of it, and reclaims what the dead held."""

import os
from pathlib import Path

import pytest
import trio

from tests.support.shared_workers import shared_workers
from vastar_runtime.policy.breaker import BreakerSettings, Evidence
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.sharing.ground import Ground, reclaim
from vastar_runtime.sharing.layout import KEYS_AT_MOST, RecordWord
from vastar_runtime.sharing.memory import Memory
from vastar_runtime.sharing.sharing import Sharing
from vastar_runtime.sharing.table import Table


def open_fds() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def test_it_has_a_memory_and_a_bell_for_each_and_leaves_nothing():
    before = open_fds()
    ground = Ground(3)
    assert ground.memory.layout.workers == len(ground.bells) == 3
    assert ground.memory.layout.capacity == KEYS_AT_MOST
    assert Memory(ground.fd).layout == ground.memory.layout
    ground.reclaim(1)
    ground.close()
    assert len(open_fds() - before) <= 1, "but for what was mapped here"


def test_where_bells_lack_nothing_is_left(monkeypatch):
    def none_left() -> tuple[int, int]:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    before = open_fds()
    with pytest.raises(OSError, match="too many"):
        Ground(2)
    assert len(open_fds()) == len(before)


def test_reclaiming_drops_what_nobody_has_and_nobody_would_miss():
    with shared_workers(2) as host:
        first, second = host.sharings
        first.cooldown(CooldownSettings(), ("only", "w", "o"))
        first.cooldown(CooldownSettings(), ("both", "w", "o"))
        second.cooldown(CooldownSettings(), ("both", "w", "o"))
        table = Table(host.memory, 1)
        assert table.count() == 2
        for _ in range(2):  # again changes nothing
            reclaim(host.memory, 0, lambda: host.now_s)
            assert table.count() == 1


def test_a_state_that_matters_is_found_again_by_who_comes_then():
    with shared_workers(2) as host:
        breaker = host.sharings[0].breaker(BreakerSettings(no_answer_run=1), Scope.ORIGIN, ("o",))
        permit = breaker.admit(host.own_s(0))
        breaker.report(permit, Evidence.NO_ANSWER, host.own_s(0), 1.0)
        again = host.kill(0).breaker(BreakerSettings(), Scope.ORIGIN, ("o",))
        assert isinstance(again.admit(host.own_s(0)), Refused)


def test_a_record_that_nobody_wrote_is_reclaimed_too():
    with shared_workers(2) as host:
        host.sharings[0].breaker(BreakerSettings(), Scope.ORIGIN, ("o",))
        record_at = host.memory.layout.record_at(0)
        reclaim(host.memory, 0, lambda: host.now_s)
        assert host.memory.words[record_at + RecordWord.VERSION] == 0


def test_a_ground_is_joined():
    ground = Ground(2, 16)

    async def join() -> None:
        sharing = Sharing.join(ground.fd, 0, ground.bells)
        now_s = trio.current_time()
        cooldown = sharing.cooldown(CooldownSettings(), ("t", "w", "o"))
        assert cooldown.admit(now_s) == 0
        sharing.let_go(cooldown)
        sharing.refresh(now_s)

    try:
        trio.run(join)
        assert Table(ground.memory, 0).count() == 0
    finally:
        ground.close()
