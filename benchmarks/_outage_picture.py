"""The picture of an outage: attempts and success over time, for each contestant.

Apart from its benchmark because matplotlib is loaded here and nowhere else, and only when drawing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmarks._outage_course import Course, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "per_second"]

_COLOURS = {"policies": "tab:green", "retries alone": "tab:red", "none": "tab:gray"}
_INCHES = (15.0, 8.0)
_DOTS_PER_INCH = 100


def draw(path: str, plan: Plan, courses: Mapping[str, dict[str, Course]]) -> None:
    """Write a PNG: a column for each outage, attempts above success.

    Args:
        path: where to.
        plan: when things happened; the same in all courses but for the kind of outage.
        courses: by outage, then by contestant.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only for the picture

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots(2, len(courses), sharex=True, sharey="row", squeeze=False)
    for column, (outage, contestants) in enumerate(courses.items()):
        _draw_outage(axes[0][column], axes[1][column], plan, contestants)
        axes[0][column].set_title(outage)
    axes[0][0].set_ylabel("attempts sent / s")
    axes[0][0].set_yscale("symlog", linthresh=1)
    axes[0][0].legend(loc="lower left")
    axes[1][0].set_ylabel("calls answered well, of those made then")
    axes[1][0].set_ylim(-0.05, 1.05)
    figure.suptitle(
        f"An upstream is away for {plan.outage_s:g} s under {plan.calls_per_s:g} calls/s of "
        f"{plan.tenants} tenants (virtual time, seed {plan.seed})"
    )
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _draw_outage(
    attempts: "Axes", success: "Axes", plan: Plan, contestants: dict[str, Course]
) -> None:
    for ax in (attempts, success):
        ax.axvspan(plan.before_s, plan.return_s, color="tab:orange", alpha=0.15)
        ax.grid(visible=True, alpha=0.3)
    for name, course in reversed(contestants.items()):  # the first one on top
        made = per_second([call.at_s for call in course.calls], plan)
        good = per_second([call.at_s for call in course.calls if call.is_good], plan)
        ratios = [g / m if m else float("nan") for g, m in zip(good, made, strict=True)]
        sent = per_second(course.sent_s, plan)
        for ax, values in ((attempts, sent), (success, ratios)):
            ax.step(range(len(values)), values, where="post", label=name, color=_COLOURS[name])
    success.set_xlabel("s")


def per_second(times_s: list[float], plan: Plan) -> list[int]:
    """How many of the times lie in each second of the plan."""
    counts = [0] * int(plan.end_s)
    for at_s in times_s:
        if at_s < len(counts):
            counts[int(at_s)] += 1
    return counts
