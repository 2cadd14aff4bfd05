"""Read a text of metrics as a scraper does, with the library's own parser."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """The families of one text, by the name that its samples carry."""

    def __init__(self, text: bytes) -> None:
        read: list[Metric] = list(text_string_to_metric_families(text.decode()))
        # The parser drops the ending of counters.
        self.families = {
            f"{family.name}_total" if family.type == "counter" else family.name: family
            for family in read
        }
        assert len(self.families) == len(read), "a family that comes twice is refused"
        samples = [
            (sample.name, tuple(sorted(sample.labels.items())), sample.value)
            for family in read
            for sample in family.samples
        ]
        self._values = {(name, labels): value for name, labels, value in samples}
        assert len(self._values) == len(samples), "a series that comes twice is refused"

    def value(self, name: str, **labels: str) -> float | None:
        """The value of a series; None where there is none."""
        return self._values.get((name, tuple(sorted(labels.items()))))

    def series(self, name: str) -> list[dict[str, str]]:
        """The label sets of all samples of that name, in the order of the text."""
        return [dict(labels) for found, labels in self._values if found == name]
