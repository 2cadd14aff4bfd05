"""Rate limits of one attempt: what the upstream told, calls in a time, tokens in a time.

Each attempt pays for itself. All that limit it are asked in turn, the learned limit first because
it is the upstream's own word, then the configured ones, the narrowest first; each charge is made in
the step that checks. Where a later one refuses, or the attempt is cancelled in line, all that was
charged comes back. Requests are settled when the attempt has ended; tokens are settled with the
body of the answer, which the lease waits for.
"""

from collections.abc import Iterator
from typing import Final, TypeVar

import trio

from vastar_client.wire.codec import one_buffer
from vastar_runtime.pipeline.attempt import FIRST_ERROR, Attempt, Ended, Hop, Layer
from vastar_runtime.pipeline.line import Line
from vastar_runtime.pipeline.machines import Limiters
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.pipeline.policies import NO_LIMITS, LimitSettings
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.pipeline.tokens import TokenHold
from vastar_runtime.policy.header_learning import Go, WaitUntil
from vastar_runtime.policy.llm_usage import LlmRequest, read_request
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_headers import read_hints
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, Waiting
from vastar_runtime.policy.token_limit import TokenLimiter
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.transport.messages import BodySource, is_event_stream

__all__ = ["RateLimitLayer"]

_LEARNED: Final = "learned_limit"
_TOO_MANY_REQUESTS: Final = 429
_CLIENT_ERRORS: Final = range(400, 500)

LimiterT = TypeVar("LimiterT", bound=RateLimiter)


class RateLimitLayer:
    """Has an attempt wait for its turn, or refuses it."""

    name = "rate_limit"

    def __init__(self, inner: Layer, surroundings: Surroundings) -> None:
        self._inner = inner
        self._around = surroundings

    async def __call__(self, attempt: Attempt) -> Ended:
        """Charge, go on, and settle."""
        policies = attempt.hop.policies
        if not policies.has_limits and policies.header_learning.mode is Mode.OFF:
            return await self._inner(attempt)
        charges = _Charges(attempt, self._around)
        try:
            refused = await charges.make()
            if refused is not None:
                ended = Ended.by_refusal(refused)
            else:
                ended = await self._inner(attempt)
        except BaseException:
            charges.settle(None)
            raise
        charges.settle(ended)
        return ended


class _Charges:
    """What one attempt was charged."""

    __slots__ = ("_around", "_attempt", "_go", "_llm", "_requests", "_tokens")

    def __init__(self, attempt: Attempt, surroundings: Surroundings) -> None:
        self._attempt = attempt
        self._around = surroundings
        self._go: Go | None = None
        self._llm: LlmRequest | None = None
        self._requests: list[tuple[Pacer[RateLimiter], Allowed]] = []
        self._tokens: list[tuple[Pacer[TokenLimiter], Allowed]] = []

    async def make(self) -> Refused | None:
        """Charge everything; on a refusal what was charged until then is still to be settled."""
        hop = self._attempt.hop
        policies = hop.policies
        body = hop.request.body
        if policies.has_token_limits and body is not None and not isinstance(body, BodySource):
            if hop.llm_request is None:
                hop.llm_request = read_request(one_buffer(body))
            self._llm = hop.llm_request
        if policies.header_learning.mode is not Mode.OFF:
            refused = await self._ask_upstreams_word()
            if refused is not None or not policies.has_limits:
                return refused
        for each, settings in _limiters(hop, self._around):
            if each.requests is not None and settings.requests is not None:
                mode = settings.requests.mode
                refused = await self._charge(each.requests, 1, mode, "rate_limit", self._requests)
                if refused is not None:
                    return refused
        return await self._charge_tokens(hop, self._llm) if self._llm is not None else None

    async def _charge_tokens(self, hop: Hop, request: LlmRequest) -> Refused | None:
        for each, settings in _limiters(hop, self._around):
            if each.tokens is not None and settings.tokens is not None:
                cost, mode = each.tokens.limiter.estimate(request), settings.tokens.rate.mode
                refused = await self._charge(each.tokens, cost, mode, "token_limit", self._tokens)
                if refused is not None:
                    return refused
        return None

    def _estimate(self) -> int:
        """The tokens that the upstream may count for this attempt; 0 where they are not limited."""
        if self._llm is None:
            return 0
        hop = self._attempt.hop
        return max(
            (
                each.tokens.limiter.estimate(self._llm)
                for each, _ in _limiters(hop, self._around)
                if each.tokens is not None
            ),
            default=0,
        )

    async def _ask_upstreams_word(self) -> Refused | None:
        """Wait until what the upstream told of itself lets this attempt go.

        Who has to wait stands in line, and only the first in line asks: so they go in order, and an
        answer that tells more wakes one of them.
        """
        tokens = self._estimate()
        hop, around = self._attempt.hop, self._around
        credential, expires_at_s = hop.of_credential, hop.call.deadline.expires_at_s
        learning, line = credential.learning, credential.line
        now_s = trio.current_time()
        verdict: Go | WaitUntil | Refused | None
        if line is None or not line.length:
            verdict = learning.decide(now_s, tokens, expires_at_s)
        else:
            verdict = learning.forecast(now_s, tokens, line.length, expires_at_s)
        if isinstance(verdict, Go):
            self._go = verdict
        gate = around.gates.of(_LEARNED, hop.policies.header_learning.mode)
        if isinstance(verdict, Go):
            gate.apply(None)
            return None
        if gate.apply(verdict or WaitUntil(now_s)) is None:
            return None
        if isinstance(verdict, Refused):
            return verdict
        if line is None:
            line = credential.line = Line()
        with around.waiting(hop.call, _LEARNED, "waiting for the upstream's own rate limit"):
            async with line.first():
                while isinstance(
                    verdict := learning.decide(trio.current_time(), tokens, expires_at_s),
                    WaitUntil,
                ):
                    await line.sleep_until(verdict.at_s)
        if isinstance(verdict, Refused):
            return verdict
        self._go = verdict
        return None

    async def _charge(
        self,
        pacer: Pacer[LimiterT],
        cost: int,
        mode: Mode,
        policy: str,
        charged: list[tuple[Pacer[LimiterT], Allowed]],
    ) -> Refused | None:
        if mode is Mode.OFF:
            return None
        gate = self._around.gates.of(policy, mode)
        call = self._attempt.hop.call
        now_s = trio.current_time()
        verdict = pacer.limiter.decide(now_s, cost, call.deadline.expires_at_s)
        if isinstance(verdict, Allowed):
            gate.apply(None)
            charged.append((pacer, verdict))
            return None
        if gate.apply(verdict) is None:
            if isinstance(verdict, Waiting):
                pacer.limiter.withdraw(now_s, verdict)
            return None
        if isinstance(verdict, Refused):
            return verdict
        with self._around.waiting(call, policy, f"waiting for its {policy.replace('_', ' ')}"):
            charged.append((pacer, await pacer.wait(verdict)))
        return None

    def settle(self, ended: Ended | None) -> None:
        """Account for the end of the attempt; None where it was cancelled."""
        now_s = trio.current_time() if ended is None else ended.at_s
        was_sent = self._attempt.progress.request_begun
        self._learn(ended, now_s, was_sent=was_sent)
        for pacer, permit in self._requests:
            pacer.settle(now_s, permit, None if was_sent else 0)
        if not self._tokens or self._llm is None:
            return
        response = None if ended is None else ended.response
        is_events = response is not None and is_event_stream(response.headers)
        hold = TokenHold(self._llm, self._tokens, is_event_stream=is_events)
        if response is not None and response.status < FIRST_ERROR:
            holdings = self._attempt.hop.holdings
            if holdings.tokens is None:
                holdings.tokens = hold  # until its body has ended
            else:
                hold.settle(now_s)  # a hedge that lost at the same moment: nobody reads its body
        elif not was_sent or (response is not None and response.status in _CLIENT_ERRORS):
            hold.refund(now_s)
        else:
            hold.settle(now_s)

    def _learn(self, ended: Ended | None, now_s: float, *, was_sent: bool) -> None:
        """Take in what the answer tells about the limits of its upstream."""
        if self._go is None:
            return
        hop = self._attempt.hop
        credential = hop.of_credential
        learning = credential.learning
        response = None if ended is None else ended.response
        if response is None:
            if not was_sent:
                learning.not_sent(self._go)
                credential.ring()
            return
        hints = read_hints(response.headers, self._around.wall_clock_s())
        was_throttled = response.status == _TOO_MANY_REQUESTS
        learning.answered(now_s, self._go, hints, was_throttled=was_throttled)
        if hints:
            credential.ring()
        if hop.policies.header_learning.mode is Mode.ENFORCE:
            credential.follow_upstream(now_s)


def _limiters(hop: Hop, surroundings: Surroundings) -> Iterator[tuple[Limiters, LimitSettings]]:
    """The configured limits that this hop meets, the narrowest first, with the call's modes.

    Each is looked up when it is asked for: what nobody holds may be dropped while another is waited
    for.
    """
    policies, machines = hop.policies, surroundings.machines
    tenant, workspace, _ = hop.key
    if policies.limits != NO_LIMITS:
        yield hop.of_credential.limits, policies.limits
    if policies.workspace_limits != NO_LIMITS:
        owner = machines.workspaces.get((tenant, workspace), trio.current_time())
        yield owner.limits, policies.workspace_limits
    if policies.tenant_limits != NO_LIMITS:
        owner = machines.tenants.get(tenant, trio.current_time())
        yield owner.limits, policies.tenant_limits
    if policies.origin_limits != NO_LIMITS:
        yield hop.of_origin.limits, policies.origin_limits
