"""Configured limits of one attempt: calls, tokens and bytes in a time.

Each attempt pays for itself. All that limit it are asked in turn, the narrowest first; each charge
is made in the step that checks. Where a later one refuses, or the attempt is cancelled in line, all
that was charged comes back. Requests are settled when the attempt has ended; tokens and bytes are
settled with the body of the answer, which the lease waits for.
"""

from collections.abc import Iterator
from typing import Final, TypeVar

import trio

from vastar_runtime.pipeline.attempt import FIRST_ERROR, Attempt, Ended, Hop, Layer
from vastar_runtime.pipeline.machines import Limiters
from vastar_runtime.pipeline.pacing import Pacer
from vastar_runtime.pipeline.policies import NO_LIMITS, LimitSettings
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.pipeline.tokens import TokenHold
from vastar_runtime.pipeline.volume import VolumeHold, request_bytes
from vastar_runtime.policy.llm_usage import LlmRequest
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.rate_limit import Allowed, RateLimiter, Waiting
from vastar_runtime.policy.token_limit import TokenLimiter
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.transport.messages import is_event_stream

__all__ = ["RateLimitLayer", "limiters"]

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

    __slots__ = ("_around", "_attempt", "_llm", "_requests", "_tokens", "_volume")

    def __init__(self, attempt: Attempt, surroundings: Surroundings) -> None:
        self._attempt = attempt
        self._around = surroundings
        self._llm: LlmRequest | None = None
        self._requests: list[tuple[Pacer[RateLimiter], Allowed]] = []
        self._tokens: list[tuple[Pacer[TokenLimiter], Allowed]] = []
        self._volume: list[tuple[Pacer[RateLimiter], Allowed]] = []

    async def make(self) -> Refused | None:
        """Charge everything; on a refusal what was charged until then is still to be settled."""
        hop = self._attempt.hop
        for each, settings in limiters(hop, self._around):
            if each.requests is not None and settings.requests is not None:
                mode = settings.requests.mode
                refused = await self._charge(each.requests, 1, mode, "rate_limit", self._requests)
                if refused is not None:
                    return refused
        if hop.policies.has_byte_limits and (refused := await self._charge_volume(hop)) is not None:
            return refused
        self._llm = hop.llm_request()
        return await self._charge_tokens(hop, self._llm) if self._llm is not None else None

    async def _charge_volume(self, hop: Hop) -> Refused | None:
        cost = request_bytes(hop.request)
        for each, settings in limiters(hop, self._around):
            if each.volume is not None and settings.volume is not None:
                mode = settings.volume.mode
                refused = await self._charge(each.volume, cost, mode, "byte_limit", self._volume)
                if refused is not None:
                    return refused
        return None

    async def _charge_tokens(self, hop: Hop, request: LlmRequest) -> Refused | None:
        for each, settings in limiters(hop, self._around):
            if each.tokens is not None and settings.tokens is not None:
                cost, mode = each.tokens.limiter.estimate(request), settings.tokens.rate.mode
                refused = await self._charge(each.tokens, cost, mode, "token_limit", self._tokens)
                if refused is not None:
                    return refused
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
        now_s = self._attempt.at_s
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
        self._attempt.at_s = trio.current_time()
        return None

    def settle(self, ended: Ended | None) -> None:
        """Account for the end of the attempt; None where it was cancelled."""
        now_s = trio.current_time() if ended is None else ended.at_s
        was_sent = self._attempt.progress.request_begun
        for pacer, permit in self._requests:
            pacer.settle(now_s, permit, None if was_sent else 0)
        if self._volume:
            self._settle_volume(now_s, ended, was_sent=was_sent)
        if not self._tokens or self._llm is None:
            return
        response = None if ended is None else ended.response
        is_events = response is not None and is_event_stream(response.headers)
        hold = TokenHold(
            self._llm, self._tokens, is_event_stream=is_events, call=self._attempt.hop.call
        )
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

    def _settle_volume(self, now_s: float, ended: Ended | None, *, was_sent: bool) -> None:
        hop = self._attempt.hop
        hold = VolumeHold(hop.call, hop.request, self._volume)
        if ended is not None and ended.response is not None:
            # Until its body has ended. Whose body is read in the end, an earlier attempt's maybe,
            # makes no difference: they are charged to the same limits.
            hop.holdings.volume, hold_before = hold, hop.holdings.volume
            if hold_before is not None:
                hold_before.settle(now_s)
        elif was_sent:
            hold.settle(now_s)
        else:
            hold.refund(now_s)


def limiters(hop: Hop, surroundings: Surroundings) -> Iterator[tuple[Limiters, LimitSettings]]:
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
