"""Label values: short ones are left alone, all others stay distinct and fit on a line."""

import pytest

from vastar_runtime.metrics.labels import MAX_LABEL_CHARS, fit


@pytest.mark.parametrize("value", ["", "acme", "https://api.test:443", "größe", "x" * 120, 'a"b\\'])
def test_what_fits_stays(value: str) -> None:
    assert fit(value) == value


@pytest.mark.parametrize(
    "value", ["x" * 121, "a\nb", "a\rb", "\0", "a\x85b", "\ud800", "é\n" * 500]
)
def test_what_does_not_is_short_printable_and_the_same_each_time(value: str) -> None:
    fitting = fit(value)
    assert len(fitting) <= MAX_LABEL_CHARS
    assert fitting.isprintable()
    assert fitting == fit(value) != value


def test_the_beginning_stays_readable() -> None:
    assert fit("tenant\n1").startswith("tenant?1~")


def test_values_that_differ_only_where_they_are_cut_stay_apart() -> None:
    values = [f"{'x' * 200}{n}" for n in range(100)] + ["a\nb", "a\rb", "a?b"]
    assert len(set(map(fit, values))) == len(values)
