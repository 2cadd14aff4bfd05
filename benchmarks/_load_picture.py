"""The picture of latency against load, for each contestant.

Apart from its benchmark as `_outage_picture` is, so that matplotlib is loaded only to draw.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

__all__ = ["Point", "draw"]

_INCHES: Final = (11.0, 6.5)
_DOTS_PER_INCH: Final = 100
_COLOURS: Final = ("tab:green", "tab:blue", "tab:red", "tab:purple")
_PERCENTILES: Final = (
    ("p50_us", "p50", "-"),
    ("p99_us", "p99", "--"),
    ("p999_us", "p99.9", ":"),
)


@attrs.frozen
class Point:
    """One rate of one contestant: what was wanted and what became of it."""

    wanted_per_s: float
    achieved_per_s: float
    p50_us: float
    p99_us: float
    p999_us: float


def draw(path: str, courses: Mapping[str, Sequence[Point]], where: str) -> None:
    """Write a PNG: latency over the rate that was wanted; a cross where it was not achieved.

    Args:
        path: where to.
        courses: by contestant, in the order of the rates.
        where: the machine and the time, for the title.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only for the picture

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    for colour, (name, course) in zip(_COLOURS, courses.items(), strict=False):
        rates = [point.wanted_per_s for point in course]
        for field, label, style in _PERCENTILES:
            values_ms = [getattr(point, field) / 1000 for point in course]
            axes.plot(rates, values_ms, style, marker=".", color=colour, label=f"{name} {label}")
        short = [point for point in course if point.achieved_per_s < 0.95 * point.wanted_per_s]
        axes.plot(
            [point.wanted_per_s for point in short],
            [point.p50_us / 1000 for point in short],
            "x",
            color=colour,
            markersize=11,
        )
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("calls/s that were meant to leave (a cross: fewer were answered in that time)")
    axes.set_ylabel("ms from the time a call was meant to leave to its answer")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(loc="upper left")
    figure.suptitle(f"Latency against load, open loop\n{where}", fontsize=10)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
