"""What many keys take, for the policies that decide on calls: all together."""

import tracemalloc

from vastar_runtime.policy.breaker import Breaker, BreakerSettings, Evidence, Permit
from vastar_runtime.policy.classify import AttemptResult, classify
from vastar_runtime.policy.cooldown import Cooldown, CooldownSettings
from vastar_runtime.policy.hedging import HedgeSettings, Hedging
from vastar_runtime.policy.keyed import KeyedStore
from vastar_runtime.policy.retry_quota import QuotaSettings, RetryQuota

KEYS = 5_000
MAX_KEYS = 1_000
"""A tenth of what a runtime would keep, as tracing memory is slow; and so the bytes below."""
MOST_BYTES = 3_000_000
"""Of 6 MB, as limits and queues have a part in them too. Measured: 1.9 MB; with 10,000 keys a
store, after 100,000, 20 MB of resident memory."""

Key = tuple[str, str]


def test_many_keys_stay_within_the_memory_that_they_may_take():
    breaker_settings, quota_settings = BreakerSettings(), QuotaSettings()
    cooldown_settings, hedge_settings = CooldownSettings(), HedgeSettings()
    bounds = {"idle_s": 300.0, "max_keys": MAX_KEYS}
    meaning = classify("GET", AttemptResult(200), has_idempotency_key=False)
    tracemalloc.start()
    try:
        hosts = KeyedStore[str, Breaker](
            lambda _: Breaker(breaker_settings), Breaker.is_droppable, **bounds
        )
        tenants = KeyedStore[Key, Breaker](
            lambda _: Breaker(breaker_settings), Breaker.is_droppable, **bounds
        )
        cooldowns = KeyedStore[Key, Cooldown](
            lambda _: Cooldown(cooldown_settings), Cooldown.is_droppable, **bounds
        )
        quotas = KeyedStore[Key, RetryQuota](
            lambda _: RetryQuota(quota_settings), RetryQuota.is_droppable, **bounds
        )
        hedges = KeyedStore[Key, Hedging](
            lambda _: Hedging(hedge_settings), Hedging.is_droppable, **bounds
        )
        for nth in range(KEYS):
            now_s, origin = nth / 1000, f"https://host-{nth}.example:443"
            key = ("tenant", origin)
            for breaker in (hosts.get(origin, now_s), tenants.get(key, now_s)):
                permit = breaker.admit(now_s)
                assert isinstance(permit, Permit)
                breaker.report(permit, Evidence.SUCCESS, now_s, 0.5)
            cooldown = cooldowns.get(key, now_s)
            round_ = cooldown.admit(now_s)
            assert isinstance(round_, int)
            cooldown.report(round_, meaning, now_s, 0.5, None)
            quotas.get(key, now_s).earn(now_s)
            hedges.get(key, now_s).plan("GET", now_s, now_s + 30)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(store) for store in (hosts, tenants, cooldowns, quotas, hedges)] == [MAX_KEYS] * 5
    assert used_bytes < MOST_BYTES, f"{used_bytes:,} bytes"


def test_keys_that_must_stay_are_kept_and_go_when_their_time_is_over():
    settings = BreakerSettings(no_answer_run=1)
    store = KeyedStore[int, Breaker](
        lambda _: Breaker(settings), Breaker.is_droppable, idle_s=300.0, max_keys=10
    )
    for nth in range(100):
        breaker = store.get(nth, 0.0)
        permit = breaker.admit(0.0)
        assert isinstance(permit, Permit)
        breaker.report(permit, Evidence.NO_ANSWER, 0.0, 1.0)
    assert len(store) == 100, "all are open"
    store.sweep(304.9)
    assert len(store) == 100
    store.sweep(305.0)
    assert len(store) == 0
