"""The picture of a run: memory, files and tasks, calls under way, calls a second.

Apart from the rest because matplotlib is loaded here alone, and only to draw.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tools.soak._samples import Book, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_INCHES: Final = (16.0, 14.0)
_DOTS_PER_INCH: Final = 90
_COLOURS: Final = {
    "kill runtime": "tab:red",
    "kill worker": "tab:pink",
    "drain": "tab:purple",
    "restart upstream": "tab:brown",
    "reload": "tab:cyan",
}
_FEW: Final = 12


def draw(path: str, book: Book, title: str) -> None:
    """Write a PNG.

    Args:
        path: where to.
        book: what was sampled.
        title: of it.

    Raises:
        ImportError: there is no matplotlib.
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only for the picture

    figure = Figure(figsize=_INCHES, layout="constrained")
    memory, counts, under_way, calls = figure.subplots(4, 1, sharex=True)
    _processes(memory, book.samples, "memory_mb")
    memory.set_ylabel("resident MB")
    _processes(counts, book.samples, "files", only="runtime")
    _told(counts, book.samples, ("tasks",))
    counts.set_ylabel("open files, Trio tasks")
    _told(under_way, book.samples, ("in_flight", "places", "streams", "connections", "active"))
    under_way.set_ylabel("of the runtime's account")
    _outcomes(calls, book.samples)
    calls.set_ylabel("calls ended / s")
    calls.set_xlabel("s (grey: all at rest)")
    for ax in (memory, counts, under_way, calls):
        _marks(ax, book)
        ax.set_ylim(bottom=0)
        ax.grid(visible=True, alpha=0.3)
        handles, labels = ax.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))
        ax.legend(list(known.values())[:_FEW], list(known)[:_FEW], loc="upper left", fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _processes(ax: "Axes", samples: Sequence[Sample], kind: str, only: str = "") -> None:
    lives: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        for process in sample.processes:
            if process.name.startswith(only) or (only and process.name.startswith("worker")):
                lives.setdefault(process.name, []).append((sample.at_s, getattr(process, kind)))
    for name, points in lives.items():
        what = name.partition(".")[0]
        style = ":" if what.startswith("client") else "-"
        ax.plot(*zip(*points, strict=True), style, label=f"{what} {kind}" if only else what)


def _told(ax: "Axes", samples: Sequence[Sample], names: Sequence[str]) -> None:
    for name in names:
        points = [
            (each.at_s, float("nan") if each.runtime is None else getattr(each.runtime, name))
            for each in samples
        ]
        ax.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)


def _outcomes(ax: "Axes", samples: Sequence[Sample]) -> None:
    names = sorted({name for sample in samples for name in sample.outcomes})
    at_s = [sample.at_s for sample in samples]
    spans = [max(after - before, 0.2) for before, after in zip([0.0, *at_s], at_s, strict=False)]
    rates = [
        [sample.outcomes.get(name, 0) / span for sample, span in zip(samples, spans, strict=True)]
        for name in names
    ]
    if names:
        ax.stackplot(at_s, *rates, labels=names, step="pre")


def _marks(ax: "Axes", book: Book) -> None:
    for each in book.noted:
        if each.what == "quiet":
            ax.axvspan(each.at_s - each.amount, each.at_s, color="tab:gray", alpha=0.25)
        elif each.what in _COLOURS:
            ax.axvline(each.at_s, color=_COLOURS[each.what], linestyle="--", label=each.what)
        elif each.what.startswith("kill client"):
            ax.axvline(each.at_s, color="tab:orange", linestyle=":", label="kill client")
