"""What calls may hold of policies and connections, and that none of it is left."""

from collections.abc import Iterable, Iterator
from typing import Any

from vastar_runtime.assembly import Runtime
from vastar_runtime.pipeline import Surroundings
from vastar_runtime.pipeline.machines import Limiters, Machines

__all__ = ["check_nothing_is_held", "check_sessions_are_idle"]


def check_nothing_is_held(around: Surroundings) -> None:
    """Nobody holds, waits for, or is counted for anything."""
    machines, admission = around.machines, around.machines.admission
    for streams in (False, True):
        assert admission.in_flight(streams=streams) == 0
        assert admission.waiting(streams=streams) == 0
    assert not around.queued
    for of_origin in _values(machines.origins.items()):
        assert (of_origin.users, of_origin.breaker.in_flight) == (0, 0)
    for of_tenant in _values(machines.tenants_at_origins.items()):
        assert (of_tenant.users, of_tenant.breaker.in_flight) == (0, 0)
        assert of_tenant.quota.outstanding == 0
    for credential in _values(machines.credentials.items()):
        assert (credential.users, credential.cooldown.in_flight) == (0, 0)
        assert credential.line is None or credential.line.length == 0
    for limiters in _limiters(machines):
        for pacer in (limiters.requests, limiters.tokens):
            if pacer is not None:
                assert (pacer.limiter.held, pacer.limiter.waiting_count) == (0, 0)
                assert not pacer._bells
    transport = around.transport
    transport._pool.check()
    assert not transport._busy
    assert all((each.busy, each.waiting) == (0, 0) for each in transport.stats())


def check_sessions_are_idle(runtime: Runtime) -> None:
    """No connection of a caller has a call, a stream or a body under way."""
    assert runtime.state.calls_in_flight == 0
    for session in runtime._sessions:
        assert session._in_flight == 0
        assert not session._calls
        assert not session._streams._streamed
        assert not session._streams._uploading
        assert session._outbox.is_empty
        assert session._outbox._queued_bytes == 0
        assert session._outbox._unasked_messages == 0


def _limiters(machines: Machines) -> Iterator[Limiters]:
    for store in (machines.origins, machines.credentials, machines.workspaces, machines.tenants):
        for bundle in _values(store.items()):
            yield bundle.limits


def _values(items: Iterable[tuple[Any, Any]]) -> list[Any]:
    return [value for _, value in items]
