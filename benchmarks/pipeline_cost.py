"""CPU us that the policies add to a call, all together and layer by layer.

Peer: the same HTTP connector over the same transport without any of it. Contestants build up from
there: the lease with the pool's place and the transport, then each layer around those before, which
ends in the pipeline as it is composed; and that pipeline with every policy off, with limits
configured at every scope, and with an open circuit, where the call ends at the breaker.

Load shape: one call after another in one process, each with a payload to parse and a small answer
to write, over a transport that answers at once: nothing waits, so what is counted is the work of
the interpreter alone. Contestants take turns in batches, each round in another order, and a figure
is the median of the batches; "us added" is the median of the differences within a round to the row
that it builds on. Defaults hold where nothing else is said.

Read it so: the tight loop has its code in the processor's caches, and a runtime under load has not
always: a call there may pay half as much again.
"""

import gc
import random
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast

import attrs
import msgspec
import trio

from benchmarks._report import Claim, Options, Report, median, watch_others
from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import ExecuteRequest, HttpRequest, PayloadFormat, encode_http_request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.connectors.http import HttpConnector, HttpSettings
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.pipeline import Machines, Surroundings, Upstreams
from vastar_runtime.pipeline.attempt import Layer
from vastar_runtime.pipeline.layers import LAYERS
from vastar_runtime.pipeline.connecting import TransportLayer
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

__all__ = ["OPTIONS", "SUMMARY", "run"]

SUMMARY: Final = "CPU us that the policies add to a call, layer by layer"
OPTIONS: Final = Options(rounds=101)
WANTED_US: Final = 25.0
BATCH_CALLS: Final = 200
_URL: Final = "http://api.test/small"
_ORIGIN: Final = "http://api.test"
_TENANT: Final = "acme"
_HEADERS: Final[Headers] = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(SMALL_BODY)),
]
_NO_POLICIES: Final = "no policies"
_WHOLE: Final = "whole pipeline"
_CIRCUIT_OPEN: Final = "circuit open"
_A_YEAR_S: Final = 365 * 86_400.0


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


_TRANSPORT: Final = _Transport()


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
        scope = (asked.tenant_id, asked.workspace_id or "")
        return await _TRANSPORT.request(scope, request, call.progress)

    def saw(self, data: bytes) -> None:
        pass


@attrs.frozen
class Contestant:
    """One way of making a call.

    Attributes:
        builds_on: the row that it adds something to, if there is one.
    """

    name: str
    connector: HttpConnector
    builds_on: str | None = None
    is_refused: bool = False


def contestants() -> list[Contestant]:
    """Everybody, in the order of the report. Has to be called inside a Trio run."""
    found = [Contestant(_NO_POLICIES, _connector(cast("Upstreams", _Straight())))]
    below = _NO_POLICIES
    innermost = [layer.name for layer in LAYERS].index("connection_pool")
    for first in range(innermost, -1, -1):
        name = f"+ {LAYERS[first].name}" if first < innermost else "lease, pool, transport"
        name = _WHOLE if first == 0 else name
        found.append(Contestant(name, _connector(_stack(first, {})), below))
        below = name
    off, limits = _off(), _limits()
    found += [
        Contestant("every policy off", _connector(_stack(0, off)), _NO_POLICIES),
        Contestant("limits at four scopes", _connector(_stack(0, limits)), _WHOLE),
        Contestant(_CIRCUIT_OPEN, _connector(_open_circuit()), _NO_POLICIES, is_refused=True),
    ]
    return found


def _connector(upstreams: Upstreams) -> HttpConnector:
    return HttpConnector(upstreams, HttpSettings(), lambda: 1)


def _stack(first: int, policies: Mapping[str, Any]) -> Upstreams:
    """The layers from number `first` on, around the transport, under `[defaults]` like these."""
    return _stack_on(_surroundings(policies), first)


def _stack_on(around: Surroundings, first: int) -> Upstreams:
    layer: Layer = TransportLayer(around)
    for each in reversed(LAYERS[first:]):
        layer = each(layer, around)
    return Upstreams(layer, around)


def _surroundings(policies: Mapping[str, Any]) -> Surroundings:
    config = msgspec.convert({"defaults": dict(policies)}, RuntimeConfig)
    return Surroundings(
        machines=Machines(PolicyBook(config)),
        transport=cast("HttpTransport", _TRANSPORT),
        meters=Meters(("http",)),
        random_ratio=random.random,
        wall_clock_s=time.time,
    )


def _off() -> dict[str, Any]:
    """Every policy that has a mode, switched off."""
    defaults = RuntimeConfig().defaults
    names = defaults.__struct_fields__
    return {name: {"mode": "off"} for name in names if hasattr(getattr(defaults, name), "mode")}


def _limits() -> dict[str, Any]:
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
    return _stack_on(around, 0)


def run(options: Options) -> Report:
    """Measure everybody in batches, in turn."""
    report = Report("pipeline_cost", [])
    with watch_others(report):
        names, us = trio.run(_measure, options.rounds)
    bare_us = us[_NO_POLICIES]
    for each in names:
        own_us = us[each.name]
        below_us = own_us if each.builds_on is None else us[each.builds_on]
        report.rows.append(
            {
                "what": each.name,
                "us a call": median(own_us),
                "us added": _added(own_us, below_us),
                "over": each.builds_on or "",
                "us over no policies": _added(own_us, bare_us),
            }
        )
    text = "CPU us that the whole pipeline adds to a call"
    added_us = _added(us[_WHOLE], bare_us)
    report.claims.append(Claim(text, added_us, WANTED_US, at_most=True))
    return report


def _added(own_us: Sequence[float], below_us: Sequence[float]) -> float:
    return median([own - below for own, below in zip(own_us, below_us, strict=True)])


async def _measure(rounds: int) -> tuple[list[Contestant], dict[str, list[float]]]:
    """CPU us a call, round by round; the round in which everything is new is not counted."""
    found = contestants()
    us: dict[str, list[float]] = {each.name: [] for each in found}
    order = [*found]
    chance = random.Random(1)
    for nth in range(rounds + 1):
        chance.shuffle(order)
        for each in order:
            batch_us = await _batch_us(each)
            if nth:
                us[each.name].append(batch_us)
    return found, us


async def _batch_us(contestant: Contestant) -> float:
    """CPU us a call over a batch. Every outcome is looked at, behind it."""
    calls = [_call() for _ in range(BATCH_CALLS)]
    outcomes: list[Outcome] = []
    execute = contestant.connector.execute
    gc.collect(1)
    began_ns = time.process_time_ns()
    for call in calls:
        outcomes.append(await execute(call))  # noqa: PERF401 - the loop of a caller
    took_ns = time.process_time_ns() - began_ns
    for outcome in outcomes:
        if contestant.is_refused:
            refused = isinstance(outcome, Failure) and outcome.kind is FailureKind.CIRCUIT_OPEN
            assert refused, f"{contestant.name}: {outcome!r}"
        else:
            assert isinstance(outcome, Reply), f"{contestant.name}: {outcome!r}"
    return took_ns / BATCH_CALLS / 1000


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
