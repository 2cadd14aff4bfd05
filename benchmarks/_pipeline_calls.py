"""The contestants of `pipeline_cost`, and the turns they take; a process of its own.

    python -m benchmarks._pipeline_calls TURNS     (as JSON; prints a Taken as JSON)

A process of its own, because the log of a whole call goes to a file that nobody reads.
"""

import gc
import os
import random
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self, cast

import attrs
import msgspec
import trio

from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import (
    Connection,
    ErrorClass,
    ExecuteRequest,
    HttpRequest,
    PayloadFormat,
    Role,
    encode_http_request,
)
from vastar_runtime import logs
from vastar_runtime.calls import Call, Caller
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.connectors.http import HttpConnector, HttpSettings
from vastar_runtime.dispatch import Dispatcher
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Failure, FailureKind, Outcome
from vastar_runtime.pipeline import Machines, Pipeline, Surroundings, Upstreams
from vastar_runtime.pipeline.attempt import Layer
from vastar_runtime.pipeline.connecting import TransportLayer
from vastar_runtime.pipeline.layers import LAYERS
from vastar_runtime.policy.breaker import Evidence, Permit
from vastar_runtime.policy.deadline import Deadline, Limit
from vastar_runtime.policy_book import PolicyBook
from vastar_runtime.transport import (
    Headers,
    HttpTransport,
    Origin,
    Place,
    Progress,
    Scope,
    UpstreamRequest,
    UpstreamResponse,
)

__all__ = [
    "IN_PLACE",
    "NO_POLICIES",
    "TRANSPORT",
    "WHOLE",
    "ConnectorCalls",
    "Taken",
    "Turns",
    "connector",
    "limits",
    "measure",
    "stack",
]

BATCH_CALLS = 200
_URL: Final = "http://api.test/small"
_ORIGIN: Final = "http://api.test"
_TENANT: Final = "acme"
_HEADERS: Final[Headers] = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(SMALL_BODY)),
]
NO_POLICIES: Final = "no policies"
WHOLE: Final = "whole pipeline"
IN_PLACE: Final = "a whole call, whole pipeline"
_A_YEAR_S: Final = 365 * 86_400.0


class Turns(msgspec.Struct, frozen=True):
    """How often everybody takes a turn."""

    rounds: int


class Taken(msgspec.Struct):
    """What was measured.

    Attributes:
        builds_on: by row, in order, the row that it adds something to; empty for none.
        us: by row, CPU us a call in each round.
    """

    builds_on: dict[str, str]
    us: dict[str, list[float]]


class _Response:
    """What the connector asks of an upstream's answer; a small one that is there already."""

    __slots__ = ("_body", "headers", "http_version", "reason", "status")

    def __init__(self) -> None:
        self.status = 200
        self.reason = b"OK"
        self.http_version = "1.1"
        self.headers = _HEADERS
        self._body = SMALL_BODY

    async def read_some(self) -> bytes:
        data, self._body = self._body, b""
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class _Transport:
    """A transport that takes no time."""

    async def acquire(self, scope: Scope, origin: Origin, _progress: Progress) -> Place:
        return Place(scope, origin, None, None)

    def release(self, place: Place) -> None:
        place.take()

    async def exchange(
        self, _place: Place, _request: UpstreamRequest, _progress: Progress
    ) -> UpstreamResponse:
        return cast("UpstreamResponse", _Response())

    async def request(
        self, _scope: Scope, _request: UpstreamRequest, _progress: Progress
    ) -> UpstreamResponse:
        return cast("UpstreamResponse", _Response())


TRANSPORT: Final = _Transport()


class _Straight:
    """`Upstreams` with nothing between connector and transport, and its own lease."""

    def __init__(self, call: Call | None = None) -> None:
        self._call = call

    def lease(self, call: Call) -> "_Straight":
        return _Straight(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        call = self._call
        assert call is not None
        asked = call.request
        call.attempts += 1
        scope = (asked.tenant_id, asked.workspace_id or "")
        return await TRANSPORT.request(scope, request, call.progress)

    def saw(self, data: bytes) -> None:
        pass


class ConnectorCalls:
    """Calls of a connector: one `execute` each."""

    def __init__(self, connector: HttpConnector, expected: FailureKind | None = None) -> None:
        self._connector = connector
        self._expected = expected

    async def cpu_us(self) -> float:
        """CPU us a call over a batch. Every outcome is looked at, behind it."""
        calls = [_call() for _ in range(BATCH_CALLS)]
        outcomes: list[Outcome] = []
        execute = self._connector.execute
        gc.collect(1)
        began_ns = time.process_time_ns()
        for call in calls:
            outcomes.append(await execute(call))  # noqa: PERF401 - the loop of a caller
        took_ns = time.process_time_ns() - began_ns
        for outcome in outcomes:
            kind = outcome.kind if isinstance(outcome, Failure) else None
            assert kind is self._expected, f"{outcome!r}"
        return took_ns / BATCH_CALLS / 1000


class _WholeCalls:
    """Calls from the bytes of their frame to those of their answer, logged and counted."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._dispatcher = Dispatcher(
            pipeline=Pipeline({"http": connector(upstreams)}),
            meters=Meters(("http",)),
            wall_clock_ms=lambda: time.time() * 1000,
            default_timeout_s=30.0,
            stream_timeout_s=600.0,
            max_answer_bytes=1 << 20,
        )
        self._wire = Connection(Role.RUNTIME)

    async def cpu_us(self) -> float:
        """CPU us a call over a batch, each with the wait for the scheduler that it has at least."""
        frame = b"".join(Connection(Role.CLIENT).send(_REQUEST))
        dispatcher, wire, caller = self._dispatcher, self._wire, Caller()
        gc.collect(1)
        began_ns = time.process_time_ns()
        for _ in range(BATCH_CALLS):
            wire.receive_data(frame)
            request = wire.next_event()
            assert isinstance(request, ExecuteRequest)
            answer = await dispatcher.serve(dispatcher.accept(request, caller))
            assert answer.error_class is ErrorClass.SUCCESS
            wire.send(answer)
            await trio.lowlevel.checkpoint()
        return (time.process_time_ns() - began_ns) / BATCH_CALLS / 1000


@attrs.frozen
class Contestant:
    """One way of making a call.

    Attributes:
        builds_on: the row that it adds something to, if there is one.
    """

    name: str
    calls: ConnectorCalls | _WholeCalls
    builds_on: str = ""


def contestants() -> list[Contestant]:
    """Everybody, in the order of the report. Has to be called inside a Trio run."""
    straight = cast("Upstreams", _Straight())
    found = [Contestant(NO_POLICIES, ConnectorCalls(connector(straight)))]
    innermost = [layer.name for layer in LAYERS].index("connection_pool")
    for first in range(innermost, -1, -1):
        name = f"+ {LAYERS[first].name}" if first < innermost else "lease, pool, transport"
        calls = ConnectorCalls(connector(stack(_surroundings({}), first)))
        found.append(Contestant(WHOLE if first == 0 else name, calls, found[-1].name))
    for name, builds_on, policies in (
        ("every policy off", NO_POLICIES, _off()),
        ("limits at four scopes", WHOLE, limits()),
    ):
        calls = ConnectorCalls(connector(stack(_surroundings(policies))))
        found.append(Contestant(name, calls, builds_on))
    refused = ConnectorCalls(connector(_open_circuit()), FailureKind.CIRCUIT_OPEN)
    return [
        *found,
        Contestant("circuit open", refused, NO_POLICIES),
        Contestant(f"a whole call, {NO_POLICIES}", _WholeCalls(straight)),
        Contestant(IN_PLACE, _WholeCalls(stack(_surroundings({}))), f"a whole call, {NO_POLICIES}"),
    ]


def connector(upstreams: Upstreams) -> HttpConnector:
    return HttpConnector(upstreams, HttpSettings(), lambda: 1)


def stack(around: Surroundings, first: int = 0) -> Upstreams:
    """The layers from number `first` on, around the transport, but for those that idle."""

    def composed(idle: frozenset[str]) -> Layer:
        layer: Layer = TransportLayer(around)
        for each in reversed(LAYERS[first:]):
            if each.name not in idle:
                layer = each(layer, around)
        return layer

    return Upstreams(composed, around)


def _surroundings(policies: Mapping[str, Any]) -> Surroundings:
    """What the layers stand on, under `[defaults]` like these."""
    config = msgspec.convert({"defaults": dict(policies)}, RuntimeConfig)
    return Surroundings(
        machines=Machines(PolicyBook(config)),
        transport=cast("HttpTransport", TRANSPORT),
        meters=Meters(("http",)),
        random_ratio=random.random,
        wall_clock_s=time.time,
    )


def _off() -> dict[str, Any]:
    """Every policy that has a mode, switched off."""
    defaults = RuntimeConfig().defaults
    names = defaults.__struct_fields__
    return {name: {"mode": "off"} for name in names if hasattr(getattr(defaults, name), "mode")}


def limits() -> dict[str, Any]:
    """Limits on requests that never bind, for credential, workspace, tenant and origin."""
    names = RuntimeConfig().defaults.__struct_fields__
    return {name: {"limit": 10**9} for name in names if name.endswith("rate_limit")}


def _open_circuit() -> Upstreams:
    """The whole pipeline, whose origin's circuit stays open."""
    around = _surroundings({"breaker": {"open_s": 3600.0, "open_max_s": 3600.0}})
    now_s = trio.current_time()
    breaker = around.machines.origins.get(_ORIGIN, now_s).breaker
    while isinstance(permit := breaker.admit(now_s), Permit):
        breaker.report(permit, Evidence.NO_ANSWER, now_s, random_ratio=1.0)
    return stack(around)


_PAYLOAD: Final = b"".join(encode_http_request(HttpRequest(_URL)))
_REQUEST: Final = ExecuteRequest(
    request_id=1,
    tenant_id=_TENANT,
    workspace_id="main",
    connector_name="http",
    operation="request",
    payload=_PAYLOAD,
    payload_format=PayloadFormat.NATIVE,
)


def _call() -> Call:
    deadline = Deadline(trio.current_time() + _A_YEAR_S, _A_YEAR_S, Limit.DEFAULT)
    return Call(_REQUEST, Caller(), deadline, 1 << 20)


async def measure(turns: Turns) -> Taken:
    """CPU us a call, round by round; the round in which everything is new is not counted."""
    found = contestants()
    us: dict[str, list[float]] = {each.name: [] for each in found}
    order = [*found]
    chance = random.Random(1)
    for nth in range(turns.rounds + 1):
        chance.shuffle(order)
        for each in order:
            batch_us = await each.calls.cpu_us()
            if nth:
                us[each.name].append(batch_us)
    return Taken({each.name: each.builds_on for each in found}, us)


def main() -> None:
    """Take the turns of the first argument."""
    logs.configure("info", "json", os.open(os.devnull, os.O_WRONLY))
    taken = trio.run(measure, msgspec.json.decode(sys.argv[1], type=Turns))
    print(msgspec.json.encode(taken).decode())


if __name__ == "__main__":
    main()
