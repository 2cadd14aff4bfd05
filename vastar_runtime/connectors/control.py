"""Connector `vastar`: the runtime about itself, for its own user only.

Operations `status` and `drain`; the payload is ignored, the answer is JSON. Whoever is not the
runtime's own user or root, as the kernel tells (so nobody over TCP), is refused.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import trio

from vastar_runtime._version import __version__
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.runtime_state import RuntimeState

__all__ = ["ControlConnector"]

_ROOT_UID: Final = 0


class ControlConnector:
    """Tells how the runtime is, and asks it to leave.

    Args:
        listeners: the addresses it listens on, as text.
        pools: the transport's connections: one mapping for each tenant, workspace and origin.
        available_credits: calls that one connection may have in flight.
    """

    def __init__(
        self,
        state: RuntimeState,
        *,
        listeners: Callable[[], list[str]],
        pools: Callable[[], list[dict[str, Any]]],
        available_credits: int,
    ) -> None:
        self._state = state
        self._listeners = listeners
        self._pools = pools
        self._available_credits = available_credits
        self._operations: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            "status": self._status,
            "drain": self._drain,
        }

    async def execute(self, call: Call) -> Outcome:
        """Answer the operation that `call` names."""
        await trio.lowlevel.checkpoint()
        if call.caller.uid not in {_ROOT_UID, os.geteuid()}:
            return Failure(
                FailureKind.INVALID_REQUEST,
                "not allowed: connector vastar answers to the runtime's own user or root, over "
                "its Unix socket",
                refused_by="control",
            )
        operation = self._operations.get(call.request.operation)
        if operation is None:
            known = ", ".join(sorted(self._operations))
            return Failure(
                FailureKind.INVALID_REQUEST,
                f"Unknown operation of connector vastar: {call.request.operation[:100]}; "
                f"known are {known}",
            )
        return Reply(msgspec.json.encode(operation()))

    def _status(self) -> Mapping[str, Any]:
        state = self._state
        return {
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": round(trio.current_time() - state.started_at_s, 3),
            "draining": state.draining,
            # The call that asks is not counted.
            "in_flight": state.calls_in_flight - 1,
            "connections": state.connections,
            "calls_accepted": state.calls_accepted,
            "available_credits": self._available_credits,
            "listeners": self._listeners(),
            "pools": self._pools(),
        }

    def _drain(self) -> Mapping[str, Any]:
        self._state.drain_requested.set()
        return {"pid": os.getpid(), "draining": True}
