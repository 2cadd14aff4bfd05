"""What is known of one token: whether it may be used, and when to ask for another.

A machine without clock and I/O. A token is refreshed while it still holds: a quarter of its life
ahead, at most a minute, and each process a little earlier than it must, so that they do not ask as
one. While that fails the old one is used to its end. Without a token, failures rest: 1 s doubling
to 60 s (ours), half of it jitter, and no shorter than the server asks for.
"""

from typing import Final

import attrs

from vastar_runtime.credentials.oauth2 import Denied, Granted
from vastar_runtime.policy.backoff import doubled_s

__all__ = ["LEEWAY_S", "REST_S", "TokenState"]

REST_S: Final = 1.0
_MOST_REST_S: Final = 60.0
_MOST_ASKED_REST_S: Final = 300.0
LEEWAY_S: Final = 5.0
"""A token is not sent so shortly before its end: it has to arrive."""
_AHEAD_S: Final = 60.0
_AHEAD_RATIO: Final = 0.25
_LEEWAY_RATIO: Final = 0.1
_YOUNG_S: Final = 10.0
"""An upstream that refuses a token younger than this would refuse the next one too."""


@attrs.define(eq=False)
class TokenState:
    """One token, or why there is none."""

    _token: str | None = attrs.field(default=None, repr=False)
    _since_s: float = 0.0
    _refresh_at_s: float = 0.0
    _expires_at_s: float = 0.0
    _failures: int = 0
    _rest_until_s: float = float("-inf")
    _denied: Denied | None = None

    def token(self, now_s: float) -> str | None:
        """The token, if it may be used."""
        return self._token if now_s < self._expires_at_s else None

    def wants_another(self, now_s: float) -> bool:
        """Whether it is time to ask for one."""
        is_due = self._token is None or now_s >= self._refresh_at_s
        return is_due and now_s >= self._rest_until_s

    def refusal(self, now_s: float) -> tuple[Denied, float] | None:
        """Why there is none and will be none for some seconds; None where one may be had."""
        if self._denied is None or now_s >= self._rest_until_s:
            return None
        return self._denied, self._rest_until_s - now_s

    def granted(self, asked_at_s: float, granted: Granted, random_ratio: float) -> None:
        """A token came; its life is counted from the question, which is the safe side."""
        life_s = granted.lifetime_s
        ahead_s = min(_AHEAD_S, life_s * _AHEAD_RATIO)
        self._token = granted.token
        self._since_s = asked_at_s
        self._expires_at_s = asked_at_s + life_s - min(LEEWAY_S, life_s * _LEEWAY_RATIO)
        self._refresh_at_s = asked_at_s + life_s - ahead_s * (1 + random_ratio)
        self._failures, self._denied, self._rest_until_s = 0, None, float("-inf")

    def denied(self, now_s: float, denied: Denied, random_ratio: float) -> float:
        """None came; how long it rests, in seconds."""
        rest_s = doubled_s(REST_S, self._failures, _MOST_REST_S) * (0.5 + random_ratio / 2)
        if denied.retry_after_s is not None:
            rest_s = max(rest_s, min(denied.retry_after_s, _MOST_ASKED_REST_S))
        self._failures += 1
        self._denied = denied
        self._rest_until_s = now_s + rest_s
        return rest_s

    def rejected(self, token: str, now_s: float) -> bool:
        """The upstream does not accept `token` (401); whether it is given up for another."""
        if token != self._token or now_s < self._since_s + _YOUNG_S:
            return False
        self._token, self._expires_at_s = None, 0.0
        return True
