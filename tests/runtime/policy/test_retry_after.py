"""Retry-After in every form that it has, and in those that it has not."""

from calendar import timegm
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.retry_after import LONGEST_S, parse

NOW_S = float(timegm((1994, 11, 6, 8, 49, 7)))
"""30 s before the moment of RFC 9110's examples."""


def after(value: str) -> float | None:
    return parse(value, None, NOW_S)


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        ("1", 1.0),
        ("120", 120.0),
        ("007", 7.0),
        ("1.5", 1.5),
        (" \t30\t ", 30.0),
        ("9" * 100, LONGEST_S),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30.0),
        ("Sun Nov  6 08:49:37 1994", 30.0),
        ("Sun Nov 06 08:49:37 1994", 30.0),
        ("Wed, 06 Nov 1994 08:49:37 GMT", 30.0),  # the wrong day's name is let pass
        ("Sun, 06 Nov 1994 08:49:60 GMT", 53.0),  # a leap second
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_S),
        ("Sunday, 06-Nov-44 08:49:37 GMT", LONGEST_S),  # 2044 is 50 years ahead
    ],
)
def test_forms_that_are_read(value: str, expected_s: float):
    assert after(value) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            "0",
            "0.0",
            "-1",
            "+1",
            "1e3",
            "nan",
            "inf",
            "1_000",
            "0x10",
            "1,2",
            "1 2",
            "1.",
        ),
        *(".5", "٣", "soon", "9" * 101, "1\n", "\x0b1"),
        "Sun, 06 Nov 1994 08:49:07 GMT",  # now
        "Sun, 06 Nov 1994 08:49:06 GMT",  # past
        "Sunday, 06-Nov-45 08:49:37 GMT",  # 51 years ahead is 1945
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 nov 1994 08:49:37 gmt",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1995 08:49:37 GMT",
        "Sun, 06 Nov 1995 24:49:37 GMT",
        "Sun, 06 Nov 1995 08:60:37 GMT",
        "Sun, 06 Nov 1995 08:49:61 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1995 08:49:37 GMT, 5",
        "1995-11-06T08:49:37Z",
    ],
)
def test_junk_and_what_is_not_in_the_future_are_ignored(value: str):
    assert after(value) is None
    assert parse("5", value, NOW_S) == 5.0


@pytest.mark.parametrize(
    ("ms", "expected_s"), [("1500", 1.5), ("0.5", 0.0005), ("0", 9.0), ("-1", 9.0), ("x", 9.0)]
)
def test_milliseconds_go_first_where_they_make_sense(ms: str, expected_s: float):
    assert parse("9", ms, NOW_S) == expected_s


def test_a_date_is_no_number_of_milliseconds():
    assert parse(None, "Sun, 06 Nov 1994 08:49:37 GMT", NOW_S) is None


def test_absent():
    assert parse(None, None, NOW_S) is None


@given(st.floats(0, 4e9), st.integers(1, 10**7))
def test_every_http_date_ahead_is_read_exactly(now_s: float, ahead_s: int):
    at_s = int(now_s) + ahead_s
    found = parse(formatdate(at_s, usegmt=True), None, now_s)
    assert found == pytest.approx(at_s - now_s)


@given(st.text(max_size=40), st.none() | st.text(max_size=20))
def test_whatever_comes_gives_a_time_that_clocks_can_add_or_nothing(value: str, ms: str | None):
    found = parse(value, ms, NOW_S)
    assert found is None or 0 < found <= LONGEST_S


@given(st.floats(0.001, 1e9))
def test_decimals_are_seconds_or_milliseconds(value: float):
    text = f"{value:.3f}"
    assert parse(text, None, NOW_S) == min(float(text), LONGEST_S)
    assert parse(None, text, NOW_S) == min(float(text) / 1000, LONGEST_S)
