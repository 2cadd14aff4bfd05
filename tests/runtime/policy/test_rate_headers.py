"""Rate limit headers of all families, as tables."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy.rate_headers import Hint, Unit, parse_duration_s, read_hints

WALL_S = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def hints_of(headers: dict[str, str]):
    return read_hints([(name.encode(), text.encode()) for name, text in headers.items()], WALL_S)


def requests(remaining, reset_after_s, limit=None, evenly=True):
    return Hint(Unit.REQUESTS, remaining, reset_after_s, limit, evenly)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("7.66s", 7.66),
        ("350us", 0.00035),
        ("5µs", 5e-6),
        ("9ns", 9e-9),
        ("12", 12.0),
        ("0.5", 0.5),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("1s 2s", None),
        ("1x", None),
        ("1s?", None),
        ("nan", None),
        ("1e9", None),
        ("٣s", None),
    ],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "hints"),
    [
        ({}, ()),
        ({"content-type": "text/plain", "retry-after": "3"}, ()),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            (requests(59, 1.0, 60), Hint(Unit.TOKENS, 149984, 360.0, 150000)),
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"},
            (requests(0, 2.0),),
        ),
        ({"x-ratelimit-remaining-requests": "5"}, ()),
        ({"x-ratelimit-remaining-requests": "-5", "x-ratelimit-reset-requests": "1s"}, ()),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "soon"}, ()),
        (
            {
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-requests": "0",
            },
            (requests(5, 1.0),),
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:30Z",
                "anthropic-ratelimit-input-tokens-limit": "30000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:14:20+00:00",
                "anthropic-ratelimit-output-tokens-remaining": "8000",
                "anthropic-ratelimit-output-tokens-reset": "2023-11-14T22:13:00Z",
            },
            (
                requests(49, 10.0, 50),
                Hint(Unit.INPUT_TOKENS, 0, 60.0, 30000),
                Hint(Unit.OUTPUT_TOKENS, 8000, 0.0),  # a reset in the past is now
            ),
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "1",
                "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:30",  # no zone: UTC
            },
            (Hint(Unit.TOKENS, 1, 10.0),),
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "1",
                "anthropic-ratelimit-tokens-reset": "tomorrow",
            },
            (),
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "1",
                "anthropic-ratelimit-tokens-reset": "9999-01-01T00:00:00Z",
            },
            (Hint(Unit.TOKENS, 1, 31 * 86400.0),),
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "1",
                "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:30" + "Z" * 100,
            },
            (),
        ),
        (
            {"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "0" * 100 + "1s"},
            (),
        ),
        (
            {"x-ratelimit-remaining-tokens": "1" * 13, "x-ratelimit-reset-tokens": "1s"},
            (),
        ),
        # IETF draft 10
        (
            {"ratelimit-policy": '"default";q=100;w=10', "ratelimit": '"default";r=50;t=5'},
            (requests(50, 5.0, 100, evenly=False),),
        ),
        (
            {
                "ratelimit-policy": '"min";q=60;w=60;qu="requests", "day";q=1000;w=86400;pk=:YQ==:',
                "ratelimit": '"min";r=9;t=30, "day";r=900',
            },
            (requests(9, 30.0, 60, evenly=False), requests(900, 86400.0, 1000, evenly=False)),
        ),
        (
            {
                "ratelimit-policy": '"bytes";q=65535;w=10;qu="content-bytes"',
                "ratelimit": '"bytes";r=5;t=1',
            },
            (),
        ),
        ({"ratelimit": '"a, b; c";r=1;t=2'}, (requests(1, 2.0, evenly=False),)),
        ({"ratelimit": "default;r=1;t=2"}, (requests(1, 2.0, evenly=False),)),
        ({"ratelimit": '"default"; r=1; t=2'}, (requests(1, 2.0, evenly=False),)),
        ({"ratelimit": '"default";r=1'}, ()),
        ({"ratelimit": '"default";t=1'}, ()),
        ({"ratelimit": ';;;"'}, ()),
        # IETF draft 7 and 6
        (
            {"ratelimit": "limit=100, remaining=50, reset=5"},
            (requests(50, 5.0, 100, evenly=False),),
        ),
        (
            {
                "ratelimit-limit": "100, 100;w=60",
                "ratelimit-remaining": "7",
                "ratelimit-reset": "50",
            },
            (requests(7, 50.0, 100, evenly=False),),
        ),
        ({"ratelimit-remaining": "7"}, ()),
        ({"ratelimit": '"' + "a" * 2000 + '";r=1;t=2'}, ()),
    ],
)
def test_headers(headers, hints):
    assert hints_of(headers) == hints


def test_a_number_given_twice_is_no_number():
    headers = [(b"x-ratelimit-remaining-tokens", b"1"), (b"x-ratelimit-reset-tokens", b"1s")]
    assert read_hints(headers, WALL_S) == (Hint(Unit.TOKENS, 1, 1.0),)
    assert read_hints([*headers, headers[0]], WALL_S) == ()
    assert read_hints([*headers, headers[1]], WALL_S) == ()


def test_a_header_given_twice_is_one_list():
    twice = [(b"ratelimit", b'"a";r=1;t=2'), (b"ratelimit", b'"b";r=3;t=4')]
    assert read_hints(twice, WALL_S) == (
        requests(1, 2.0, evenly=False),
        requests(3, 4.0, evenly=False),
    )


def calls_made(headers: dict[str, str]) -> int:
    """Functions called, Python's and C's, in reading `headers` for the second time."""
    hints_of(headers)
    encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read_hints(encoded, WALL_S)
    finally:
        sys.setprofile(before)
    return calls - 1  # the call of setprofile itself


def test_what_tells_nothing_costs_one_look_up_a_header():
    """Every answer comes through here, and most tell nothing: none of their names is read."""
    assert calls_made({f"x-ordinary-{number}": "text" for number in range(100)}) == 1


def test_six_headers_of_openai_are_read_in_few_steps():
    """About 3 us: a time that was seen before is not parsed anew, no other family is tried."""
    headers = {f"x-ratelimit-limit-{unit}": "60" for unit in ("requests", "tokens")}
    headers |= {f"x-ratelimit-remaining-{unit}": "59" for unit in ("requests", "tokens")}
    headers |= {f"x-ratelimit-reset-{unit}": "6m0s" for unit in ("requests", "tokens")}
    assert calls_made(headers) < 50


NAMES = st.sampled_from(
    [
        b"ratelimit",
        b"ratelimit-policy",
        b"ratelimit-limit",
        b"ratelimit-remaining",
        b"ratelimit-reset",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
        b"anthropic-ratelimit-tokens-remaining",
        b"anthropic-ratelimit-tokens-reset",
        b"ratelimit-\xff",
    ]
)
VALUES = st.binary(max_size=40) | st.text(alphabet='"abrtqw;=,0123456789.-: sm\\', max_size=40).map(
    str.encode
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_no_header_makes_it_raise_and_no_hint_is_out_of_range(headers):
    for hint in read_hints(headers, WALL_S):
        assert hint.remaining >= 0
        assert 0 <= hint.reset_after_s <= 31 * 86400
        assert hint.limit is None or hint.limit > 0


@pytest.mark.parametrize("text", ['"a";' * 250, '"' * 1000, ";=" * 500, "a;" * 500, "1m" * 500])
def test_hostile_values_cost_no_more_than_their_length(text):
    """The patterns do not backtrack: a thousand bytes are read at once or given up at once."""
    hints_of(dict.fromkeys(("ratelimit", "ratelimit-policy", "x-ratelimit-reset-tokens"), text))
