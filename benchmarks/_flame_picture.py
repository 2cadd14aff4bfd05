"""A flame graph as a PNG: every frame a box, as wide as its share, above the one that called it.

Apart from its benchmark as `_outage_picture` is. Boxes of a level are in the order of their names,
so that two pictures can be held against each other; colours are packages.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "boxes", "draw"]

_INCHES_WIDE: Final = 22.0
_INCHES_A_LEVEL: Final = 0.21
_DOTS_PER_INCH: Final = 110
_MIN_RATIO: Final = 0.0008
"""Narrower boxes, of less than two dots, are left out."""
_LETTERS_ACROSS: Final = 420
_FEWEST_LETTERS: Final = 4
_COLOURS: Final = (
    ("vastar_runtime.pipeline", "#f5b041"),
    ("vastar_runtime.policy", "#f5b041"),
    ("vastar_runtime.transport", "#5dade2"),
    ("vastar_runtime.connectors", "#48c9b0"),
    ("vastar_runtime", "#f1948a"),
    ("vastar_client", "#bb8fce"),
    ("trio", "#a9dfbf"),
    ("", "#d5d8dc"),
)


@attrs.frozen
class Box:
    """One frame at one place: from `left`, `width` wide (both of 1), at `level` from the bottom."""

    name: str
    level: int
    left: float
    width: float


def boxes(stacks: Mapping[tuple[str, ...], int]) -> list[Box]:
    """The boxes of all frames, without the frames below that all stacks share."""
    total = sum(stacks.values())
    if not total:
        return []
    skipped = _shared(stacks)
    cut: dict[tuple[str, ...], int] = {}
    for frames, weight in stacks.items():
        cut[frames[skipped:]] = cut.get(frames[skipped:], 0) + weight
    return list(_level(cut, total, 0, 0.0))


def _shared(stacks: Mapping[tuple[str, ...], int]) -> int:
    """How many of the outermost frames are the same in all stacks; one of these is kept."""
    first, last = min(stacks), max(stacks)
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return max(0, shared - 1)


def _level(
    stacks: Mapping[tuple[str, ...], int], total: int, level: int, left: float
) -> Iterator[Box]:
    groups: dict[str, dict[tuple[str, ...], int]] = {}
    for frames, weight in stacks.items():
        if frames:
            rest = groups.setdefault(frames[0], {})
            rest[frames[1:]] = rest.get(frames[1:], 0) + weight
    for name in sorted(groups):
        width = sum(groups[name].values()) / total
        if width >= _MIN_RATIO:
            yield Box(name, level, left, width)
            yield from _level(groups[name], total, level + 1, left)
        left += width


def draw(path: str, stacks: Mapping[tuple[str, ...], int], title: str) -> None:
    """Write the PNG.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only for the picture

    found = boxes(stacks)
    levels = max((box.level for box in found), default=0) + 1
    figure = Figure(figsize=(_INCHES_WIDE, 1.0 + levels * _INCHES_A_LEVEL), layout="constrained")
    axes = figure.subplots()
    for box in found:
        _draw_box(axes, box)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, levels)
    axes.axis("off")
    axes.set_title(title, fontsize=11)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _draw_box(axes: "Axes", box: Box) -> None:
    colour = next(colour for prefix, colour in _COLOURS if box.name.startswith(prefix))
    axes.bar(
        box.left,
        0.94,
        width=box.width,
        bottom=box.level,
        align="edge",
        color=colour,
        edgecolor="white",
        linewidth=0.3,
    )
    room = int(box.width * _LETTERS_ACROSS)
    name = box.name.rpartition(":")[2] if len(box.name) > room else box.name
    if len(name) > room:
        name = name.rpartition(".")[2][:room] if room >= _FEWEST_LETTERS else ""
    if name:
        axes.text(box.left + 0.001, box.level + 0.45, name, fontsize=6, va="center", clip_on=True)
