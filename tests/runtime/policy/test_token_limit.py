"""Tokens: reserved at the most, settled by what the answer says."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vastar_runtime.policy.llm_usage import LlmRequest, Usage
from vastar_runtime.policy.rate_limit import Allowed, Waiting
from vastar_runtime.policy.token_limit import (
    TokenLimiter,
    TokenLimitSettings,
    tokens_of_bytes,
)
from vastar_runtime.policy.verdicts import Refused

FOREVER_S = float("inf")


def limiter_of(tokens=1000):
    return TokenLimiter(TokenLimitSettings.per_minute(tokens))


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_four_bytes_are_a_token_rounded_up(size, tokens):
    assert tokens_of_bytes(size) == tokens


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (LlmRequest(400, 200), 300),
        (LlmRequest(400, 200, 3), 700),
        (LlmRequest(0, 0), 0),
        (LlmRequest(0), 1000),  # the default of 1024, cut to what can ever be there
        (LlmRequest(400), 1000),
        (LlmRequest(8000), 2000),  # a prompt that is too long by itself stays so
    ],
)
def test_the_estimate_is_the_most_a_call_can_cost(request_, tokens):
    assert limiter_of().estimate(request_) == tokens


def test_usage_settles_and_the_rest_comes_back():
    limiter, request = limiter_of(), LlmRequest(400, 700)
    permit = limiter.reserve(0.0, request, FOREVER_S)
    assert limiter.available(0.0) == pytest.approx(200)
    limiter.settle_answer(0.0, permit, request, Usage(90, 60, 150), received_bytes=10**6)
    assert limiter.available(0.0) == pytest.approx(850)


def test_without_usage_it_costs_the_prompt_and_what_came_but_not_more_than_reserved():
    for received_bytes, left in ((0, 900), (200, 850), (10**6, 200)):
        limiter, request = limiter_of(), LlmRequest(400, 700)
        permit = limiter.reserve(0.0, request, FOREVER_S)
        limiter.settle_answer(0.0, permit, request, None, received_bytes)
        assert limiter.available(0.0) == pytest.approx(left)


def test_a_call_that_never_left_is_refunded_whole():
    limiter, request = limiter_of(), LlmRequest(400, 700)
    limiter.refund(0.0, limiter.reserve(0.0, request, FOREVER_S))
    assert limiter.is_droppable(0.0)


def test_five_concurrent_calls_can_never_reserve_more_than_the_limit():
    """Rule 6: none has settled when the next one asks, in whatever order they end."""
    for order in itertools.permutations(range(5)):
        limiter, request = limiter_of(), LlmRequest(40, 290)
        verdicts = [limiter.reserve(0.0, request, 0.0) for _ in range(5)]
        allowed = [verdict for verdict in verdicts if isinstance(verdict, Allowed)]
        assert sum(permit.cost for permit in allowed) == 900
        assert all(isinstance(verdict, Refused) for verdict in verdicts[3:])
        for index in order:
            if index < 3:
                limiter.settle_answer(0.0, allowed[index], request, Usage(10, 290, 300), 0)
        assert limiter.available(0.0) == pytest.approx(100)


def test_a_call_too_large_for_ever_is_refused_for_good_and_a_large_one_waits():
    limiter = limiter_of()
    refused = limiter.reserve(0.0, LlmRequest(0, 2000), FOREVER_S)
    assert isinstance(refused, Refused)
    assert (refused.policy, refused.retry_after_s) == ("token_limit", None)
    limiter.reserve(0.0, LlmRequest(0, 1000), FOREVER_S)
    waiting = limiter.reserve(0.0, LlmRequest(0, 500), FOREVER_S)
    assert isinstance(waiting, Waiting)
    assert waiting.at_s == pytest.approx(30.0)


def test_new_settings_hold_for_the_next_estimate():
    limiter = limiter_of()
    rate = TokenLimitSettings.per_minute(500).rate
    limiter.change_tokens(0.0, TokenLimitSettings(rate, default_max_tokens=50))
    assert limiter.estimate(LlmRequest(40)) == 60
    assert limiter.settings.limit == 500


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="default_max_tokens"):
        TokenLimitSettings(TokenLimitSettings.per_minute(1).rate, default_max_tokens=0)


class QuotaMachine(RuleBasedStateMachine):
    """Against sums: what was used and what is still reserved never exceed what there was."""

    def __init__(self):
        super().__init__()
        self.limiter = limiter_of(600)  # ten a second
        self.now_s = 0.0
        self.used = 0
        self.overdrawn = 0
        self.open = []

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule(prompt=st.integers(0, 800), most=st.none() | st.integers(0, 400))
    def call(self, prompt, most):
        request = LlmRequest(prompt, most)
        verdict = self.limiter.reserve(self.now_s, request, self.now_s)
        if isinstance(verdict, Allowed):
            self.open.append((request, verdict))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), output=st.none() | st.integers(0, 500), received=st.integers(0, 2000))
    def answer(self, data, output, received):
        request, permit = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        usage = None if output is None else Usage(0, output, output)
        before = self.limiter.available(self.now_s)
        self.limiter.settle_answer(self.now_s, permit, request, usage, received)
        after = self.limiter.available(self.now_s)
        if usage is None:
            prompt = tokens_of_bytes(request.prompt_bytes)
            self.used += min(prompt + tokens_of_bytes(received), permit.cost)
        else:
            self.used += min(output, permit.cost)
            self.overdrawn += max(output - permit.cost, 0)
        assert after <= before + permit.cost + 1e-3, "no more comes back than was reserved"

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel_before_sending(self, data):
        _, permit = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.limiter.refund(self.now_s, permit)

    @invariant()
    def never_more_than_there_was(self):
        reserved = sum(permit.cost for _, permit in self.open)
        assert self.limiter.held == reserved
        assert self.used + reserved <= 600 + 10 * self.now_s + 0.01
        assert -600 - 1e-3 <= self.limiter.available(self.now_s) <= 600

    @invariant()
    def a_debt_is_paid_before_anything_goes(self):
        if self.limiter.available(self.now_s) < -0.01:
            assert self.overdrawn
            verdict = self.limiter.reserve(self.now_s, LlmRequest(4, 0), self.now_s)
            assert isinstance(verdict, Refused)


TestQuota = QuotaMachine.TestCase
TestQuota.settings = settings(stateful_step_count=40)
