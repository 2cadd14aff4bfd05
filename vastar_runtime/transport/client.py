"""The transport as its callers see it: one call, `HttpTransport.request`.

It joins the pool's decisions with the dialer's and the connections' I/O. There is no task and no
cancel scope per request: a request runs in its caller's task, and its caller's deadline cancels it.
Every way out of `request` but the response gives the slot back; the response does it later.
"""

import os
from collections.abc import Mapping
from typing import cast

import msgspec
import trio

from vastar_runtime.transport.dialing import AddressCheck, Dialer, Scope
from vastar_runtime.transport.errors import TransportError
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.messages import Origin, UpstreamRequest
from vastar_runtime.transport.network import Network, SystemNetwork
from vastar_runtime.transport.pool import Bucket, Pool, Slot, Waiter
from vastar_runtime.transport.progress import Phase, Progress
from vastar_runtime.transport.proxy import ProxyTable
from vastar_runtime.transport.response import UpstreamResponse
from vastar_runtime.transport.settings import RouteSettings, TransportSettings

__all__ = ["HttpTransport", "PoolStatus"]

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


class HttpTransport:
    """Pooled HTTP/1.1 towards any number of origins.

    Args:
        settings: limits and times.
        network: where to connect; the host's own when absent.
        check_address: see `Dialer`.
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
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings = settings or TransportSettings()
        self._environ = os.environ if environ is None else environ
        self._network = network or SystemNetwork(
            lookup_threads=settings.lookup_threads,
            lookup_threads_per_tenant=settings.lookup_threads_per_tenant,
        )
        self._dialer = Dialer(settings, self._network, check_address)
        self._default_route = RouteSettings(tls=settings.tls, proxy=settings.proxy)
        self._proxies = {settings.proxy: ProxyTable(settings.proxy, self._environ)}
        self._pool: Pool[Http1Connection] = Pool(
            per_key=settings.connections_per_key, total=settings.connections_total, wake=_wake
        )
        self._busy: set[Slot[Http1Connection]] = set()
        self._idle_appeared = trio.Event()
        self._closed = False

    async def request(
        self,
        scope: Scope,
        request: UpstreamRequest,
        progress: Progress,
        *,
        route: RouteSettings | None = None,
    ) -> UpstreamResponse:
        """Send a request and return when the head of its response is there.

        Args:
            scope: (tenant, workspace); connections are never shared between scopes.
            request: what to send.
            progress: a new one; tells how far it got, also after a cancellation.
            route: TLS and proxies other than the transport's own.

        Raises:
            TransportError: there is no response.
        """
        progress.phase = Phase.POOL
        self._refuse_closed(request.origin, progress)
        bucket = self._pool.bucket((scope, request.origin, route))
        slot = self._pool.take(bucket)
        if slot is None:
            slot = await self._queue(bucket, request.origin, progress)
        self._busy.add(slot)
        try:
            connection = self._living(slot)
            if connection is None:
                connection = await self._open(slot, scope, request.origin, route, progress)
                await connection.exchange(request, progress)
            else:
                progress.reused = True
                try:
                    await connection.exchange(request, progress)
                except TransportError:
                    if self._closed or not _may_resend(request, progress):
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
            raise TransportError.at(progress, origin.address, "the transport was closed")

    async def _queue(
        self, bucket: Bucket[Http1Connection], origin: Origin, progress: Progress
    ) -> Slot[Http1Connection]:
        """Wait for a slot. A cancelled wait leaves no trace in the pool."""
        started_s = trio.current_time()
        waiter = self._pool.enqueue(bucket, trio.lowlevel.current_task())

        def leave(_: object) -> trio.lowlevel.Abort:
            self._pool.cancel(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
        progress.queued_us = round((trio.current_time() - started_s) * 1e6)
        if waiter.slot is None:
            raise TransportError.at(progress, origin.address, "the transport was closed")
        return waiter.slot

    def _living(self, slot: Slot[Http1Connection]) -> Http1Connection | None:
        """The idle connection of a slot, if it may be used and looks alive."""
        connection = slot.connection
        if connection is None:
            return None
        now_s = trio.current_time()
        if (
            now_s - slot.idle_since_s >= self._settings.idle_timeout_s
            or now_s - connection.created_at_s >= self._settings.max_age_s
            # Something to read where nothing was asked: the end, or bytes of no request.
            or connection.channel.is_readable()
        ):
            return None
        return connection

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
        line = await self._dialer.dial(scope, origin, proxy, route.tls, progress)
        slot.connection = connection = Http1Connection(
            line.channel,
            origin,
            head_limit_bytes=self._settings.head_limit_bytes,
            now_s=trio.current_time(),
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
        if (
            connection is None
            or not connection.reusable
            or now_s - connection.created_at_s >= self._settings.max_age_s
        ):
            self._pool.discard(slot)
            return
        self._pool.release(slot, now_s)
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


def _may_resend(request: UpstreamRequest, progress: Progress) -> bool:
    """Whether a reused connection that failed may be blamed, and the request sent again.

    Only if no byte of a response came, and either nothing was sent or sending twice does no harm
    (RFC 9110, 9.2.2; RFC 9112, 9.3.1).
    """
    if progress.response_started:
        return False
    return not progress.request_begun or request.replayable or request.method in _IDEMPOTENT
