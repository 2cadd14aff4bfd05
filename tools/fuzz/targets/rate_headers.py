"""Headers about limits: nothing is raised, numbers are in bounds, durations by their grammar.

Input: what to read; then a duration, a Retry-After, or headers: which name, value behind its
length.
"""

import math
from email.utils import formatdate
from typing import Final

from tools.fuzz.targets._inputs import Input
from vastar_runtime.policy import rate_headers, retry_after

__all__ = ["check"]

_UNITS_S: Final = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "s": 1, "m": 60, "h": 3600,
                   "d": 86400}  # fmt: skip
_MOST_RESET_S: Final = 31 * 86400.0
_MOST_COUNT: Final = 10**12
_DIGITS: Final = "0123456789"
_MOST_DIGITS: Final = 9
_NOW_S: Final = 1_795_000_000.0
_NAMES: Final = sorted(rate_headers._NAMES)  # noqa: SLF001 - so that none is forgotten here


def check(data: bytes) -> bool:
    """Read one; whether it said something.

    Raises:
        AssertionError: a number is out of bounds, or another than the grammar says.
    """
    source = Input(data)
    return source.pick((_hints, _duration, _asked, _date))(source)


def _hints(source: Input) -> bool:
    headers = []
    while source.has_more:
        headers.append((source.pick(_NAMES), source.blob()))
    hints = rate_headers.read_hints(headers, _NOW_S)
    for hint in hints:
        assert 0 <= hint.remaining < _MOST_COUNT, hint
        assert hint.limit is None or 0 < hint.limit < _MOST_COUNT, hint
        assert 0 <= hint.reset_after_s <= _MOST_RESET_S, hint
    return bool(hints)


def _duration(source: Input) -> bool:
    text = source.rest().decode("utf-8", "replace")
    found, expected = rate_headers.parse_duration_s(text), _slowly(text)
    assert (found is None) == (expected is None), (text, found, expected)
    assert found is None or expected is None or math.isclose(found, expected), (found, expected)
    return found is not None


def _slowly(text: str) -> float | None:
    """`number unit` again and again, or one number without; by hand, one character at a time."""
    at, total_s, parts = 0, 0.0, 0
    while at < len(text):
        start = at
        at = _behind_number(text, at)
        if at == start:
            return None
        number = float(text[start:at])
        if at == len(text):
            return number if not parts else None
        unit = next((unit for unit in _UNITS_S if text.startswith(unit, at)), None)
        if unit is None:
            return None
        total_s += number * _UNITS_S[unit]
        at += len(unit)
        parts += 1
    return total_s if parts else None


def _behind_number(text: str, at: int) -> int:
    """Where a number that begins at `at` ends; `at` itself where there is none."""
    end = at
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    if not 0 < end - at <= _MOST_DIGITS:
        return at
    if end < len(text) and text[end] == ".":
        fraction = end + 1
        while fraction < len(text) and text[fraction] in _DIGITS:
            fraction += 1
        if not 0 < fraction - end - 1 <= _MOST_DIGITS:
            return at
        end = fraction
    return end


def _asked(source: Input) -> bool:
    plain, exact = source.text(), source.text()
    asked_s = retry_after.parse(plain, exact or None, _NOW_S)
    assert asked_s is None or 0 < asked_s <= retry_after.LONGEST_S, (plain, exact, asked_s)
    return asked_s is not None


def _date(source: Input) -> bool:
    """A date that Python's own mail module writes is read as that time."""
    at_s = _NOW_S + source.number(3)
    asked_s = retry_after.parse(formatdate(at_s, usegmt=True), None, _NOW_S)
    assert asked_s == (at_s - _NOW_S or None), (at_s, asked_s)
    return asked_s is not None
