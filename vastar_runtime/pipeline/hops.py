"""One request, or one piece of work, through its layers: what every kind of lease does.

A hop is made of the machines of its origin, tenant and credential, which it keeps from being
forgotten while it lasts; how it ended is told to the circuits whichever way it was left. A refusal
of a policy is counted, and becomes the answer that says who refused.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import trio

from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.pipeline.attempt import Attempt, Ended, Holdings, Hop, Layer
from vastar_runtime.pipeline.breaking import report_shown
from vastar_runtime.pipeline.guarding import POLICY
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.transport.messages import UpstreamRequest

__all__ = ["REFUSAL_KINDS", "carry", "make_hop", "refuse"]

REFUSAL_KINDS: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        POLICY: FailureKind.INVALID_REQUEST,
        "bulkhead": FailureKind.OVERLOADED,
        "queue": FailureKind.OVERLOADED,
        "circuit_breaker": FailureKind.CIRCUIT_OPEN,
        "cooldown": FailureKind.RATE_LIMITED,
        "learned_limit": FailureKind.RATE_LIMITED,
        "rate_limit": FailureKind.RATE_LIMITED,
        "token_limit": FailureKind.RATE_LIMITED,
        "byte_limit": FailureKind.RATE_LIMITED,
    }
)
"""What the refusal of each policy is to its caller."""


def make_hop(  # noqa: PLR0917 - the hot path: positional, and each is needed
    call: Call,
    request: UpstreamRequest,
    key: Key,
    policies: CallPolicies,
    holdings: Holdings,
    around: Surroundings,
    now_s: float,
) -> Hop:
    """The hop of `request` with the machines that `key` names."""
    machines = around.machines
    tenant, _, origin = key
    return Hop(
        call,
        request,
        key,
        policies,
        holdings,
        machines.origins.get(origin, now_s),
        machines.tenants_at_origins.get((tenant, origin), now_s),
        machines.credentials.get(key, now_s),
    )


async def carry(hop: Hop, layers: Layer, around: Surroundings, now_s: float) -> Ended:
    """Carry `hop` through `layers`, and tell what it showed.

    Raises:
        TransportError: as the innermost layer does, where it does.
    """
    hop.begin_use()
    ended = None
    try:
        ended = await layers(Attempt(hop, 1, hop.call.progress, now_s))
    finally:
        if hop.shown:
            report_shown(hop, around, trio.current_time() if ended is None else ended.at_s)
        hop.end_use()
    return ended


def refuse(call: Call, refused: Refused, around: Surroundings) -> Failure:
    """Who refused, why, and for how long; counted."""
    around.meters.refused(refused.policy, refused.scope.value)
    call.refused(refused)
    whose = "runtime's" if refused.scope.value == "runtime" else f"{refused.scope.value}'s"
    return Failure(
        REFUSAL_KINDS[refused.policy],
        f"refused by the {whose} {refused.policy.replace('_', ' ')} ({call.origin}): "
        f"{refused.reason}",
        retry_after_ms=call.retry_after_ms,
        refused_by=call.refused_by,
    )
