"""The layers that a call meets, in order, outermost first.

1. **deadline** (`_within_deadline`): outermost, because it bounds everything below, queueing and
   backoff included. It is the only layer that cancels, and the only one that catches the
   cancellation of its own call's scope.
2. **connector**: turns the call into traffic.

A layer takes a call and gives an `Outcome`; none raises but for cancellation from outside.
`DESCRIPTOR` names them in order, for tests and people.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure, FailureKind, Outcome
from vastar_runtime.policy.deadline import Limit
from vastar_runtime.transport.progress import Phase

__all__ = ["DESCRIPTOR", "Connector", "Pipeline"]

DESCRIPTOR: Final = ("deadline", "connector")

_DOING: Final[Mapping[Phase, str]] = {
    Phase.DNS: "looking up the name",
    Phase.CONNECT: "connecting",
    Phase.PROXY: "asking the proxy",
    Phase.TLS: "shaking hands over TLS",
}
"""Phases whose own words do not go with "while"."""


class Connector(Protocol):
    """What answers the calls to one connector name."""

    async def execute(self, call: Call) -> Outcome:
        """Answer `call`. Raises nothing but cancellation; anything else is a bug."""


class Pipeline:
    """The layers around a set of connectors, by name."""

    def __init__(self, connectors: Mapping[str, Connector]) -> None:
        self._connectors = dict(connectors)

    async def run(self, call: Call) -> Outcome:
        """What becomes of `call`."""
        connector = self._connectors.get(call.request.connector_name)
        if connector is None:
            name = call.request.connector_name[:100]
            known = ", ".join(sorted(self._connectors))
            return Failure(
                FailureKind.INVALID_REQUEST, f"Unknown connector: {name}; known are {known}"
            )
        return await _within_deadline(call, connector)


async def _within_deadline(call: Call, connector: Connector) -> Outcome:
    if call.deadline.had_passed_at_arrival:
        late_ms = round(-call.deadline.budget_s * 1000)
        return Failure(
            FailureKind.TIMEOUT,
            f"the {Limit.CALLER.value} had passed {late_ms} ms before the call arrived",
        )
    with call.scope:
        return await connector.execute(call)
    # Only reached when the call's own scope was cancelled.
    if call.cancelled_as is not None:
        return _cancelled(call, call.cancelled_as)
    return _timed_out(call)


def _cancelled(call: Call, why: FailureKind) -> Failure:
    if why is FailureKind.CANCELLED:
        return Failure(why, "cancelled by caller")
    return Failure(why, f"the runtime ended the call while {_doing(call)}")


def _timed_out(call: Call) -> Failure:
    limit = call.deadline.limit
    budget_ms = call.deadline.budget_s * 1000
    return Failure(
        FailureKind.TIMEOUT,
        f"timed out: the {limit.value} of {budget_ms:.0f} ms passed while {_doing(call)}",
    )


def _doing(call: Call) -> str:
    """What was going on, and where."""
    if not call.origin:
        return "preparing the call"
    phase = call.progress.phase
    return f"{_DOING.get(phase, phase.value)} ({call.origin})"
