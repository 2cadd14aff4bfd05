"""The transport as its callers see it: `acquire` a place in the pool, then `exchange` in it.

It joins the pool's decisions with the dialer's and the connections' I/O. There is no task and no
cancel scope per request: a request runs in its caller's task, and its caller's deadline cancels it.
The two steps are apart so that a limit can be put on the second alone: waiting for a connection is
not the upstream's fault. Between them the caller holds the `Place`, and gives back what it does not
use; every way out of `exchange` but the response gives it back, and the response does it later.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import cast

import msgspec
import trio

from vastar_runtime.transport.dialing import AddressCheck, Dialer, ProxyAddressCheck, Scope, passed
from vastar_runtime.transport.errors import FaultKind, LocalFault, TransportError
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.messages import Origin, UpstreamRequest, rewind
from vastar_runtime.transport.network import Network, SystemNetwork
from vastar_runtime.transport.pool import Bucket, Pool, Slot, Waiter
from vastar_runtime.transport.progress import Phase, Progress
from vastar_runtime.transport.proxy import ProxyTable
from vastar_runtime.transport.response import UpstreamResponse
from vastar_runtime.transport.settings import RouteSettings, TransportSettings

__all__ = ["HttpTransport", "Place", "PoolStatus"]

_IDEMPOTENT = {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}
"""RFC 9110, 9.2.2."""
_Key = tuple[Scope, Origin, RouteSettings | None]


class PoolStatus(msgspec.Struct, frozen=True):
    """The connections of one key.

    Attributes:
        busy: connecting, or serving a call.
        idle: waiting for the next.
        waiting: calls that wait for a connection.
    """

    tenant: str
    workspace: str
    origin: str
    busy: int
    idle: int
    waiting: int


class Place(msgspec.Struct, eq=False):
    """A place in the pool that one exchange may use: a connection, or leave to open one.

    Attributes:
        scope, origin, route: whom it is for.
        slot: what is held, until it is taken.
    """

    scope: Scope
    origin: Origin
    route: RouteSettings | None
    slot: Slot[Http1Connection] | None

    def take(self) -> Slot[Http1Connection] | None:
        """What is held, which from then on is the taker's; `None` when it was taken before."""
        slot, self.slot = self.slot, None
        return slot


class HttpTransport:
    """Pooled HTTP/1.1 towards any number of origins.

    Args:
        settings: limits and times.
        network: where to connect; the host's own when absent.
        check_address, check_proxy_address: see `Dialer`.
        environ: where proxies are looked up; `os.environ` when absent.

    Raises:
        ValueError: a proxy URL in the settings or the environment is none.
    """

    def __init__(
        self,
        settings: TransportSettings | None = None,
        network: Network | None = None,
        *,
        check_address: AddressCheck | None = None,
        check_proxy_address: ProxyAddressCheck | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings = settings or TransportSettings()
        self._environ = os.environ if environ is None else environ
        self._network = network or SystemNetwork(
            lookup_threads=settings.lookup_threads,
            lookup_threads_per_tenant=settings.lookup_threads_per_tenant,
        )
        self._dialer = Dialer(settings, self._network, check_address, check_proxy_address)
        self._default_route = RouteSettings(tls=settings.tls, proxy=settings.proxy)
        self._proxies = {settings.proxy: ProxyTable(settings.proxy, self._environ)}
        self._pool: Pool[Http1Connection] = Pool(
            per_key=settings.connections_per_key,
            per_owner=settings.connections_per_tenant,
            total=settings.connections_total,
            wake=_wake,
        )
        self._busy: set[Slot[Http1Connection]] = set()
        self._idle_appeared = trio.Event()
        self._closed = False
        self._renewed_at_s = -math.inf

    async def look_up(self, tenant: str, origin: Origin, check: Callable[[str], None]) -> list[str]:
        """The addresses that a server may be reached at, for those who connect by themselves.

        Args:
            tenant: on whose behalf; lookups are bounded for each.
            origin: host and port.
            check: raises to forbid an address.

        Raises:
            OSError, UnicodeError: the lookup failed.
            LocalFault: none of the addresses passed.
        """
        found = await self._network.resolve(origin.host, origin.port, tenant=tenant)
        return [address.ip for address in passed(found, check)]

    def renew(self) -> None:
        """Open new connections from now on: the rules for where they may lead have changed.

        Calls under way keep theirs, which then close.
        """
        self._renewed_at_s = trio.current_time()

    async def request(
        self,
        scope: Scope,
        request: UpstreamRequest,
        progress: Progress,
        *,
        route: RouteSettings | None = None,
    ) -> UpstreamResponse:
        """`acquire`, then `exchange`: for whoever has nothing to do in between.

        Raises:
            TransportError: there is no response.
        """
        place = await self.acquire(scope, request.origin, progress, route=route)
        return await self.exchange(place, request, progress)

    async def acquire(
        self,
        scope: Scope,
        origin: Origin,
        progress: Progress,
        *,
        route: RouteSettings | None = None,
    ) -> Place:
        """Wait for a place in the pool. `exchange` in it, or `release` it.

        Args:
            scope: (tenant, workspace); connections are never shared between scopes.
            origin: where the request will go.
            progress: a new one; tells how far the call got, also after a cancellation.
            route: TLS and proxies other than the transport's own.

        Raises:
            TransportError: the transport was closed.
        """
        progress.phase = Phase.POOL
        self._refuse_closed(origin, progress)
        bucket = self._pool.bucket((scope, origin, route), scope[0])
        slot = self._pool.take(bucket)
        if slot is None:
            slot = await self._queue(bucket, origin, progress)
        self._busy.add(slot)
        return Place(scope, origin, route, slot)

    def release(self, place: Place) -> None:
        """Give back a place that is not used. Does nothing when it was used or given back."""
        slot = place.take()
        if slot is None:
            return
        self._busy.discard(slot)
        if self._living(slot) is None:  # so it is when the transport was closed meanwhile
            self._pool.discard(slot)
        else:
            self._put_back(slot, slot.idle_since_s)

    async def exchange(
        self, place: Place, request: UpstreamRequest, progress: Progress
    ) -> UpstreamResponse:
        """Send a request and return when the head of its response is there.

        Args:
            place: taken over, whatever comes of it.
            request: what to send, to the origin that the place is for.
            progress: the one given to `acquire`.

        Raises:
            TransportError: there is no response.
        """
        slot = place.take()
        assert slot is not None, "a place serves one exchange"
        scope, route = place.scope, place.route
        try:
            assert request.origin == place.origin, "a place serves its own origin"
            self._refuse_closed(place.origin, progress)
            connection = self._living(slot)
            if connection is None:
                connection = await self._open(slot, scope, request.origin, route, progress)
                await connection.exchange(request, progress)
            else:
                progress.reused = True
                try:
                    await connection.exchange(request, progress)
                except TransportError as error:
                    if self._closed or not _may_resend(request, progress, error):
                        raise
                    progress.resent = True
                    progress.reused = False
                    connection = await self._open(slot, scope, request.origin, route, progress)
                    await connection.exchange(request, progress)
            return UpstreamResponse(connection, slot, self._give_back)
        except BaseException:
            self._busy.discard(slot)
            self._pool.discard(slot)
            raise

    def _refuse_closed(self, origin: Origin, progress: Progress) -> None:
        if self._closed:
            raise _was_closed(origin, progress)

    async def _queue(
        self, bucket: Bucket[Http1Connection], origin: Origin, progress: Progress
    ) -> Slot[Http1Connection]:
        """Wait for a slot. A cancelled wait leaves no trace in the pool."""
        started_s = trio.current_time()
        waiter = self._pool.enqueue(bucket, trio.lowlevel.current_task())

        def leave(_: object) -> trio.lowlevel.Abort:
            self._pool.cancel(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(leave)
        finally:
            progress.queued_us = round((trio.current_time() - started_s) * 1e6)
        if waiter.slot is None:
            raise _was_closed(origin, progress)
        return waiter.slot

    def _living(self, slot: Slot[Http1Connection]) -> Http1Connection | None:
        """The idle connection of a slot, if it may be used and looks alive."""
        connection = slot.connection
        if connection is None:
            return None
        now_s = trio.current_time()
        if (
            now_s - slot.idle_since_s >= self._settings.idle_timeout_s
            or self._is_old(connection, now_s)
            # Something to read where nothing was asked: the end, or bytes of no request.
            or connection.channel.is_readable()
        ):
            return None
        return connection

    def _is_old(self, connection: Http1Connection, now_s: float) -> bool:
        created_at_s = connection.created_at_s
        return (
            now_s - created_at_s >= self._settings.max_age_s or created_at_s <= self._renewed_at_s
        )

    async def _open(
        self,
        slot: Slot[Http1Connection],
        scope: Scope,
        origin: Origin,
        route: RouteSettings | None,
        progress: Progress,
    ) -> Http1Connection:
        """A fresh connection in this slot, in place of what it holds."""
        self._pool.empty(slot)
        if route is None:
            route = self._default_route
        proxy = self._proxy_table(route).find(origin)
        began_s = trio.current_time()  # by the rules of this moment
        line = await self._dialer.dial(scope, origin, proxy, route.tls, progress)
        slot.connection = connection = Http1Connection(
            line.channel,
            origin,
            head_limit_bytes=self._settings.head_limit_bytes,
            now_s=began_s,
            target_prefix=line.target_prefix,
            extra_headers=line.extra_headers,
        )
        self._refuse_closed(origin, progress)
        return connection

    def _proxy_table(self, route: RouteSettings) -> ProxyTable:
        table = self._proxies.get(route.proxy)
        if table is None:
            table = self._proxies[route.proxy] = ProxyTable(route.proxy, self._environ)
        return table

    def _give_back(self, slot: Slot[Http1Connection]) -> None:
        """Called by a response that has ended or was left."""
        self._busy.discard(slot)
        connection = slot.connection
        now_s = trio.current_time()
        if connection is None or not connection.reusable or self._is_old(connection, now_s):
            self._pool.discard(slot)
            return
        self._put_back(slot, now_s)

    def _put_back(self, slot: Slot[Http1Connection], idle_since_s: float) -> None:
        self._pool.release(slot, idle_since_s)
        if not self._idle_appeared.is_set():
            self._idle_appeared.set()

    async def run(self) -> None:
        """Sweep idle connections, for ever. Start it once, in a nursery that outlives the calls.

        Without it nothing goes wrong: connections that are too old are found when they are taken.
        """
        while True:
            due_s = self._pool.sweep(
                trio.current_time(),
                idle_timeout_s=self._settings.idle_timeout_s,
                max_age_s=self._settings.max_age_s,
            )
            if due_s is None:
                self._idle_appeared = trio.Event()
                await self._idle_appeared.wait()
            else:
                await trio.sleep_until(due_s)

    def stats(self) -> list[PoolStatus]:
        """What is open, by key."""
        return [
            PoolStatus(
                tenant=scope[0],
                workspace=scope[1],
                origin=str(origin),
                busy=bucket.total - len(bucket.idle),
                idle=len(bucket.idle),
                waiting=len(bucket.waiters),
            )
            for bucket in self._pool
            for scope, origin, _ in [cast("_Key", bucket.key)]
        ]

    async def aclose(self) -> None:
        """Close every connection; calls under way and waiting get a `TransportError`."""
        self._closed = True
        self._pool.close()
        for slot in self._busy:
            if slot.connection is not None:
                slot.connection.abort()
        await trio.lowlevel.checkpoint()


def _wake(waiter: Waiter[Http1Connection]) -> None:
    trio.lowlevel.reschedule(cast("trio.lowlevel.Task", waiter.tag))


def _was_closed(origin: Origin, progress: Progress) -> TransportError:
    words = "the transport was closed"
    return TransportError.at(progress, origin.address, words, kind=FaultKind.LOCAL)


def _may_resend(request: UpstreamRequest, progress: Progress, error: TransportError) -> bool:
    """Whether a reused connection that failed may be blamed, and the request sent again.

    Only if no byte of a response came, and either nothing was sent or sending twice does no harm
    (RFC 9110, 9.2.2; RFC 9112, 9.3.1); and only with all of its body, which had not failed itself.
    """
    if progress.response_started or isinstance(error.__cause__, LocalFault):
        return False
    is_harmless = request.replayable or request.method in _IDEMPOTENT
    return (is_harmless or not progress.request_begun) and rewind(request.body)
