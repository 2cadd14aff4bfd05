"""The simulator as a service: listeners, the decision on each request, the counters.

Three doors to the same room: `running()` for a test that wants an address, `serve` for a nursery,
`serve_stream` for a stream in memory and virtual time.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio
from trio.lowlevel import ParkingLot

from tools.llm_simulator import _knobs, _routes
from tools.llm_simulator._connection import Connection, Plan
from tools.llm_simulator._faults import Faults
from tools.llm_simulator._http import BadRequestError, Request
from tools.llm_simulator._knobs import BadKnobError, Knobs
from tools.llm_simulator._replies import Reply, error_reply, json_reply
from tools.llm_simulator._stats import Stats
from tools.llm_simulator._ticker import Ticker

LOOPBACK = "127.0.0.1"
_BACKLOG = 1024
_AT_ONCE = Knobs()


@attrs.define(eq=False)
class Simulator:
    """One simulated LLM endpoint.

    Args:
        knobs: how it answers requests that bring no `x-sim-*` headers.
        wall_time: Unix seconds, for the times in answers.
    """

    knobs: Knobs = _AT_ONCE
    wall_time: Callable[[], float] = time.time
    stats: Stats = attrs.field(factory=Stats, init=False)
    host: str = attrs.field(default="", init=False)
    port: int = attrs.field(default=0, init=False)
    _faults: Faults = attrs.field(factory=Faults, init=False)
    _ticker: Ticker = attrs.field(factory=Ticker, init=False)
    _news: ParkingLot = attrs.field(factory=ParkingLot, init=False)

    @property
    def url(self) -> str:
        """`http://host:port` of the latest `serve`, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @asynccontextmanager
    async def running(self, host: str = LOOPBACK, port: int = 0) -> AsyncIterator["Simulator"]:
        """Serve while the block runs; every connection is dropped at its end."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.serve, host, port)
            yield self
            nursery.cancel_scope.cancel()

    async def serve(
        self,
        host: str = LOOPBACK,
        port: int = 0,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on TCP until cancelled; the task's start value is the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
        self.host = host
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ticker.run)
            await nursery.start(trio.serve_listeners, self.serve_stream, listeners)
            task_status.started(self.port)

    async def wait_for(self, holds: Callable[[Stats], bool]) -> None:
        """Return once `holds(stats)`; looked at after every change, so that no test need poll."""
        while not holds(self.stats):
            await self._news.park()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end; closes `stream`."""
        self.stats.connections_open += 1
        self.stats.connections_total += 1
        self._news.unpark_all()
        try:
            await self._converse(Connection(stream, self.stats, self._ticker, self._news))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone, and counted where that matters
        finally:
            self.stats.connections_open -= 1
            self._news.unpark_all()
            await trio.aclose_forcefully(stream)

    async def _converse(self, connection: Connection) -> None:
        try:
            while (request := await connection.next_request()) is not None:
                if not await connection.answer(request, self._plan(request)):
                    return
        except BadRequestError as error:
            await connection.refuse(error)

    def _plan(self, request: Request) -> Plan:
        own = self._own_reply(request)
        if own is not None:
            return Plan(own, _AT_ONCE, counted=False)
        handler = _routes.find(request.method, request.path)
        if handler is None:
            return Plan(_routes.NOT_FOUND, _AT_ONCE, counted=True)
        try:
            knobs = _knobs.from_headers(self.knobs, request.headers)
        except BadKnobError as error:
            refusal = error_reply(400, str(error), param="x-sim-*", code="bad_knob")
            return Plan(refusal, _AT_ONCE, counted=True)
        reply = self._faults.verdict(knobs, trio.current_time())
        if reply is None:
            reply = _routes.answered(handler, _routes.Call(request, knobs, self.wall_time))
        return Plan(reply, knobs, counted=True)

    def _own_reply(self, request: Request) -> Reply | None:
        if request.method != "GET":
            return None
        if request.path == "/health":
            return _routes.health(self.wall_time)
        if request.path == "/_sim/stats":
            return json_reply(self.stats)
        return None
