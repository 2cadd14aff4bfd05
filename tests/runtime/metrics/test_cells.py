"""Cells count; a family has one for each label set up to its cap, and one for all the others."""

import pytest

from vastar_runtime.metrics.cells import SECONDS, Count, Distribution, Family


def test_the_bounds_are_in_order() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (1.0, 9), (600.0, 17), (600.1, 18), (1e9, 18)],
)
def test_a_value_falls_into_the_bucket_whose_bound_is_not_below_it(
    value: float, bucket: int
) -> None:
    distribution = Distribution()
    distribution.observe(value)
    assert [n for n, count in enumerate(distribution.counts) if count] == [bucket]
    assert distribution.sum == value


def test_two_distributions_share_no_counts() -> None:
    first, second = Distribution(), Distribution()
    first.observe(1.0)
    assert sum(second.counts) == 0


def family(most: int = 3) -> Family[Count]:
    return Family(Count, "n_total", "N.", ("a", "b"), most)


def test_a_label_set_has_one_cell() -> None:
    counts = family()
    counts.of("x", "y").value += 1
    counts.of("x", "y").value += 1
    counts.of("x", "z").value += 1
    assert {labels: cell.value for labels, cell in counts.cells().items()} == {
        ("x", "y"): 2,
        ("x", "z"): 1,
    }


def test_label_sets_beyond_the_cap_count_as_others_and_the_sum_is_right() -> None:
    counts = family(most=3)
    for round_ in range(2):
        for number in range(10_000):
            counts.of(str(number), "b").value += 1
        cells = counts.cells()
        assert set(cells) == {("0", "b"), ("1", "b"), ("2", "b"), ("other", "other")}
        assert sum(cell.value for cell in cells.values()) == 10_000 * (round_ + 1)


def test_a_long_label_is_kept_short_and_found_again() -> None:
    counts = family(most=1)
    counts.of("x" * 10_000, "b").value += 1
    counts.of("x" * 10_000, "b").value += 1
    ((labels, cell),) = counts.cells().items()
    assert len(labels[0]) < 200
    assert cell.value == 2


def test_a_copy_does_not_grow() -> None:
    counts = family()
    copy = counts.cells()
    counts.of("x", "y")
    assert copy == {}
