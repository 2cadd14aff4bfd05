"""What the fuzzer knows of circuits: an open one lets no call out before the time that it told.

Kept for all connections together, as circuits are the runtime's and not a connection's. Only what
is certain counts: times are the fuzzer's, which sent a call before it was refused, and sees its
answer after it went out.
"""

import math
import time
from typing import Final

import attrs

from tools.fuzz._violation import Violation
from vastar_client.wire import ExecuteResponse, StreamEnd

__all__ = ["Circuits"]

_OPEN_WORDS: Final = "the circuit is open"
"""A half-open circuit may close sooner than it says: then its probe came back."""
_ROUNDED_S: Final = 0.02
"""What clocks of two programs and whole milliseconds may be apart by."""

Key = tuple[str, str]
"""Tenant and origin."""


@attrs.define(eq=False)
class Circuits:
    """Circuits of tenants at origins, by what was said to be their end."""

    _known: dict[Key, tuple[float, float]] = attrs.field(factory=dict)

    def refused(self, key: Key, sent_at_s: float, final: ExecuteResponse | StreamEnd) -> None:
        """A call of `key` was not let out; it had been sent at `sent_at_s`."""
        if _OPEN_WORDS in (final.error_message or ""):
            until_s = sent_at_s + final.retry_after_ms / 1000 - _ROUNDED_S
            self._known[key] = time.monotonic(), until_s

    def went_out(self, key: Key, sent_at_s: float, final: ExecuteResponse | StreamEnd) -> None:
        """The upstream may have a call of `key`.

        Raises:
            Violation: it was sent after a refusal, and before the time that was said then.
        """
        refused_at_s, until_s = self._known.get(key, (math.inf, 0.0))
        if sent_at_s > refused_at_s and time.monotonic() < until_s:
            left_s = until_s - time.monotonic()
            raise Violation(
                "open circuits hold", f"{final}: the circuit was to stay open for {left_s:.2f} s"
            )
