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
"""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum
from typing import Final

import attrs

__all__ = ["Hint", "Unit", "parse_duration_s", "read_hints"]


class Unit(Enum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"


@attrs.frozen
class Hint:
    """One limit as an answer tells it.

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


_PROBABLE: Final = (b"x-ratelimit-", b"anthropic-ratelimit-", b"ratelimit")
_MAX_VALUE_BYTES: Final = 1024
_MAX_RESET_S: Final = 31 * 24 * 3600.0
_COUNT: Final = re.compile(r"[0-9]{1,12}")
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


def read_hints(headers: Iterable[tuple[bytes, bytes]], wall_now_s: float) -> tuple[Hint, ...]:
    """The hints of one answer.

    Args:
        headers: names in any case, with their values.
        wall_now_s: seconds since the Unix epoch, when the answer came (Anthropic sends dates).
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        if name.startswith(_PROBABLE) and len(raw_value) <= _MAX_VALUE_BYTES:
            text = raw_value.decode("utf-8", "replace").strip()
            key = name.decode("ascii", "replace")
            found[key] = f"{found[key]}, {text}" if key in found else text
    if not found:
        return ()
    hints = [*_openai(found), *_anthropic(found, wall_now_s), *_ietf(found)]
    return tuple(hint for hint in hints if hint is not None)


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


def _openai(found: dict[str, str]) -> Iterable[Hint | None]:
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        yield _hint(
            unit,
            found.get(f"x-ratelimit-remaining-{unit.value}"),
            parse_duration_s(found.get(f"x-ratelimit-reset-{unit.value}", "")),
            found.get(f"x-ratelimit-limit-{unit.value}"),
        )


def _anthropic(found: dict[str, str], wall_now_s: float) -> Iterable[Hint | None]:
    for unit in Unit:
        prefix = f"anthropic-ratelimit-{unit.value}"
        at_s = _parse_date_s(found.get(f"{prefix}-reset", ""))
        yield _hint(
            unit,
            found.get(f"{prefix}-remaining"),
            None if at_s is None else at_s - wall_now_s,
            found.get(f"{prefix}-limit"),
        )


def _ietf(found: dict[str, str]) -> Iterable[Hint | None]:
    field = found.get("ratelimit", "")
    old = dict(_DRAFT_7.findall(field))
    if not old and not field:
        # Draft 6 lets policies follow the number: `RateLimit-Limit: 100, 100;w=60`.
        limit = re.split("[,;]", found.get("ratelimit-limit", ""))[0].strip()
        old = {"limit": limit}
        old |= {key: found.get(f"ratelimit-{key}", "") for key in ("remaining", "reset")}
    if old:
        reset_s = parse_duration_s(old.get("reset", ""))
        yield _hint(Unit.REQUESTS, old.get("remaining"), reset_s, old.get("limit"), evenly=False)
        return
    policies = dict(_items(found.get("ratelimit-policy", "")))
    for name, parameters in _items(field):
        policy = policies.get(name, {})
        # Other units (bytes, calls at once) are no business of a rate limit; tokens have no name
        # there yet. A quota without `t` may be whole again after its window at the latest.
        if policy.get("qu", "requests") == "requests":
            reset_s = parse_duration_s(parameters.get("t", policy.get("w", "")))
            yield _hint(Unit.REQUESTS, parameters.get("r"), reset_s, policy.get("q"), evenly=False)


def _items(text: str) -> Iterable[tuple[str, dict[str, str]]]:
    """The items of a structured field list (RFC 9651), up to the first that is none."""
    at = 0
    while at < len(text) and (item := _ITEM.match(text, at)):
        at = item.end()
        pairs = _PARAMETER.findall(item[2])
        yield item[1].strip('"'), {key: value.strip('"') for key, value in pairs}


def _hint(
    unit: Unit,
    remaining: str | None,
    reset_after_s: float | None,
    limit: str | None,
    *,
    evenly: bool = True,
) -> Hint | None:
    if remaining is None or not _COUNT.fullmatch(remaining) or reset_after_s is None:
        return None
    known_limit = int(limit) if limit is not None and _COUNT.fullmatch(limit) else None
    # An upstream must not shut its callers out for longer than any real window.
    reset_after_s = min(max(reset_after_s, 0.0), _MAX_RESET_S)
    return Hint(unit, int(remaining), reset_after_s, known_limit or None, evenly)


def _parse_date_s(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    at_s = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    return at_s if math.isfinite(at_s) else None
