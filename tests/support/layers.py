"""The layers of policy as they are composed, over a real transport and upstreams by plan.

```python
async with laid(retry=RetrySettings(attempts=2)) as house:
    house.plan(answer(503), answer(200, b"ok"))
    got = await house.ask()
```

Time is Trio's: a test takes `autojump_clock`. Chance is `house.ratio`, and the wall clock begins at
`WALL_START_S`. When the block ends nothing may be held by anybody (`House.check_nothing_is_left`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

from tests.support.held import check_nothing_is_held
from tests.support.planned import Plan, Planned
from vastar_client.wire.messages import ExecuteRequest
from vastar_client.wire.sse import SSEDecoder
from vastar_runtime.calls import Call, Caller
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Failure
from vastar_runtime.pipeline import Machines, Surroundings, Upstreams, compose
from vastar_runtime.pipeline.policies import CallPolicies
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.policy.breaker import Breaker
from vastar_runtime.policy.concurrency import Key
from vastar_runtime.transport import HttpTransport, Origin, TransportError, TransportSettings
from vastar_runtime.transport.fake import FakeNetwork, Serve
from vastar_runtime.transport.messages import UpstreamRequest, is_event_stream

__all__ = [
    "HOST",
    "ORIGIN",
    "WALL_START_S",
    "Book",
    "Got",
    "House",
    "Recorder",
    "in_order",
    "laid",
    "make_call",
    "make_request",
]

HOST = "api.test"
ORIGIN = f"http://{HOST}"
WALL_START_S = 1_800_000_000.0

Places = tuple[str | None, str | None, str | None]


class Book:
    """A `PolicyBook` of chosen policies: the most particular place that was set wins."""

    def __init__(self, policies: CallPolicies | None = None) -> None:
        self._by_place: dict[Places, CallPolicies] = {
            (None, None, None): policies or CallPolicies()
        }

    def set(
        self,
        tenant: str | None = None,
        workspace: str | None = None,
        origin: str | None = None,
        **changes: Any,
    ) -> None:
        """Let policies differ at a place from what holds in general."""
        policies = attrs.evolve(self._by_place[None, None, None], **changes)
        self._by_place[tenant, workspace, origin] = policies

    def of(
        self, tenant: str | None = None, workspace: str | None = None, origin: str | None = None
    ) -> CallPolicies:
        """See `PolicyBook.of`."""
        for place in (
            (tenant, workspace, origin),
            (tenant, workspace, None),
            (tenant, None, origin),
            (tenant, None, None),
            (None, None, origin),
        ):
            if place in self._by_place:
                return self._by_place[place]
        return self._by_place[None, None, None]


class Recorder(Meters):
    """Meters that also keep what they were told, as (what, ...) in order."""

    def __init__(self) -> None:
        super().__init__(("http",))
        self.told: list[tuple[Any, ...]] = []

    def of(self, what: str) -> list[tuple[Any, ...]]:
        """What was told under that name, without the name."""
        return [each[1:] for each in self.told if each[0] == what]

    def retried(self, reason: str) -> None:
        super().retried(reason)
        self.told.append(("retried", reason))

    def gave_up(self, reason: str) -> None:
        super().gave_up(reason)
        self.told.append(("gave_up", reason))

    def refused(self, policy: str, scope: str) -> None:
        super().refused(policy, scope)
        self.told.append(("refused", policy, scope))

    def waited(self, policy: str, seconds: float) -> None:
        super().waited(policy, seconds)
        self.told.append(("waited", policy, round(seconds, 6)))

    def breaker_changed(self, scope: str, after: str) -> None:
        super().breaker_changed(scope, after)
        self.told.append(("breaker_changed", scope, after))

    def hedged(self, outcome: str) -> None:
        super().hedged(outcome)
        self.told.append(("hedged", outcome))


@attrs.frozen
class Got:
    """How a call ended.

    Attributes:
        status: of its answer, 0 where there was none.
        body: of its answer, as far as it was read.
        failure: the refusal of one of our policies.
        error: of the transport, for the head or for the body.
        timed_out: its deadline passed.
        at_s: when.
    """

    call: Call
    at_s: float
    status: int = 0
    body: bytes = b""
    failure: Failure | None = None
    error: TransportError | None = None
    timed_out: bool = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """(attempts, queued_us, backoff_us) as the answer tells them."""
        return self.call.attempts, self.call.queued_us, self.call.backoff_us

    @property
    def refused_by(self) -> str | None:
        """Who refused, as the answer tells it; a failure tells the same as its call."""
        if self.failure is not None:
            assert self.failure.refused_by == self.call.refused_by
            assert self.failure.retry_after_ms == self.call.retry_after_ms
        return self.call.refused_by


def make_request(
    host: str = HOST, *, method: str = "GET", body: Any = None, replayable: bool = False
) -> UpstreamRequest:
    """A request to `host`."""
    return UpstreamRequest(
        method=method.encode(),
        origin=Origin("http", host, 80),
        target=b"/",
        headers=[(b"host", host.encode())],
        body=body,
        replayable=replayable,
    )


def make_call(
    tenant: str = "acme", workspace: str | None = "main", *, time_s: float = 30.0, **fields: Any
) -> Call:
    """A call that arrives now and has `time_s`."""
    request = ExecuteRequest(1, tenant, "http", "request", workspace_id=workspace, **fields)
    deadline = Deadline(trio.current_time() + time_s, time_s, Limit.DEFAULT)
    return Call(request, Caller(), deadline, 1 << 20)


@attrs.define(eq=False)
class House:
    """The layers, what they stand on, and the means to look at all of it.

    Attributes:
        ratio: what every roll of the dice gives.
        upstreams: of each host that has plans.
    """

    book: Book
    network: FakeNetwork
    transport: HttpTransport
    machines: Machines
    meters: Recorder
    around: Surroundings
    layers: Upstreams
    nursery: trio.Nursery
    ratio: float = 0.5
    upstreams: dict[str, Planned] = attrs.field(factory=dict)

    def plan(self, *plans: Plan, host: str = HOST, after_s: float = 0.0) -> Planned:
        """Have `host` answer by these plans, from its first request on; connecting takes a time."""
        self.upstreams[host] = made = Planned(*plans)
        self.network.add_host(host, Serve(made.handle, after_s=after_s))
        return made

    @property
    def times(self) -> list[float]:
        """When requests came to the usual host."""
        return self.upstreams[HOST].times

    async def ask(
        self,
        host: str = HOST,
        *,
        method: str = "GET",
        body: Any = None,
        replayable: bool = False,
        call: Call | None = None,
        **fields: Any,
    ) -> Got:
        """Make a call of one request and read its answer, as the connector does."""
        call = call or make_call(**fields)
        request = make_request(host, method=method, body=body, replayable=replayable)
        pieces: list[bytes] = []
        status, error = 0, None
        with call.scope:
            try:
                with self.layers.lease(call) as lease:
                    response = await lease.request(request)
                    if isinstance(response, Failure):
                        return Got(call, trio.current_time(), failure=response)
                    async with response:
                        status = response.status
                        is_events = is_event_stream(response.headers)
                        events = SSEDecoder()
                        while piece := await response.read_some():
                            pieces.append(piece)
                            call.received_bytes += len(piece)
                            lease.saw(piece)
                            for event in events.feed(piece) if is_events else ():
                                lease.saw_event(event.data)
            except TransportError as failed:
                error = failed
            return Got(call, trio.current_time(), status, b"".join(pieces), error=error)
        return Got(call, trio.current_time(), status, b"".join(pieces), timed_out=True)

    def start(self, ends: list[Got], *args: Any, **fields: Any) -> None:
        """Begin a call, whose end will be put into `ends`."""

        async def run() -> None:
            ends.append(await self.ask(*args, **fields))

        self.nursery.start_soon(run)

    async def ask_many(self, count: int, **fields: Any) -> list[Got]:
        """That many calls at once, in the order in which they end."""
        ends: list[Got] = []

        async def run() -> None:
            ends.append(await self.ask(**fields))

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(run)
        return ends

    def key(self, tenant: str = "acme", workspace: str = "main", host: str = HOST) -> Key:
        """Whose call, and where it goes."""
        return Key(tenant, workspace, f"http://{host}")

    def breakers(self, tenant: str = "acme", host: str = HOST) -> tuple[Breaker, Breaker]:
        """Those of the origin and of the tenant at it."""
        origin = f"http://{host}"
        of_tenant = self.machines.tenants_at_origins.get((tenant, origin), trio.current_time())
        return self.machines.origins.get(origin, trio.current_time()).breaker, of_tenant.breaker

    def check_nothing_is_left(self) -> None:
        """Nobody holds, waits for, or is counted for anything."""
        check_nothing_is_held(self.around)
        assert len(self.network.open_channels) == sum(each.idle for each in self.transport.stats())


@asynccontextmanager
async def laid(
    book: Book | None = None, pool: TransportSettings | None = None, **policies: Any
) -> AsyncIterator[House]:
    """A house under these policies, the others as they are by default; waits for its calls."""
    async with trio.open_nursery() as nursery:
        book = book or Book(CallPolicies(**policies))
        network = FakeNetwork(nursery)
        transport = HttpTransport(pool, network, environ={})
        machines, meters = Machines(book), Recorder()
        around = Surroundings(
            machines,
            transport,
            meters,
            random_ratio=lambda: house.ratio,
            wall_clock_s=lambda: WALL_START_S + trio.current_time(),
        )
        async with trio.open_nursery() as callers:
            house = House(
                book, network, transport, machines, meters, around, compose(around), callers
            )
            yield house
        house.check_nothing_is_left()
        await transport.aclose()
        nursery.cancel_scope.cancel()


async def in_order(*makers: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run all at once, each begun when those before it wait; what each gave, in that order."""
    ends: list[Any] = [None] * len(makers)

    async def run(nth: int) -> None:
        ends[nth] = await makers[nth]()

    async with trio.open_nursery() as nursery:
        for nth in range(len(makers)):
            nursery.start_soon(run, nth)
            await trio.testing.wait_all_tasks_blocked()
    return ends
