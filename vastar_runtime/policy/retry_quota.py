"""What all calls of a tenant to one origin may spend on retries together.

With an upstream down every call wants its retries, and retries that multiply the load are what
keeps it down. So each is paid for out of one purse that only success refills (the AWS SDKs' retry
quota): what retries add to an outage is `tokens / transient_cost` attempts, however many calls
there are. A reservation is check and charge in one step, so that calls that run at once cannot
spend the same token.
"""

import attrs
from attrs.validators import ge, gt

from vastar_runtime.policy.modes import Mode

__all__ = ["QuotaSettings", "RetryQuota"]


@attrs.frozen
class QuotaSettings:
    """Prices and purse, in tokens.

    Attributes:
        most_tokens: the purse when full, as it is at first.
        transient_cost, throttled_cost: of one retry after such a result.
        earned_per_success: by a call that a first attempt answered well.
        forget_after_s: a quota that nobody drew on or earned for so long is full again.
    """

    mode: Mode = Mode.ENFORCE
    most_tokens: int = attrs.field(default=500, validator=ge(0))
    transient_cost: int = attrs.field(default=14, validator=ge(1))
    throttled_cost: int = attrs.field(default=5, validator=ge(1))
    earned_per_success: int = attrs.field(default=1, validator=ge(0))
    forget_after_s: float = attrs.field(default=600.0, validator=gt(0))


@attrs.define(eq=False)
class RetryQuota:
    """The purse of one (tenant, origin).

    Attributes:
        tokens: what is left, never below 0 nor above the maximum.
        outstanding: reservations that are neither spent nor refunded yet.
    """

    _settings: QuotaSettings
    tokens: int = attrs.field(init=False)
    outstanding: int = attrs.field(init=False, default=0)
    _used_at_s: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self.tokens = self._settings.most_tokens

    @property
    def most_tokens(self) -> int:
        """The purse when full."""
        return self._settings.most_tokens

    def configure(self, settings: QuotaSettings) -> None:
        """Go on under other settings; what is missing stays missing."""
        missing = self._settings.most_tokens - self.tokens
        self._settings = settings
        self.tokens = max(0, settings.most_tokens - missing)

    def reserve(self, now_s: float, *, is_throttled: bool) -> int | None:
        """The tokens that a retry costs, charged; None, and nothing charged, where they lack.

        What was reserved goes to `spend` or `refund`, exactly once.
        """
        self._use(now_s)
        settings = self._settings
        cost = settings.throttled_cost if is_throttled else settings.transient_cost
        if cost > self.tokens:
            return None
        self.tokens -= cost
        self.outstanding += 1
        return cost

    def reserve_nothing(self, now_s: float) -> int:
        """A reservation that costs nothing, for a retry that the quota has no say in."""
        self._use(now_s)
        self.outstanding += 1
        return 0

    def spend(self, now_s: float) -> None:
        """The retry of a reservation was made and failed."""
        self._use(now_s)
        self.outstanding -= 1

    def refund(self, cost: int, now_s: float) -> None:
        """The retry succeeded, or was never made; `cost` is what `reserve` gave."""
        self._use(now_s)
        self.outstanding -= 1
        self._add(cost)

    def earn(self, now_s: float) -> None:
        """A call was answered well by its first attempt."""
        self._use(now_s)
        self._add(self._settings.earned_per_success)

    def is_droppable(self, now_s: float) -> bool:
        """Whether a new quota would do as well: nothing owed, and full or as good as full."""
        return not self.outstanding and (
            self.tokens >= self._settings.most_tokens or self._is_forgotten(now_s)
        )

    def _is_forgotten(self, now_s: float) -> bool:
        return now_s - self._used_at_s >= self._settings.forget_after_s

    def _use(self, now_s: float) -> None:
        if self._is_forgotten(now_s):
            self.tokens = self._settings.most_tokens
        self._used_at_s = now_s

    def _add(self, tokens: int) -> None:
        self.tokens = min(self._settings.most_tokens, self.tokens + tokens)
