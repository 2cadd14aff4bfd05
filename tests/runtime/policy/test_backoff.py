"""Full jitter: uniform over a bound that doubles up to a cap."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.backoff import BackoffSettings, backoff_s

DEFAULT = BackoffSettings()
times_s = st.floats(1e-6, 1e6)


@pytest.mark.parametrize(
    ("is_throttled", "bounds_s"),
    [
        (False, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0]),
        (True, [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]),
    ],
)
def test_the_defaults(is_throttled: bool, bounds_s: list[float]):
    for nth, bound_s in enumerate(bounds_s, start=1):
        waits_s = [backoff_s(DEFAULT, nth, r, is_throttled=is_throttled) for r in (0.0, 0.5, 1.0)]
        assert waits_s == pytest.approx([0.0, bound_s / 2, bound_s])


@given(
    st.builds(BackoffSettings, times_s, times_s, times_s),
    st.integers(1, 10**6),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
)
def test_never_negative_nor_over_the_cap(settings, nth, random_ratio, throttled):
    wait_s = backoff_s(settings, nth, random_ratio, is_throttled=throttled)
    base_s = settings.throttled_base_s if throttled else settings.base_s
    assert 0 <= wait_s <= settings.cap_s
    assert wait_s <= base_s * 2.0 ** min(nth - 1, 100)


@pytest.mark.parametrize("name", ["base_s", "throttled_base_s", "cap_s"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_settings_that_make_no_sense_are_refused_by_name(name: str, bad: float):
    with pytest.raises(ValueError, match=name):
        BackoffSettings(**{name: bad})
