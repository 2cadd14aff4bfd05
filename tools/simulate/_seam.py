"""The seam between the policies and the transport, where attempts are counted.

The runtime under simulation gets a `TappedTransport`. It is the real transport; it notes when an
attempt was let through by the policies and what became of it, and adds a header that tells the
upstream which attempt it serves. Beside it, turns in the line for places are noted. `installed`
puts both where the runtime is put together.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from tools.simulate._records import Attempt
from tools.simulate._upstreams import ATTEMPT_HEADER, Upstreams
from vastar_runtime import assembly
from vastar_runtime.pipeline import Surroundings, guarding
from vastar_runtime.policy.admission import Queued
from vastar_runtime.transport import HttpTransport, Origin, Scope, TransportError, UpstreamRequest
from vastar_runtime.transport.client import Place
from vastar_runtime.transport.progress import Progress
from vastar_runtime.transport.response import UpstreamResponse
from vastar_runtime.transport.settings import RouteSettings, TransportSettings

__all__ = ["TappedTransport", "installed"]


class TappedTransport(HttpTransport):
    """The transport over simulated upstreams, with every attempt noted."""

    def __init__(self, settings: TransportSettings, network: Upstreams, **checks: Any) -> None:
        super().__init__(settings, network, environ={}, **checks)
        self.records = network.records
        self._log = network.log
        self._let_through: dict[int, tuple[float, int]] = {}

    async def acquire(
        self,
        scope: Scope,
        origin: Origin,
        progress: Progress,
        *,
        route: RouteSettings | None = None,
    ) -> Place:
        """See `HttpTransport.acquire`: the policies have let the attempt through."""
        let_through = trio.current_time(), self.records.looks
        place = await super().acquire(scope, origin, progress, route=route)
        self._let_through[id(progress)] = let_through
        return place

    async def exchange(
        self, place: Place, request: UpstreamRequest, progress: Progress
    ) -> UpstreamResponse:
        """See `HttpTransport.exchange`."""
        attempt = self._begin(place, request, self._let_through.pop(id(progress)))
        header = (ATTEMPT_HEADER, str(attempt.number).encode())
        tagged = msgspec.structs.replace(request, headers=[*request.headers, header])
        attempt.fault = "cancelled"
        try:
            response = await super().exchange(place, tagged, progress)
            attempt.status, attempt.fault = response.status, ""
        except TransportError as error:
            attempt.fault = str(error)
            raise
        else:
            return response
        finally:
            attempt.was_resent = progress.resent
            self.records.attempt_ends(attempt, trio.current_time())
            self._log.add(
                "attempted",
                attempt=attempt.number,
                call=attempt.call.number,
                status=attempt.status or None,
                fault=attempt.fault or None,
            )

    def _begin(
        self, place: Place, request: UpstreamRequest, let_through: tuple[float, int]
    ) -> Attempt:
        number, hop = map(int, request.target.decode().strip("/").split("/"))
        tenant, workspace = place.scope
        attempt = Attempt(
            len(self.records.attempts) + 1,
            self.records.calls[number - 1],
            hop,
            (tenant, workspace, str(request.origin)),
            request.method.decode(),
            *let_through,
            trio.current_time(),
        )
        self.records.attempt_begins(attempt)
        self._log.add("attempt", attempt=attempt.number, call=number, hop=hop)
        return attempt


class TappedSurroundings(Surroundings):
    """What the layers are given, with every turn in the line for places noted."""

    def wake(self, woken: Iterable[Queued]) -> None:
        """See `Surroundings.wake`."""
        assert isinstance(self.transport, TappedTransport)
        woken = tuple(woken)
        self.transport.records.let_in += [queued.key.tenant for queued in woken]
        super().wake(woken)


@contextmanager
def installed() -> Iterator[None]:
    """Have every runtime that is put together in this block use what is tapped."""
    here: Any = assembly
    there: Any = guarding
    was = there.HttpTransport, here.Surroundings
    there.HttpTransport, here.Surroundings = TappedTransport, TappedSurroundings
    try:
        yield
    finally:
        there.HttpTransport, here.Surroundings = was
