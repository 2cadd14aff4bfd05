"""What a key costs in memory: 100,000 of them may add 60 MB with all policies together."""

import gc
import tracemalloc

import pytest

from vastar_runtime.policy.admission import Admission, AdmissionSettings, Admitted
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.header_learning import Go, HeaderLearning, HeaderSettings
from vastar_runtime.policy.llm_usage import LlmRequest, Usage
from vastar_runtime.policy.rate_headers import Hint, Unit
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings
from vastar_runtime.policy.token_limit import TokenLimiter, TokenLimitSettings

KEYS = 2000
RATE = RateLimitSettings(limit=100)
TOKENS = TokenLimitSettings.per_minute(100_000)
HEADERS = HeaderSettings()


def used_rate_limiter(number):
    limiter = RateLimiter(RATE)
    permit = limiter.decide(1000.0 + number)
    assert isinstance(permit, Allowed)
    limiter.settle(1000.5 + number, permit)
    return limiter


def used_token_limiter(number):
    limiter, request = TokenLimiter(TOKENS), LlmRequest(4000, 2000)
    permit = limiter.reserve(1000.0 + number, request, 2000.0 + number)
    assert isinstance(permit, Allowed)
    limiter.settle_answer(1005.0 + number, permit, request, Usage(700, 300, 1000), 0)
    return limiter


def silent_learning(number):
    machine = HeaderLearning(HEADERS)
    call = machine.decide(1000.0 + number, 3000, 2000.0 + number)
    assert isinstance(call, Go)
    machine.answered(1000.5 + number, call, (), was_throttled=False)
    return machine


def told_learning(number):
    machine = HeaderLearning(HEADERS)
    call = machine.decide(1000.0 + number, 3000, 2000.0 + number)
    assert isinstance(call, Go)
    hints = (
        Hint(Unit.REQUESTS, 5000 + number, 12.5 + number, 10_000 + number),
        Hint(Unit.TOKENS, 50_000 + number, 125.5 + number, 100_000 + number),
    )
    machine.answered(1000.5 + number, call, hints, was_throttled=False)
    return machine


def bytes_a_key(make):
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [make(number) for number in range(KEYS)]
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (used_rate_limiter, 200),
        (used_token_limiter, 208),
        (silent_learning, 120),
        (told_learning, 330),
    ],
)
def test_an_idle_key_is_small(make, most):
    make(0)
    assert 50 < bytes_a_key(make) <= most


def test_admission_keeps_nothing_of_an_idle_key():
    admission = Admission(AdmissionSettings())

    def one_call(number):
        permit = admission.try_admit(0.0, Key(f"tenant {number}", "w", "https://o"), False)
        assert isinstance(permit, Admitted)
        admission.release(0.0, permit)

    one_call(-1)
    assert bytes_a_key(one_call) < 20
