"""The rolling window: exact against a list of everything that ever happened."""

from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.window import RollingWindow

steps = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 2.5, 3.0, 14.0, 40.0]), st.booleans()))


@given(steps, st.sampled_from([0.0, 3.0, 29.0, 30.0]))
def test_counts_are_those_of_the_buckets_that_still_count(taken, later_s):
    window = RollingWindow(bucket_s=3.0, buckets=10)
    happened: list[tuple[int, bool]] = []
    now_s = 0.0

    def expected(at_s: float) -> tuple[int, int]:
        counting = [failed for bucket, failed in happened if bucket > at_s // 3.0 - 10]
        return len(counting), sum(counting)

    for by_s, failed in taken:
        now_s += by_s
        (window.count_failure if failed else window.count_success)(now_s)
        happened.append((int(now_s // 3.0), failed))
        assert (window.calls, window.failures) == expected(now_s)
    seen = window.totals(now_s + later_s)
    assert seen == expected(now_s + later_s)
    assert seen == window.totals(now_s + later_s), "looking changed something"


def test_an_idle_window_empties_itself():
    window = RollingWindow(bucket_s=3.0, buckets=10)
    window.count_failure(2.9)
    assert window.totals(29.9) == (1, 1)
    assert window.totals(30.0) == (0, 0)
    window.count_success(1e9)
    assert (window.calls, window.failures) == (1, 0)


def test_a_clock_that_steps_back_counts_into_the_current_bucket():
    window = RollingWindow(bucket_s=3.0, buckets=10)
    window.count_success(100.0)
    window.count_success(1.0)
    assert window.totals(1.0) == (2, 0)


def test_a_key_with_few_calls_keeps_few_buckets():
    window = RollingWindow(bucket_s=3.0, buckets=10)
    for now_s in range(0, 1000, 100):
        window.count_success(float(now_s))
    assert not window._older


@given(steps, st.sampled_from([0.0, 3.0, 29.0, 30.0]))
def test_a_window_goes_on_from_its_rows(taken, later_s):
    window = RollingWindow(bucket_s=3.0, buckets=10)
    now_s = 0.0
    for by_s, failed in taken:
        now_s += by_s
        (window.count_failure if failed else window.count_success)(now_s)
    then_s = now_s + later_s
    rows = window.rows(then_s)
    assert len(rows) <= 10
    again = RollingWindow.of_rows(3.0, 10, rows, then_s)
    assert (again.calls, again.failures) == window.totals(then_s) == again.totals(then_s)
    assert again.rows(then_s) == rows
    for each in (window, again):
        each.count_failure(then_s)
        each.count_success(then_s + 1)
    assert window.rows(then_s + 5) == again.rows(then_s + 5)
    assert window.totals(then_s + 20) == again.totals(then_s + 20)


def test_rows_of_a_clock_that_is_a_little_ahead_count():
    assert RollingWindow.of_rows(3.0, 10, [(4, 2, 1)], 11.9).rows(11.9) == [(4, 2, 1)]


def test_successes_count_at_once_as_one_by_one():
    at_once, one_by_one = RollingWindow(3.0, 10), RollingWindow(3.0, 10)
    for now_s, calls in ((0.0, 3), (2.0, 2), (7.0, 4)):
        at_once.count_successes(now_s, calls)
        for _ in range(calls):
            one_by_one.count_success(now_s)
    assert at_once.rows(8.0) == one_by_one.rows(8.0) == [(0, 5, 0), (2, 4, 0)]
