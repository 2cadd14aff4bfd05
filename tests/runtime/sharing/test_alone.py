"""Parts: all workers with one each are never more than the whole."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.rate_limit import Allowed, RateLimitSettings
from vastar_runtime.policy.retry_quota import QuotaSettings
from vastar_runtime.policy.token_limit import TokenLimitSettings
from vastar_runtime.sharing.alone import PartialQuota, PartialRateLimiter, PartialTokenLimiter


@given(st.integers(1, 8), st.integers(1, 50), st.integers(8, 50))
def test_rates_of_all_parts_are_at_most_the_whole(workers, limit, burst):
    settings = RateLimitSettings(limit, burst=burst, max_waiting=0)
    parts = [PartialRateLimiter(settings, workers) for _ in range(workers)]
    let_in = 0
    for step in range(80):
        for part in parts:
            let_in += isinstance(part.decide(1000.0 + step / 8), Allowed)
            part.is_droppable(0.0)
        assert let_in <= burst + step / 8 * limit + 1e-6


@pytest.mark.parametrize("kind", [PartialRateLimiter, PartialTokenLimiter])
def test_a_part_of_new_settings_is_a_part(kind):
    whole = RateLimitSettings(60, burst=30)
    settings = whole if kind is PartialRateLimiter else TokenLimitSettings(whole)
    part = kind(settings, 3)
    assert part.available(0.0) == 10
    part.change(0.0, attrs.evolve(whole, burst=60))
    assert part.available(0.0) == 20
    assert part.settings.interval_s == pytest.approx(3 * whole.interval_s)


def test_a_part_of_a_purse():
    part = PartialQuota(QuotaSettings(most_tokens=100), 3)
    assert part.most_tokens == part.tokens == 33
    part.configure(QuotaSettings(most_tokens=50))
    assert part.most_tokens == 16
