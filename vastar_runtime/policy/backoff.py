"""How long to wait before a retry: full jitter over a doubling bound.

Full jitter (uniform over all of [0, bound), the AWS SDKs' choice) spreads callers that failed
together over the whole time, where a jitter of a part would have them come back as a wave.
"""

from typing import Final

import attrs
from attrs.validators import gt

__all__ = ["BackoffSettings", "backoff_s", "doubled_s"]

_DOUBLINGS: Final = 64
"""More than any pair of times needs, and floats do not overflow."""


@attrs.frozen
class BackoffSettings:
    """The bound of the first wait, of the first one after being throttled, and of any."""

    base_s: float = attrs.field(default=0.05, validator=gt(0))
    throttled_base_s: float = attrs.field(default=1.0, validator=gt(0))
    cap_s: float = attrs.field(default=20.0, validator=gt(0))


def doubled_s(base_s: float, doublings: int, cap_s: float) -> float:
    """`base_s` doubled so many times, at most `cap_s`."""
    return min(cap_s, base_s * 2.0 ** min(doublings, _DOUBLINGS))


def backoff_s(
    settings: BackoffSettings, nth_retry: int, random_ratio: float, *, is_throttled: bool
) -> float:
    """Seconds before the `nth_retry` (from 1); `random_ratio` is uniform over [0, 1)."""
    base_s = settings.throttled_base_s if is_throttled else settings.base_s
    return random_ratio * doubled_s(base_s, nth_retry - 1, settings.cap_s)
