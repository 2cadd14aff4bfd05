"""A worker's part: what it makes, what wakes it, what it does where there is no room."""

import tracemalloc

import pytest
import trio

from tests.support.shared_workers import shared_workers
from vastar_runtime.pipeline.making import Maker, SharedMaker
from vastar_runtime.policy.admission import AdmissionSettings, Queued
from vastar_runtime.policy.breaker import Breaker, BreakerSettings, Evidence, State
from vastar_runtime.policy.concurrency import ConcurrencySettings, Key
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.header_learning import HeaderLearning, HeaderSettings
from vastar_runtime.policy.rate_limit import RateLimitSettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.sharing.alone import PartialQuota, PartialRateLimiter, PartialTokenLimiter

KEY = Key("t", "w", "o")


def make_all(maker: Maker):
    return [
        maker.breaker(BreakerSettings(), Scope.ORIGIN, KEY),
        maker.retry_quota(QuotaSettings(), KEY),
        maker.cooldown(CooldownSettings(), KEY),
        maker.learning(HeaderSettings(), KEY),
        maker.rate_limiter(RateLimitSettings(5), KEY),
        maker.token_limiter(TokenLimitSettings.per_minute(100), KEY),
    ]


def test_each_machine_has_a_record_until_it_is_let_go():
    with shared_workers(2) as host:
        sharing: SharedMaker = host.sharings[0]
        made = make_all(sharing)
        assert host.sharings[0]._table.count() == len(made)
        sharing.let_go(*made)
        sharing.let_go(*made, object())
        assert host.sharings[0]._table.count() == 0
        sharing.watch(made[0], pytest.fail)
        sharing.sweep()


def test_where_there_is_no_room_it_goes_alone_and_says_so_once(monkeypatch):
    lines = []
    with shared_workers(2, capacity=1) as host:
        sharing = host.sharings[0]
        monkeypatch.setattr(
            "vastar_runtime.sharing.sharing._log.warning",
            lambda words, **about: lines.append((words, about)),
        )
        sharing.breaker(BreakerSettings(), Scope.ORIGIN, ("first",))
        made = make_all(sharing)
        kinds = [
            Breaker, PartialQuota, Cooldown, HeaderLearning, PartialRateLimiter,
            PartialTokenLimiter,
        ]  # fmt: skip
        assert [type(each) for each in made] == kinds
        sharing.let_go(*made)
    assert len(lines) == 1
    assert lines[0][1] == {"keys": 1}


def test_people_see_what_other_workers_did():
    with shared_workers(2) as host:
        first, second = (
            each.breaker(BreakerSettings(no_answer_run=1), Scope.ORIGIN, ("o",))
            for each in host.sharings
        )
        first.report(first.admit(host.own_s(0)), Evidence.NO_ANSWER, host.own_s(0), 0.5)
        assert second.state is State.CLOSED
        host.sharings[1].refresh(host.own_s(1))
        assert second.state is State.OPEN


def test_keys_without_calls_are_forgotten_now_and_then():
    with shared_workers(1) as host:
        sharing = host.sharings[0]
        admission = sharing.admission(AdmissionSettings())
        before = sharing._table.count()
        admission.release(0.0, admission.try_admit(0.0, KEY, False))
        assert sharing._table.count() == before + 2
        for _ in range(12):
            sharing.sweep()
        assert sharing._table.count() == before


@pytest.mark.parametrize("has_bells", [True, False])
async def test_who_waits_is_woken_when_another_worker_gives_back(has_bells, autojump_clock):
    settings = AdmissionSettings(ConcurrencySettings(1, 1, 1))
    woken: list[Queued] = []
    with shared_workers(2) as host:
        if not has_bells:
            host.bells = ()
            host.sharings = [host.start(worker) for worker in range(2)]
        first, second = (each.admission(settings) for each in host.sharings)
        async with trio.open_nursery() as nursery:
            # A bell is a pipe, and no clock knows of it: it is rung before it is listened to.
            place = first.try_admit(host.own_s(0), KEY, False)
            waiting = second.try_admit(host.own_s(1), KEY, False)
            first.release(host.own_s(0), place)
            nursery.start_soon(host.sharings[1].run, woken.extend)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert woken == [waiting]
        assert waiting.permit is not None
        assert not second.is_hungry


async def test_it_looks_again_while_somebody_waits_and_not_longer(autojump_clock):
    settings = AdmissionSettings(ConcurrencySettings(1, 1, 1))
    with shared_workers(2) as host:
        first, second = (each.admission(settings) for each in host.sharings)
        looks = 0
        real = second.look_again

        def look_again(now_s: float) -> list[Queued]:
            nonlocal looks
            looks += 1
            return real(now_s)

        type(second).look_again, kept = (lambda self, now_s: look_again(now_s)), real.__func__
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.sharings[1].run, lambda _woken: None)
                place = first.try_admit(0.0, KEY, False)
                waiting = second.try_admit(0.0, KEY, False)
                await trio.sleep(1)
                assert 45 <= looks <= 51
                second.withdraw(0.0, waiting)
                await trio.sleep(1)
                assert looks <= 52
                second.try_admit(0.0, KEY, False)
                await trio.sleep(0.1)
                assert looks > 52
                first.release(0.0, place)
                nursery.cancel_scope.cancel()
        finally:
            type(second).look_again = kept


def test_the_machines_of_a_key_are_not_large():
    with shared_workers(2, capacity=1024) as host:
        sharing = host.sharings[0]

        def make(number: int) -> None:
            names = (f"t{number}", "w", "o")
            kept.append(sharing.breaker(BreakerSettings(), Scope.ORIGIN, names))
            kept.append(sharing.breaker(BreakerSettings(), Scope.TENANT, names))
            kept.append(sharing.retry_quota(QuotaSettings(), names))
            kept.append(sharing.cooldown(CooldownSettings(), names))
            kept.append(sharing.learning(HeaderSettings(), names))

        kept: list[object] = []
        make(0)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(1, 101):
                make(number)
            bytes_a_key = (tracemalloc.get_traced_memory()[0] - before) / 100
        finally:
            tracemalloc.stop()
    assert bytes_a_key < 3500, f"{bytes_a_key:,.0f}"  # measured: 2,850
