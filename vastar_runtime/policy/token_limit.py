"""How many LLM tokens may be used in a time: a rate limit whose cost is known only afterwards.

A call reserves the most it can cost: `max_tokens` and a quarter of its prompt's bytes, since no
tokenizer of ours could know every model's. The answer's `usage` settles it. Where none came (the
caller went mid-stream, the answer has none) it costs its prompt and a quarter of the bytes that
came, but never more than was reserved. A call that never left is refunded whole.
"""

import attrs
from attrs.validators import ge, instance_of, le

from vastar_runtime.policy.llm_usage import LlmRequest, Usage
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, RateLimitSettings, Verdict

__all__ = ["BYTES_PER_TOKEN", "TokenLimitSettings", "TokenLimiter", "tokens_of_bytes"]

BYTES_PER_TOKEN = 4
"""What providers give as a rule of thumb for English text; other scripts cost more a byte, and
the settling puts that right."""


def tokens_of_bytes(text_bytes: int) -> int:
    """About how many tokens a text has, rounded up."""
    return -(-text_bytes // BYTES_PER_TOKEN)


@attrs.frozen
class TokenLimitSettings:
    """One limit on tokens, such as 100,000 per 60 s.

    Attributes:
        rate: tokens per period, burst and line.
        default_max_tokens: what an answer may cost where the request gives no limit.

    Raises:
        ValueError: a number is out of range; the message names it.
    """

    rate: RateLimitSettings
    default_max_tokens: int = attrs.field(
        default=1024, validator=[instance_of(int), ge(1), le(10**9)]
    )

    @classmethod
    def per_minute(cls, tokens: int) -> "TokenLimitSettings":
        """`tokens` per minute, with all other numbers at their defaults."""
        return cls(RateLimitSettings(limit=tokens, period_s=60.0, policy="token_limit"))


class TokenLimiter(RateLimiter):
    """The token limiter of one key: a `RateLimiter` that estimates and settles LLM calls."""

    __slots__ = ("_default_max_tokens",)

    def __init__(self, settings: TokenLimitSettings) -> None:
        super().__init__(settings.rate)
        self._default_max_tokens = settings.default_max_tokens

    def estimate(self, request: LlmRequest) -> int:
        """The most that `request` can cost, as far as it can be known before."""
        prompt = tokens_of_bytes(request.prompt_bytes)
        if request.max_tokens is not None:
            return prompt + request.max_tokens * request.answer_count
        # A guess of ours must not be what shuts a call out for ever.
        guess = self._default_max_tokens * request.answer_count
        return max(min(prompt + guess, self.settings.max_cost), prompt)

    def reserve(self, now_s: float, request: LlmRequest, give_up_at_s: float) -> Verdict:
        """`decide` for the estimate of `request`."""
        return self.decide(now_s, self.estimate(request), give_up_at_s)

    def settle_answer(
        self,
        now_s: float,
        permit: Allowed,
        request: LlmRequest,
        usage: Usage | None,
        received_bytes: int,
    ) -> None:
        """Settle a call that reached the upstream, however it ended.

        Args:
            now_s: the monotonic clock.
            permit: from `reserve`, or of a place in line that was let through.
            request: what the permit was reserved for.
            usage: what the answer said; None where it said nothing.
            received_bytes: bytes of the answer's body that came, for when it said nothing.
        """
        if usage is not None:
            self.settle(now_s, permit, usage.total_tokens)
            return
        seen = tokens_of_bytes(request.prompt_bytes) + tokens_of_bytes(received_bytes)
        self.settle(now_s, permit, min(seen, permit.cost))

    def change_tokens(self, now_s: float, settings: TokenLimitSettings) -> None:
        """`change` for both parts of the settings."""
        self.change(now_s, settings.rate)
        self._default_max_tokens = settings.default_max_tokens
