"""Connector `vastar`: the runtime about itself, for its own user only.

Operations `status`, `tenants`, `reload` and `drain`; the answer is JSON. `status` takes an object
of options: `metrics` adds the text for Prometheus, `verbose` what the policies hold; of that,
`tenants` is what each tenant has used, alone. Whoever is not the
runtime's own user or root, as the kernel tells (so nobody over TCP), is refused.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
import trio

from vastar_client.wire.codec import one_buffer
from vastar_runtime._version import __version__
from vastar_runtime.audit import audit
from vastar_runtime.calls import Call
from vastar_runtime.config import ConfigError
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.workers.team import Team, TeamError

__all__ = ["ControlConnector", "Controlled", "account"]

_ROOT_UID: Final = 0
_PRIVILEGED: Final = frozenset({"reload", "drain"})
"""What changes something, and is told to the audit log."""


class Controlled(Protocol):
    """What the runtime tells of itself and does on demand, beyond its counts."""

    available_credits: int
    """Calls that one connection may have in flight."""

    def listening_on(self) -> list[str]:
        """The addresses it listens on, as text."""

    def pools(self) -> list[dict[str, Any]]:
        """The transport's connections: one mapping for each tenant, workspace and origin."""

    def databases(self) -> list[dict[str, Any]]:
        """The connections to databases: one mapping for each data source."""

    def policies(self) -> dict[str, Any]:
        """What the policies are and hold."""

    async def metrics(self) -> bytes:
        """The text for Prometheus."""

    def longest_drain_s(self) -> float:
        """How long calls and streams in flight get at most when it leaves."""

    def reload(self) -> Mapping[str, Any]:
        """Take up the configuration anew; what changed. Raises ConfigError, then nothing."""


class _Options(msgspec.Struct):
    metrics: bool = False
    verbose: bool = False


class ControlConnector:
    """Tells how the runtime is, has it read its configuration anew, and asks it to leave."""

    can_stream = False

    def __init__(
        self, state: RuntimeState, controlled: Controlled, team: Team | None = None
    ) -> None:
        self._state = state
        self._controlled = controlled
        self._team = team
        self._operations: Mapping[str, Callable[[Call], Awaitable[Outcome]]] = {
            "status": self._status,
            "tenants": self._tenants,
            "reload": self._reload,
            "drain": self._drain,
        }

    async def execute(self, call: Call) -> Outcome:
        """Answer the operation that `call` names."""
        await trio.lowlevel.checkpoint()
        asked = call.request.operation[:100]
        if call.caller.uid not in {_ROOT_UID, os.geteuid()}:
            audit("control_refused", caller=call.caller, operation=asked, rule="control:user")
            return Failure(
                FailureKind.INVALID_REQUEST,
                "not allowed: connector vastar answers to the runtime's own user or root, over "
                "its Unix socket",
                refused_by="control:user",
            )
        operation = self._operations.get(call.request.operation)
        if operation is None:
            known = ", ".join(sorted(self._operations))
            return Failure(
                FailureKind.INVALID_REQUEST,
                f"Unknown operation of connector vastar: {asked}; known are {known}",
            )
        if asked in _PRIVILEGED:
            audit("control", caller=call.caller, operation=asked)
        return await operation(call)

    async def _status(self, call: Call) -> Outcome:
        try:
            options = _options(call)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Failure(
                FailureKind.INVALID_REQUEST,
                f"Invalid options of status: {error}; known are metrics and verbose, true or false",
            )
        told = account(self._state, self._controlled, verbose=options.verbose)
        render = self._controlled.metrics
        if self._team is not None:
            try:
                told |= await self._team.status(verbose=options.verbose)
                render = self._team.metrics
            except TeamError as error:
                told["alone"] = f"{error}: this is the account of one worker"
        # The call that asks is not counted.
        for counted in (told, *(row for row in told.get("workers", ()) if _is_own(row))):
            counted["in_flight"] -= 1
        if options.metrics:
            try:
                told["metrics"] = (await render()).decode()
            except TeamError as error:
                return Failure(FailureKind.OVERLOADED, str(error))
        return Reply(msgspec.json.encode(told))

    async def _tenants(self, _call: Call) -> Outcome:
        try:
            told = (
                self._controlled.policies()
                if self._team is None
                else await self._team.status(verbose=True)
            )
        except TeamError as error:
            return Failure(FailureKind.OVERLOADED, str(error))
        return Reply(msgspec.json.encode({"tenants": told.get("tenants", [])}))

    async def _reload(self, _call: Call) -> Outcome:
        try:
            if self._team is not None:
                return Reply(msgspec.json.encode(await self._team.reload()))
            return Reply(msgspec.json.encode(self._controlled.reload()))
        except (ConfigError, TeamError) as error:
            return Failure(
                FailureKind.INVALID_REQUEST,
                f"the new configuration is refused and the old one holds:\n{error}",
            )

    async def _drain(self, _call: Call) -> Outcome:
        if self._team is not None:
            try:
                return Reply(msgspec.json.encode(await self._team.drain()))
            except TeamError as error:
                return Failure(FailureKind.OVERLOADED, str(error))
        self._state.drain_requested.set()
        told = {
            "pid": os.getpid(),
            "draining": True,
            "drain_s": self._controlled.longest_drain_s(),
        }
        return Reply(msgspec.json.encode(told))


def account(state: RuntimeState, controlled: Controlled, *, verbose: bool) -> dict[str, Any]:
    """What this process tells of itself; with `verbose` also what the policies hold.

    The call that asks, where one does, is counted in it.
    """
    told = {
        "pid": os.getpid(),
        "version": __version__,
        "uptime_s": round(trio.current_time() - state.started_at_s, 3),
        "draining": state.draining,
        "in_flight": state.calls_in_flight,
        "connections": state.connections,
        "calls_accepted": state.calls_accepted,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "available_credits": controlled.available_credits,
        "listeners": controlled.listening_on(),
        "pools": controlled.pools(),
        "databases": controlled.databases(),
    }
    return told | controlled.policies() if verbose else told


def _is_own(row: Mapping[str, Any]) -> bool:
    """Whether a worker's row is this process's, and it has told its counts."""
    return row.get("pid") == os.getpid() and row.get("in_flight") is not None


def _options(call: Call) -> _Options:
    payload = one_buffer(call.request.payload)
    if payload is None or not len(payload):
        return _Options()
    return msgspec.json.decode(payload, type=_Options)
