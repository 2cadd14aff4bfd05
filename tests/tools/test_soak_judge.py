"""The judge of the soak, on series of which everybody knows what they are."""

import math
import random

import pytest

from tools.soak._judge import ALLOWED, LEAST_POINTS, slope_of, steady, trend

MINUTE_S = 60
SEEDS = range(20)


def noise(seed: int, *, sigma: float = 1.5) -> list[float]:
    chance = random.Random(seed)
    return [40 + chance.gauss(0, sigma) for _ in range(4 * MINUTE_S)]


def judged(values, kind="memory_mb"):
    return trend(kind, "a process", list(enumerate(values)))


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_does_not_grow(seed):
    assert not judged(noise(seed)).grows


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leak_grows_whatever_noise_is_on_it(seed):
    leak = [value + 12 * index / 240 for index, value in enumerate(noise(seed))]
    assert judged(leak).grows


@pytest.mark.parametrize("seed", SEEDS)
def test_less_than_is_allowed_is_no_leak(seed):
    assert not judged([v + 2 * i / 240 for i, v in enumerate(noise(seed))]).grows


@pytest.mark.parametrize("at", [10, 60, 80, 120, 160, 200, 230])
@pytest.mark.parametrize("seed", range(5))
def test_one_step_is_no_leak(at, seed):
    assert not judged([v + (20 if i >= at else 0) for i, v in enumerate(noise(seed))]).grows


@pytest.mark.parametrize("period_s", [10, 37, 60, 100])
def test_a_saw_is_no_leak_and_one_that_climbs_is(period_s):
    teeth = [v + 10 * (i % period_s) / period_s for i, v in enumerate(noise(1))]
    assert not judged(teeth).grows
    assert judged([v + 20 * i / 240 for i, v in enumerate(teeth)]).grows


@pytest.mark.parametrize("seed", range(5))
def test_a_cache_that_fills_is_no_leak(seed):
    filling = [v + 10 * (1 - math.exp(-i / 30)) for i, v in enumerate(noise(seed, sigma=0.5))]
    assert not judged(filling).grows


def test_wild_samples_change_nothing():
    chance = random.Random(5)
    wild = [v + (chance.choice([500, -30]) if chance.random() < 0.1 else 0) for v in noise(2)]
    assert not judged(wild).grows
    assert judged([v + 12 * i / 240 for i, v in enumerate(wild)]).grows


def test_counts_that_never_return_grow():
    assert judged([10 + i // 20 for i in range(240)], "files").grows
    assert not judged([10 + i % 3 for i in range(240)], "files").grows
    assert not judged([10] * 240, "files").grows


def test_few_samples_have_no_verdict():
    few = [(index, 100.0 * index) for index in range(LEAST_POINTS - 1)]
    found = trend("memory_mb", "a process", few)
    assert (found.slope, found.grows) == (None, False)
    assert "not judged" in str(found)
    assert slope_of([(1.0, 1.0)] * 20) is None
    assert trend("files", "nobody", []).slope is None
    enough = [(index * 30, 100.0 * index) for index in range(LEAST_POINTS)]
    assert trend("quiet_memory_mb", "a process", enough).grows


def test_the_interval_holds_the_true_slope_nearly_always():
    inside = 0
    for seed in range(100):
        found = slope_of([(i, v + i / 50) for i, v in enumerate(noise(seed))])
        inside += found.low <= 1 / 50 <= found.high
    assert inside >= 85


def test_a_line_says_slope_interval_bound_and_calls():
    found = trend("memory_mb", "runtime 1", [(i, i / 60) for i in range(240)], calls=10_000)
    assert str(found) == (
        "memory_mb of runtime 1: +1.000 a minute [+1.000, +1.000] over 239 s, bound 1.506; "
        "+0.3983 per 1,000 calls"
    )
    assert not found.grows


def test_warming_up_is_left_out():
    samples = [(float(i), 0.0) for i in range(101)]
    assert steady(samples, 10)[0][0] == 25
    assert steady(samples, 60)[0][0] == 60
    assert steady([], 10) == []
    assert all(value > 0 for value in ALLOWED.values())
