"""The faults that remember: `status_times` counts, `throttle_s` opens a window in time.

A decision per request, no waiting and no clock of its own: `verdict(knobs, now)`.
"""

import math
from http import HTTPStatus

import attrs

from tools.llm_simulator._knobs import Knobs
from tools.llm_simulator._replies import Reply, error_reply

_MOST_KEYS = 10_000  # a guess: far above what one test run names
_REQUESTS_PER_MINUTE = 60
_TOKENS_PER_MINUTE = 150_000

_KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_SENTENCES = {
    401: "The API key is not a valid one.",
    429: "Rate limit reached for requests per minute. Please try again later.",
    500: "The server had an error while processing the request.",
    503: "The engine is overloaded at the moment. Please try again later.",
}


@attrs.define(eq=False)
class Faults:
    """Counts and windows by `Knobs.key`. A window that has closed stays closed for its key."""

    _served: dict[str, int] = attrs.field(factory=dict)
    _opened_at_s: dict[str, float] = attrs.field(factory=dict)

    def verdict(self, knobs: Knobs, now_s: float) -> Reply | None:
        """The error answer that this request gets, or None for a good one."""
        left_s = self._throttled_for_s(knobs, now_s)
        if left_s > 0:
            return _error(429, knobs.retry_after_s if knobs.retry_after_s is not None else left_s)
        if knobs.status is None or not self._status_applies(knobs):
            return None
        retry_after_s = knobs.retry_after_s
        if retry_after_s is None and knobs.status == HTTPStatus.TOO_MANY_REQUESTS:
            retry_after_s = 1.0
        return _error(knobs.status, retry_after_s)

    def _throttled_for_s(self, knobs: Knobs, now_s: float) -> float:
        if not knobs.throttle_s:
            return 0.0
        _forget_oldest(self._opened_at_s)
        return self._opened_at_s.setdefault(knobs.key, now_s) + knobs.throttle_s - now_s

    def _status_applies(self, knobs: Knobs) -> bool:
        if not knobs.status_times:
            return True
        _forget_oldest(self._served)
        count = self._served.get(knobs.key, 0) + 1
        self._served[knobs.key] = count
        return count <= knobs.status_times


def _forget_oldest(entries: dict[str, int] | dict[str, float]) -> None:
    if len(entries) >= _MOST_KEYS:
        del entries[next(iter(entries))]


def _error(status: int, retry_after_s: float | None) -> Reply:
    other = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    kind, code = _KINDS.get(status, (other, None))
    sentence = _SENTENCES.get(status, f"The simulator was told to answer {status}.")
    headers: tuple[tuple[str, str], ...] = ()
    if retry_after_s is not None:
        # Whole seconds upwards, as HTTP has it; the exact figure beside it, as OpenAI does.
        headers = (
            ("retry-after", str(math.ceil(retry_after_s))),
            ("retry-after-ms", str(math.ceil(retry_after_s * 1000))),
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        headers += _limits(retry_after_s or 0.0)
    return error_reply(status, sentence, kind=kind, code=code, headers=headers)


def _limits(reset_s: float) -> tuple[tuple[str, str], ...]:
    return (
        ("x-ratelimit-limit-requests", str(_REQUESTS_PER_MINUTE)),
        ("x-ratelimit-limit-tokens", str(_TOKENS_PER_MINUTE)),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-remaining-tokens", str(_TOKENS_PER_MINUTE)),
        ("x-ratelimit-reset-requests", f"{reset_s:.3f}s"),
        ("x-ratelimit-reset-tokens", "0s"),
    )
