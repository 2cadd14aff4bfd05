"""`Retry-After` in all its forms: seconds, HTTP-date, and `retry-after-ms`.

The value speaks for the answer that carried it. It is parsed into that attempt's result and lives
nowhere else, so no later attempt can wait on it again (litellm #20722). Dates are parsed here, by
the grammar of RFC 9110 section 5.6.7, because `email.utils` accepts what is no HTTP-date, and
guesses. What is junk, in the past or zero is as good as absent: the backoff holds.
"""

import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["LONGEST_S", "parse"]

LONGEST_S: Final = 366 * 24 * 3600.0
"""Longer is cut to this: digits can say more than clocks can add."""

_NUMBER: Final = re.compile(r"[0-9]{1,100}(?:\.[0-9]{1,100})?")
"""RFC 9110 knows whole seconds; servers send fractions too (the OpenAI SDK reads them)."""

_MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTH: Final = rf"(?P<month>{_MONTHS})"
_TIME: Final = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_SHORT_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_DATES: Final = (
    re.compile(rf"{_SHORT_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"{_SHORT_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
"""IMF-fixdate, RFC 850, asctime. The name of the day is not held against the date."""

_LEAP_SECOND: Final = 60
_AHEAD_YEARS: Final = 50
_WHITESPACE: Final = " \t"


def parse(retry_after: str | None, retry_after_ms: str | None, wall_now_s: float) -> float | None:
    """How many seconds an answer asks to be left alone; None where it does not, or says nonsense.

    Args:
        retry_after: the header's value, None where it is absent.
        retry_after_ms: the same of `retry-after-ms`, which is more exact and therefore goes first.
        wall_now_s: seconds since the Unix epoch when the answer came, for dates.
    """
    for value, read in ((retry_after_ms, _milliseconds), (retry_after, _seconds)):
        asked_s = None if value is None else read(value.strip(_WHITESPACE), wall_now_s)
        if asked_s is not None and asked_s > 0:
            return min(asked_s, LONGEST_S)
    return None


def _milliseconds(value: str, _wall_now_s: float) -> float | None:
    return float(value) / 1000 if _NUMBER.fullmatch(value) else None


def _seconds(value: str, wall_now_s: float) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else _until(value, wall_now_s)


def _until(value: str, wall_now_s: float) -> float | None:
    """Seconds until an HTTP-date."""
    found = next(filter(None, (form.fullmatch(value) for form in _DATES)), None)
    if found is None:
        return None
    second = int(found["second"])
    try:
        date = datetime(
            _year(found["year"], wall_now_s),
            _MONTHS.index(found["month"]) // len("Jan|") + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            min(second, _LEAP_SECOND - 1),
            tzinfo=UTC,
        )
    except ValueError:  # the 31st of February
        return None
    if second > _LEAP_SECOND:
        return None
    return date.timestamp() + (second == _LEAP_SECOND) - wall_now_s


def _year(digits: str, wall_now_s: float) -> int:
    """Two digits mean the latest such year that is not more than 50 years ahead (RFC 9110)."""
    if len(digits) > 2:  # noqa: PLR2004 - the one form that RFC 850 had
        return int(digits)
    furthest = datetime.fromtimestamp(wall_now_s, UTC).year + _AHEAD_YEARS
    return furthest - (furthest - int(digits)) % 100
