"""Does a series of samples grow? Robust, without randomness, and blind to a single step.

Method. A series is thinned to medians of at most 60 equal spans of time, which takes out the noise
of single samples and most of their likeness to their neighbours. Its slope is that of Theil and
Sen: the median of the slopes of all pairs. The interval around it is Sen's (1968), from the
variance of Kendall's S, which is the test of Mann and Kendall turned around: 95% where points are
independent. Up to 29% of wild samples change nothing.

Verdict. A series grows where all of this holds: the lower end of the interval, over the whole
length of the series, is more than what its kind is allowed; and the medians of its quarters rise,
each over the one before by a tenth of all growth at least. The last part is for caches that fill
once and for a module that is loaded: one step shows between two or three quarters and never between
all four, and a curve that flattens has its last quarters alike. A saw has no slope over several of
its teeth.

What is allowed is an amount, not a rate: so the bound on the rate gets tighter the longer a run is.
Six megabytes are 2 MB a minute in three minutes and 100 kB a minute in an hour. That much is what
the C library's heap does: under bodies of all sizes it takes some minutes until it has found its
shape, while the objects that live stay as many as they were (measured: some 6 MB from the 3,000th
to the 20,000th call, nothing behind that, and a trim of the heap gave all of it back).
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["ALLOWED", "Slope", "Trend", "slope_of", "steady", "trend"]

ALLOWED: Final[dict[str, float]] = {
    "memory_mb": 6.0,
    "files": 4.0,
    "threads": 4.0,
    "tasks": 6.0,
    "quiet_memory_mb": 6.0,
    "quiet_files": 3.0,
    "quiet_tasks": 4.0,
    "quiet_threads": 4.0,
}
"""How much each kind of series may grow from its beginning to its end."""

LEAST_POINTS: Final = 8
_MOST_POINTS: Final = 60
_CONFIDENCE: Final = 1.96
_PARTS: Final = 4
_LEAST_RISE: Final = 0.1
"""Of the growth, from each quarter to the next. Even growth has a quarter in each."""

Samples = Sequence[tuple[float, float]]
"""(seconds, value), in order of time."""


@attrs.frozen
class Slope:
    """Per second, with the ends of its interval."""

    value: float
    low: float
    high: float


@attrs.frozen
class Trend:
    """What a series does.

    Attributes:
        kind: a key of `ALLOWED`.
        of: whose series it is.
        slope: per second; None where there are too few samples for one.
        over_s: how long the series is.
        calls: that ended meanwhile.
        allowed: how much it may grow.
        grows: the verdict.
    """

    kind: str
    of: str
    slope: Slope | None
    over_s: float
    calls: int
    allowed: float
    grows: bool

    def __str__(self) -> str:
        """One line: slope with interval, what was allowed, and per 1,000 calls."""
        name = f"{self.kind} of {self.of}"
        if self.slope is None:
            return f"{name}: not judged, {self.over_s:.0f} s are too short"
        per_minute = [each * 60 for each in (self.slope.value, self.slope.low, self.slope.high)]
        bound = self.allowed / self.over_s * 60
        text = (
            f"{name}: {per_minute[0]:+.3f} a minute [{per_minute[1]:+.3f}, {per_minute[2]:+.3f}] "
            f"over {self.over_s:.0f} s, bound {bound:.3f}"
        )
        if self.calls:
            text += f"; {self.slope.value * self.over_s / self.calls * 1000:+.4f} per 1,000 calls"
        return text


def _thinned(samples: Samples) -> list[tuple[float, float]]:
    """Medians over equal spans of time; as they are where they are few."""
    if len(samples) <= _MOST_POINTS:
        return list(samples)
    begin_s = samples[0][0]
    span_s = (samples[-1][0] - begin_s) / _MOST_POINTS or 1.0
    spans: dict[int, list[tuple[float, float]]] = {}
    for at_s, value in samples:
        index = min(int((at_s - begin_s) / span_s), _MOST_POINTS - 1)
        spans.setdefault(index, []).append((at_s, value))
    return [
        (statistics.median(at_s for at_s, _ in span), statistics.median(value for _, value in span))
        for span in spans.values()
    ]


def slope_of(samples: Samples) -> Slope | None:
    """Theil's and Sen's slope with its interval; None for fewer than 8 points."""
    points = _thinned(samples)
    count = len(points)
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > earlier[0]
    )
    if count < LEAST_POINTS or not slopes:
        return None
    spread = _CONFIDENCE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(int((len(slopes) - spread) / 2), 0)
    high = min(math.ceil((len(slopes) + spread) / 2), len(slopes) - 1)
    return Slope(statistics.median(slopes), slopes[low], slopes[high])


def _keeps_rising(samples: Samples, growth: float) -> bool:
    """Whether each quarter lies above the one before, by a part of `growth`."""
    begin_s, part_s = samples[0][0], (samples[-1][0] - samples[0][0]) / _PARTS
    parts: list[list[float]] = [[] for _ in range(_PARTS)]
    for at_s, value in samples:
        parts[min(int((at_s - begin_s) / part_s), _PARTS - 1)].append(value)
    medians = [statistics.median(part) for part in parts if part]
    return all(
        after - before >= growth * _LEAST_RISE for before, after in itertools.pairwise(medians)
    )


def trend(kind: str, of: str, samples: Samples, calls: int = 0) -> Trend:
    """The verdict on one series, which has passed `steady`.

    Args:
        kind: a key of `ALLOWED`.
        of: whose it is, for the line.
        samples: in order of time.
        calls: that ended meanwhile.
    """
    allowed = ALLOWED[kind]
    over_s = samples[-1][0] - samples[0][0] if samples else 0.0
    slope = slope_of(samples)
    grows = (
        slope is not None
        and slope.low * over_s > allowed
        and _keeps_rising(samples, slope.value * over_s)
    )
    return Trend(kind, of, slope, over_s, calls, allowed, grows)


def steady(samples: Samples, warm_up_s: float) -> Samples:
    """What is left behind the warming up: `warm_up_s`, or a quarter where that is longer."""
    if not samples:
        return samples
    begin_s, end_s = samples[0][0], samples[-1][0]
    from_s = begin_s + max(warm_up_s, (end_s - begin_s) / 4)
    return [sample for sample in samples if sample[0] >= from_s]
