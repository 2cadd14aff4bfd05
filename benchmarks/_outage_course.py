"""One course of an outage: the whole runtime in virtual time, its callers, an upstream that dies.

    python -m benchmarks._outage_course PLAN     (a Plan as JSON; prints a Course as JSON)

Everything is the runtime's own but the ends: memory instead of sockets, `DyingUpstream` behind it,
Trio's mock clock. Callers are tenants with a connection each, whose calls leave at times drawn
before the first (Poisson), however many are open. One seed gives one course, to the last bit.

In virtual time computing takes no time: what is fast here is what need not wait, and what it costs
in CPU is for other benchmarks.
"""

import os
import random
import sys
from typing import Any, Final

import attrs
import msgspec
import trio
import trio.testing

from benchmarks._outage_upstream import DyingUpstream, Outage
from tools.chance import repeatable, stream
from vastar_client.wire import (
    NEED_DATA,
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HttpRequest,
    PayloadFormat,
    Role,
    decode_http_response,
    encode_http_request,
)
from vastar_runtime import logs
from vastar_runtime.assembly import Clocks, Runtime
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair

__all__ = ["CallEnd", "Course", "Plan", "simulate"]

_URL: Final = "http://api.test/answer"
_WALL_START_MS: Final = 1_800_000_000_000
_OK: Final = 200
_ROOMY: Final = 65_536
"""Calls in flight on a connection: what a caller may have open must not slow the load."""
_CHANNEL_BYTES: Final = 16 * 1024 * 1024


class Plan(msgspec.Struct, frozen=True):
    """What happens.

    Attributes:
        policies: the tables of `[defaults]`, by policy.
        calls_per_s: of all tenants together, who have equal shares.
        timeout_s: each call's own.
        before_s, outage_s, after_s: how long the load runs before, in and behind the outage.
        capacity_per_s: calls that the upstream does a second.
        answer_s: what one takes, beside the wait for its turn.
    """

    outage: Outage = Outage.REFUSED
    policies: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    seed: int = 1
    tenants: int = 5
    calls_per_s: float = 100.0
    timeout_s: float = 10.0
    before_s: float = 30.0
    outage_s: float = 30.0
    after_s: float = 60.0
    capacity_per_s: float = 250.0
    answer_s: float = 0.02

    @property
    def return_s(self) -> float:
        """When the upstream is back."""
        return self.before_s + self.outage_s

    @property
    def end_s(self) -> float:
        """When the load ends."""
        return self.return_s + self.after_s


class CallEnd(msgspec.Struct, array_like=True):
    """What became of a call; times in seconds from the beginning.

    Attributes:
        at_s, done_s: sent and answered; infinite where there was no answer.
        is_good: it brought the upstream's answer.
        attempts: how many were sent for it.
    """

    at_s: float
    done_s: float = float("inf")
    is_good: bool = False
    attempts: int = 0


class Course(msgspec.Struct):
    """What happened, in seconds from the beginning.

    Attributes:
        calls: in the order in which they were sent.
        sent_s: when an attempt left the runtime for the upstream.
        arrived_s: when a request reached it.
    """

    calls: list[CallEnd]
    sent_s: list[float]
    arrived_s: list[float]


@attrs.define(eq=False)
class _Tenant:
    """A caller with one connection."""

    name: str
    channel: MemoryChannel
    calls: list[CallEnd]
    plan: Plan
    wire: Connection = attrs.field(factory=lambda: Connection(Role.CLIENT))

    async def run(self) -> None:
        """Send every call at its time; return when all have been answered."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            await self._receive()
        await self.channel.aclose()

    async def _send(self) -> None:
        timeout_ms = round(self.plan.timeout_s * 1000)
        payload = b"".join(encode_http_request(HttpRequest(_URL, timeout_ms=timeout_ms)))
        for nth, call in enumerate(self.calls, 1):
            await trio.sleep_until(call.at_s)
            request = ExecuteRequest(
                request_id=nth,
                tenant_id=self.name,
                connector_name="http",
                operation="request",
                payload=payload,
                payload_format=PayloadFormat.NATIVE,
            )
            await self.channel.send_buffers(self.wire.send(request))

    async def _receive(self) -> None:
        open_calls = len(self.calls)
        while open_calls:
            event = self.wire.next_event()
            if event is NEED_DATA:
                self.wire.receive_data(await self.channel.receive_some())
            elif isinstance(event, ExecuteResponse):
                _note(self.calls[event.request_id - 1], event)
                open_calls -= 1
            else:
                raise RuntimeError(f"the runtime said {event!r} while {open_calls} calls are open")


def _note(call: CallEnd, answer: ExecuteResponse) -> None:
    if call.done_s < float("inf"):
        raise RuntimeError(f"a second answer: {answer!r}")
    call.done_s = trio.current_time()
    call.attempts = answer.attempts
    if answer.error_class is ErrorClass.SUCCESS:
        assert isinstance(answer.payload, memoryview)
        call.is_good = decode_http_response(answer.payload).status_code == _OK


def simulate(plan: Plan) -> Course:
    """The course of `plan`: the same each time."""
    with repeatable(plan.seed):
        return trio.run(_run, plan, clock=trio.testing.MockClock(autojump_threshold=0))


async def _run(plan: Plan) -> Course:
    config = msgspec.convert(
        {"server": {"max_in_flight_per_connection": _ROOMY}, "defaults": plan.policies},
        RuntimeConfig,
    )
    async with trio.open_nursery() as nursery:
        upstream = DyingUpstream(nursery, plan.capacity_per_s, plan.answer_s)
        runtime = Runtime(config, network=upstream, clocks=_clocks(plan.seed))
        nursery.start_soon(runtime.run)
        nursery.start_soon(_die, upstream, plan)
        tenants = []
        for nth in range(plan.tenants):
            ours, theirs = memory_channel_pair(_CHANNEL_BYTES)
            nursery.start_soon(runtime.serve, theirs)
            name = f"tenant-{nth}"
            tenants.append(_Tenant(name, ours, _calls(plan, stream(plan.seed, name)), plan))
        async with trio.open_nursery() as callers:
            for tenant in tenants:
                callers.start_soon(tenant.run)
        nursery.cancel_scope.cancel()
    calls = sorted((call for tenant in tenants for call in tenant.calls), key=lambda c: c.at_s)
    return Course(calls, upstream.sent_s, upstream.arrived_s)


def _calls(plan: Plan, chance: random.Random) -> list[CallEnd]:
    """The calls of one tenant, not made yet."""
    calls = []
    at_s = chance.expovariate(plan.calls_per_s / plan.tenants)
    while at_s < plan.end_s:
        calls.append(CallEnd(at_s))
        at_s += chance.expovariate(plan.calls_per_s / plan.tenants)
    return calls


async def _die(upstream: DyingUpstream, plan: Plan) -> None:
    await trio.sleep_until(plan.before_s)
    upstream.die(plan.outage)
    await trio.sleep_until(plan.return_s)
    upstream.return_()


def _clocks(seed: int) -> Clocks:
    """Virtual time, and chance by seed."""
    chance = stream(seed, "runtime")
    return Clocks(
        wall_clock_ms=lambda: _WALL_START_MS + trio.current_time() * 1000,
        random_u64=lambda: chance.getrandbits(64),
        random_ratio=chance.random,
    )


def main() -> None:
    """Run the plan of the first argument."""
    logs.configure("critical", "json", os.open(os.devnull, os.O_WRONLY))
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(simulate(plan)))


if __name__ == "__main__":
    main()
