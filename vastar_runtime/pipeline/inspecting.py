"""What the policies look like now, for people and for metrics: read from them, kept nowhere."""

from collections.abc import Iterable
from typing import Any, Final

import trio

from vastar_runtime.metrics import (
    BreakerRow,
    DatabaseRow,
    LimiterRow,
    PoolRow,
    QuotaRow,
    Snapshot,
    VerdictRow,
    listed,
)
from vastar_runtime.pipeline.layers import DESCRIPTOR
from vastar_runtime.pipeline.machines import Limiters, Machines
from vastar_runtime.pipeline.surroundings import Surroundings
from vastar_runtime.policy.breaker import State
from vastar_runtime.policy.verdicts import Scope
from vastar_runtime.runtime_state import RuntimeState

__all__ = ["describe", "pools", "snapshot"]

_MOST_ROWS: Final = 200
"""Of one kind, for people."""


def snapshot(
    around: Surroundings, state: RuntimeState, databases: Iterable[DatabaseRow] = ()
) -> Snapshot:
    """The runtime at this instant, for metrics."""
    machines, admission = around.machines, around.machines.admission
    machines.maker.refresh(trio.current_time())
    shared, closed_shared = listed(
        machines.origins.items(), lambda each: each.breaker.state is State.CLOSED
    )
    of_tenants, closed_of_tenants = listed(
        machines.tenants_at_origins.items(), lambda each: each.breaker.state is State.CLOSED
    )
    purses, full = listed(
        machines.tenants_at_origins.items(),
        lambda each: each.quota.tokens >= each.quota.most_tokens,
    )
    return Snapshot(
        calls_in_flight=state.calls_in_flight,
        connections=state.connections,
        draining=state.draining,
        admitted_calls=admission.in_flight(streams=False),
        admitted_streams=admission.in_flight(streams=True),
        waiting_calls=admission.waiting(streams=False),
        waiting_streams=admission.waiting(streams=True),
        breakers=(
            *(
                BreakerRow(Scope.ORIGIN.value, "", origin, each.breaker.state)
                for origin, each in shared
            ),
            *(
                BreakerRow(Scope.TENANT.value, tenant, origin, each.breaker.state)
                for (tenant, origin), each in of_tenants
            ),
        ),
        closed_unlisted={Scope.ORIGIN.value: closed_shared, Scope.TENANT.value: closed_of_tenants},
        quotas=tuple(
            QuotaRow(tenant, origin, each.quota.tokens, each.quota.most_tokens)
            for (tenant, origin), each in purses
        ),
        full_unlisted=full,
        limiters=tuple(_lines(machines)),
        pools=tuple(
            PoolRow(pool.tenant, pool.workspace, pool.origin, pool.idle, pool.busy, pool.waiting)
            for pool in around.transport.stats()
        ),
        databases=tuple(databases),
        verdicts=tuple(_verdicts(around)),
    )


def describe(around: Surroundings) -> dict[str, Any]:
    """The policies for people: what `status --verbose` shows beyond the counts of the runtime."""
    machines, now_s = around.machines, trio.current_time()
    machines.maker.refresh(now_s)
    admission = machines.admission
    open_circuits = [
        {"scope": Scope.ORIGIN.value, "origin": origin, "state": each.breaker.state.value}
        for origin, each in machines.origins.items()
        if each.breaker.state is not State.CLOSED
    ] + [
        {
            "scope": Scope.TENANT.value,
            "tenant": tenant,
            "origin": origin,
            "state": each.breaker.state.value,
        }
        for (tenant, origin), each in machines.tenants_at_origins.items()
        if each.breaker.state is not State.CLOSED
    ]
    limits = [
        {
            "policy": policy,
            "scope": scope.value,
            "of": " ".join(names),
            "available": round(pacer.limiter.available(now_s), 3),
            "waiting": pacer.limiter.waiting_count,
        }
        for scope, names, limiters in _limiters(machines)
        for policy, pacer in limiters.pacers()
    ]
    return {
        "pipeline": list(DESCRIPTOR),
        "policies": [
            {
                "policy": row.policy,
                "mode": row.mode.value,
                "passed": row.passed,
                "applied": row.applied,
                "observed": row.observed,
            }
            for row in _verdicts(around)
        ],
        "admission": {
            "in_flight": admission.in_flight(streams=False),
            "waiting": admission.waiting(streams=False),
            "streams": admission.in_flight(streams=True),
            "waiting_streams": admission.waiting(streams=True),
        },
        "breakers": open_circuits[:_MOST_ROWS],
        "limits": limits[:_MOST_ROWS],
        "keys": len(machines),
    }


def pools(around: Surroundings) -> list[dict[str, Any]]:
    """The connections to upstreams, by key."""
    return [
        {
            "tenant": pool.tenant,
            "workspace": pool.workspace,
            "origin": pool.origin,
            "idle": pool.idle,
            "active": pool.busy,
            "waiting": pool.waiting,
        }
        for pool in around.transport.stats()
    ]


def _limiters(machines: Machines) -> list[tuple[Scope, tuple[str, ...], Limiters]]:
    return [
        *(
            (Scope.CREDENTIAL, tuple(key), each.limits)
            for key, each in machines.credentials.items()
        ),
        *((Scope.WORKSPACE, key, each.limits) for key, each in machines.workspaces.items()),
        *((Scope.TENANT, (key,), each.limits) for key, each in machines.tenants.items()),
        *((Scope.ORIGIN, (key,), each.limits) for key, each in machines.origins.items()),
    ]


def _lines(machines: Machines) -> list[LimiterRow]:
    """Those who wait for limits."""
    return [
        LimiterRow(policy, scope.value, pacer.limiter.waiting_count)
        for scope, _, limiters in _limiters(machines)
        for policy, pacer in limiters.pacers()
    ]


def _verdicts(around: Surroundings) -> list[VerdictRow]:
    return [
        VerdictRow(policy, gate.mode, gate.passed, gate.applied, gate.observed)
        for policy, gate in around.gates
        if gate.passed or gate.applied or gate.observed
    ]
