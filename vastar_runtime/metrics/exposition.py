"""The text that Prometheus reads, by the library that knows its rules.

Only this module and `gauges` load the library, and only when somebody asks: see `cells`. A registry
is made for each text, so nothing is global and nothing has to be unregistered.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from vastar_runtime.metrics.cells import SECONDS, Count, Distribution, Family
from vastar_runtime.metrics.gauges import families
from vastar_runtime.metrics.snapshot import Snapshot

__all__ = ["text_of"]

_BOUNDS: Final = (*map(floatToGoString, SECONDS), "+Inf")


class _Whole(Collector):
    """A registry wants to ask; the answer is there already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._metrics


def text_of(
    counts: Iterable[Family[Count]],
    distributions: Iterable[Family[Distribution]],
    snapshot: Snapshot,
    series_cap: int,
) -> bytes:
    """Everything in text format 0.0.4, UTF-8."""
    metrics: list[Metric] = []
    for count in counts:
        counter = CounterMetricFamily(count.name, count.text, labels=count.labels)
        for labels, cell in count.cells().items():
            counter.add_metric(labels, cell.value)
        metrics.append(counter)
    metrics.extend(map(_histogram, distributions))
    metrics.extend(families(snapshot, series_cap))
    registry = CollectorRegistry()
    registry.register(_Whole(metrics))
    return generate_latest(registry)


def _histogram(family: Family[Distribution]) -> HistogramMetricFamily:
    histogram = HistogramMetricFamily(family.name, family.text, labels=family.labels)
    for labels, cell in family.cells().items():
        below = accumulate(list(cell.counts))
        buckets = [(bound, float(count)) for bound, count in zip(_BOUNDS, below, strict=True)]
        histogram.add_metric(labels, buckets, cell.sum)
    return histogram
