"""What answers say about the limits of their upstream, as hints.

Three families, each read from its own documentation:

- OpenAI: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; reset is a duration such as
  `6m0s` or `20ms`, the time until the bucket is full again.
- Anthropic: `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,
  reset}`; reset is a date (RFC 3339), again of the full bucket.
- IETF httpapi-ratelimit-headers: `RateLimit: "name";r=50;t=30` with `RateLimit-Policy:
  "name";q=100;w=60` (draft 10), `RateLimit: limit=100, remaining=50, reset=30` (draft 7), and
  `RateLimit-Limit`, `-Remaining`, `-Reset` (draft 6); reset is in seconds, of a window.

What cannot be read is skipped: a hint is help, never a reason to fail a call.

Every answer comes through here, so the shape is one look-up a header: only those of a known name
are kept, and what is left in a limit is what calls for the rest of its headers. So a family that an
upstream does not speak costs nothing. Times are kept by their text, since upstreams repeat them.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = ["Hint", "Unit", "parse_duration_s", "read_hints"]


class Unit(Enum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"


class Hint(NamedTuple):
    """One limit as an answer tells it. A tuple: frozen classes of attrs take three times as long.

    Attributes:
        unit: what it counts.
        remaining: what may still be used.
        reset_after_s: seconds until it is whole again, from when the answer came.
        limit: what a whole one is; None where the answer does not say.
        refills_evenly: whether it grows back bit by bit, instead of at once at the reset.
    """

    unit: Unit
    remaining: int
    reset_after_s: float
    limit: int | None = None
    refills_evenly: bool = True


_MAX_VALUE_BYTES: Final = 1024
_MAX_COUNT_DIGITS: Final = 12
_MAX_TIME_BYTES: Final = 64
"""Longer than any duration or date that says something."""

_TIMES_KEPT: Final = 512
"""Of each kind, some 100 KB: reading a time anew takes ten times as long as finding it."""

_MAX_RESET_S: Final = 31 * 24 * 3600.0
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_DURATION_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|µs|ns|s|m|h|d)")
_SECONDS_PER: Final = {
    "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0,
    "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9,
}  # fmt: skip
# An item of a structured field list: a name in quotes or bare, then its parameters.
_ITEM: Final = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|[^\s",;=]+)((?:\s*;[^",;]*(?:"[^"]*")?)*)\s*(?:,|$)'
)
_PARAMETER: Final = re.compile(r';\s*([a-z*][a-z0-9_.*-]*)=("[^"]*"|[^\s;,"]*)')
_DRAFT_7: Final = re.compile(r"(limit|remaining|reset)\s*=\s*([0-9]{1,12})")


class _Limit(NamedTuple):
    """The headers of one limit that refills evenly, but for the one that tells what remains."""

    unit: Unit
    reset: bytes
    limit: bytes
    reset_after_s: Callable[[bytes, float], float | None]


def read_hints(headers: Iterable[tuple[bytes, bytes]], wall_now_s: float) -> tuple[Hint, ...]:
    """The hints of one answer.

    Args:
        headers: names in lower case and values without space around them, as the transport gives
            them.
        wall_now_s: seconds since the Unix epoch, when the answer came (Anthropic sends dates).
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _NAMES and len(value) <= _MAX_VALUE_BYTES:
            # A header given twice is one list (RFC 9110, 5.3), and no number any more.
            found[name] = found[name] + b", " + value if name in found else value
    if not found:
        return ()
    hints: list[Hint | None] = []
    for name, remaining in found.items():
        limit = _EVEN_LIMITS.get(name)
        if limit is not None:
            reset_after_s = limit.reset_after_s(found.get(limit.reset, b""), wall_now_s)
            hints.append(_hint(limit.unit, remaining, reset_after_s, found.get(limit.limit, b"")))
    if _WINDOW in found:
        hints += _windows(found)
    elif _WINDOW_REMAINING in found:
        # Draft 6 lets policies follow the number: `RateLimit-Limit: 100, 100;w=60`.
        whole = re.split(b"[,;]", found.get(_WINDOW_LIMIT, b""))[0].strip()
        reset_s = _until_whole_s(found.get(_WINDOW_RESET, b""), wall_now_s)
        hints.append(_hint(Unit.REQUESTS, found[_WINDOW_REMAINING], reset_s, whole, evenly=False))
    return tuple([hint for hint in hints if hint is not None])


def parse_duration_s(text: str) -> float | None:
    """Seconds of a duration such as `1h2m3.5s`, `20ms` or plain seconds; None where it is none."""
    if _SECONDS.fullmatch(text):
        return float(text)
    total_s = 0.0
    end = 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != end:
            return None
        end = part.end()
        total_s += float(part[1]) * _SECONDS_PER[part[2]]
    return total_s if end == len(text) > 0 else None


def _windows(found: dict[bytes, bytes]) -> Iterable[Hint | None]:
    """The hints of `RateLimit`, draft 7 or 10: they count windows."""
    field = found[_WINDOW].decode("utf-8", "replace")
    old = dict(_DRAFT_7.findall(field))
    if old:
        reset_s = parse_duration_s(old.get("reset", ""))
        left, whole = old.get("remaining", ""), old.get("limit", "")
        yield _hint(Unit.REQUESTS, left.encode(), reset_s, whole.encode(), evenly=False)
        return
    policies = dict(_items(found.get(_WINDOW_POLICY, b"").decode("utf-8", "replace")))
    for name, parameters in _items(field):
        policy = policies.get(name, {})
        # Other units (bytes, calls at once) are no business of a rate limit; tokens have no name
        # there yet. A quota without `t` may be whole again after its window at the latest.
        if policy.get("qu", "requests") == "requests":
            reset_s = parse_duration_s(parameters.get("t", policy.get("w", "")))
            left, whole = parameters.get("r", ""), policy.get("q", "")
            yield _hint(Unit.REQUESTS, left.encode(), reset_s, whole.encode(), evenly=False)


def _items(text: str) -> Iterable[tuple[str, dict[str, str]]]:
    """The items of a structured field list (RFC 9651), up to the first that is none."""
    at = 0
    while at < len(text) and (item := _ITEM.match(text, at)):
        at = item.end()
        pairs = _PARAMETER.findall(item[2])
        yield item[1].strip('"'), {key: value.strip('"') for key, value in pairs}


def _hint(
    unit: Unit,
    remaining: bytes,
    reset_after_s: float | None,
    limit: bytes,
    *,
    evenly: bool = True,
) -> Hint | None:
    left = _count(remaining)
    if left is None or reset_after_s is None:
        return None
    if reset_after_s < 0.0:
        reset_after_s = 0.0
    elif reset_after_s > _MAX_RESET_S:
        # An upstream must not shut its callers out for longer than any real window.
        reset_after_s = _MAX_RESET_S
    return Hint(unit, left, reset_after_s, _count(limit) or None, evenly)


def _count(digits: bytes) -> int | None:
    # Of bytes `isdigit` takes ASCII alone.
    return int(digits) if digits.isdigit() and len(digits) <= _MAX_COUNT_DIGITS else None


def _until_whole_s(text: bytes, _wall_now_s: float) -> float | None:
    return _duration_s(text) if len(text) <= _MAX_TIME_BYTES else None


def _until_date_s(text: bytes, wall_now_s: float) -> float | None:
    at_s = _date_s(text) if len(text) <= _MAX_TIME_BYTES else None
    return None if at_s is None else at_s - wall_now_s


@lru_cache(_TIMES_KEPT)
def _duration_s(text: bytes) -> float | None:
    return parse_duration_s(text.decode("utf-8", "replace"))


@lru_cache(_TIMES_KEPT)
def _date_s(text: bytes) -> float | None:
    try:
        date = datetime.fromisoformat(text.decode("utf-8", "replace"))
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except ValueError:
        return None


def _names(before: str, after: str) -> Iterable[bytes]:
    """What remains, the reset and the limit."""
    return (f"{before}{what}{after}".encode() for what in ("remaining", "reset", "limit"))


def _even_limits() -> Iterable[tuple[bytes, _Limit]]:
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        remaining, reset, limit = _names("x-ratelimit-", f"-{unit.value}")
        yield remaining, _Limit(unit, reset, limit, _until_whole_s)
    for unit in Unit:
        remaining, reset, limit = _names(f"anthropic-ratelimit-{unit.value}-", "")
        yield remaining, _Limit(unit, reset, limit, _until_date_s)


_EVEN_LIMITS: Final = dict(_even_limits())
_WINDOW: Final = b"ratelimit"
_WINDOW_POLICY: Final = b"ratelimit-policy"
_WINDOW_REMAINING, _WINDOW_RESET, _WINDOW_LIMIT = _names("ratelimit-", "")
_NAMES: Final = frozenset(
    (
        *_EVEN_LIMITS,
        *(name for limit in _EVEN_LIMITS.values() for name in (limit.reset, limit.limit)),
        *(_WINDOW, _WINDOW_POLICY, _WINDOW_REMAINING, _WINDOW_RESET, _WINDOW_LIMIT),
    )
)
