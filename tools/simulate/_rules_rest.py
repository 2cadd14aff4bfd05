"""Invariants of rest: who holds nothing shall have nothing, and in the end nothing is left."""

from collections import Counter
from collections.abc import Iterator

from tools.simulate._world import EPSILON_S, World
from vastar_runtime.pipeline.machines import Limiters
from vastar_runtime.policy.rate_limit import RateLimiter

__all__ = [
    "nobody_waits_whose_turn_has_come",
    "nothing_is_held_for_nobody",
    "nothing_is_left",
    "the_metrics_are_true",
]


def nothing_is_held_for_nobody(world: World) -> Iterator[str]:
    """Whenever no call is under way, no connection is in use and nobody waits for one."""
    state = world.runtime.state
    live = len(world.records.live)
    if state.calls_in_flight != live:
        yield f"{state.calls_in_flight} calls in flight, and {live} callers wait"
    if live:
        return
    for pool in world.pools():
        if pool.busy or pool.waiting:
            yield f"no call is under way, and the pool has {pool}"
    for what, count in _held(world):
        if count:
            yield f"no call is under way, and {what}: {count}"


def _held(world: World) -> Iterator[tuple[str, float]]:
    """What the machines think that calls hold of them."""
    machines = world.machines
    yield "calls with a place", machines.admission.in_flight(streams=False)
    yield "calls in line for a place", machines.admission.waiting(streams=False)
    for origin, of_origin in machines.origins.items():
        yield f"users of {origin}", of_origin.users
        yield f"permits of the breaker of {origin}", of_origin.breaker.in_flight
        yield from _held_of(origin, of_origin.limits)
    for (tenant, origin), of_tenant in machines.tenants_at_origins.items():
        where = f"{tenant} at {origin}"
        yield f"users of {where}", of_tenant.users
        yield f"permits of the breaker of {where}", of_tenant.breaker.in_flight
        yield f"retries reserved by {where}", of_tenant.quota.outstanding
    for key, credential in machines.credentials.items():
        yield f"users of {key}", credential.users
        yield f"calls in the cooldown of {key}", credential.cooldown.in_flight
        yield from _held_of(key, credential.limits)
    for owners in (machines.workspaces, machines.tenants):
        for owner, of_owner in owners.items():
            yield from _held_of(owner, of_owner.limits)


def _held_of(owner: object, limits: Limiters) -> Iterator[tuple[str, float]]:
    for kind, pacer in (("calls", limits.requests), ("tokens", limits.tokens)):
        if pacer is not None:
            limiter: RateLimiter = pacer.limiter
            yield f"{kind} charged to {owner} and not settled", limiter.held
            yield f"{kind} in line for {owner}", limiter.waiting_count


def nobody_waits_whose_turn_has_come(world: World) -> Iterator[str]:
    """Whoever is in a line is held up by something: no wake-up was lost."""
    around, machines = world.around, world.machines
    waiting = machines.admission.waiting(streams=False)
    if len(around.queued) != waiting:
        yield f"{waiting} calls are in line for a place, and {len(around.queued)} tasks sleep"
    for limits in _all_limits(world):
        for pacer in (limits.requests, limits.tokens):
            if pacer is None or not pacer.limiter.waiting_count:
                continue
            head, next_s = pacer.limiter.first_in_line, pacer.limiter.next_at_s(world.now_s)
            assert head is not None, "somebody waits, so somebody is first"
            if next_s == world.now_s and head.at_s > world.now_s + 2 * EPSILON_S:
                yield f"the first of {pacer.limiter.waiting_count} in line may go, and sleeps"
    try:
        around.transport._pool.check()  # noqa: SLF001 - it is there for tests
    except AssertionError as error:
        yield f"the pool is not in order: {error}"


def _all_limits(world: World) -> Iterator[Limiters]:
    machines = world.machines
    yield from (each.limits for _, each in machines.origins.items())
    yield from (each.limits for _, each in machines.credentials.items())
    yield from (each.limits for _, each in machines.workspaces.items())
    yield from (each.limits for _, each in machines.tenants.items())


def the_metrics_are_true(world: World) -> Iterator[str]:
    """Every call is counted once, as what it was told to be."""
    counted = world.counted_calls()
    told = Counter(
        (call.answers[0][1].error_class.name, call.answers[0][1].disposition.name)
        for call in world.records.calls
        if call.answers
    )
    total = sum(counted.values())
    if total != len(world.records.calls):
        yield f"{len(world.records.calls)} calls were made, and {total} counted"
    for label, count in told.items():
        if counted[label] < count:
            yield f"{count} calls were told {label}, and {counted[label]} counted"


def nothing_is_left(world: World) -> Iterator[str]:
    """No task, connection or machine of all that happened."""
    if world.surplus_tasks:
        yield f"{world.surplus_tasks} tasks more than at the start"
    if world.runtime.state.connections:
        yield f"{world.runtime.state.connections} connections of callers"
    for line in world.records.lines:
        if line.closed_at_s is None:
            yield f"line {line.number} to {line.origin} is still open"
    for pool in world.pools():
        yield f"the pool still has {pool}"
    if len(world.machines):
        yield f"{len(world.machines)} keys still have machines"
