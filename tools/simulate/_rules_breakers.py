"""Invariants of circuits: an open one lets nothing through, a half-open one only its probes.

Looked at from outside of the machine: its state before and after an instant, and the attempts that
were let through at that instant. Where it went through more than one state meanwhile, nothing can
be said.
"""

from collections.abc import Iterator

import attrs

from tools.simulate._records import Attempt
from tools.simulate._world import EPSILON_S, World
from vastar_runtime.policy.breaker import Breaker, BreakerSettings, State
from vastar_runtime.policy.modes import Mode

__all__ = ["Watch", "circuits_hold", "what_is_not_well"]


@attrs.define(eq=False)
class Watch:
    """What was seen of one breaker.

    Attributes:
        state, generation: when it was looked at last.
        passed: attempts let through since it became half-open, as far as they may still be probes.
    """

    breaker: Breaker
    state: State
    generation: int
    passed: list[Attempt] = attrs.field(factory=list)


def circuits_hold(world: World) -> Iterator[str]:
    """Rules 1 to 3: no attempt passes an open circuit, and no more than its probes a half-open."""
    machines = world.machines
    for origin, of_origin in machines.origins.items():
        yield from _look(
            world, ("origin", origin), of_origin.breaker, machines.book.of(origin=origin).breaker
        )
    for (tenant, origin), of_tenant in machines.tenants_at_origins.items():
        settings = machines.book.of(tenant=tenant, origin=origin).breaker
        yield from _look(world, (tenant, origin), of_tenant.breaker, settings)


def _look(
    world: World, key: tuple[str, str], breaker: Breaker, settings: BreakerSettings
) -> Iterator[str]:
    watch = world.watches.get(key)
    if watch is None or watch.breaker is not breaker:
        watch = world.watches[key] = Watch(breaker, breaker.state, breaker.generation)
    changes = breaker.generation - watch.generation
    passed = [attempt for attempt in world.records.new_attempts if _meets(world, attempt, key)]
    now_s = world.now_s
    if breaker.state is State.OPEN and not changes and passed:
        yield f"the circuit of {key} is open, and attempt {passed[0].number} went through"
    if breaker.state is State.HALF_OPEN and changes <= 1:
        if changes:
            watch.passed.clear()
        watch.passed += passed
        watch.passed = [each for each in watch.passed if _may_be_probe(each, settings, now_s)]
        if len(watch.passed) > settings.probes:
            numbers = ", ".join(str(each.number) for each in watch.passed)
            yield f"the circuit of {key} is half-open, and attempts {numbers} went through"
    watch.state, watch.generation = breaker.state, breaker.generation


def _meets(world: World, attempt: Attempt, key: tuple[str, str]) -> bool:
    """Whether an attempt of now had to ask the breaker of `key`."""
    tenant, _, origin = attempt.key
    is_its = key in {("origin", origin), (tenant, origin)}
    is_now = attempt.let_through_look == world.records.looks
    is_asked = world.is_current(attempt.call)
    return (
        is_its and is_now and is_asked and world.policies(attempt.key).breaker.mode is Mode.ENFORCE
    )


def what_is_not_well(world: World) -> Iterator[str]:
    """The circuits that are not closed; to be asked when everybody was served some times."""
    machines = world.machines
    for tenant in world.setup.tenants:
        for host in world.upstreams.hosts.values():
            key = (tenant.name, tenant.workspaces[0], host.origin)
            if world.policies(key).breaker.mode is not Mode.ENFORCE:
                continue
            of_origin = machines.origins.peek(host.origin)
            of_tenant = machines.tenants_at_origins.peek((tenant.name, host.origin))
            for found in (of_origin, of_tenant):
                if found is not None and found.breaker.state is not State.CLOSED:
                    yield f"all is well, and a circuit of {key} is {found.breaker.state.value}"


def _may_be_probe(attempt: Attempt, settings: BreakerSettings, now_s: float) -> bool:
    """Whether it is under way, and its lease has not expired."""
    is_leased = now_s < attempt.let_through_s + settings.probe_lease_s - EPSILON_S
    return attempt.ended_at_s is None and is_leased
