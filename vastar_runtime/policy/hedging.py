"""Hedging: a second attempt beside a slow first one, the quicker answer wins. Off by default.

It buys a shorter tail with load, so it is for safe methods only (RFC 9110, section 9.2.1: what only
reads may be asked twice), has a purse that ordinary calls fill by a small share each, and never
hedges a call whose answer has begun. This decides; the driver waits, sends and cancels the loser.
"""

from typing import Final

import attrs
from attrs.validators import ge, gt, le

from vastar_runtime.policy.modes import Mode

__all__ = ["SAFE_METHODS", "HedgeSettings", "Hedging"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@attrs.frozen
class HedgeSettings:
    """When a second attempt pays.

    Attributes:
        mode: how far its verdicts reach; for the driver, the machine itself does not ask.
        after_s: without response headers for so long. Should be near the origin's p95: ours, as
            nothing fits every origin.
        budget_ratio: hedges as a share of calls, 0.05 is one in twenty.
        budget_max: hedges that may be saved up.
    """

    mode: Mode = Mode.OFF
    after_s: float = attrs.field(default=1.0, validator=gt(0))
    budget_ratio: float = attrs.field(default=0.05, validator=[ge(0), le(1)])
    budget_max: float = attrs.field(default=10.0, validator=ge(0))


@attrs.define(eq=False)
class Hedging:
    """The hedges of one (tenant, origin).

    Attributes:
        budget: hedges that may be sent now; fractions add up.
    """

    _settings: HedgeSettings
    budget: float = attrs.field(init=False, default=0.0)

    def configure(self, settings: HedgeSettings) -> None:
        """Go on under other settings."""
        self._settings = settings
        self.budget = min(self.budget, settings.budget_max)

    def plan(self, method: str, started_at_s: float, expires_at_s: float) -> float | None:
        """When to ask for a hedge of a call that starts now; None where it gets none.

        Every call that could be hedged fills the budget by its share, once, here.
        """
        settings = self._settings
        if method not in SAFE_METHODS:
            return None
        self.budget = min(settings.budget_max, self.budget + settings.budget_ratio)
        at_s = started_at_s + settings.after_s
        return at_s if at_s < expires_at_s else None

    def take(self, *, has_answer_begun: bool) -> bool:
        """Whether to send the hedge, now that its time has come; charges the budget if so."""
        if has_answer_begun or self.budget < 1:
            return False
        self.budget -= 1
        return True

    def give_back(self) -> None:
        """A hedge that was taken was not sent: a limit or a breaker refused it."""
        self.budget = min(self._settings.budget_max, self.budget + 1)

    def is_droppable(self, _now_s: float) -> bool:
        """Always: forgetting it takes savings, and never gives any."""
        return True
